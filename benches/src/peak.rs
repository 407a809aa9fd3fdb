//! What the machine can do: measured beside every session, because virtual machines move.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cvae_cpu::Level;
use serde::{Deserialize, Serialize};

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

impl Peaks {
    /// Measures every limit with `threads` threads, in about a second.
    pub fn measure(threads: usize) -> Self {
        Self {
            gflops: together(threads, multiply_add) / 1e9,
            gflops_one: together(1, multiply_add) / 1e9,
            memory_gbs: together(threads, read) / 1e9,
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

/// Runs `work` on every thread for a while and adds up their rates; the best of three tries.
fn together(threads: usize, work: fn(Duration) -> f64) -> f64 {
    let tries = (0..3).map(|_| {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(move || work(Duration::from_millis(60)))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(0.0)).sum::<f64>()
        })
    });
    tries.fold(0.0, f64::max)
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
    }
}
