//! How well scores rank the positive rows first.

use super::error::MetricError;

/// Area under the receiver operating characteristic: the probability that a positive row scores above
/// a negative one, ties counting one half. `positive` marks the rows that should score high.
///
/// # Errors
///
/// [`MetricError::LabelCount`] when the lengths differ, [`MetricError::SingleClass`] when all rows are
/// positive or none is, [`MetricError::NonFiniteScore`] on NaN or infinity.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Result<f64, MetricError> {
    let groups = tied_groups(scores, positive)?;
    let (mut positives, mut negatives, mut wins) = (0.0, 0.0, 0.0);
    for (group_positives, group_negatives) in groups {
        wins += group_negatives * (positives + 0.5 * group_positives);
        positives += group_positives;
        negatives += group_negatives;
    }
    Ok(wins / (positives * negatives))
}

/// Average precision `Σ (Rᵢ − Rᵢ₋₁)·Pᵢ` over the distinct thresholds from high to low, without
/// interpolation; rows with equal scores enter together, so that their order does not matter.
///
/// # Errors
///
/// As [`auroc`].
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Result<f64, MetricError> {
    let groups = tied_groups(scores, positive)?;
    let total: f64 = groups.iter().map(|group| group.0).sum();
    let (mut positives, mut rows, mut area) = (0.0, 0.0, 0.0);
    for (group_positives, group_negatives) in groups {
        positives += group_positives;
        rows += group_positives + group_negatives;
        area += group_positives / total * (positives / rows);
    }
    Ok(area)
}

/// Numbers of positive and negative rows at every distinct score, highest score first.
fn tied_groups(scores: &[f64], positive: &[bool]) -> Result<Vec<(f64, f64)>, MetricError> {
    if scores.len() != positive.len() {
        return Err(MetricError::LabelCount { rows: scores.len(), labels: positive.len() });
    }
    if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
        return Err(MetricError::NonFiniteScore { index });
    }
    if !(positive.contains(&true) && positive.contains(&false)) {
        return Err(MetricError::SingleClass);
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    Ok(order
        .chunk_by(|&a, &b| scores[a] == scores[b])
        .map(|tied| {
            let positives = tied.iter().filter(|&&row| positive[row]).count();
            (positives as f64, (tied.len() - positives) as f64)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few distinct scores, so that ties are common.
    fn labelled_scores() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
        prop::collection::vec((0u8..6, any::<bool>()), 2..60)
            .prop_map(|rows| rows.into_iter().map(|(score, label)| (f64::from(score), label)).unzip())
            .prop_filter("both classes", |(_, labels): &(Vec<f64>, Vec<bool>)| {
                labels.contains(&true) && labels.contains(&false)
            })
    }

    proptest! {
        #[test]
        fn auroc_equals_the_count_over_all_pairs((scores, positive) in labelled_scores()) {
            let (mut wins, mut pairs) = (0.0, 0.0);
            for i in (0..scores.len()).filter(|&i| positive[i]) {
                for j in (0..scores.len()).filter(|&j| !positive[j]) {
                    pairs += 1.0;
                    wins += if scores[i] > scores[j] { 1.0 } else if scores[i] == scores[j] { 0.5 } else { 0.0 };
                }
            }
            prop_assert!((auroc(&scores, &positive).unwrap() - wins / pairs).abs() < 1e-12);
        }

        #[test]
        fn average_precision_equals_its_definition((scores, positive) in labelled_scores()) {
            let total = positive.iter().filter(|&&p| p).count() as f64;
            let mut thresholds = scores.clone();
            thresholds.sort_by(|a, b| b.total_cmp(a));
            thresholds.dedup();
            let (mut expected, mut last_recall) = (0.0, 0.0);
            for threshold in thresholds {
                let chosen = |i: &usize| scores[*i] >= threshold;
                let rows = (0..scores.len()).filter(chosen).count() as f64;
                let hits = (0..scores.len()).filter(chosen).filter(|&i| positive[i]).count() as f64;
                expected += (hits / total - last_recall) * hits / rows;
                last_recall = hits / total;
            }
            prop_assert!((average_precision(&scores, &positive).unwrap() - expected).abs() < 1e-12);
        }

        #[test]
        fn negating_the_scores_mirrors_auroc((scores, positive) in labelled_scores()) {
            let negated: Vec<f64> = scores.iter().map(|score| -score).collect();
            let sum = auroc(&scores, &positive).unwrap() + auroc(&negated, &positive).unwrap();
            prop_assert!((sum - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn signed_zeros_are_a_tie() {
        assert_eq!(auroc(&[0.0, -0.0], &[true, false]).unwrap(), 0.5);
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(matches!(auroc(&[], &[]), Err(MetricError::SingleClass)));
        assert!(matches!(auroc(&[1.0, 2.0], &[true, true]), Err(MetricError::SingleClass)));
        assert!(matches!(auroc(&[1.0], &[true, false]), Err(MetricError::LabelCount { .. })));
        let nan = average_precision(&[1.0, f64::NAN], &[true, false]);
        assert!(matches!(nan, Err(MetricError::NonFiniteScore { index: 1 })));
    }
}
