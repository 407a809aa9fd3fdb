//! Numbers of rows by score, as bars.

use super::Histogram;
use super::chart::push;
use super::scale::{Scale, number};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 36.0;

/// The bars with the threshold across them.
pub(super) fn draw(histogram: &Histogram) -> String {
    let bars = &histogram.bars;
    let bottom = HEIGHT - BOTTOM;
    let x = Scale::linear(bars.iter().flat_map(|bar| [bar.0, bar.1]), LEFT, WIDTH - RIGHT);
    let counts = bars.iter().map(|bar| bar.2 as f64);
    let y = Scale::linear(counts.chain([0.0]), bottom, TOP);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"rows by score\">");
    for mark in y.marks() {
        let (at, right) = (y.position(mark), WIDTH - RIGHT);
        push(
            &mut svg,
            format_args!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"),
        );
        let (text, x, y) = (number(mark), LEFT - 8.0, at + 4.0);
        push(&mut svg, format_args!("<text class=\"mark end\" x=\"{x}\" y=\"{y:.1}\">{text}</text>"));
    }
    for mark in x.marks() {
        let (at, y) = (x.position(mark), bottom + 17.0);
        push(&mut svg, format_args!("<text class=\"mark mid\" x=\"{at:.1}\" y=\"{y}\">{}</text>", number(mark)));
    }
    for (low, high, count) in bars {
        let (from, to, top) = (x.position(*low), x.position(*high), y.position(*count as f64));
        let (width, height) = ((to - from - 1.0).max(0.5), (bottom - top).max(0.0));
        push(
            &mut svg,
            format_args!(
                "<rect class=\"bar c0\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            ),
        );
    }
    if let (Some(threshold), false) = (histogram.threshold, bars.is_empty()) {
        let at = x.position(threshold);
        push(
            &mut svg,
            format_args!("<line class=\"line level c1\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"),
        );
    }
    svg.push_str("</svg>");
    svg
}
