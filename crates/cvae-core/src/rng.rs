//! Counter-based random numbers: the same bits on every backend, for every thread count and every rank.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//! Its key is the seed; its counter names what is drawn: block, row, epoch, stream. Nothing else in the
//! workspace draws noise for training, so resume, cross-backend comparison and data-parallel training are
//! exact.
//!
//! Normal variates use only IEEE additions, multiplications and square roots in a fixed order, so that a
//! device kernel that repeats the order repeats the bits.

/// What a random number is drawn for; the last word of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Stream {
    /// Initial parameters.
    Init = 0,
    /// `ε` of the reparameterisation.
    Reparameterize = 1,
    /// Order of the rows in an epoch.
    Shuffle = 2,
    /// Splits of a data set.
    Split = 3,
    /// Synthetic data.
    Data = 4,
    /// Samples drawn from a trained model.
    Sample = 5,
    /// Noise on the encoder's input, or the marks of what is corrupted.
    Corrupt = 6,
    /// Rows that permuted columns are taken from.
    Permute = 7,
    /// Signs of the vectors that estimate a Jacobian's norm.
    Probe = 8,
    /// Draws of the prior that codes are compared with.
    Prior = 9,
    /// Start of the search for a weight's largest singular value; the same for every seed.
    Spectral = 10,
}

impl Stream {
    /// The name used in program listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Reparameterize => "reparameterize",
            Self::Shuffle => "shuffle",
            Self::Split => "split",
            Self::Data => "data",
            Self::Sample => "sample",
            Self::Corrupt => "corrupt",
            Self::Permute => "permute",
            Self::Probe => "probe",
            Self::Prior => "prior",
            Self::Spectral => "spectral",
        }
    }
}

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// One block of Philox4x32-10: four words for a 128-bit `counter` and a 64-bit `key`.
#[inline]
pub fn philox(counter: [u32; 4], key: u64) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let (mut k0, mut k1) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The random numbers of one (seed, stream, epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    seed: u64,
    stream: Stream,
    epoch: u32,
}

impl Noise {
    /// The numbers of `stream` in `epoch` under `seed`.
    pub fn new(seed: u64, stream: Stream, epoch: u32) -> Self {
        Self { seed, stream, epoch }
    }

    /// Four words: block `block` of row `row`.
    #[inline]
    pub fn words(self, row: u32, block: u32) -> [u32; 4] {
        philox([block, row, self.epoch, self.stream as u32], self.seed)
    }

    /// Fills `out` with standard normal variates of row `row`; element `j` comes from block `j / 4`.
    pub fn normal(self, row: u32, out: &mut [f32]) {
        for (block, chunk) in out.chunks_mut(4).enumerate() {
            let [a, b, c, d] = self.words(row, block as u32);
            let (n0, n1) = normal_pair(a, b);
            let (n2, n3) = normal_pair(c, d);
            chunk.copy_from_slice(&[n0, n1, n2, n3][..chunk.len()]);
        }
    }

    /// Fills `out` with variates uniform in [0, 1) of row `row`; element `j` comes from block `j / 4`.
    pub fn uniform(self, row: u32, out: &mut [f32]) {
        for (block, chunk) in out.chunks_mut(4).enumerate() {
            let values = self.words(row, block as u32).map(unit);
            chunk.copy_from_slice(&values[..chunk.len()]);
        }
    }

    /// Fills `out` with random signs of row `row`; element `j` comes from word `j mod 4` of block `j / 4`: −1 if
    /// its highest bit is set, else 1.
    pub fn signs(self, row: u32, out: &mut [f32]) {
        for (block, chunk) in out.chunks_mut(4).enumerate() {
            let words = self.words(row, block as u32);
            for (sign, word) in chunk.iter_mut().zip(words) {
                *sign = if word >> 31 == 1 { -1.0 } else { 1.0 };
            }
        }
    }

    /// The word of unit `unit` of row `row`: word `unit mod 4` of block `unit / 4`.
    #[inline]
    pub fn unit_word(self, row: u32, unit: u32) -> u32 {
        self.words(row, unit / 4)[(unit % 4) as usize]
    }

    /// Shuffles `order` in place (Fisher-Yates; the swap of position `i` is a function of `i` alone).
    pub fn shuffle(self, order: &mut [u32]) {
        for i in (1..order.len()).rev() {
            let [high, low, ..] = self.words((i >> 32) as u32, i as u32);
            let word = (u64::from(high) << 32) | u64::from(low);
            let j = ((u128::from(word) * (i as u128 + 1)) >> 64) as usize;
            order.swap(i, j);
        }
    }
}

/// The order of `rows` rows in `epoch`: a function of (seed, epoch) alone.
pub fn epoch_order(seed: u64, epoch: u32, order: &mut [u32]) {
    for (i, slot) in order.iter_mut().enumerate() {
        *slot = i as u32;
    }
    Noise::new(seed, Stream::Shuffle, epoch).shuffle(order);
}

/// A word as a number in [0, 1), from its upper 24 bits.
#[inline]
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Whether a word chooses with probability `share`, to 24 bits: its upper 24 bits are below
/// [`share_threshold`].
#[inline]
pub fn chosen(word: u32, share: f64) -> bool {
    word >> 8 < share_threshold(share)
}

