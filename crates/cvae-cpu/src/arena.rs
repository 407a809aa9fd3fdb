//! One aligned, zeroed allocation that hands out its parts.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use cvae_core::CompileError;

/// Alignment of every part: a cache line and a 512-bit vector.
const ALIGN: usize = 64;

/// Size of a huge page; larger allocations are aligned to it and ask for such pages.
const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// Bytes behind the last float that may be read, though never used: a tile unit reads 16 rows of 64 bytes where fewer
/// are left.
const SLACK: usize = 1024;

/// A fixed number of floats at a fixed address, zero at first.
pub(crate) struct Arena {
    start: NonNull<f32>,
    layout: Layout,
}

// SAFETY: the arena owns its memory; who touches which part when is decided by the schedule's barriers.
unsafe impl Send for Arena {}
// SAFETY: as above; the arena itself only hands out raw pointers.
unsafe impl Sync for Arena {}

impl Arena {
    /// `floats` zeros.
    pub(crate) fn new(floats: usize, what: &'static str) -> Result<Self, CompileError> {
        let bytes = floats.saturating_mul(size_of::<f32>()).saturating_add(SLACK);
        let memory = CompileError::Memory { bytes, what };
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        let Ok(layout) = Layout::from_size_align(bytes, align) else { return Err(memory) };
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE && !start.is_null() {
            // Weights stream through the caches once a step, and small pages would miss the TLB all along. A
            // refusal costs speed alone.
            // SAFETY: the range is ours; the advice does not change its contents.
            unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        match NonNull::new(start) {
            Some(start) => Ok(Self { start, layout }),
            None => Err(memory),
        }
    }

    /// Pointer to the float at `offset`, which is at most the arena's length.
    pub(crate) fn at(&self, offset: usize) -> *mut f32 {
        debug_assert!(offset * size_of::<f32>() <= self.layout.size());
        // SAFETY: inside the allocation, or one past its end.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// Assigns offsets in an arena, each at a cache line's start.
#[derive(Default)]
pub(crate) struct Offsets {
    len: usize,
}

impl Offsets {
    /// Reserves `floats`.
    pub(crate) fn take(&mut self, floats: usize) -> usize {
        let offset = self.len;
        self.len = (offset + floats).next_multiple_of(ALIGN / size_of::<f32>());
        offset
    }

    /// Floats reserved so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
