//! Products on every level against sums in `f64`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking and say what they ran")]

use super::{CodeMatrix, FloatMatrix, Left, PackedCodes, Right, multiply};
use crate::Fp8;
use crate::kernels::Blocks;
use crate::kernels::level::Level;

/// A matrix of codes that owns its parts.
#[derive(Clone, Debug)]
struct Codes {
    codes: Vec<u8>,
    format: Fp8,
    blocks: Blocks,
    scales: Vec<f32>,
}

impl Codes {
    fn view(&self) -> CodeMatrix<'_> {
        CodeMatrix::new(&self.codes, self.format, self.blocks, &self.scales)
    }

    /// The exact value of an element.
    fn value(&self, row: usize, col: usize) -> f64 {
        let (rows, cols) = self.blocks.block();
        let scale = self.scales[row / rows * self.blocks.grid().1 + col / cols];
        f64::from(self.format.decode(self.codes[row * self.blocks.shape().1 + col])) * f64::from(scale)
    }
}

/// Deterministic numbers that cover all bytes.
fn random(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    }
}

/// Finite codes under scales of a few binades.
fn codes(format: Fp8, rows: usize, cols: usize, block: (usize, usize), seed: u64) -> Codes {
    let mut next = random(seed);
    let blocks = Blocks::new(rows, cols, block.0, block.1);
    let finite = |code: u8| format.decode(code).is_finite();
    let codes = (0..rows * cols).map(|_| next() as u8).map(|code| if finite(code) { code } else { 1 }).collect();
    let scales = (0..blocks.count()).map(|_| (f64::from(next() % 1000) / 100.0 - 8.0).exp2() as f32).collect();
    Codes { codes, format, blocks, scales }
}

/// Checks a result against `Σ a·b` in `f64`: within `2·k·2⁻²⁴·Σ|a||b|`, the bound of a product.
fn check(
    what: &str,
    c: &[f32],
    (rows, cols, length): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) {
    for i in 0..rows {
        for j in 0..cols {
            let (mut sum, mut magnitudes) = (0.0, 0.0);
            for p in 0..length {
                let product = a(i, p) * b(j, p);
                sum += product;
                magnitudes += product.abs();
            }
            let bound = 2.0 * length as f64 * 2f64.powi(-24) * magnitudes;
            let found = f64::from(c[i * cols + j]);
            let error = (found - sum).abs();
            assert!(error <= bound, "{what}: c[{i}, {j}] is {found}, not {sum}: off by {error:e}, bound {bound:e}");
        }
    }
}

/// Blocks of one scale a matrix, a row, and others.
const BLOCKS: [(usize, usize); 7] = [(9999, 9999), (1, 9999), (1, 32), (128, 128), (1, 128), (3, 5), (2, 24)];

const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 64, 2),
    (2, 3, 5),
    (5, 65, 33),
    (6, 64, 64),
    (7, 63, 130),
    (13, 130, 31),
    (1, 200, 600),
    (3, 70, 1100),
    (4, 1, 520),
    (64, 1, 17),
    (31, 128, 257),
];

#[test]
fn products_of_codes_are_within_the_bound() {
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let (rows, cols, length) = shape;
        for (a_block, b_block) in BLOCKS.into_iter().flat_map(|a| BLOCKS.map(|b| (a, b))) {
            let a = codes(Fp8::E4M3, rows, length, a_block, number as u64);
            let b = codes(Fp8::E5M2, cols, length, b_block, 77 + number as u64);
            let packed = PackedCodes::new(&b.codes, b.format, b.blocks, b.scales.clone());
            for level in Level::available() {
                for right in [Right::Codes(b.view()), Right::Packed(&packed)] {
                    let mut c = vec![f32::NAN; rows * cols];
                    multiply(level, &Left::Codes(a.view()), &right, &mut c);
                    let what = format!("{level} {shape:?} {a_block:?} {b_block:?}");
                    check(&what, &c, shape, |i, p| a.value(i, p), |j, p| b.value(j, p));
                }
            }
        }
    }
}
#[test]
#[ignore = "measures"]
fn parts() {
    for (m, n, k) in [(256, 1024, 4096), (64, 4096, 4096), (8, 4096, 4096), (1, 4096, 4096)] {
        let b = codes(Fp8::E4M3, n, k, (1, 9999), 2);
        let a = codes(Fp8::E4M3, m, k, (1, 9999), 2);
        let packed = PackedCodes::new(&b.codes, b.format, b.blocks, b.scales.clone());
        let x: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
        let floats = FloatMatrix::new(&x, m, k);
        let mut c = vec![0.0f32; m * n];
        for level in Level::available().skip(1) {
          for (what, left) in [("floats", Left::Floats(floats)), ("rounded", Left::RoundedFloats(floats)), ("codes", Left::Codes(a.view()))] {
            let mut times: Vec<f64> = (0..30).map(|_| { let s = std::time::Instant::now(); multiply(level, &left, &Right::Packed(&packed), &mut c); s.elapsed().as_secs_f64() }).collect();
            times.sort_by(f64::total_cmp);
            println!("PARTS {m}x{n}x{k} {level} {what}: {:.3} ms {:.0} GFLOP/s", times[15] * 1e3, 2e-9 * (m * n * k) as f64 / times[15]);
        }}
    }
}
