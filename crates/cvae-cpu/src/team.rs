//! Who works on what: fixed shards, and contiguous ranges of them for each thread.
//!
//! Sums over a split dimension are formed shard by shard, and added as a binary tree over the shards. The number of
//! shards depends on the width alone, so that every thread count adds in the same order and gives the same bits; a
//! thread adds up the subtrees that it owns as it goes.

use std::ops::Range;

/// Most shards of a split dimension; also the number of threads that share one product along it.
pub(crate) const MAX_SHARDS: usize = 8;

/// A sum of consecutive shards that one thread formed, kept in the buffer of its first shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Node {
    /// The first shard.
    pub(crate) shard: usize,
    /// How many sums to its left it completes, one after the other, each of twice as many shards.
    pub(crate) merges: usize,
}

/// The sums that `threads` threads leave of a dimension of `panels` panels, in the order of the shards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nodes {
    nodes: [Node; MAX_SHARDS],
    count: usize,
    /// See [`Nodes::are_whole`].
    whole: bool,
}

impl Nodes {
    /// The sums of `threads` threads.
    pub(crate) fn new(panels: usize, threads: usize) -> Self {
        let mut found = Self { nodes: [Node::default(); MAX_SHARDS], count: 0, whole: false };
        for thread in 0..threads {
            let share = Member { thread, threads }.shards(panels);
            if share.sub > 0 {
                continue;
            }
            for shard in share.shards.clone() {
                let own = merges(shard, share.shards.start);
                // The sums to the left that `own` merges used up are not kept.
                found.count -= own;
                let (width, all) = (1 << own, merges(shard, 0));
                found.nodes[found.count] = Node { shard: shard + 1 - width, merges: all - own };
                found.count += 1;
            }
        }
        found.whole = (0..).zip(found.as_slice()).all(|(index, node)| node.merges == merges(index, 0));
        found
    }

    /// Whether the sums are a whole tree: each completes the sums to its left that it would if they were shards.
    pub(crate) fn are_whole(&self) -> bool {
        self.whole
    }

    /// The sums.
    pub(crate) fn as_slice(&self) -> &[Node] {
        &self.nodes[..self.count]
    }
}

/// How many sums to its left `shard` completes, of those that begin at shard `first` or later.
pub(crate) fn merges(shard: usize, first: usize) -> usize {
    let completes = |level: &usize| (shard + 1).is_multiple_of(2 << level) && shard + 1 - (2 << level) >= first;
    (0..usize::BITS as usize - 2).take_while(completes).count()
}

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

    /// The expression that a reduction evaluates: what its threads added, then what is left.
    fn expression(panels: usize, threads: usize) -> String {
        let mut buffers = vec![String::new(); MAX_SHARDS];
        for thread in 0..threads {
            let share = Member { thread, threads }.shards(panels);
            for shard in share.shards.clone() {
                let mut sum = shard.to_string();
                let own = merges(shard, share.shards.start);
                for level in 0..own {
                    sum = format!("({}+{sum})", buffers[shard + 1 - (2 << level)]);
                }
                buffers[shard + 1 - (1 << own)] = sum;
            }
        }
        let mut stack: Vec<String> = vec![];
        for node in Nodes::new(panels, threads).as_slice() {
            let mut sum = buffers[node.shard].clone();
            for _ in 0..node.merges {
                sum = format!("({}+{sum})", stack.pop().unwrap());
            }
            stack.push(sum);
        }
        stack.into_iter().reduce(|a, b| format!("({a}+{b})")).unwrap()
    }

    #[test]
    fn every_number_of_threads_adds_in_the_same_order() {
        assert_eq!(expression(8, 1), "(((0+1)+(2+3))+((4+5)+(6+7)))");
        assert_eq!(expression(7, 1), "((((0+1)+(2+3))+(4+5))+6)");
        for panels in 1..20 {
            for threads in 2..20 {
                assert_eq!(expression(panels, threads), expression(panels, 1), "{panels} panels, {threads} threads");
            }
        }
        // Two threads leave two sums, so that a reduction reads no more than it must.
        assert_eq!(Nodes::new(49, 2).as_slice().len(), 2);
        assert_eq!(Nodes::new(49, 1).as_slice().len(), 1);
    }

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
