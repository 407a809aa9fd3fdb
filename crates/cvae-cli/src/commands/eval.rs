//! `cvae eval`: how good a model is on rows.

use anyhow::Result;
use cvae::{Autoencoder, Baselines, Evaluation, Features, Generation};
use cvae_data::Source;
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
    baselines: Baselines,
    generation: Option<Generation>,
}

/// Measures a model, principal components and the untrained network on the model's test rows, or on others. What is
/// learnt (PCA, neighbours, the linear probe) is learnt from the rows the model was trained on.
///
/// # Errors
/// A run folder or source that cannot be used.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let backend = model::backend(&args.run, &args.engine)?;
    let model = Autoencoder::load(&args.run, backend.as_ref())?;
    // Rows given by name are looked at before anything slow.
    let given = match &args.data {
        Some(name) => {
            let data = name.parse::<Source>()?.load(&model::options(&model))?;
            data.expect_width(model.width())?;
            Some(data)
        }
        None => None,
    };
    let bar = progress::spinner("measuring");
    let rows = model::rows(&model)?;
    let data = given.or(rows.test).unwrap_or_else(|| rows.train.clone());
    let figures = cvae::evaluate(&model, &rows.train, &data)?;
    let baselines = cvae::baselines(&model, backend.as_ref(), &rows.train, &data)?;
    let generation = cvae::generation(&model, &data)?;
    bar.finish_and_clear();

    let results = Results {
        run: args.run.display().to_string(),
        backend: model.backend().to_string(),
        data: data.name().to_owned(),
        figures,
        baselines,
        generation,
    };
    if args.json {
        return output::json(&results);
    }
    output::columns(&lines(&results, model.latent()))?;
    match &results.generation {
        Some(generation) => generated(generation),
        None => Ok(()),
    }
}

/// The figures beside those of PCA and of the untrained network.
fn lines(results: &Results, latent: usize) -> Vec<Vec<String>> {
    let (figures, pca, untrained) = (&results.figures, &results.baselines.pca, &results.baselines.untrained);
    let figure = output::figure;
    let cells = |cells: &[&str]| -> Vec<String> { cells.iter().map(|cell| (*cell).to_owned()).collect() };
    let mut lines = vec![
        cells(&[&format!("{} rows of {}", figures.rows, results.data), "model", &format!("PCA-{latent}"), "untrained"]),
        cells(&["MSE", &figure(figures.mse), &figure(pca.mse), &figure(untrained.mse)]),
    ];
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    if figures.knn5.is_some() {
        lines.push(cells(&["5-NN accuracy", &share(figures.knn5), &share(pca.knn5), &share(untrained.knn5)]));
    }
    if figures.linear_probe.is_some() {
        let probes = [figures.linear_probe, pca.linear_probe, untrained.linear_probe].map(share);
        lines.push(cells(&["linear probe", &probes[0], &probes[1], &probes[2]]));
    }
    let mut alone = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(cells(&[name, &value]));
        }
    };
    alone("PSNR of the mean MSE", figures.psnr.map(|psnr| format!("{psnr:.2} dB")));
    alone("R2", figures.r2.map(|r2| format!("{r2:.4}")));
    alone("SSIM", figures.ssim.map(|ssim| format!("{ssim:.4}")));
    alone("latent RMS", Some(figure(figures.latent_rms)));
    alone("active units", Some(format!("{} of {latent}", figures.active_units)));
    alone("effective rank", Some(format!("{:.2}", figures.effective_rank)));
    lines
}

/// How like the rows samples are: one line for each density.
fn generated(generation: &Generation) -> Result<()> {
    let place = match generation.features {
        Features::Classifier => "in the classifier's features",
        Features::Raw => "in the features themselves",
    };
    output::line(format_args!("\nFréchet distance, precision and recall {place}; log-likelihood of the codes:"))?;
    let heads = ["", "Fréchet", "precision", "recall", "log-likelihood"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    lines.push(vec!["reconstructions".to_owned(), output::figure(generation.reconstructions)]);
    lines.extend(generation.densities.iter().map(|samples| {
        vec![
            format!("samples, {}", samples.density),
            output::figure(samples.frechet),
            format!("{:.3}", samples.precision),
            format!("{:.3}", samples.recall),
            format!("{:.2}", samples.log_likelihood),
        ]
    }));
    output::columns(&lines)
}
