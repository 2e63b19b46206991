//! Products of all shapes: what is left over after tiles, panels, runs and vectors, in every dimension.

use super::*;

/// Lengths beside those at which something begins or ends: tiles of 6, panels of 64, runs of 256 and 512.
const SIDES: [usize; 16] = [0, 1, 5, 6, 7, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 300];
const LENGTHS: [usize; 20] = [0, 1, 5, 6, 7, 63, 64, 65, 127, 128, 129, 130, 255, 256, 257, 511, 512, 513, 514, 1030];

/// Rows of a tile, and columns of a panel.
const TILE: usize = 6;
const NR: usize = 64;

/// Checks a shape under the blocks with the number `blocks`.
fn check_shape((m, n, k): (usize, usize, usize), blocks: usize) {
    let random = &mut Random::new(blocks);
    let (a_block, b_block) = (BLOCKS[blocks % BLOCKS.len()], BLOCKS[blocks / BLOCKS.len() % BLOCKS.len()]);
    let a = Operand::finite(Fp8::E4M3, (m, k), a_block, random);
    let b = Operand::finite(Fp8::E5M2, (n, k), b_block, random);
    check_products(&a, &floats(m * k, random), &b, &format!("blocks {a_block:?}, {b_block:?}"));
}

#[test]
fn each_dimension_at_every_edge() {
    for (number, side) in SIDES.into_iter().enumerate() {
        check_shape((side, 3, 17), number);
        check_shape((side, 65, 2), 7 * number);
        check_shape((2, side, 17), 9 * number);
        check_shape((7, side, 3), 3 * number);
    }
    for (number, length) in LENGTHS.into_iter().enumerate() {
        check_shape((1, 1, length), 5 * number);
        check_shape((7, 66, length), number);
        check_shape((3, 5, length), 11 * number);
    }
}

#[test]
fn what_is_left_over_in_each_dimension() {
    for m in 0..=2 * TILE + 3 {
        check_shape((m, 9, 18), m);
        check_shape((m, 70, 5), 3 * m);
    }
    for n in 0..=2 * NR + 3 {
        check_shape((2, n, 19), n);
    }
    for k in 0..=2 * 32 + 3 {
        check_shape((5, 6, k), k);
        check_shape((1, 80, k), 5 * k);
    }
}

#[test]
fn edges_that_meet() {
    let random = &mut Random::new(1);
    for number in 0..80 {
        let shape = loop {
            let (m, n) = (SIDES[random.below(SIDES.len())], SIDES[random.below(SIDES.len())]);
            let k = LENGTHS[random.below(LENGTHS.len())];
            if m * n * k < 1 << 21 {
                break (m, n, k);
            }
        };
        check_shape(shape, number);
    }
}

#[test]
fn every_pair_of_blocks() {
    for blocks in 0..BLOCKS.len() * BLOCKS.len() {
        check_shape((7, 67, 37), blocks);
        check_shape((131, 5, 270), blocks);
    }
}

#[test]
fn rows_that_are_divided_among_threads() {
    // Few panels, many rows and long sums, so that rows are divided too.
    for (number, shape) in [(40, 64, 1100), (13, 65, 4099), (1, 130, 20_000), (300, 3, 2050)].into_iter().enumerate() {
        check_shape(shape, number);
    }
}
