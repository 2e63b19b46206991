//! Work in parts, on one thread or on all of the current `rayon` pool.

use super::gate;
use crate::lock::{self, Lock};

/// Work on fewer elements is done sooner by the calling thread than by several that have to be woken.
const LEAST: usize = 1 << 16;

/// Calls `work` with each of `parts`, which together are about `elements` large, in any order and maybe at the same
/// time.
pub(super) fn for_each<P: Send>(parts: Vec<P>, elements: usize, work: impl Fn(P) + Sync) {
    for_each_with(parts, elements, || (), |(), part| work(part));
}

/// The results of `work` for each of `parts`, in their order, computed as [`for_each`] does.
pub(super) fn map<P: Send, R: Send>(parts: Vec<P>, elements: usize, work: impl Fn(P) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = parts.iter().map(|_| None).collect();
    let places = parts.into_iter().zip(&mut results).collect();
    for_each(places, elements, |(part, place)| *place = Some(work(part)));
    results.into_iter().flatten().collect()
}

/// As [`for_each`], with a state that is shared by parts that follow one another on the same thread.
pub(super) fn for_each_with<P: Send, S>(
    parts: Vec<P>,
    elements: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, P) + Sync,
) {
    let helpers = count(elements).min(parts.len()).saturating_sub(1);
    if helpers == 0 {
        let mut scratch = scratch();
        for part in parts {
            work(&mut scratch, part);
        }
        return;
    }
    let parts = Lock::new(parts.into_iter());
    gate::share(helpers, &|| {
        let mut own = None;
        while let Some(part) = parts.with(Iterator::next) {
            work(own.get_or_insert_with(&scratch), part);
        }
    });
}

/// The number of threads that work of this many elements is divided among.
pub(super) fn count(elements: usize) -> usize {
    // Every kernel asks before it begins.
    debug_assert!(lock::nothing_is_held(), "no lock is held while a kernel runs");
    if elements < LEAST { 1 } else { rayon::current_num_threads() }
}
