//! From values to positions, and where to put the marks of an axis.

/// One axis of a chart.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    start: f64,
    end: f64,
}

impl Scale {
    /// An axis that shows all of `values` between the positions `start` and `end`, logarithmic when the
    /// values are positive and spread over more than a factor of 20.
    pub(super) fn fit(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        Self::with(values, start, end, true)
    }

    /// As [`Scale::fit`], never logarithmic.
    pub(super) fn linear(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        Self::with(values, start, end, false)
    }

    fn with(values: impl Iterator<Item = f64>, start: f64, end: f64, may_be_logarithmic: bool) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let logarithmic = may_be_logarithmic && low > 0.0 && high / low > 20.0;
        if low == high {
            let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
            (low, high) = (low - margin, high + margin);
        }
        Self { low, high, logarithmic, start, end }
    }

    /// The same axis with a share of its length free at both ends.
    pub(super) fn padded(mut self, share: f64) -> Self {
        if self.logarithmic {
            let margin = (self.high / self.low).powf(share);
            (self.low, self.high) = (self.low / margin, self.high * margin);
        } else {
            let margin = (self.high - self.low) * share;
            (self.low, self.high) = (self.low - margin, self.high + margin);
        }
        self
    }

    /// The position of a value.
    pub(super) fn position(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.start + share * (self.end - self.start)
    }

    /// Round values to mark, in rising order: 1, 2 or 5 times a power of ten apart, or the powers of ten
    /// themselves with 2 and 5 between them where there are few.
    pub(super) fn marks(&self) -> Vec<f64> {
        if self.logarithmic {
            return self.logarithmic_marks();
        }
        let step = round_step((self.high - self.low) / 5.0);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }

    fn logarithmic_marks(&self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = |factors: &[f64]| -> Vec<f64> {
            let values = decades.clone().flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
            values.filter(|value| (self.low..=self.high).contains(value)).collect()
        };
        let powers = all(&[1.0]);
        if powers.len() >= 3 { powers } else { all(&[1.0, 2.0, 5.0]) }
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step).unwrap_or(10.0);
    factor * power
}

/// A mark or a figure with as many digits as tell it apart.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let decimals = (2 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        let scale = Scale::linear([0.0, 97.0].into_iter(), 0.0, 970.0);
        assert_eq!(scale.marks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert!((scale.position(20.0) - 200.0).abs() < 1e-9);
        let scale = Scale::fit([0.012, 0.9, 3.0].into_iter(), 100.0, 0.0);
        let marks: Vec<String> = scale.marks().into_iter().map(number).collect();
        assert_eq!(marks, ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]);
        assert!(scale.position(3.0).abs() < 1e-9 && (scale.position(0.012) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn odd_values_still_give_an_axis() {
        for values in [vec![], vec![f64::NAN], vec![0.0], vec![-3.0, -3.0], vec![f64::INFINITY, 1.0]] {
            let scale = Scale::fit(values.iter().copied(), 0.0, 1.0).padded(0.05);
            assert!(scale.position(0.5).is_finite(), "{values:?}");
            assert!(scale.marks().len() >= 2, "{values:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let found: Vec<String> = [0.0, 1.0, 0.0123456, 12345.0, -0.5, 1e-9, 2.5e7].into_iter().map(number).collect();
        assert_eq!(found, ["0", "1", "0.0123", "12345", "-0.5", "1e-9", "2.5e7"]);
    }
}
