//! Where each layer stands between what memory delivers and what the cores compute.

use std::fmt::Write;
use trilut_kernels::Kernel;
use trilut_presets::Phase;
use trilut_presets::preset::Record;
use trilut_tuning::bandwidth::Bandwidth;

const SIZE: (f64, f64) = (900.0, 340.0);
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 34.0;

/// Multiply-adds for each byte of weights that is read, and 10^9 of them per second.
type Point = (f64, f64);

fn point(record: &Record, ns: u64, kernel: &str) -> Point {
    let (shape, ns) = (record.shape, ns.max(1) as f64);
    let products = (shape.weights() * record.tokens) as f64;
    let layout = trilut_kernels::find(kernel).map(|kernel| kernel.layout).or_else(|| {
        // A small batch reads what decoding in its format reads.
        let is_own = |own: &&Kernel| own.name.format == record.format;
        let own = trilut_kernels::registry().iter().find(is_own);
        own.filter(|_| record.phase == Phase::SmallBatch).map(|kernel| kernel.layout)
    });
    // Prompts are read from the stored copy, at two bits a weight.
    let bytes = layout.map_or(shape.weights() as f64 / 4.0, |layout| layout.bytes(shape) as f64);
    (products / bytes, products / ns)
}

pub(super) fn svg(records: &[&Record], bandwidth: Bandwidth) -> String {
    let points: Vec<(&Record, Point, Point)> = records
        .iter()
        .map(|record| {
            let pick = point(record, record.median_ns, &record.kernel);
            (*record, pick, point(record, record.default_ns, &record.default_kernel))
        })
        .collect();
    let all = || points.iter().flat_map(|(_, pick, default)| [*pick, *default]);
    let roof = all().map(|(_, speed)| speed).fold(1.0, f64::max);
    let (wide, high) = SIZE;
    // Powers of two around what there is.
    let x_range = (-2.0f64, all().map(|(work, _)| work.log2().ceil()).fold(4.0, f64::max) + 0.5);
    let slope = bandwidth.gigabytes_per_second();
    let least = all().map(|(_, speed)| speed).fold(slope, f64::min);
    let y_range = (least.log2().floor() - 0.5, roof.log2().ceil() + 0.5);
    let x = |work: f64| {
        LEFT + (work.log2() - x_range.0) / (x_range.1 - x_range.0) * (wide - LEFT - 20.0)
    };
    let y = |speed: f64| {
        (high - BOTTOM) * (1.0 - (speed.log2() - y_range.0) / (y_range.1 - y_range.0)) + 4.0
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" role=\"img\" \
         aria-label=\"speed over multiply-adds per byte\">"
    );
    let mut put =
        |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("a string takes any text");
    let (floor, right) = (high - BOTTOM + 4.0, wide - 20.0);
    put(format_args!("<path class=\"axis\" fill=\"none\" d=\"M{LEFT} 4V{floor}H{right}\"/>"));
    for power in (x_range.0.ceil() as i32..=x_range.1 as i32).step_by(2) {
        let at = x(2f64.powi(power));
        put(format_args!(
            "<text class=\"soft\" x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            floor + 14.0,
            2f64.powi(power)
        ));
    }
    for power in y_range.0.ceil() as i32..=y_range.1 as i32 {
        let at = y(2f64.powi(power)) + 4.0;
        put(format_args!(
            "<text class=\"soft\" x=\"{:.0}\" y=\"{at:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            2f64.powi(power)
        ));
    }
    put(format_args!(
        "<text class=\"soft\" x=\"{right}\" y=\"{:.0}\" text-anchor=\"end\">multiply-adds per byte</text>\
         <text class=\"soft\" x=\"{:.0}\" y=\"14\">10⁹ multiply-adds per second</text>",
        floor + 28.0,
        LEFT + 8.0,
    ));
    // The slope meets the level line where memory stops being the limit.
    let ridge = roof / slope;
    let begin = 2f64.powf(x_range.0).max(2f64.powf(y_range.0) / slope).min(ridge);
    let (x0, y0) = (x(begin), y(begin * slope));
    let (x1, y1) = (x(ridge), y(roof));
    put(format_args!("<path class=\"roof\" d=\"M{x0:.1} {y0:.1}L{x1:.1} {y1:.1}H{right}\"/>"));
    for (record, pick, default) in &points {
        let layer = format!("{} {}", record.phase, record.shape);
        put(format_args!(
            "<circle class=\"base\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"><title>{layer}, default: {:.1}</title>\
             </circle><circle class=\"pick\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4.5\"><title>{layer}, pick: {:.1}\
             </title></circle>",
            x(default.0),
            y(default.1),
            default.1,
            x(pick.0),
            y(pick.1),
            pick.1,
        ));
    }
    put(format_args!(
        "<circle class=\"pick\" cx=\"{0:.0}\" cy=\"{2:.0}\" r=\"4.5\"/><text x=\"{1:.0}\" y=\"{3:.0}\">pick</text>\
         <circle class=\"base\" cx=\"{0:.0}\" cy=\"{4:.0}\" r=\"4\"/><text x=\"{1:.0}\" y=\"{5:.0}\">default</text>",
        wide - 90.0,
        wide - 78.0,
        floor - 40.0,
        floor - 36.0,
        floor - 20.0,
        floor - 16.0,
    ));
    svg + "</svg>"
}
