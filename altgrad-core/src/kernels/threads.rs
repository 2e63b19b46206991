//! Work in parts, on one thread or on all of the current `rayon` pool.

use rayon::prelude::*;

/// Work of fewer elements is done sooner by the thread that has it than by several that have to be woken.
const LEAST: usize = 1 << 16;

/// Calls `work` with each of `parts`, which together are about `elements` large, in any order and maybe at the same time.
pub(super) fn for_each<P: Send>(parts: Vec<P>, elements: usize, work: impl Fn(P) + Sync + Send) {
    if is_worthwhile(elements) && parts.len() > 1 {
        parts.into_par_iter().for_each(work);
    } else {
        parts.into_iter().for_each(work);
    }
}

/// The results of `work` for each of `parts`, in their order, computed as [`for_each`] does.
pub(super) fn map<P: Send, R: Send>(parts: Vec<P>, elements: usize, work: impl Fn(P) -> R + Sync + Send) -> Vec<R> {
    if is_worthwhile(elements) && parts.len() > 1 {
        parts.into_par_iter().map(work).collect()
    } else {
        parts.into_iter().map(work).collect()
    }
}

/// As [`for_each`], with something of their own for parts that follow one another on the same thread.
pub(super) fn for_each_with<P: Send, S>(
    parts: Vec<P>,
    elements: usize,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, P) + Sync + Send,
) {
    if is_worthwhile(elements) && parts.len() > 1 {
        parts.into_par_iter().for_each_init(scratch, work);
    } else {
        let mut scratch = scratch();
        for part in parts {
            work(&mut scratch, part);
        }
    }
}

/// The number of threads that work of this many elements is divided among.
pub(super) fn count(elements: usize) -> usize {
    if is_worthwhile(elements) { rayon::current_num_threads() } else { 1 }
}

fn is_worthwhile(elements: usize) -> bool {
    elements >= LEAST
}
