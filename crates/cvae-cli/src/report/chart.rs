//! Lines over epochs and over features, as SVG that follows the colours of the page.

use std::fmt::Write;

use super::Curve;
use super::html::escape;
use super::scale::{Scale, number};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 40.0;

/// Every curve over the epochs, with a legend.
pub(super) fn epochs(curves: &[Curve]) -> String {
    let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
    let x = Scale::linear(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Scale::fit(points().map(|point| point.1), HEIGHT - BOTTOM, TOP).padded(0.04);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"values by epoch\">");
    grid(&mut svg, &x, &y);
    for (index, curve) in curves.iter().enumerate() {
        let class = if curve.is_level { "line level" } else { "line" };
        polyline(&mut svg, &curve.points, &x, &y, &format!("{class} c{index}"));
    }
    svg.push_str("</svg><ul class=\"legend\">");
    for (index, curve) in curves.iter().enumerate() {
        let last = curve.points.last().map_or(String::new(), |point| number(point.1));
        let mark = if curve.is_level { "key level" } else { "key" };
        let name = escape(&curve.name);
        push(&mut svg, format_args!("<li><span class=\"{mark} c{index}\"></span>{name} <b>{last}</b></li>"));
    }
    svg.push_str("</ul>");
    svg
}

/// Lines across the chart with the values beside them, and the title of the horizontal axis.
fn grid(svg: &mut String, x: &Scale, y: &Scale) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for mark in y.marks() {
        let at = y.position(mark);
        push(svg, format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"));
        let (text, x, y) = (number(mark), LEFT - 8.0, at + 4.0);
        push(svg, format_args!("<text class=\"mark end\" x=\"{x}\" y=\"{y:.1}\">{text}</text>"));
    }
    for mark in x.marks().into_iter().filter(|mark| mark.fract() == 0.0) {
        let (at, y) = (x.position(mark), bottom + 17.0);
        push(svg, format_args!("<text class=\"mark mid\" x=\"{at:.1}\" y=\"{y}\">{}</text>", number(mark)));
    }
    let (middle, y) = ((LEFT + right) / 2.0, HEIGHT - 5.0);
    push(svg, format_args!("<text class=\"mark mid\" x=\"{middle}\" y=\"{y}\">epoch</text>"));
}

/// A row as a line over its features, with the model's and PCA's versions of it.
pub(super) fn profile(lines: &[(&str, &[f32])]) -> String {
    const BOX: (f64, f64) = (220.0, 90.0);
    let values = || lines.iter().flat_map(|(_, values)| values.iter().map(|value| f64::from(*value)));
    let width = lines.first().map_or(0, |(_, values)| values.len());
    let x = Scale::linear([0.0, width.saturating_sub(1) as f64].into_iter(), 2.0, BOX.0 - 2.0);
    let y = Scale::linear(values(), BOX.1 - 3.0, 3.0);
    let mut svg = format!("<svg class=\"profile\" viewBox=\"0 0 {} {}\">", BOX.0, BOX.1);
    for (class, values) in lines {
        let points: Vec<(f64, f64)> =
            values.iter().enumerate().map(|(index, value)| (index as f64, f64::from(*value))).collect();
        polyline(&mut svg, &points, &x, &y, &format!("line {class}"));
    }
    svg.push_str("</svg>");
    svg
}

/// Connects the points; a value that is not finite breaks the line.
fn polyline(svg: &mut String, points: &[(f64, f64)], x: &Scale, y: &Scale, class: &str) {
    for part in points.split(|point| !point.1.is_finite()).filter(|part| !part.is_empty()) {
        if let [point] = part {
            let (x, y) = (x.position(point.0), y.position(point.1));
            push(svg, format_args!("<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"));
            continue;
        }
        push(svg, format_args!("<polyline class=\"{class}\" points=\""));
        for point in part {
            push(svg, format_args!("{:.1},{:.1} ", x.position(point.0), y.position(point.1)));
        }
        svg.push_str("\"/>");
    }
}

/// Appends formatted text; writing to a string cannot fail.
pub(super) fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}
