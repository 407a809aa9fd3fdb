//! Progress of long work, on standard error.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines that tell of progress where standard error is no terminal.
const PLAIN_LINES: u32 = 10;

/// Progress of training: a bar on a terminal, a few lines elsewhere.
#[derive(Debug)]
pub(crate) struct TrainingProgress {
    bar: ProgressBar,
    /// Said once training has begun.
    introduction: Option<String>,
    last_line: u32,
}

impl TrainingProgress {
    /// Says `introduction`, line by line, when training begins.
    pub(crate) fn new(introduction: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{bar:32} {msg} {eta:.dim}"));
        Self { bar, introduction: Some(introduction), last_line: 0 }
    }

    /// Shows where training stands.
    pub(crate) fn show(&mut self, progress: &cvae::Progress<'_>) {
        if let Some(introduction) = self.introduction.take() {
            eprintln!("{introduction}");
        }
        let cvae::Progress { epoch, epochs, loss, rows_per_second, .. } = *progress;
        let text = format!("epoch {epoch}/{epochs}  loss {loss:.5}  {} rows/s", thousands(rows_per_second));
        if self.bar.is_hidden() {
            let line = (u64::from(epoch) * u64::from(PLAIN_LINES) / u64::from(epochs.max(1))) as u32;
            if progress.record.is_some() && line > self.last_line {
                self.last_line = line;
                eprintln!("{text}");
            }
            return;
        }
        self.bar.set_length(progress.steps);
        self.bar.set_position(progress.step);
        self.bar.set_message(text);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over `rows` rows, or a counter where their number is not known. Nothing where standard error is no
/// terminal.
pub(crate) fn rows(rows: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(rows, ProgressDrawTarget::stderr());
    bar.set_style(match rows {
        Some(_) => style("{bar:32} {human_pos}/{human_len} rows  {per_sec} {eta:.dim}"),
        None => style("{spinner} {human_pos} rows  {per_sec}"),
    });
    bar
}

/// A spinner with what is being done. Nothing where standard error is no terminal.
pub(crate) fn spinner(text: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style("{spinner} {msg}"));
    bar.set_message(text);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// The style of a template; a template of this file is always a valid one.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A count with spaces between groups of three digits.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [
            "{bar:32} {msg} {eta:.dim}",
            "{bar:32} {human_pos}/{human_len} rows  {per_sec} {eta:.dim}",
            "{spinner} {msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0.0, 999.4, 12_345.0, 1_234_567.0].map(thousands), ["0", "999", "12 345", "1 234 567"]);
    }
}