/// `share` of 2²⁴, rounded to the nearest integer.
#[inline]
pub fn share_threshold(share: f64) -> u32 {
    (share * 16_777_216.0).round() as u32
}

/// A word as an integer in `0..count`: `⌊word·count/2³²⌋`.
#[inline]
pub fn below(word: u32, count: u32) -> u32 {
    ((u64::from(word) * u64::from(count)) >> 32) as u32
}

/// Two independent standard normal variates from two words (Box & Muller 1958).
///
/// The radius uses the upper 23 bits of `radius`, moved half a step away from 0 and 1; the angle uses two bits of
/// `angle` for the quadrant and the next 24 for the position in it.
#[inline]
pub fn normal_pair(radius: u32, angle: u32) -> (f32, f32) {
    let u = ((radius >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0);
    let r = (-2.0 * ln(u)).sqrt();
    // Position in the quadrant, in [−½, ½), times π/2.
    let t = (((angle << 2) >> 8) as f32 * (1.0 / 16_777_216.0) - 0.5) * std::f32::consts::FRAC_PI_2;
    let z = t * t;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * t + t;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (x, y) = match angle >> 30 {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    };
    (r * x, r * y)
}

/// Natural logarithm of a normal `u` in (0, 1], by the polynomial of the Cephes library's `logf`
/// (Moshier 1989); within 1 ulp.
#[inline]
fn ln(u: f32) -> f32 {
    let bits = u.to_bits();
    let mut exponent = (bits >> 23) as i32 - 126;
    let mut m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1;
        m += m;
    }
    let x = m - 1.0;
    let z = x * x;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * x + c;
    }
    let e = exponent as f32;
    let y = p * x * z - 2.121_944_4e-4 * e - 0.5 * z;
    x + y + 0.693_359_4 * e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        // kat_vectors of the Random123 distribution.
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], 0x299f_31d0_a409_3822),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn logarithm_is_accurate() {
        for k in (0..16_777_216u32).step_by(997) {
            let u = (k as f32 + 0.5) * (1.0 / 16_777_216.0);
            let exact = f64::from(u).ln();
            assert!((f64::from(ln(u)) - exact).abs() <= 2e-7 * exact.abs().max(0.25), "ln({u})");
        }
    }

    #[test]
    fn normals_have_the_right_moments() {
        let mut draws = vec![0.0; 200_000];
        Noise::new(7, Stream::Reparameterize, 0).normal(3, &mut draws);
        let moment = |power: i32| draws.iter().map(|x| f64::from(*x).powi(power)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.01, "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.02, "variance {}", moment(2));
        assert!(moment(3).abs() < 0.03, "skewness {}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.1, "kurtosis {}", moment(4));
        let lagged: f64 = draws.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum();
        assert!((lagged / draws.len() as f64).abs() < 0.01);
    }

    #[test]
    fn signs_and_choices_are_functions_of_the_words() {
        let noise = Noise::new(3, Stream::Probe, 5);
        let mut signs = [0.0; 6];
        noise.signs(9, &mut signs);
        let words: Vec<u32> = (0..6).map(|j| noise.unit_word(9, j)).collect();
        assert_eq!(words[..4], noise.words(9, 0));
        for (sign, word) in signs.into_iter().zip(&words) {
            assert_eq!(sign, if *word >= 1 << 31 { -1.0 } else { 1.0 });
        }
        let (share, count) = (0.3, 100_000);
        let picked = (0..count).filter(|unit| chosen(noise.unit_word(0, *unit), share)).count();
        assert!((picked as f64 / f64::from(count) - share).abs() < 0.005, "{picked}");
        assert!(!chosen(0, 0.0) && chosen(u32::MAX, 1.0));
        assert_eq!([0, 1 << 31, u32::MAX].map(|word| below(word, 7)), [0, 3, 6]);
    }

    #[test]
    fn normal_pair_is_box_muller() {
        for (a, b) in [(1u32, 2u32), (0, 0), (u32::MAX, u32::MAX), (0x1234_5678, 0x9abc_def0), (77, 1 << 31)] {
            let u = (f64::from(a >> 9) + 0.5) / 8_388_608.0;
            let quadrant = f64::from(b >> 30);
            let inside = f64::from((b << 2) >> 8) / 16_777_216.0 - 0.5;
            let angle = (quadrant + inside) * std::f64::consts::FRAC_PI_2;
            let r = (-2.0 * u.ln()).sqrt();
            let (x, y) = normal_pair(a, b);
            assert!((f64::from(x) - r * angle.cos()).abs() < 2e-6, "{x} against {}", r * angle.cos());
            assert!((f64::from(y) - r * angle.sin()).abs() < 2e-6, "{y} against {}", r * angle.sin());
        }
    }

    #[test]
    fn order_is_a_permutation_and_depends_on_the_epoch() {
        let (mut a, mut b) = ([0u32; 101], [0u32; 101]);
        epoch_order(5, 0, &mut a);
        epoch_order(5, 1, &mut b);
        assert_ne!(a, b);
        a.sort_unstable();
        assert!(a.iter().enumerate().all(|(i, v)| i as u32 == *v));
        let mut again = [0u32; 101];
        epoch_order(5, 1, &mut again);
        assert_eq!(b, again);
    }
}
