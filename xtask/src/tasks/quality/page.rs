//! The page that `cargo xtask quality` writes.

use std::fmt::Write;

use serde_json::Value;

/// Examples of the library whose figures are on the page.
pub(super) const EXAMPLES: [&str; 2] = ["one_class", "imputation"];
/// Name of the figures of the peer's arrays.
pub(super) const PEERS: &str = "pythae";

/// An objective with the recorded line of each of its runs.
type Runs<'a> = (&'a str, Vec<Value>);

const HEAD: &str = "\
# Quality

Written by `cargo xtask quality`, which trains and measures every row through the `cvae` program and keeps the figures,
with settings and commit of each run, in [quality.jsonl](quality.jsonl); `--report` writes this page from that file alone.
What the figures mean is in [MATH.md](MATH.md), what the defaults are in [DEFAULTS.md](DEFAULTS.md).

## Objectives on Fashion-MNIST

A network 784-512-256-32 and its mirror image, 20 epochs, everything else as `cvae train` does by default; the weights
of each objective are its defaults (the `config.toml` of a run shows them). The collapsed model has defaults of its own for
images: some of them moved by a pixel, a rate of 2e-3, aligned codes; without them it ends at an error of 0.0084 and 5-NN of
0.874 ([DEFAULTS.md](DEFAULTS.md)). Figures are of the 10 000 test images: mean ±
standard deviation over the seeds. 5-NN and probe are accuracies of the labels from the codes. Fréchet distances, smaller being
better, are in the features of the [small classifier](../datasets/classifier/README.md), between the test images and
their reconstructions, and 10 000 samples each of the prior N(0, I), of a Gaussian mixture of ten components fitted to the
codes of the training images, and of one whose size held-out codes of them chose (`gmm:auto`, which tries 1 to 30); `of 2` marks
a figure that two of the seeds have.
Seconds are of training alone, the least of the seeds: the machine did other things beside, and waited for them.

";

/// The page from the runs that are finished and the figures of examples and peers by their names.
pub(super) fn compose<'a>(runs: &[Runs<'_>], find: impl Fn(&str) -> Option<&'a Value>) -> String {
    let mut page = HEAD.to_owned();
    objectives(&mut page, runs);
    if let Some(figures) = find(PEERS) {
        peers(&mut page, figures);
    }
    if let Some(figures) = find("one_class") {
        one_class(&mut page, figures);
    }
    if let Some(figures) = find("imputation") {
        imputation(&mut page, figures);
    }
    page
}

/// Appends formatted text; writing to a string cannot fail.
fn push(page: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(what);
}

fn objectives(page: &mut String, runs: &[Runs<'_>]) {
    page.push_str(
        "| objective | seeds | test MSE | 5-NN | probe | Fréchet: reconstructions | prior | GMM-10 | GMM, chosen | seconds |\n",
    );
    page.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    for (name, figures) in runs.iter().filter(|run| !run.1.is_empty()) {
        let cell = |pointer: &str, decimals: usize| -> String {
            let values = numbers(figures, pointer);
            let text = spread(&values, decimals);
            match values.len() {
                0 => text,
                count if count < figures.len() => format!("{text} (of {count})"),
                _ => text,
            }
        };
        let cells = [
            (*name).to_owned(),
            figures.len().to_string(),
            cell("/mse", 5),
            cell("/knn5", 4),
            cell("/linear_probe", 4),
            cell("/frechet/reconstructions", 3),
            cell("/frechet/samples/prior", 1),
            cell("/frechet/samples/gmm:10", 2),
            cell("/frechet/samples/gmm:auto", 2),
            numbers(figures, "/train_seconds")
                .into_iter()
                .reduce(f64::min)
                .map_or_else(String::new, |s| format!("{s:.0}")),
        ];
        push(page, format_args!("| {} |\n", cells.join(" | ")));
    }
    if let Some((_, figures)) = runs.iter().find(|run| !run.1.is_empty()) {
        for (key, name) in [("pca", "PCA-32"), ("untrained", "untrained network")] {
            let cell = |figure: &str, decimals: usize| {
                spread(&numbers(figures, &format!("/baselines/{key}/{figure}")), decimals)
            };
            let (mse, knn5, probe) = (cell("mse", 5), cell("knn5", 4), cell("linear_probe", 4));
            push(page, format_args!("| {name} | {} | {mse} | {knn5} | {probe} | | | | | |\n", figures.len()));
        }
    }
    let missing: Vec<&str> = runs.iter().filter(|run| run.1.is_empty()).map(|run| run.0).collect();
    if !missing.is_empty() {
        push(page, format_args!("\nNot trained yet: {}.\n", missing.join(", ")));
    }
}

/// The number at a JSON pointer of every run that has one.
fn numbers(runs: &[Value], pointer: &str) -> Vec<f64> {
    runs.iter().filter_map(|run| run.pointer(pointer)?.as_f64()).collect()
}

/// `mean ± standard deviation`, or the value alone where there is one.
fn spread(values: &[f64], decimals: usize) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    match values.len() {
        0 => String::new(),
        1 => format!("{mean:.decimals$}"),
        _ => {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
            format!("{mean:.decimals$} ± {:.decimals$}", variance.sqrt())
        }
    }
}

