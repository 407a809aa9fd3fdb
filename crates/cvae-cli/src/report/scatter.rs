//! Codes as points of a plane.

use super::Codes;
use super::chart::push;
use super::html::escape;
use super::scale::Scale;

const SIZE: f64 = 520.0;
const MARGIN: f64 = 10.0;

/// Colours that a legend can tell apart; further labels repeat them.
const COLOURS: u32 = 10;

/// The points, coloured by label, with a legend. Both axes have the same scale.
pub(super) fn draw(codes: &Codes) -> String {
    let finite = || codes.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    let range = |pick: fn(&(f32, f32)) -> f32| {
        let values = finite().map(|point| f64::from(pick(point)));
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (x, y) = (range(|point| point.0), range(|point| point.1));
    let half = ((x.1 - x.0).max(y.1 - y.0) / 2.0).max(1e-9);
    let axis = |range: (f64, f64), start: f64, end: f64| {
        let middle = (range.0 + range.1) / 2.0;
        Scale::linear([middle - half, middle + half].into_iter(), start, end)
    };
    let x = axis(x, MARGIN, SIZE - MARGIN);
    let y = axis(y, SIZE - MARGIN, MARGIN);
    let mut svg = format!("<svg class=\"scatter\" viewBox=\"0 0 {SIZE} {SIZE}\" role=\"img\" aria-label=\"codes\">");
    for (index, point) in codes.points.iter().enumerate() {
        if !(point.0.is_finite() && point.1.is_finite()) {
            continue;
        }
        let colour = codes.labels.as_ref().and_then(|labels| labels.get(index)).map_or(0, |label| label % COLOURS);
        let (x, y) = (x.position(f64::from(point.0)), y.position(f64::from(point.1)));
        push(&mut svg, format_args!("<circle class=\"p c{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.6\"/>"));
    }
    svg.push_str("</svg>");
    svg.push_str(&legend(codes));
    svg
}

fn legend(codes: &Codes) -> String {
    let Some(labels) = &codes.labels else {
        return String::new();
    };
    let mut present: Vec<u32> = labels.clone();
    present.sort_unstable();
    present.dedup();
    if present.len() > 2 * COLOURS as usize {
        return format!("<p class=\"note\">{} labels; colours repeat.</p>", present.len());
    }
    let mut list = String::from("<ul class=\"legend\">");
    for label in present {
        let name = codes.classes.as_ref().and_then(|names| names.get(label as usize));
        let name = name.map_or_else(|| label.to_string(), |name| escape(name));
        push(&mut list, format_args!("<li><span class=\"key dot c{}\"></span>{name}</li>", label % COLOURS));
    }
    list.push_str("</ul>");
    list
}
