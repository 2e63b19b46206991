//! Products on every level against sums in `f64`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking and say what they ran")]

mod bound;
mod few_rows;
mod narrow;
mod overwrite;
mod packed;
mod range;
mod repeat;
mod rounded;
mod scaled;
mod shapes;
mod slices;
mod special;

use super::{CodeMatrix, FloatMatrix, Lhs, PackedCodes, Rhs, multiply};
use crate::Blocks;
use crate::Fp8;
use crate::level::Level;

/// Larger than any matrix: one scale a row, a column, or for all.
const ALL: usize = usize::MAX;

/// One scale for all, a row, parts of a row, squares, and blocks that nothing is a multiple of, shorter and longer than
/// those that are scaled one by one.
const BLOCKS: [(usize, usize); 9] =
    [(ALL, ALL), (1, ALL), (1, 32), (128, 128), (1, 128), (3, 5), (2, 24), (5, 37), (ALL, 1)];

/// What rounding to `f32` changes a normal number by at most, relative to it.
const HALF_ULP: f64 = 1.0 / (1 << 24) as f64;

/// What rounding to `f32` changes a subnormal number by at most: `2⁻¹⁵⁰`.
const HALF_SUBNORMAL: f64 = f64::from_bits((1023 - 150) << 52);

/// Deterministic numbers that cover all bytes.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// At least 1, below 2.
    fn significand(&mut self) -> f32 {
        f32::from_bits(0x3F80_0000 | self.next() & 0x007F_FFFF)
    }
}

/// A matrix of codes that owns its parts.
#[derive(Clone, Debug)]
struct Operand {
    /// As they are stored.
    codes: Vec<u8>,
    format: Fp8,
    /// Of what is stored.
    blocks: Blocks,
    scales: Vec<f32>,
    transposed: bool,
}

impl Operand {
    /// Codes that `code` draws, under scales with which the largest value is from 1 to below 4.
    fn new(
        format: Fp8,
        (rows, cols): (usize, usize),
        block: (usize, usize),
        random: &mut Random,
        mut code: impl FnMut(&mut Random) -> u8,
    ) -> Self {
        let blocks = Blocks::new(rows, cols, block.0, block.1);
        let codes = (0..rows * cols).map(|_| code(random)).collect();
        let largest = format.largest_finite();
        let scales =
            (0..blocks.count()).map(|_| random.significand() * [1.0, 2.0][random.below(2)] / largest).collect();
        Self { codes, format, blocks, scales, transposed: false }
    }

    /// Finite codes of all kinds.
    fn finite(format: Fp8, shape: (usize, usize), block: (usize, usize), random: &mut Random) -> Self {
        Self::new(format, shape, block, random, |random| {
            let code = random.next() as u8;
            if format.decode(code).is_finite() { code } else { 1 }
        })
    }

    /// The same matrix, stored as its transpose.
    fn turned(&self) -> Self {
        let (rows, cols) = self.blocks.shape();
        let ((block_rows, block_cols), (down, across)) = (self.blocks.block(), self.blocks.grid());
        Self {
            codes: turned(&self.codes, rows, cols),
            format: self.format,
            blocks: Blocks::new(cols, rows, block_cols, block_rows),
            // Blocks of no columns are there once for each row of blocks, but not the other way round.
            scales: if cols == 0 || rows == 0 { vec![1.0; cols.max(1)] } else { turned(&self.scales, down, across) },
            transposed: !self.transposed,
        }
    }

    fn view(&self) -> CodeMatrix<'_> {
        let scales = &self.scales[..self.blocks.count()];
        let view = CodeMatrix::new(&self.codes, self.format, self.blocks, scales);
        if self.transposed { view.transposed() } else { view }
    }

    fn packed(&self) -> PackedCodes {
        assert!(!self.transposed);
        PackedCodes::new(&self.codes, self.format, self.blocks, self.scales.clone())
    }

    /// The scale of each element, row by row.
    fn scale_of_each(&self) -> impl Iterator<Item = f32> {
        assert!(!self.transposed);
        let ((_, cols), (block_rows, block_cols)) = (self.blocks.shape(), self.blocks.block());
        let across = cols.div_ceil(block_cols);
        (0..self.codes.len()).map(move |at| self.scales[at / cols / block_rows * across + at % cols / block_cols])
    }

    /// The exact values, row by row.
    fn values(&self) -> Vec<f64> {
        let values = self.codes.iter().map(|code| f64::from(self.format.decode(*code)));
        values.zip(self.scale_of_each()).map(|(value, scale)| value * f64::from(scale)).collect()
    }

    /// The values rounded to `f32`, row by row.
    fn rounded(&self) -> Vec<f32> {
        let values = self.codes.iter().map(|code| self.format.decode(*code));
        values.zip(self.scale_of_each()).map(|(value, scale)| value * scale).collect()
    }
}

