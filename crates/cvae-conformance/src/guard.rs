//! Caller-provided buffers between guard words.

use std::fmt::Debug;

/// Guard words on each side: more than a vector register, and odd, so that no buffer is aligned by luck.
const PADDING: usize = 67;

/// A number that a guard word can be made of.
pub(crate) trait Word: Copy + PartialEq + Debug {
    /// The guard: a value that poisons any result it leaks into, where the type has one.
    const GUARD: Self;

    /// Equality of bits.
    fn same(self, other: Self) -> bool;
}

impl Word for f32 {
    const GUARD: Self = f32::from_bits(0x7fc0_ab1e);

    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl Word for f64 {
    const GUARD: Self = f64::from_bits(0x7ff8_0000_dead_ab1e);

    fn same(self, other: Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

impl Word for u8 {
    const GUARD: Self = 0xa5;

    fn same(self, other: Self) -> bool {
        self == other
    }
}

impl Word for u32 {
    const GUARD: Self = 0xdead_ab1e;

    fn same(self, other: Self) -> bool {
        self == other
    }
}

/// A buffer whose surroundings a call must neither write nor, where a guard is a NaN, let into its results.
pub(crate) struct Guarded<T> {
    words: Vec<T>,
}

impl<T: Word> Guarded<T> {
    /// A copy of `values` between guards.
    pub(crate) fn new(values: &[T]) -> Self {
        let guard = [T::GUARD; PADDING];
        Self { words: [&guard, values, &guard].concat() }
    }

    /// `len` guard words between guards: what a call must overwrite completely.
    pub(crate) fn unwritten(len: usize) -> Self {
        Self { words: vec![T::GUARD; len + 2 * PADDING] }
    }

    /// The buffer.
    pub(crate) fn inside(&self) -> &[T] {
        &self.words[PADDING..self.words.len() - PADDING]
    }

    /// The buffer, for the call under test.
    pub(crate) fn inside_mut(&mut self) -> &mut [T] {
        let end = self.words.len() - PADDING;
        &mut self.words[PADDING..end]
    }

    /// Position of a guard word that was overwritten, relative to the buffer's start.
    pub(crate) fn broken(&self) -> Option<isize> {
        let end = self.words.len() - PADDING;
        let outside = |index: &usize| *index < PADDING || *index >= end;
        let broken = (0..self.words.len()).filter(outside).find(|index| !self.words[*index].same(T::GUARD));
        broken.map(|index| index as isize - PADDING as isize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_outside_is_found() {
        let mut buffer = Guarded::new(&[1.0f32, 2.0]);
        buffer.inside_mut().fill(0.0);
        assert_eq!(buffer.broken(), None);
        buffer.words[PADDING + 2] = 0.0;
        assert_eq!(buffer.broken(), Some(2));
        let mut buffer = Guarded::<u8>::unwritten(3);
        buffer.words[PADDING - 1] = 0;
        assert_eq!(buffer.broken(), Some(-1));
    }
}
