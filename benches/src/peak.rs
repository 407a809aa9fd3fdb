//! What the machine can do: measured beside every session, because virtual machines move.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cvae_cpu::Level;
use serde::{Deserialize, Serialize};

use crate::stats;

/// Measured limits of the machine, all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// Fused multiply-adds in `f32`, in 10⁹ operations a second (two per multiply-add).
    pub gflops: f64,
    /// The same for one thread alone; two threads on one physical core do not double it.
    pub gflops_one: f64,
    /// Reads of a block larger than the caches, in 10⁹ bytes a second.
    pub memory_gbs: f64,
    /// One way between two cores, in nanoseconds.
    pub ping_pong_ns: f64,
}

/// How long a try of a peak lasts.
const LENGTH: Duration = Duration::from_millis(60);

impl Peaks {
    /// Measures every limit with `threads` threads, in about a second.
    pub fn measure(threads: usize) -> Self {
        Self {
            gflops: best_of_three(threads, LENGTH, multiply_add) / 1e9,
            gflops_one: best_of_three(1, LENGTH, multiply_add) / 1e9,
            memory_gbs: best_of_three(threads, LENGTH, read) / 1e9,
            ping_pong_ns: ping_pong(),
        }
    }

    /// The larger of each rate and the smaller latency.
    pub fn best(self, other: Self) -> Self {
        Self {
            gflops: self.gflops.max(other.gflops),
            gflops_one: self.gflops_one.max(other.gflops_one),
            memory_gbs: self.memory_gbs.max(other.memory_gbs),
            ping_pong_ns: self.ping_pong_ns.min(other.ping_pong_ns),
        }
    }
}

/// The machine while the rounds of a case ran, sampled before each of them: virtual cores move, and two of them on one
/// physical core have half of its peak each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundPeaks {
    /// Median of all threads' multiply-adds, in 10⁹ operations a second.
    pub gflops: f64,
    /// The least of a round.
    pub gflops_low: f64,
    /// The most of a round.
    pub gflops_high: f64,
    /// Median of one way between two cores, in nanoseconds.
    pub ping_pong_ns: f64,
}

impl RoundPeaks {
    /// What one round sees: operations a second, and nanoseconds between cores. Takes 80 ms: the best of three tries,
    /// because threads that have just started may share a core for a while.
    pub fn sample(threads: usize) -> (f64, f64) {
        (best_of_three(threads, Duration::from_millis(20), multiply_add) / 1e9, ping_pong())
    }

    /// The samples of all rounds together; nothing for none.
    pub fn of(samples: &[(f64, f64)]) -> Option<Self> {
        let (gflops, latencies): (Vec<f64>, Vec<f64>) = samples.iter().copied().unzip();
        (!samples.is_empty()).then(|| Self {
            gflops: stats::median(&gflops),
            gflops_low: stats::quantile(&gflops, 0.0),
            gflops_high: stats::quantile(&gflops, 1.0),
            ping_pong_ns: stats::median(&latencies),
        })
    }
}

/// Runs `work` on every thread for `length` and adds up their rates; the best of three tries.
fn best_of_three(threads: usize, length: Duration, work: fn(Duration) -> f64) -> f64 {
    (0..3).map(|_| once(threads, length, work)).fold(0.0, f64::max)
}

/// Runs `work` on every thread for `length` and adds up their rates.
fn once(threads: usize, length: Duration, work: fn(Duration) -> f64) -> f64 {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(move || work(length))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(0.0)).sum()
    })
}

/// Independent chains of multiply-adds at the widest level of the processor; operations a second.
fn multiply_add(limit: Duration) -> f64 {
    let begin = Instant::now();
    let mut operations = 0.0;
    while begin.elapsed() < limit {
        operations += Level::best().multiply_adds() as f64;
    }
    operations / begin.elapsed().as_secs_f64()
}

/// Sums a block of 128 MiB; bytes a second.
fn read(limit: Duration) -> f64 {
    let block = vec![1u64; 16 << 20];
    let begin = Instant::now();
    let mut bytes = 0.0;
    while begin.elapsed() < limit {
        let mut sums = [0u64; 8];
        for chunk in black_box(&block).chunks_exact(8) {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*value);
            }
        }
        black_box(sums);
        bytes += size_of_val(block.as_slice()) as f64;
    }
    bytes / begin.elapsed().as_secs_f64()
}

/// Half of a round trip of a cache line between two threads.
fn ping_pong() -> f64 {
    const TURNS: usize = 20_000;
    let ball = AtomicUsize::new(0);
    let play = |parity: usize| {
        for turn in (parity..2 * TURNS).step_by(2) {
            let mut spins = 0u32;
            while ball.load(Ordering::Acquire) != turn {
                spins += 1;
                if spins.is_multiple_of(10_000) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
            ball.store(turn + 1, Ordering::Release);
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| play(1));
        let begin = Instant::now();
        play(0);
        let seconds = begin.elapsed().as_secs_f64();
        let _ = other.join();
        seconds * 1e9 / (2 * TURNS) as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_positive() {
        let peaks = Peaks::measure(1);
        assert!(peaks.gflops > 0.0 && peaks.memory_gbs > 0.0 && peaks.ping_pong_ns > 0.0, "{peaks:?}");
        let (gflops, latency) = RoundPeaks::sample(1);
        assert!(gflops > 0.0 && latency > 0.0, "{gflops} {latency}");
    }

    #[test]
    fn rounds_have_a_median_and_a_range() {
        let peaks = RoundPeaks::of(&[(100.0, 50.0), (200.0, 20.0), (190.0, 30.0)]).unwrap();
        let expected = RoundPeaks { gflops: 190.0, gflops_low: 100.0, gflops_high: 200.0, ping_pong_ns: 30.0 };
        assert_eq!(peaks, expected);
        assert_eq!(RoundPeaks::of(&[]), None);
    }
}
