//! Memory for large results: zeroed, not touched before it is written, and in huge pages where there are any.

/// `len` times zero, for a `T` whose default is all bits zero.
///
/// The memory of a large buffer comes from the operating system when it is first written, page by page, which takes
/// longer than computing its values. On Linux, huge pages are requested, of which 512 times fewer are needed.
#[must_use]
pub fn zeroed<T: Copy + Default>(len: usize) -> Vec<T> {
    // The standard library asks for zeroed memory instead of writing zeros where it knows that a value is all bits
    // zero, as it does for numbers.
    #[allow(unused_mut, reason = "only Linux takes advice")]
    let mut values = vec![T::default(); len];
    #[cfg(target_os = "linux")]
    huge_pages::advise(&mut values);
    values
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
    use super::zeroed;

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
