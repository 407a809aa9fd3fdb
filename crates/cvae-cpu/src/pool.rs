//! Persistent worker threads that spin, then park.
//!
//! A job is one closure run by every thread. Inside a job, threads meet at a [`Barrier`]; nothing allocates,
//! locks or starts a thread. More threads than cores make progress because waiting yields the core.

use std::cell::UnsafeCell;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use cvae_core::CompileError;

/// Spins before a waiting thread yields its core where every thread has one.
const SPINS: u32 = 4096;
/// The same where threads share cores, so that the one waited for can run.
const SPINS_SHARED: u32 = 16;
/// Yields before an idle worker parks.
const YIELDS: u32 = 64;

/// Spins that suit a number of threads.
fn spins_for(threads: usize) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if threads <= cores { SPINS } else { SPINS_SHARED }
}

/// A counter on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Padded(AtomicUsize);

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Number of the newest job.
    generation: Padded,
    /// Workers still busy with it.
    running: Padded,
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
    panicked: AtomicBool,
    spins: u32,
}

// SAFETY: `job` is written only while no worker runs, before `generation` is released, and read only after
// `generation` is acquired.
unsafe impl Sync for Shared {}
// SAFETY: the job pointer is used only while `Pool::run` keeps its closure alive.
unsafe impl Send for Shared {}

/// A fixed set of threads; the caller is thread 0.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads − 1` workers.
    pub(crate) fn new(threads: usize) -> Result<Self, CompileError> {
        let shared = Arc::new(Shared {
            generation: Padded::default(),
            running: Padded::default(),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            spins: spins_for(threads),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads.saturating_sub(1)) };
        for thread in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("cvae-cpu-{thread}"))
                .spawn(move || work(&shared, thread))
                .map_err(|source| CompileError::Threads { threads, source })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Number of threads, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(thread)` on every thread and returns when all are done.
    pub(crate) fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let shared = &*self.shared;
        shared.running.0.store(self.workers.len(), Ordering::Relaxed);
        // SAFETY: no worker runs (`&mut self`, and the last call waited), so nobody reads `job` now. The
        // lifetime is erased; this function does not return before every worker is done with the closure.
        unsafe {
            let job = std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job);
            *shared.job.get() = Some(job);
        }
        shared.generation.0.fetch_add(1, Ordering::Release);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        // A guard, so that a panic of thread 0 still waits for the workers that borrow the closure.
        struct Wait<'a>(&'a Shared);
        impl Drop for Wait<'_> {
            fn drop(&mut self) {
                let mut spins = 0;
                while self.0.running.0.load(Ordering::Acquire) != 0 {
                    relax(&mut spins, self.0.spins);
                }
            }
        }
        let wait = Wait(shared);
        job(0);
        drop(wait);
        assert!(!shared.panicked.load(Ordering::Relaxed), "a worker thread panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.generation.0.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches its panics, so joining cannot fail.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, thread: usize) {
    let mut done = 0;
    loop {
        let mut spins = 0;
        while shared.generation.0.load(Ordering::Acquire) == done {
            if spins < shared.spins + YIELDS {
                relax(&mut spins, shared.spins);
            } else {
                std::thread::park();
            }
        }
        done += 1;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the generation was acquired after `job` was written, and `run` waits for `running`.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            // SAFETY: `run` keeps the closure alive until `running` is 0.
            let call = std::panic::AssertUnwindSafe(|| unsafe { (*job)(thread) });
            if std::panic::catch_unwind(call).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.running.0.fetch_sub(1, Ordering::Release);
    }
}

/// One turn of waiting: a pause, then a yield.
fn relax(spins: &mut u32, limit: u32) {
    *spins = spins.saturating_add(1);
    if *spins < limit {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// A barrier in two halves: a thread arrives when others may go on, and waits when it needs them.
///
/// Each thread calls `arrive` and `wait` in the same order; the n-th `wait` returns once every thread has
/// arrived n times.
pub(crate) struct Barrier {
    arrived: Vec<Padded>,
    spins: u32,
}

/// A thread's place in the sequence of barriers.
#[derive(Default)]
pub(crate) struct Turn {
    arrived: usize,
    waited: usize,
}

impl Barrier {
    /// A barrier for `threads` threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self { arrived: (0..threads).map(|_| Padded::default()).collect(), spins: spins_for(threads) }
    }

    /// Where a thread stands at the start of a job; all threads agree then.
    pub(crate) fn turn(&self, thread: usize) -> Turn {
        let arrived = self.arrived[thread].0.load(Ordering::Relaxed);
        Turn { arrived, waited: arrived }
    }

    /// Publishes everything this thread wrote.
    pub(crate) fn arrive(&self, thread: usize, turn: &mut Turn) {
        turn.arrived += 1;
        self.arrived[thread].0.store(turn.arrived, Ordering::Release);
    }

    /// Waits until every thread has arrived as often as this thread now waits.
    pub(crate) fn wait(&self, turn: &mut Turn) {
        turn.waited += 1;
        for counter in &self.arrived {
            let mut spins = 0;
            while counter.0.load(Ordering::Acquire) < turn.waited {
                relax(&mut spins, self.spins);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barrier_orders_more_threads_than_cores() {
        let threads = 7;
        let mut pool = Pool::new(threads).unwrap();
        let barrier = Barrier::new(threads);
        let slots: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..20 {
            pool.run(&|thread| {
                let mut turn = barrier.turn(thread);
                for _ in 0..50 {
                    let before = slots[thread].fetch_add(1, Ordering::Relaxed) + 1;
                    barrier.arrive(thread, &mut turn);
                    barrier.wait(&mut turn);
                    for slot in &slots {
                        assert_eq!(slot.load(Ordering::Relaxed), before);
                    }
                    barrier.arrive(thread, &mut turn);
                    barrier.wait(&mut turn);
                }
            });
        }
        assert!(slots.iter().all(|slot| slot.load(Ordering::Relaxed) == 1000));
    }

    #[test]
    fn idle_workers_wake_up_again() {
        let mut pool = Pool::new(3).unwrap();
        let calls = AtomicUsize::new(0);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            pool.run(&|_| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(calls.into_inner(), 9);
    }
}
