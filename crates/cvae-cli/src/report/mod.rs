//! `report.html`: what a training run gave, on one page that needs no network.

mod chart;
mod gather;
mod histogram;
mod html;
mod judge;
mod picture;
mod scale;
mod scatter;

pub(crate) use gather::{Outcome, compose, measure, settings, widths};
pub(crate) use html::render;

use cvae_data::ImageShape;

/// Everything the page shows.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Headline, such as the name of the run.
    pub(crate) title: String,
    /// One sentence under the headline.
    pub(crate) summary: String,
    /// The numbers worth remembering.
    pub(crate) figures: Vec<Figure>,
    /// Loss and errors by epoch.
    pub(crate) curves: Vec<Curve>,
    /// Rows beside their reconstructions.
    pub(crate) reconstructions: Option<Reconstructions>,
    /// The rows of largest error beside their reconstructions.
    pub(crate) worst: Option<Reconstructions>,
    /// How the scores of rows spread.
    pub(crate) scores: Option<Histogram>,
    /// Codes in their first two principal components.
    pub(crate) codes: Option<Codes>,
    /// Rows decoded from codes drawn at random.
    pub(crate) samples: Option<Samples>,
    /// Rows decoded from the way between two codes, one group a way.
    pub(crate) paths: Option<Samples>,
    /// The configuration, in the order to show it.
    pub(crate) settings: Vec<(String, String)>,
    /// Ops and the kernels they ran on.
    pub(crate) kernels: Vec<(String, String)>,
}

/// A number with what it is to be compared with.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What it is.
    pub(crate) label: &'static str,
    /// Its value, formatted.
    pub(crate) value: String,
    /// What puts it into proportion, formatted; may be empty.
    pub(crate) beside: String,
}

/// One line of the chart of epochs.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// Which quantity.
    pub(crate) name: String,
    /// Epoch and value.
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether it is a constant to compare with rather than a course.
    pub(crate) is_level: bool,
}

/// Rows shown one by one; all slices hold `rows × width` values.
#[derive(Clone, Debug)]
pub(crate) struct Reconstructions {
    /// How to draw a row.
    pub(crate) form: Form,
    /// Values in a row.
    pub(crate) width: usize,
    /// The rows.
    pub(crate) originals: Vec<f32>,
    /// What the model makes of them.
    pub(crate) model: Vec<f32>,
    /// What PCA of the same latent size makes of them.
    pub(crate) pca: Vec<f32>,
    /// The errors, in words.
    pub(crate) caption: String,
}

/// Numbers of rows by their score.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    /// Lower and upper bound of the score, and how many rows are between them.
    pub(crate) bars: Vec<(f64, f64, usize)>,
    /// Score above which rows are called abnormal.
    pub(crate) threshold: Option<f64>,
    /// What is shown, in words.
    pub(crate) caption: String,
}

/// How one row is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As an image with values from 0 to 1.
    Image(ImageShape),
    /// As a line over the features.
    Profile,
}

/// Points of the latent scatter.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    /// Position of each code in the first two principal components.
    pub(crate) points: Vec<(f32, f32)>,
    /// One label a point, if there are labels.
    pub(crate) labels: Option<Vec<u32>>,
    /// Names of the labels, if they have any.
    pub(crate) classes: Option<Vec<String>>,
    /// What the picture leaves out, in words.
    pub(crate) caption: String,
}

/// Rows decoded from random codes; `rows × width` values each.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    /// How to draw a row.
    pub(crate) form: Form,
    /// Values in a row.
    pub(crate) width: usize,
    /// Name of the density and the rows drawn from it.
    pub(crate) groups: Vec<(String, Vec<f32>)>,
}

#[cfg(test)]
mod tests;
