//! Medians and spreads.

/// The `fraction` quantile by linear interpolation; NaN for no values.
pub fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = fraction * last as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (position - low as f64)
}

/// The median.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The distance of the 10 % and 90 % quantiles, over the median.
pub fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.9) - quantile(values, 0.1)) / median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.5);
        assert_eq!(quantile(&values, 1.0), 4.0);
        assert!((spread(&values) - (3.7 - 1.3) / 2.5).abs() < 1e-12);
        assert!(median(&[]).is_nan());
    }
}
