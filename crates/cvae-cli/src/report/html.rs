//! The page itself.

use super::chart::push;
use super::{Figure, Form, Reconstructions, Report, Samples, chart, histogram, picture, scatter};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn render(report: &Report) -> String {
    let title = escape(&report.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<header><h1>{title}</h1><p class=\"lead\">{}</p></header>\n",
        escape(&report.summary)
    );
    figures(&mut page, &report.figures);
    if !report.curves.is_empty() {
        section(&mut page, "Training", &chart::epochs(&report.curves), "");
    }
    if let Some(rows) = &report.reconstructions {
        section(&mut page, "Reconstructions", &reconstructions(rows), &rows.caption);
    }
    if let Some(rows) = &report.worst {
        section(&mut page, "Worst reconstructions", &reconstructions(rows), &rows.caption);
    }
    if let Some(scores) = &report.scores {
        section(&mut page, "Scores", &histogram::draw(scores), &scores.caption);
    }
    page.push_str("<div class=\"pair\">\n");
    if let Some(codes) = &report.codes {
        section(&mut page, "Codes", &scatter::draw(codes), &codes.caption);
    }
    if let Some(rows) = &report.samples {
        section(&mut page, "Samples", &samples(rows), "Decoded from codes drawn at random.");
    }
    page.push_str("</div>\n");
    if let Some(rows) = report.paths.as_ref().filter(|rows| !rows.groups.is_empty()) {
        section(&mut page, "Interpolations", &samples(rows), "Decoded from the straight line between two codes.");
    }
    page.push_str("<div class=\"pair\">\n");
    table(&mut page, "Configuration", ("setting", "value"), &report.settings);
    table(&mut page, "Kernels", ("op", "kernel"), &report.kernels);
    page.push_str("</div>\n</main>\n</body>\n</html>\n");
    page
}

fn figures(page: &mut String, figures: &[Figure]) {
    page.push_str("<dl class=\"figures\">\n");
    for Figure { label, value, beside } in figures {
        let (label, value, beside) = (escape(label), escape(value), escape(beside));
        push(page, format_args!("<div><dt>{label}</dt><dd>{value}</dd><dd class=\"beside\">{beside}</dd></div>\n"));
    }
    page.push_str("</dl>\n");
}

fn section(page: &mut String, title: &str, body: &str, caption: &str) {
    push(page, format_args!("<section><h2>{title}</h2>{body}"));
    if !caption.is_empty() {
        push(page, format_args!("<p class=\"note\">{}</p>", escape(caption)));
    }
    page.push_str("</section>\n");
}

fn reconstructions(rows: &Reconstructions) -> String {
    let versions = [("rows", &rows.originals), ("model", &rows.model), ("PCA", &rows.pca)];
    match rows.form {
        Form::Image(shape) => strips(versions.iter().map(|(name, values)| (*name, values.as_slice())), shape),
        Form::Profile => {
            let mut out = String::from("<div class=\"profiles\">");
            let width = rows.width.max(1);
            let lines = rows.originals.chunks_exact(width).zip(rows.model.chunks_exact(width));
            for ((original, model), pca) in lines.zip(rows.pca.chunks_exact(width)) {
                out.push_str(&chart::profile(&[("plain", original), ("c3 thin", pca), ("c0", model)]));
            }
            out.push_str("</div><ul class=\"legend\"><li><span class=\"key plain\"></span>row</li>");
            out.push_str("<li><span class=\"key c0\"></span>model</li><li><span class=\"key c3\"></span>PCA</li></ul>");
            out
        }
    }
}

fn samples(rows: &Samples) -> String {
    match rows.form {
        Form::Image(shape) => {
            // Several short lines rather than one long one.
            let line = shape.len().max(1) * 8;
            let lines = rows.groups.iter().flat_map(|(name, values)| {
                values
                    .chunks(line)
                    .enumerate()
                    .map(move |(index, part)| (if index == 0 { name.as_str() } else { "" }, part))
            });
            strips(lines, shape)
        }
        Form::Profile => {
            let mut out = String::new();
            for (name, values) in &rows.groups {
                push(&mut out, format_args!("<h3>{}</h3><div class=\"profiles\">", escape(name)));
                for row in values.chunks_exact(rows.width.max(1)) {
                    out.push_str(&chart::profile(&[("c0", row)]));
                }
                out.push_str("</div>");
            }
            out
        }
    }
}

/// Lines of images, each with its name in front.
fn strips<'a>(lines: impl Iterator<Item = (&'a str, &'a [f32])>, shape: cvae_data::ImageShape) -> String {
    let mut out = String::from("<div class=\"strips\">");
    for (name, values) in lines {
        let picture = picture::strip(values, shape, name);
        push(&mut out, format_args!("<span class=\"name\">{}</span>{picture}", escape(name)));
    }
    out.push_str("</div>");
    out
}

fn table(page: &mut String, title: &str, heads: (&str, &str), rows: &[(String, String)]) {
    if rows.is_empty() {
        return;
    }
    push(page, format_args!("<section><h2>{title}</h2><table><tr><th>{}</th><th>{}</th></tr>\n", heads.0, heads.1));
    for (name, value) in rows {
        push(page, format_args!("<tr><td>{}</td><td>{}</td></tr>\n", escape(name), escape(value)));
    }
    page.push_str("</table></section>\n");
}

/// `text` with the characters that mean something in HTML replaced.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
