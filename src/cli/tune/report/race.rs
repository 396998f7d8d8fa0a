//! The best time so far, over the time of the run.

use super::escaped;
use std::fmt::Write;
use trilut_tuning::ShapeUse;

const SIZE: (f64, f64) = (900.0, 190.0);

/// Room for the labels of the axes.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 26.0;

/// Somebody took the lead.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Moment {
    pub(super) layer: Option<ShapeUse>,
    /// Since the run began.
    pub(super) seconds: f64,
    pub(super) ns: f64,
    pub(super) candidate: String,
}

pub(super) fn svg(moments: &[&Moment], default_ns: f64) -> String {
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
    for ns in [least / 0.92, default_ns, most / 1.08] {
        let at = y(ns) + 4.0;
        let us = ns / 1e3;
        put(format_args!(
            "<text class=\"soft\" x=\"{:.0}\" y=\"{at:.1}\" text-anchor=\"end\">{us:.1} us</text>",
            LEFT - 8.0
        ));
    }
    for seconds in [begin, end] {
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