/// The elements of the transpose.
fn turned<E: Copy>(elements: &[E], rows: usize, cols: usize) -> Vec<E> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| elements[row * cols + col])).collect()
}

/// Floats of a few binades, and some zeros.
fn floats(count: usize, random: &mut Random) -> Vec<f32> {
    let value = |random: &mut Random| {
        let binade = f32::from_bits((123 + random.next() % 8) << 23);
        let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
        if random.below(16) == 0 { 0.0 } else { sign * binade * random.significand() }
    };
    (0..count).map(|_| value(random)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// What a product should be.
struct Exact {
    shape: (usize, usize, usize),
    sums: Vec<f64>,
    /// `Σ|a||b|`.
    magnitudes: Vec<f64>,
}

impl Exact {
    /// The product of a matrix of `m` rows and one of `n`, all of `k` elements.
    fn new(shape: (usize, usize, usize), a: &[f64], b: &[f64]) -> Self {
        let (m, n, k) = shape;
        assert_eq!((a.len(), b.len()), (m * k, n * k));
        let row = |matrix: &[f64], row: usize| matrix[row * k..][..k].to_vec();
        let (mut sums, mut magnitudes) = (Vec::with_capacity(m * n), Vec::with_capacity(m * n));
        let columns: Vec<_> = (0..n).map(|j| row(b, j)).collect();
        for a in (0..m).map(|i| row(a, i)) {
            for b in &columns {
                let products = || a.iter().zip(b).map(|(a, b)| a * b);
                sums.push(products().sum());
                magnitudes.push(products().map(f64::abs).sum());
            }
        }
        Self { shape, sums, magnitudes }
    }

    /// Makes sure that each element of `c` is within `2·k·2⁻²⁴·Σ|a||b|`, or is the same infinity or NaN. Where that is
    /// less than subnormal numbers can tell apart, it is `2·k·2⁻¹⁵⁰`.
    fn check(&self, c: &[f32], what: &str) {
        let twice = 2.0 * self.shape.2 as f64;
        self.check_within(c, twice * HALF_ULP, twice * HALF_SUBNORMAL, what);
    }

    /// As [`check`](Self::check), with bounds relative to `Σ|a||b|` and absolute.
    fn check_within(&self, c: &[f32], relative: f64, absolute: f64, what: &str) {
        assert_eq!(c.len(), self.sums.len());
        for (at, ((found, sum), magnitude)) in c.iter().zip(&self.sums).zip(&self.magnitudes).enumerate() {
            let found = f64::from(*found);
            let is_right = if sum.is_finite() {
                (found - sum).abs() <= relative * magnitude + absolute
            } else {
                found == *sum || found.is_nan() && sum.is_nan()
            };
            let (i, j) = (at / self.shape.1, at % self.shape.1);
            assert!(is_right, "{what}: c[{i}, {j}] of {:?} is {found:e}, not {sum:e} of {magnitude:e}", self.shape);
        }
    }
}

/// Multiplies on every level by the right operand as it is, transposed and packed, into a matrix of NaN.
fn on_every_path(lhs: &Lhs<'_>, b: &Operand, mut check: impl FnMut(&[f32], &str)) {
    let (turned, packed) = (b.turned(), b.packed());
    let rights = [
        ("codes", Rhs::Codes(b.view())),
        ("transposed codes", Rhs::Codes(turned.view())),
        ("packed codes", Rhs::Packed(&packed)),
    ];
    for level in Level::available() {
        for (name, rhs) in &rights {
            let mut c = vec![f32::NAN; lhs.shape().0 * b.blocks.shape().0];
            multiply(level, lhs, rhs, &mut c);
            check(&c, &format!("{level}, {name}"));
        }
    }
}

/// Checks products of codes and of floats, as they are and transposed, by codes.
fn check_products(a: &Operand, x: &[f32], b: &Operand, what: &str) {
    let ((m, k), (n, _)) = (a.blocks.shape(), b.blocks.shape());
    let exact = Exact::new((m, n, k), &a.values(), &b.values());
    for a in [a, &a.turned()] {
        let what = format!("{what}, lhs codes, transposed: {}", a.transposed);
        on_every_path(&Lhs::Codes(a.view()), b, |c, path| exact.check(c, &format!("{what}, {path}")));
    }
    let exact = Exact::new((m, n, k), &wide(x), &b.values());
    let turned = turned(x, m, k);
    for (name, x) in [("floats", FloatMatrix::new(x, m, k)), ("turned", FloatMatrix::new(&turned, k, m).transposed())] {
        on_every_path(&Lhs::Floats(x), b, |c, path| exact.check(c, &format!("{what}, lhs {name}, {path}")));
    }
}

#[test]
fn levels_of_this_machine() {
    // Printed with `--nocapture`; a log that names only the portable level says what was not tested.
    let levels: Vec<String> = Level::available().map(|level| level.to_string()).collect();
    println!("products are tested on {}", levels.join(", "));
    assert_eq!(levels[0], "scalar");
}
