//! Values that are drawn: noise, marks and signs, all functions of the seed, the epoch and the row.

use cvae_core::rng::{chosen, normal_pair};
use cvae_core::{Noise, Op, Stream, ValueId};

use crate::run::{Pass, Worker};

impl Worker<'_> {
    /// Fills this thread's panels of the value that `op` draws; lanes outside the batch are 0.
    ///
    /// # Safety
    /// As for [`Worker::run`]; the panels are this thread's.
    pub(crate) unsafe fn draw(&self, pass: &Pass, op: &Op) {
        let noise = |stream: Stream| Noise::new(pass.seed, stream, pass.epoch);
        // SAFETY: as promised by the caller.
        unsafe {
            match *op {
                Op::Noise { stream, output } => {
                    let noise = noise(stream);
                    self.fill(pass, output, |row, block| {
                        let [a, b, c, d] = noise.words(row, block);
                        let ((a, b), (c, d)) = (normal_pair(a, b), normal_pair(c, d));
                        [a, b, c, d]
                    });
                }
                Op::Signs { stream, output } => {
                    let noise = noise(stream);
                    let sign = |word: u32| if word >> 31 == 1 { -1.0 } else { 1.0 };
                    self.fill(pass, output, |row, block| noise.words(row, block).map(sign));
                }
                Op::UnitVector { index, output } => {
                    let one = |feature: usize| if feature == index { 1.0 } else { 0.0 };
                    self.fill(pass, output, |_, block| [0, 1, 2, 3].map(|i| one(4 * block as usize + i)));
                }
                Op::Mask { share, ref units, output } => {
                    let noise = noise(Stream::Corrupt);
                    self.fill(pass, output, |row, block| {
                        // Neighbouring columns mostly share a block of words.
                        let mut words = (u32::MAX, [0; 4]);
                        [0, 1, 2, 3].map(|i| {
                            let Some(unit) = units.get(4 * block as usize + i) else { return 0.0 };
                            if words.0 != unit / 4 {
                                words = (unit / 4, noise.words(row, unit / 4));
                            }
                            if chosen(words.1[(unit % 4) as usize], share) { 1.0 } else { 0.0 }
                        })
                    });
                }
                _ => unreachable!("{op} draws nothing"),
            }
        }
    }

    /// Fills this thread's panels of a value, four features at a time: `four(row, block)` gives features
    /// `4·block..4·block + 4` of the row at that noise position.
    unsafe fn fill(&self, pass: &Pass, id: ValueId, four: impl Fn(u32, u32) -> [f32; 4]) {
        let (value, width) = (self.value(id), self.width());
        for panel in self.home(value) {
            let features = self.features(value, panel);
            for lane in 0..self.batch_panels(pass) * width {
                let row = (lane < pass.rows).then(|| self.noise_row(pass, lane));
                for feature in (0..features).step_by(4) {
                    let first = panel * width + feature;
                    let drawn = row.map_or([0.0; 4], |row| four(row, (first / 4) as u32));
                    for (i, x) in drawn.into_iter().enumerate().take(features - feature) {
                        // SAFETY: inside this thread's panel of the value.
                        unsafe { *self.at(value, lane / width, first + i).add(lane % width) = x };
                    }
                }
            }
        }
    }

    /// The noise position of a row of the batch.
    pub(crate) fn noise_row(&self, pass: &Pass, row: usize) -> u32 {
        match pass.order.is_null() {
            true => pass.first_noise.wrapping_add(row as u32),
            // SAFETY: the order holds `rows` indices.
            false => unsafe { *pass.order.add(row) },
        }
    }
}
