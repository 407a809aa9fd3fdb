//! The encoder's input in training: missing values, marks, noise (docs/MATH.md, "Corruption").

use cvae_core::rng::{below, chosen};
use cvae_core::{Noise, Shift};

/// The input with 0 for NaN.
pub(crate) fn observe(input: &[f64], output: &mut [f64]) {
    for (out, x) in output.iter_mut().zip(input) {
        *out = if x.is_nan() { 0.0 } else { *x };
    }
}

/// 0 for NaN, else 1.
pub(crate) fn observed(input: &[f64], weights: &mut [f64]) {
    for (weight, x) in weights.iter_mut().zip(input) {
        *weight = if x.is_nan() { 0.0 } else { 1.0 };
    }
}

/// 1 where the unit of a column is chosen with probability `share`, else 0; `rows` are the rows' noise positions.
pub(crate) fn mask(noise: Noise, rows: &[u32], share: f64, units: &[u32], output: &mut [f64]) {
    for (row, out) in rows.iter().zip(output.chunks_exact_mut(units.len())) {
        for (out, unit) in out.iter_mut().zip(units) {
            *out = f64::from(chosen(noise.unit_word(*row, *unit), share));
        }
    }
}

/// `input` where the mark is 0, else 0.
pub(crate) fn erase(input: &[f64], mask: &[f64], output: &mut [f64]) {
    for ((out, x), marked) in output.iter_mut().zip(input).zip(mask) {
        *out = if *marked == 0.0 { *x } else { 0.0 };
    }
}

/// `input` where the mark is 0, else the same column of the row of the batch that the noise names.
pub(crate) fn permute(noise: Noise, rows: &[u32], units: &[u32], input: &[f64], mask: &[f64], output: &mut [f64]) {
    let width = units.len();
    for (index, out) in output.iter_mut().enumerate() {
        let (row, column) = (index / width, index % width);
        let other = || below(noise.unit_word(rows[row], units[column]), rows.len() as u32) as usize;
        *out = if mask[index] == 0.0 { input[index] } else { input[other() * width + column] };
    }
}

/// `input` where the mark is 0, else the image of the row after the move that the noise names.
pub(crate) fn shift(noise: Noise, rows: &[u32], shift: Shift, input: &[f64], mask: &[f64], output: &mut [f64]) {
    let width = output.len() / rows.len().max(1);
    for (index, out) in output.iter_mut().enumerate() {
        let (row, column) = (index / width, index % width);
        let offset = || shift.drawn(noise.unit_word(rows[row], 0));
        *out = match mask[index] == 0.0 {
            true => input[index],
            false => shift.source(offset(), column, width).map_or(0.0, |from| input[row * width + from]),
        };
    }
}

#[cfg(test)]
mod tests {
    use cvae_core::Stream;

    use super::*;

    #[test]
    fn missing_values_are_zero_and_do_not_count() {
        let (mut output, mut weights) = ([f64::NAN; 3], [f64::NAN; 3]);
        observe(&[2.0, f64::NAN, 0.0], &mut output);
        observed(&[2.0, f64::NAN, 0.0], &mut weights);
        assert_eq!((output, weights), ([2.0, 0.0, 0.0], [1.0, 0.0, 1.0]));
    }

    /// Whole units are marked, in the share asked for; an erased or permuted row differs nowhere else.
    #[test]
    fn units_are_corrupted_together() {
        let (rows, units) = (Vec::from_iter(5..4005), [0, 0, 1, 2, 2]);
        let (noise, other) = (Noise::new(9, Stream::Corrupt, 3), Noise::new(9, Stream::Permute, 3));
        let input: Vec<f64> = (0..rows.len() * 5).map(|index| 1.0 + index as f64).collect();
        let [mut marks, mut erased, mut permuted] = [(); 3].map(|()| vec![f64::NAN; input.len()]);
        mask(noise, &rows, 0.25, &units, &mut marks);
        erase(&input, &marks, &mut erased);
        permute(other, &rows, &units, &input, &marks, &mut permuted);
        let marked: f64 = marks.iter().sum::<f64>() / marks.len() as f64;
        assert!((marked - 0.25).abs() < 0.02, "{marked}");
        let mut donors = vec![0u32; rows.len()];
        for (row, marks) in marks.chunks_exact(5).enumerate() {
            assert!(marks[0] == marks[1] && marks[3] == marks[4]);
            let at = |column: usize| row * 5 + column;
            let donor = |column: usize| (permuted[at(column)] as usize - 1) / 5;
            for column in 0..5 {
                let kept = marks[column] == 0.0;
                assert_eq!(erased[at(column)], if kept { input[at(column)] } else { 0.0 });
                assert_eq!((permuted[at(column)] as usize - 1) % 5, column, "a value stays in its column");
                assert!(!kept || donor(column) == row);
            }
            assert!(donor(0) == donor(1) && donor(3) == donor(4), "a unit comes from one row");
            donors[donor(0)] += u32::from(marks[0] == 1.0);
        }
        assert!(donors.iter().filter(|count| **count > 0).count() > 500, "donors are spread over the batch");
    }
}
