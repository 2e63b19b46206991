//! Memory for large results: zeroed, by several threads or when it is first written, and in huge pages where there are
//! any.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use super::threads;

/// Smaller buffers stay in the cache of one thread.
const LEAST_SHARED_BYTES: usize = 256 << 10;

/// The smallest buffers whose memory always comes from the operating system, zeroed, in the allocator of glibc. That of
/// smaller ones may have been in use before.
const FRESH_BYTES: usize = 32 << 20;

/// `len` times zero, for a `T` whose default is all bits zero.
///
/// The memory of a large buffer comes from the operating system when it is first written, page by page, which takes
/// longer than computing its values. On Linux, huge pages are requested, of which 512 times fewer are needed.
/// Smaller buffers are zeroed by several threads.
#[must_use]
#[allow(unsafe_code, reason = "see the proof")]
pub fn zeroed<T: Copy + Default + Send>(len: usize) -> Vec<T> {
    if !(LEAST_SHARED_BYTES..FRESH_BYTES).contains(&len.saturating_mul(size_of::<T>())) {
        return zeroed_when_written(len);
    }
    let mut values = Vec::with_capacity(len);
    #[cfg(target_os = "linux")]
    huge_pages::advise(values.spare_capacity_mut());
    let parts = values.spare_capacity_mut()[..len].chunks_mut((LEAST_SHARED_BYTES / 4 / size_of::<T>()).max(1));
    threads::for_each(parts.collect(), len, |part: &mut [MaybeUninit<T>]| part.fill(MaybeUninit::new(T::default())));
    // SAFETY: the capacity is at least `len`, and each of the first `len` elements lies in one of the parts, all of
    // which have been filled with values.
    unsafe { values.set_len(len) };
    values
}

/// The same, by what the allocator does about it.
fn zeroed_when_written<T: Copy + Default>(len: usize) -> Vec<T> {
    // The standard library asks for zeroed memory instead of writing zeros where it knows that a value is all bits
    // zero, as it does for numbers.
    #[allow(unused_mut, reason = "only Linux takes advice")]
    let mut values = vec![T::default(); len];
    #[cfg(target_os = "linux")]
    huge_pages::advise(&mut values);
    values
}

/// Elements that start at a line of the cache. Loads of vectors that lie across two lines take twice as long.
#[derive(Clone, Debug)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

/// A line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Types all of whose bits are valid, whatever they are.
///
/// # Safety
///
/// The type has no padding, an alignment of at most 64, and every pattern of bits is a value.
#[allow(unsafe_code, reason = "that is what makes views of bytes sound")]
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: numbers have no padding and no invalid values, and neither have arrays of them.
#[allow(unsafe_code, reason = "see the proof")]
unsafe impl Plain for u8 {}

// SAFETY: as above.
#[allow(unsafe_code, reason = "see the proof")]
unsafe impl Plain for u32 {}

// SAFETY: as above.
#[allow(unsafe_code, reason = "see the proof")]
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

impl<T: Plain> Aligned<T> {
    /// `len` times zero. It may be called from one of several threads that work together.
    pub(crate) fn zeroed(len: usize) -> Self {
        Self {
            lines: zeroed_when_written((len * size_of::<T>()).div_ceil(size_of::<Line>())),
            len,
            elements: PhantomData,
        }
    }

    /// The first `len` elements of a buffer that is made as long as that; what they are is not specified.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Self::zeroed(len);
        }
        &mut self[..len]
    }
}

impl<T: Plain> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    #[allow(unsafe_code, reason = "see the proof")]
    fn deref(&self) -> &[T] {
        // SAFETY: the lines have at least `len` elements' bytes, all initialized, which are valid for `T` and aligned
        // for it, since `T` is `Plain`. The result borrows the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    #[allow(unsafe_code, reason = "see the proof")]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, with the lines borrowed mutably. Whatever is written is valid as bytes, since `T` has
        // no padding.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(target_os = "linux")]
mod huge_pages {
    use std::ffi::c_void;

    use rustix::mm::{Advice, madvise};

    /// Smaller buffers have too few huge pages for a system call to pay off, and are not worth the memory that a huge
    /// page takes at their ends.
    const LEAST_BYTES: usize = 4 << 20;

    /// The size of the smallest pages that Linux has on any processor, and a divisor of all others.
    const PAGE: usize = 4096;

    /// Requests huge pages where the buffer has not been touched yet. Everything works without them, too.
    #[allow(unsafe_code, reason = "see the proof")]
    pub(super) fn advise<T>(values: &mut [T]) {
        let bytes = size_of_val(values);
        if bytes < LEAST_BYTES {
            return;
        }
        let start = values.as_mut_ptr().cast::<c_void>();
        let to_page = start.addr().next_multiple_of(PAGE) - start.addr();
        let len = (bytes - to_page) / PAGE * PAGE;
        // SAFETY: the pages from `to_page` on for `len` bytes lie within the buffer, which is borrowed mutably. The
        // advice changes how the kernel backs them, never what they hold. It fails where pages are larger or there are
        // no huge ones, without any effect.
        let _ = unsafe { madvise(start.byte_add(to_page), len, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::{Aligned, zeroed};

    #[test]
    fn aligned_elements_are_zero_and_start_at_a_line() {
        for len in [0, 1, 63, 64, 65, 1000, 1 << 20] {
            let mut values = Aligned::<u32>::zeroed(len);
            assert!(values.iter().all(|value| *value == 0) && values.len() == len);
            assert!(values.as_ptr().addr().is_multiple_of(64));
            values.fill(7);
            assert_eq!(values.at_least(len), vec![7; len]);
            assert_eq!(values.at_least(len + 1).len(), len + 1);
            assert!(values.as_ptr().addr().is_multiple_of(64));
            assert_eq!(values.clone().to_vec(), values.to_vec());
        }
    }

    #[test]
    fn buffers_of_all_sizes_are_zero_and_writable() {
        for len in [0, 1, 1000, 1 << 20, (1 << 20) + 1, (4 << 20) + 12_345] {
            let mut values = zeroed::<u32>(len);
            assert_eq!(values.len(), len);
            assert!(values.iter().all(|value| *value == 0), "{len}");
            values.fill(7);
            assert!(values.iter().all(|value| *value == 7), "{len}");
        }
        assert!(zeroed::<u8>(5 << 20).iter().all(|value| *value == 0));
        assert!(zeroed::<f64>(1 << 20).iter().all(|value| value.to_bits() == 0));
    }
}
