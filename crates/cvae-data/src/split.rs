//! Splits as pure functions of a seed.
//!
//! All randomness is a keyed hash of a position, SplitMix64 (G. Steele, D. Lea and C. Flood, *Fast
//! splittable pseudorandom number generators*, OOPSLA 2014): the draw at position `i` under key `k` is
//! `mix(k + (i + 1)·γ)` with γ the golden-ratio constant. There is no generator state to keep, store or
//! share: a split is a function of (rows, fraction, seed) alone, the same on every platform and machine.

use crate::error::DataError;

/// SplitMix64's increment, 2⁶⁴ divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Separates splits from other shuffles of the same seed.
const SPLIT_DOMAIN: u64 = u64::MAX;

/// SplitMix64's output function.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of one permutation.
fn key(seed: u64, domain: u64) -> u64 {
    mix(mix(seed.wrapping_add(GAMMA)) ^ domain.wrapping_mul(GAMMA))
}

/// A draw from `0..bound`: the high word of `hash · bound`. For 32-bit bounds no value is favoured by
/// more than 2⁻³².
fn draw(key: u64, position: u64, bound: u64) -> u64 {
    let hash = mix(key.wrapping_add(position.wrapping_add(1).wrapping_mul(GAMMA)));
    ((u128::from(hash) * u128::from(bound)) >> 64) as u64
}

/// Fisher and Yates' shuffle of `order` under `key`.
fn shuffle(order: &mut [u32], key: u64) {
    for i in (1..order.len()).rev() {
        let j = draw(key, i as u64, i as u64 + 1) as usize;
        order.swap(i, j);
    }
}

/// Fills `order` with `0, 1, 2, …`; a row index is 32 bits wide.
fn identity(order: &mut [u32]) {
    for (i, slot) in order.iter_mut().enumerate() {
        *slot = i as u32;
    }
}

/// Training and held-out row indices, each in ascending order; together they are `0..rows`.
///
/// The held-out side has `rows × fraction` rows, rounded to the nearest.
///
/// # Errors
/// [`DataError::BadSplit`] when `fraction` is not between 0 and 1 or a side would be empty, and
/// [`DataError::TooLarge`] beyond `u32::MAX` rows.
pub fn split(rows: usize, fraction: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>), DataError> {
    let bad = DataError::BadSplit { rows, fraction };
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(bad);
    }
    let held_out = (rows as f64 * fraction).round() as usize;
    if held_out == 0 || held_out >= rows {
        return Err(bad);
    }
    let mut order = blank(rows)?;
    identity(&mut order);
    shuffle(&mut order, key(seed, SPLIT_DOMAIN));
    let mut test = order.split_off(rows - held_out);
    order.sort_unstable();
    test.sort_unstable();
    Ok((order, test))
}

/// Room for `rows` indices.
fn blank(rows: usize) -> Result<Vec<u32>, DataError> {
    if u32::try_from(rows).is_err() {
        return Err(DataError::TooLarge {
            name: "row order".to_owned(),
            rows: rows as u64,
            bytes: rows as u64 * 4,
            limit: u64::from(u32::MAX) * 4,
        });
    }
    Ok(vec![0; rows])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shuffled(rows: usize, seed: u64, domain: u64) -> Vec<u32> {
        let mut order = blank(rows).unwrap();
        identity(&mut order);
        shuffle(&mut order, key(seed, domain));
        order
    }

    #[test]
    fn orders_are_pinned() {
        // Computed by a separate program from the definition in this module's documentation. A change of
        // these orders would change every recorded training run.
        assert_eq!(shuffled(8, 1, 0), [2, 4, 1, 7, 6, 0, 5, 3]);
        assert_eq!(shuffled(8, 1, 1), [4, 1, 3, 0, 5, 7, 2, 6]);
        assert_eq!(split(8, 0.25, 1).unwrap().1, [4, 6]);
    }

    #[test]
    fn every_position_sees_every_row_about_equally_often() {
        // 6 rows, 60 000 shuffles: each (position, row) count is binomial with mean 10 000 and
        // standard deviation 91; six of them is far beyond chance.
        let mut counts = [[0i32; 6]; 6];
        for domain in 0..60_000 {
            for (position, &row) in shuffled(6, 3, domain).iter().enumerate() {
                counts[position][row as usize] += 1;
            }
        }
        for count in counts.iter().flatten() {
            assert!((count - 10_000).abs() < 550, "{counts:?}");
        }
    }

    #[test]
    fn impossible_splits_are_refused() {
        for (rows, fraction) in
            [(0, 0.5), (1, 0.5), (10, 0.0), (10, 1.0), (10, -0.1), (10, f64::NAN), (10, 0.01), (10, 0.99)]
        {
            assert!(matches!(split(rows, fraction, 0), Err(DataError::BadSplit { .. })), "{rows} rows, {fraction}");
        }
    }

    proptest! {
        #[test]
        fn a_shuffle_is_a_permutation(rows in 0usize..300, seed: u64, domain: u64) {
            let mut order = shuffled(rows, seed, domain);
            order.sort_unstable();
            prop_assert_eq!(order, (0..rows as u32).collect::<Vec<_>>());
        }

        #[test]
        fn a_split_is_a_partition(rows in 2usize..300, fraction in 0.0f64..1.0, seed: u64) {
            let Ok((train, test)) = split(rows, fraction, seed) else {
                let held_out = (rows as f64 * fraction).round() as usize;
                prop_assert!(fraction == 0.0 || held_out == 0 || held_out == rows);
                return Ok(());
            };
            prop_assert!(train.is_sorted() && test.is_sorted());
            let mut all = [train, test].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows as u32).collect::<Vec<_>>());
        }
    }
}
