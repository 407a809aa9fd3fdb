//! Who works on what: fixed shards, and contiguous ranges of them for each thread.
//!
//! Sums over a split dimension are formed shard by shard. The number of shards depends on the width alone,
//! so that every thread count adds in the same order and gives the same bits.

use std::ops::Range;

/// Most shards of a split dimension; also the number of threads that share one product along it.
const MAX_SHARDS: usize = 8;

/// Number of shards of a dimension of `panels` panels.
pub(crate) fn shards(panels: usize) -> usize {
    panels.min(MAX_SHARDS)
}

/// The panels of one shard.
pub(crate) fn shard(panels: usize, shard: usize) -> Range<usize> {
    let count = shards(panels);
    shard * panels / count..(shard + 1) * panels / count
}

/// One thread among several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) thread: usize,
    pub(crate) threads: usize,
}

/// A thread's share of a partial product: whole shards, and its share of each shard's result rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ShardShare {
    pub(crate) shards: Range<usize>,
    pub(crate) sub: usize,
    pub(crate) subs: usize,
}

impl Member {
    /// Whether threads own whole shards of a dimension, so that what one wrote only it reads.
    pub(crate) fn owns_shards(threads: usize, panels: usize) -> bool {
        threads <= shards(panels)
    }

    /// The shards this thread works on. With more threads than shards, several share one.
    pub(crate) fn shards(self, panels: usize) -> ShardShare {
        let count = shards(panels);
        if Self::owns_shards(self.threads, panels) {
            return ShardShare { shards: part(count, self), sub: 0, subs: 1 };
        }
        let subs = self.threads / count;
        let shard = (self.thread / subs).min(count);
        let end = (shard + 1).min(count);
        ShardShare { shards: shard..end, sub: self.thread % subs, subs }
    }

    /// The panels of a split dimension that this thread owns.
    pub(crate) fn panels(self, panels: usize) -> Range<usize> {
        let share = self.shards(panels);
        if share.shards.is_empty() {
            return 0..0;
        }
        let first = shard(panels, share.shards.start).start;
        let last = shard(panels, share.shards.end - 1).end;
        let within = part(last - first, Self { thread: share.sub, threads: share.subs });
        first + within.start..first + within.end
    }
}

/// The contiguous share of `count` items that falls to a thread.
pub(crate) fn part(count: usize, member: Member) -> Range<usize> {
    member.thread * count / member.threads..(member.thread + 1) * count / member.threads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_has_one_owner() {
        for panels in 1..60 {
            for threads in 1..70 {
                let mut owners = vec![0; panels];
                let mut rows = vec![0; shards(panels)];
                for thread in 0..threads {
                    let member = Member { thread, threads };
                    member.panels(panels).for_each(|panel| owners[panel] += 1);
                    let share = member.shards(panels);
                    let of_rows = part(100, Member { thread: share.sub, threads: share.subs }).len();
                    share.shards.for_each(|shard| rows[shard] += of_rows);
                }
                assert!(owners.iter().all(|count| *count == 1), "{panels} panels, {threads} threads");
                assert!(rows.iter().all(|count| *count == 100), "{panels} panels, {threads} threads");
            }
        }
    }
}
