//! `cvae eval`: how good a model is on rows.

use anyhow::Result;
use cvae::Evaluation;
use cvae_data::{LoadOptions, Source};
use serde::Serialize;

use crate::args::EvalArgs;
use crate::{model, output, progress};

/// What `--json` prints.
#[derive(Serialize)]
struct Results {
    run: String,
    backend: String,
    data: String,
    #[serde(flatten)]
    figures: Evaluation,
}

/// Measures a model on its test rows, or on others. What is learnt (PCA, neighbours, the linear probe) is
/// learnt from the rows the model was trained on.
///
/// # Errors
/// A run folder or source that cannot be used.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let model = model::load(&args.run, &args.engine)?;
    // Rows given by name are looked at before anything slow.
    let given = match &args.data {
        Some(name) => {
            let data = name.parse::<Source>()?.load(&LoadOptions::default())?;
            data.expect_width(model.width())?;
            Some(data)
        }
        None => None,
    };
    let bar = progress::spinner("measuring");
    let rows = model::rows(&model)?;
    let data = given.or(rows.test).unwrap_or_else(|| rows.train.clone());
    let figures = cvae::evaluate(&model, &rows.train, &data)?;
    bar.finish_and_clear();

    let results = Results {
        run: args.run.display().to_string(),
        backend: model.backend().to_string(),
        data: data.name().to_owned(),
        figures,
    };
    if args.json {
        return output::json(&results);
    }
    let lines = lines(&results, model.latent());
    output::table(&lines)
}

/// The figures with what is to be compared with them.
fn lines(results: &Results, latent: usize) -> Vec<(String, String)> {
    let figures = &results.figures;
    let figure = output::figure;
    let mut lines = vec![
        ("rows".to_owned(), format!("{} of {}", figures.rows, results.data)),
        ("MSE".to_owned(), format!("{}  (PCA-{latent} {})", figure(figures.mse), figure(figures.pca_mse))),
    ];
    let mut optional = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push((name.to_owned(), value));
        }
    };
    optional("PSNR", figures.psnr.map(|psnr| format!("{psnr:.2} dB, of the mean MSE")));
    optional("R2", figures.r2.map(|r2| format!("{r2:.4}")));
    optional("SSIM", figures.ssim.map(|ssim| format!("{ssim:.4}")));
    optional("latent RMS", Some(figure(figures.latent_rms)));
    optional("active units", Some(format!("{} of {latent}", figures.active_units)));
    optional("effective rank", Some(format!("{:.2}", figures.effective_rank)));
    optional("5-NN accuracy", figures.knn5.map(|accuracy| format!("{accuracy:.4}")));
    optional("linear probe", figures.linear_probe.map(|accuracy| format!("{accuracy:.4}")));
    lines
}