fn peers(page: &mut String, figures: &Value) {
    page.push_str(
        "\n### Pythae\n\nArrays of Pythae's models of the same network and epochs (`benches/peers/pythae_rae.py`, its own\n\
         default weights; its mixtures have 10 components as it has them, and 30), measured with `cvae distance` in\n\
         the same features: mean ± standard deviation over the seeds.\n\n\
         | array | seeds | Fréchet | precision | recall |\n|---|---|---|---|---|\n",
    );
    // Arrays are called `model-kind-seed.npy`.
    let mut groups: Vec<(&str, Vec<Value>)> = vec![];
    for row in figures["distances"].as_array().into_iter().flatten() {
        let path = row["data"].as_str().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".npy");
        let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
        match groups.iter_mut().find(|group| group.0 == name) {
            Some(group) => group.1.push(row.clone()),
            None => groups.push((name, vec![row.clone()])),
        }
    }
    for (name, rows) in &groups {
        let cell = |pointer: &str, decimals: usize| spread(&numbers(rows, pointer), decimals);
        let cells = [rows.len().to_string(), cell("/frechet", 2), cell("/precision", 3), cell("/recall", 3)];
        push(page, format_args!("| {name} | {} |\n", cells.join(" | ")));
    }
}

fn one_class(page: &mut String, figures: &Value) {
    page.push_str("\n## One-class Fashion-MNIST\n\n");
    push(page, format_args!("{}\n\n", figures["about"].as_str().unwrap_or_default()));
    let classes: Vec<&str> = figures["classes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // The numbers of the classes that a recipe was chosen on.
    let chosen: Vec<u64> = figures["chosen_on"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    push(page, format_args!("| score | mean AUROC | of the others | {} |\n", classes.join(" | ")));
    push(page, format_args!("|---|---|---|{}\n", "---|".repeat(classes.len())));
    for row in figures["scores"].as_array().into_iter().flatten() {
        let values: Vec<f64> = row["auroc"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let others: Vec<f64> =
            (0..).zip(&values).filter(|(class, _)| !chosen.contains(class)).map(|(_, value)| *value).collect();
        let cells: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
        let name = row["name"].as_str().unwrap_or_default();
        push(page, format_args!("| {name} | {:.4} | {:.4} | {} |\n", mean(&values), mean(&others), cells.join(" | ")));
    }
}

fn imputation(page: &mut String, figures: &Value) {
    page.push_str("\n## Missing values\n\n");
    push(page, format_args!("{}\n\n", figures["about"].as_str().unwrap_or_default()));
    page.push_str("| method | error of the missing cells |\n|---|---|\n");
    for row in figures["methods"].as_array().into_iter().flatten() {
        let name = row["name"].as_str().unwrap_or_default();
        let values: Vec<f64> = row["rmse"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        push(page, format_args!("| {name} | {} |\n", spread(&values, 4)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn means_have_their_spread() {
        assert_eq!(spread(&[], 2), "");
        assert_eq!(spread(&[0.5], 2), "0.50");
        assert_eq!(spread(&[1.0, 3.0], 1), "2.0 ± 1.4");
    }

    #[test]
    fn every_finished_part_has_its_row() {
        let run = |mse: f64| {
            json!({
                "mse": mse, "knn5": 0.875, "linear_probe": 0.8, "train_seconds": 61.2,
                "baselines": { "pca": { "mse": 0.015, "knn5": 0.85, "linear_probe": 0.79 },
                               "untrained": { "mse": 0.4, "knn5": 0.7, "linear_probe": 0.6 } },
                "frechet": { "reconstructions": 3.0, "samples": { "prior": 90.0, "gmm:10": 20.0, "gmm:auto": 10.0 } },
            })
        };
        let mut sampled = run(0.008);
        sampled["frechet"]["samples"]["gmm:auto"] = Value::Null;
        let runs = [("collapsed", vec![run(0.008), run(0.009)]), ("vae", vec![run(0.008), sampled]), ("ae", vec![])];
        let peer = |file: &str, frechet: f64| json!({ "data": format!("a/{file}.npy"), "rows": 10_000, "frechet": frechet, "precision": 0.5, "recall": 0.25 });
        let rows = [peer("rae-l2-gmm10-0", 25.0), peer("rae-l2-gmm10-1", 27.0), peer("vae-prior-0", 30.0)];
        let peers = json!({ "distances": rows });
        let one_class = json!({ "about": "How.", "classes": ["0", "1"], "chosen_on": [1],
                                "scores": [{ "name": "residual", "auroc": [0.9, 0.8] }] });
        let imputation = json!({ "about": "How.", "methods": [{ "name": "column means", "rmse": [1.0] }] });
        let others = [("pythae", peers), ("one_class", one_class), ("imputation", imputation)];
        let page = compose(&runs, |name| others.iter().find(|other| other.0 == name).map(|other| &other.1));
        for line in [
            "| collapsed | 2 | 0.00850 ± 0.00071 | 0.8750 ± 0.0000 | 0.8000 ± 0.0000 | 3.000 ± 0.000 | 90.0 ± 0.0 | \
             20.00 ± 0.00 | 10.00 ± 0.00 | 61 |",
            "| 20.00 ± 0.00 | 10.00 (of 1) | 61 |",
            "| PCA-32 | 2 | 0.01500 ± 0.00000 |",
            "Not trained yet: ae.",
            "| rae-l2-gmm10 | 2 | 26.00 ± 1.41 | 0.500 ± 0.000 | 0.250 ± 0.000 |",
            "| vae-prior | 1 | 30.00 | 0.500 | 0.250 |",
            "| residual | 0.8500 | 0.9000 | 0.900 | 0.800 |",
            "| column means | 1.0000 |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
