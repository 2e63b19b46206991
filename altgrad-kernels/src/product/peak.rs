//! How fast could a product of codes be at best? Measured by hand, for `docs/PERFORMANCE.md`.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::print_stdout, reason = "prints what it measures")]

use std::time::Instant;

use super::avx512::multiply_pairs;
use crate::level::Level;

#[test]
#[ignore = "measures; run it alone with --release --nocapture"]
#[allow(unsafe_code, reason = "see the proof")]
fn peak_of_pairs() {
    let Some(Level::Avx512Bf16(_)) = Level::available().last() else { return };
    let rounds = 10_000_000;
    // Of a round: 24 vectors of 32 products and sums.
    let operations = 24.0 * 64.0 * rounds as f64;
    for threads in [1, rayon::current_num_threads()] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                // SAFETY: the level proves that the processor has the features that the function is compiled for.
                scope.spawn(|| std::hint::black_box(unsafe { multiply_pairs(rounds) }));
            }
        });
        let rate = threads as f64 * operations / start.elapsed().as_secs_f64();
        println!("{threads} threads: {:.0} GFLOP/s", rate * 1e-9);
    }
}
