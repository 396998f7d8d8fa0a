//! The best time so far, over the time of the run.

use super::escaped;
use std::fmt::Write;
use trilut_tuning::ShapeUse;

const SIZE: (f64, f64) = (900.0, 190.0);

/// Room for the labels of the axes.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 26.0;

/// The height of a label.
const LINE: f64 = 13.0;

/// Somebody took the lead.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Moment {
    pub(super) layer: Option<ShapeUse>,
    /// Since the run began.
    pub(super) seconds: f64,
    pub(super) ns: f64,
    pub(super) candidate: String,
}

/// The moments at which the best of all so far was found: a layer that is raced again begins anew.
fn improving<'a>(moments: &[&'a Moment]) -> Vec<&'a Moment> {
    let mut best = f64::INFINITY;
    let is_better = |moment: &&Moment| {
        let is_better = moment.ns < best;
        best = best.min(moment.ns);
        is_better
    };
    moments.iter().copied().filter(is_better).collect()
}

/// Of labels at such places, in the order of their importance, those that do not lie on an earlier one.
fn apart(labels: &[(f64, String)]) -> Vec<&(f64, String)> {
    let mut kept: Vec<&(f64, String)> = Vec::new();
    for label in labels {
        if kept.iter().all(|other| (other.0 - label.0).abs() >= LINE) {
            kept.push(label);
        }
    }
    kept
}

pub(super) fn svg(moments: &[&Moment], default_ns: f64) -> String {
    let moments = &improving(moments)[..];
    let (wide, high) = SIZE;
    let most = moments.iter().map(|m| m.ns).fold(default_ns, f64::max) * 1.08;
    let least = moments.iter().map(|m| m.ns).fold(default_ns, f64::min) * 0.92;
    let begin = moments.first().map_or(0.0, |m| m.seconds);
    let end = moments.last().map_or(1.0, |m| m.seconds).max(begin + 0.001);
    let x = |seconds: f64| LEFT + (seconds - begin) / (end - begin) * (wide - LEFT - 40.0);
    let y = |ns: f64| (high - BOTTOM) * (1.0 - (ns - least) / (most - least)) + 4.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" role=\"img\" \
         aria-label=\"the best time so far\">"
    );
    let mut put =
        |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("a string takes any text");
    let floor = high - BOTTOM + 4.0;
    put(format_args!(
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{floor}\" x2=\"{wide}\" y2=\"{floor}\"/>"
    ));
    let labels = [default_ns, least / 0.92, most / 1.08]
        .map(|ns| (y(ns) + 4.0, format!("{:.1} us", ns / 1e3)));
    for (at, us) in apart(&labels) {
        put(format_args!(
            "<text class=\"soft\" x=\"{:.0}\" y=\"{at:.1}\" text-anchor=\"end\">{us}</text>",
            LEFT - 8.0
        ));
    }
    // A single moment has no end of its own.
    let ends = if moments.len() > 1 { &[begin, end][..] } else { &[begin] };
    for &seconds in ends {
        let at = x(seconds);
        put(format_args!(
            "<text class=\"soft\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{seconds:.1} s</text>",
            high - 6.0
        ));
    }
    let level = y(default_ns);
    put(format_args!(
        "<line class=\"default\" x1=\"{LEFT}\" y1=\"{level:.1}\" x2=\"{wide}\" y2=\"{level:.1}\"/>"
    ));
    let mut path = String::new();
    for (index, moment) in moments.iter().enumerate() {
        let (at_x, at_y) = (x(moment.seconds), y(moment.ns));
        match index {
            0 => write!(path, "M{at_x:.1} {at_y:.1}"),
            _ => write!(path, "H{at_x:.1}V{at_y:.1}"),
        }
        .expect("a string takes any text");
    }
    if !moments.is_empty() {
        put(format_args!("<path class=\"best\" d=\"{path}H{wide}\"/>"));
    }
    for moment in moments {
        put(format_args!(
            "<circle class=\"pick\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}: {:.1} us</title></circle>",
            x(moment.seconds),
            y(moment.ns),
            escaped(&moment.candidate),
            moment.ns / 1e3,
        ));
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: f64, ns: f64) -> Moment {
        Moment { layer: None, seconds, ns, candidate: "c".to_owned() }
    }

    #[test]
    fn the_best_so_far_never_rises() {
        let all = [(0.0, 90.0), (1.0, 70.0), (2.0, 95.0), (3.0, 70.0), (4.0, 60.0)];
        let all = all.map(|(seconds, ns)| moment(seconds, ns));
        let best: Vec<f64> = improving(&all.each_ref()).iter().map(|moment| moment.ns).collect();
        assert_eq!(best, [90.0, 70.0, 60.0]);
        assert_eq!(svg(&all.each_ref(), 80.0).matches("<circle").count(), 3);
    }

    #[test]
    fn labels_do_not_lie_on_each_other() {
        let label = |at: f64| (at, at.to_string());
        let labels = [50.0, 55.0, 120.0].map(label);
        assert_eq!(apart(&labels), [&labels[0], &labels[2]]);
        // The default is the slowest of all: one label for both.
        let text = svg(&[&moment(0.0, 60.0)], 80.0);
        assert_eq!(
            (text.matches("0.1 us</text>").count(), text.matches(" us</text>").count()),
            (2, 2)
        );
    }
}
