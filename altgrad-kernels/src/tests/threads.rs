//! Parts and threads: no bit depends on where one part of a tensor ends and the next one begins, nor on who computes
//! it.

use half::bf16;

use super::*;
use crate::{Draws, loops};

const ROWS: usize = 301;
const COLS: usize = 2100;

/// Rows and columns of a block.
const BLOCKS: [(usize, usize); 7] = [(ROWS, COLS), (1, COLS), (128, 128), (1, 32), (7, COLS), (2, 1500), (ROWS, 1)];

/// The bits of everything that kernels make of a tensor.
#[derive(PartialEq)]
struct Results {
    amax: Vec<u64>,
    fake: Vec<u64>,
    codes: Vec<u8>,
    decoded: Vec<u64>,
}

fn sample<T: Sample>(elements: usize) -> Vec<T> {
    (0..elements).map(|i| T::near(((i * 7919 + 13) % 100_003) as f64 * 0.01 - 500.0)).collect()
}

fn conversions(blocks: Blocks) -> impl Iterator<Item = Conversion> {
    let scales = |block: usize| 0.25 + 0.083 * (block % 1001) as f32;
    let divided: Vec<_> = (0..blocks.count()).map(|block| Scale::new(scales(block))).collect();
    let multiplied = divided.iter().map(|scale| Scale::with_multiplier(scale.value(), 1.0 / scale.value())).collect();
    [(divided.clone(), None), (multiplied, None), (divided, Some(Draws { seed: 1, stream: 2, step: 3 }))]
        .map(|(scales, draws)| Conversion { draws, ..Conversion::saturating(Fp8::E4M3, blocks, scales) })
        .into_iter()
}

fn results<T: Sample>(values: &[T], conversion: &Conversion) -> Results {
    let level = Level::detect();
    let (mut fake, mut codes) = (vec![T::near(7.0); values.len()], vec![0xEE; values.len()]);
    let mut decoded = fake.clone();
    let amax = elementwise::amax(level, values, conversion.blocks);
    elementwise::fake_quantize(level, values, &mut fake, conversion);
    assert!(elementwise::encode(level, values, &mut codes, conversion));
    let scales: Vec<f32> = conversion.scales.iter().map(|scale| scale.value()).collect();
    elementwise::decode(level, &codes, &mut decoded, conversion.format, conversion.blocks, &scales);
    let bits = |values: Vec<T>| values.into_iter().map(Sample::bits).collect();
    Results { amax: amax.into_iter().map(f64::to_bits).collect(), fake: bits(fake), codes, decoded: bits(decoded) }
}

fn on_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

fn check_threads<T: Sample>() {
    let values: Vec<T> = sample(ROWS * COLS);
    for (block_rows, block_cols) in BLOCKS {
        for conversion in conversions(Blocks::new(ROWS, COLS, block_rows, block_cols)) {
            let one = on_threads(1, || results(&values, &conversion));
            for threads in [2, 3] {
                assert!(on_threads(2, || elementwise::part_len(values.len())) < values.len(), "too few for threads");
                let several = on_threads(threads, || results(&values, &conversion));
                assert!(several == one, "{threads} threads, {block_rows} × {block_cols}, {:?}", conversion.draws);
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    check_threads::<f32>();
    check_threads::<f64>();
    check_threads::<bf16>();
    check_threads::<f16>();
}

#[test]
fn nan_is_seen_on_every_thread() {
    let mut values = vec![0.5f32; ROWS * COLS];
    let conversion = whole(values.len(), Fp8::E3M4, 1.0);
    let mut codes = vec![0; values.len()];
    for position in [0, ROWS * COLS / 2, ROWS * COLS - 1] {
        values[position] = f32::NAN;
        on_threads(3, || {
            assert!(!elementwise::encode(Level::detect(), &values, &mut codes, &conversion), "{position}");
            assert!(elementwise::amax(Level::detect(), &values, conversion.blocks)[0].is_nan(), "{position}");
        });
        values[position] = 0.5;
    }
}

#[test]
fn parts_may_begin_and_end_anywhere() {
    let (rows, cols) = (5, 700);
    let values: Vec<f32> = sample(rows * cols);
    for (block_rows, block_cols) in [(5, 700), (1, 700), (2, 700), (2, 300), (1, 32), (3, 7)] {
        let blocks = Blocks::new(rows, cols, block_rows, block_cols);
        for conversion in conversions(blocks) {
            let expected = results(&values, &conversion);
            let scales: Vec<f32> = conversion.scales.iter().map(|scale| scale.value()).collect();
            for len in [1, 3, 31, 699, 1023, 1500] {
                let found = on_every_level(|level| {
                    let (mut fake, mut codes) = (vec![0.0; values.len()], vec![0; values.len()]);
                    let (mut decoded, mut amax) = (fake.clone(), vec![0.0; blocks.count()]);
                    for first in (0..values.len()).step_by(len) {
                        let range = first..(first + len).min(values.len());
                        let part = &values[range.clone()];
                        let reached = blocks.reached_by(range.clone());
                        loops::amax(level, first, part, blocks, reached.start, &mut amax[reached]);
                        loops::fake_quantize(level, first, part, &mut fake[range.clone()], &conversion);
                        loops::encode(level, first, part, &mut codes[range.clone()], &conversion);
                        let (codes, to) = (&codes[range.clone()], &mut decoded[range]);
                        loops::decode(level, first, codes, to, conversion.format, blocks, &scales);
                    }
                    (fake, codes, decoded, amax)
                });
                let (fake, codes, decoded, amax) = found;
                let bits = |values: Vec<f32>| values.into_iter().map(Sample::bits).collect::<Vec<_>>();
                let amax = amax.into_iter().map(f64::to_bits).collect();
                let found = Results { amax, fake: bits(fake), codes, decoded: bits(decoded) };
                assert!(found == expected, "parts of {len}, blocks of {block_rows} × {block_cols}");
            }
        }
    }
}

#[test]
fn runs_of_a_range_are_those_of_all_elements() {
    for (rows, cols, block_rows, block_cols) in
        [(1, 1, 1, 1), (4, 6, 4, 6), (5, 6, 2, 6), (5, 7, 2, 3), (3, 8, 1, 8), (6, 5, 4, 2), (7, 3, 100, 1)]
    {
        let blocks = Blocks::new(rows, cols, block_rows, block_cols);
        let across = cols.div_ceil(blocks.block().1);
        let block_of = |at: usize| at / cols / blocks.block().0 * across + at % cols / blocks.block().1;
        for start in 0..=rows * cols {
            for end in start..=rows * cols {
                let found: Vec<_> =
                    blocks.runs_in(start..end).flat_map(|(run, block)| run.map(move |at| (at, block))).collect();
                let expected: Vec<_> = (start..end).map(|at| (at, block_of(at))).collect();
                assert_eq!(found, expected, "{blocks:?}, {start}..{end}");
                let reached = blocks.reached_by(start..end);
                assert!(expected.iter().all(|(_, block)| reached.contains(block)), "{blocks:?}, {start}..{end}");
                assert!(reached.end <= blocks.count(), "{blocks:?}, {start}..{end}");
            }
        }
        // Blocks of whole rows are one run each.
        if block_cols >= cols {
            assert_eq!(blocks.runs().count(), blocks.count(), "{blocks:?}");
        }
    }
    assert_eq!(Blocks::per_tensor(1000, 1000).runs().collect::<Vec<_>>(), [(0..1_000_000, 0)]);
    for (rows, cols) in [(0, 0), (0, 5), (5, 0)] {
        assert_eq!(Blocks::per_tensor(rows, cols).count(), 1);
        assert_eq!(Blocks::per_tensor(rows, cols).runs().count(), 0);
    }
}
