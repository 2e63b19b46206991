//! The key-value cache against attention in `f64`, and what it holds.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod attend;
mod errors;

use altgrad_core::{Fp8, Granularity, KvCache, Quantizer, Scaling, Ste, fake_quantize, fake_quantize_with_scale};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;

/// A caller's view of one attention layer.
struct Shape {
    batch: usize,
    heads: usize,
    groups: usize,
    dim: usize,
}

/// Deterministic values of a few binades.
fn values(dims: (usize, usize, usize, usize), seed: u64, dtype: DType) -> Tensor {
    let count = dims.0 * dims.1 * dims.2 * dims.3;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..count).map(|_| 4.0 * next(&mut state) * next(&mut state)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn all(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// `c[b, h, i, j] = Σ x[b, h, i, p] · y[b, h / groups, j, p]` or, transposed, `· y[b, h / groups, p, j]`, and the sums
/// of magnitudes.
fn products(x: &Tensor, y: &Tensor, transposed: bool) -> (Vec<f64>, Vec<f64>) {
    let (batch, query_heads, rows, length) = x.dims4().unwrap();
    let (_, heads, tokens, dim) = y.dims4().unwrap();
    let cols = if transposed { dim } else { tokens };
    let (x, y) = (all(x), all(y));
    let (mut sums, mut magnitudes) = (Vec::new(), Vec::new());
    for b in 0..batch {
        for h in 0..query_heads {
            let y = &y[(b * heads + h / (query_heads / heads)) * tokens * dim..];
            for i in 0..rows {
                let x = &x[((b * query_heads + h) * rows + i) * length..][..length];
                for j in 0..cols {
                    let term = |p: usize| x[p] * if transposed { y[p * dim + j] } else { y[j * dim + p] };
                    sums.push((0..length).map(term).sum());
                    magnitudes.push((0..length).map(term).map(f64::abs).sum());
                }
            }
        }
    }
    (sums, magnitudes)
}

/// Compares within the products' bound, `2·k·2⁻²⁴·Σ|a||b|`, and the rounding of scales that the weights take, 2⁻²⁴
/// each, and of the result's dtype.
fn check(found: &Tensor, (sums, magnitudes): &(Vec<f64>, Vec<f64>), length: usize, dtype: DType, what: &str) {
    let rounding = match dtype {
        DType::BF16 => 1.0 / 256.0,
        DType::F16 => 1.0 / 2048.0,
        _ => 0.0,
    };
    let relative = (2 * length + 4) as f64 / f64::from(1 << 24);
    for (place, ((found, sum), magnitude)) in all(found).iter().zip(sums).zip(magnitudes).enumerate() {
        let bound = relative * magnitude + rounding * sum.abs() + 1e-30;
        assert!((found - sum).abs() <= bound, "{what}, element {place}: {found} for {sum}, bound {bound}");
    }
}

/// Appends tokens in portions, and checks keys, values and both products after each.
fn run(mut cache: KvCache, shape: &Shape, portions: &[usize], dtype: DType, expected: impl Fn(&Tensor) -> Tensor) {
    let &Shape { batch, heads, groups, dim } = shape;
    // Products read codes, so the values that they multiply are not rounded to the dtype of the tensors.
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let expected = |x: &Tensor| expected(&x.to_dtype(wide).unwrap());
    let rounded = |x: &Tensor| all(&x.to_dtype(dtype).unwrap());
    let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
    for (step, tokens) in portions.iter().enumerate() {
        let seed = 2 * step as u64;
        let keys = values((batch, heads, *tokens, dim), seed, dtype);
        let vals = values((batch, heads, *tokens, dim), seed + 1, dtype);
        cache.append(&keys, &vals).unwrap();
        all_keys.push(expected(&keys));
        all_values.push(expected(&vals));
        let (keys, vals) = (Tensor::cat(&all_keys, 2).unwrap(), Tensor::cat(&all_values, 2).unwrap());
        let len = keys.dims()[2];
        assert_eq!(cache.len(), len);
        assert_eq!(all(&cache.keys().unwrap()), rounded(&keys), "keys of {len} tokens");
        assert_eq!(all(&cache.values().unwrap()), rounded(&vals), "values of {len} tokens");
        for queries in [1, 3] {
            let q = values((batch, heads * groups, queries, dim), 77, dtype);
            let scores = cache.scores(&q).unwrap();
            assert_eq!(scores.dims(), [batch, heads * groups, queries, len]);
            assert_eq!(scores.dtype(), dtype);
            check(&scores, &products(&q, &keys, false), dim, dtype, &format!("scores of {len} tokens"));
            let weights = values((batch, heads * groups, queries, len), 78, dtype);
            let mixed = cache.mix(&weights).unwrap();
            assert_eq!(mixed.dims(), [batch, heads * groups, queries, dim]);
            check(&mixed, &products(&weights, &vals, true), len, dtype, &format!("mix of {len} tokens"));
        }
    }
}

/// The values that a quantizer leaves of each row.
fn by_row(format: Fp8) -> impl Fn(&Tensor) -> Tensor {
    move |x| fake_quantize(x, &Quantizer::new(format).granularity(Granularity::PerRow)).unwrap()
}

const PORTIONS: [usize; 8] = [5, 1, 1, 60, 1, 70, 1, 200];

#[test]
fn a_scale_per_token_and_head() {
    for (batch, heads, groups, dim) in [(1, 1, 1, 64), (2, 3, 3, 16), (1, 2, 7, 40)] {
        let shape = Shape { batch, heads, groups, dim };
        for format in [Fp8::E4M3, Fp8::E5M2] {
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                run(KvCache::new(format).unwrap(), &shape, &PORTIONS, dtype, by_row(format));
            }
            // Not by the kernels.
            run(KvCache::new(format).unwrap(), &shape, &PORTIONS, DType::F64, by_row(format));
        }
    }
}

#[test]
fn full_precision() {
    let shape = Shape { batch: 2, heads: 3, groups: 2, dim: 24 };
    for dtype in [DType::F32, DType::F64] {
        run(KvCache::full_precision(), &shape, &PORTIONS, dtype, Clone::clone);
        run(KvCache::new(None).unwrap(), &shape, &PORTIONS, dtype, Clone::clone);
    }
}

#[test]
fn static_scales() {
    let shape = Shape { batch: 2, heads: 3, groups: 2, dim: 32 };
    let one = |scale: f32| move |x: &Tensor| fake_quantize_with_scale(x, Fp8::E4M3, scale, Ste::PassThrough).unwrap();
    for dtype in [DType::F32, DType::F64] {
        let cache = KvCache::with_scales(Fp8::E4M3, &[0.01], &[0.01]).unwrap();
        run(cache, &shape, &PORTIONS, dtype, one(0.01));
        let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(0.02));
        run(KvCache::new(quantizer).unwrap(), &shape, &PORTIONS, dtype, one(0.02));
        let scales = [0.01, 0.02, 0.015];
        let cache = KvCache::with_scales(Fp8::E4M3, &scales, &scales).unwrap();
        run(cache, &shape, &PORTIONS, dtype, |x| {
            let head = |head: usize| one(scales[head])(&x.narrow(1, head, 1).unwrap().contiguous().unwrap());
            Tensor::cat(&[head(0), head(1), head(2)], 1).unwrap()
        });
    }
}

#[test]
fn forgotten_tokens_leave_no_trace() {
    for cache in [KvCache::new(Fp8::E4M3).unwrap(), KvCache::full_precision()] {
        let (mut long, mut short) = (cache.clone(), cache);
        let x = |tokens, seed| values((1, 2, tokens, 16), seed, DType::F32);
        long.append(&x(100, 1), &x(100, 2)).unwrap();
        long.append(&x(80, 3), &x(80, 4)).unwrap();
        long.truncate(70);
        short.append(&x(100, 1), &x(100, 2)).unwrap();
        short.truncate(70);
        for cache in [&mut long, &mut short] {
            assert_eq!(cache.len(), 70);
            cache.append(&x(50, 5), &x(50, 6)).unwrap();
        }
        assert_eq!(all(&long.keys().unwrap()), all(&short.keys().unwrap()));
        assert_eq!(all(&long.values().unwrap()), all(&short.values().unwrap()));
        assert_eq!(long.bytes(), short.bytes());
        // Empty, it takes any shape.
        long.truncate(0);
        assert!(long.is_empty());
        long.append(&values((2, 1, 3, 8), 7, DType::F64), &values((2, 1, 3, 8), 8, DType::F64)).unwrap();
        assert_eq!(long.keys().unwrap().dims(), [2, 1, 3, 8]);
    }
}

#[test]
fn clones_go_separate_ways() {
    for cache in [KvCache::new(Fp8::E4M3).unwrap(), KvCache::full_precision()] {
        // Floats that the kernels read, and tensors that candle does.
        for (heads, dtype) in [(1, DType::F32), (2, DType::F32), (1, DType::F64), (2, DType::F64)] {
            let x = |tokens, seed| values((1, heads, tokens, 16), seed, dtype);
            let mut first = cache.clone();
            first.append(&x(10, 1), &x(10, 2)).unwrap();
            let (keys, both) = (first.keys().unwrap(), (all(&first.keys().unwrap()), all(&first.values().unwrap())));
            let mut second = first.clone();
            second.append(&x(5, 3), &x(5, 4)).unwrap();
            let of_second = (all(&second.keys().unwrap()), all(&second.values().unwrap()));
            first.append(&x(5, 5), &x(5, 6)).unwrap();
            assert_eq!(of_second, (all(&second.keys().unwrap()), all(&second.values().unwrap())));
            assert_ne!(of_second.0, all(&first.keys().unwrap()));
            first.truncate(10);
            assert_eq!(both, (all(&first.keys().unwrap()), all(&first.values().unwrap())));
            // What was handed out stays, whatever is written where it came from.
            first.truncate(1);
            first.append(&x(9, 7), &x(9, 8)).unwrap();
            assert_eq!(both.0, all(&keys));
        }
    }
}

#[test]
fn an_element_takes_a_byte_and_its_share_of_a_scale() {
    let mut cache = KvCache::new(Fp8::E4M3).unwrap();
    let x = values((1, 8, 1000, 64), 1, DType::F32);
    cache.append(&x, &x).unwrap();
    let elements = 2 * x.elem_count();
    assert_eq!(cache.bytes(), elements + elements / 64 * 4);
    assert!((cache.bytes() as f64) < 1.1 * elements as f64);
    let mut full = KvCache::full_precision();
    full.append(&x, &x).unwrap();
    assert_eq!(full.bytes(), 4 * elements);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// It does not matter in which portions tokens come.
    #[test]
    fn portions_do_not_matter(portions in prop::collection::vec(1usize..90, 1..6), cut in 0usize..400) {
        let tokens: usize = portions.iter().sum();
        let x = values((2, 2, tokens, 16), 9, DType::F32);
        let (mut at_once, mut by_portion) = (KvCache::new(Fp8::E4M3).unwrap(), KvCache::new(Fp8::E4M3).unwrap());
        at_once.append(&x, &x).unwrap();
        let mut first = 0;
        for portion in portions {
            let part = x.narrow(2, first, portion).unwrap();
            by_portion.append(&part, &part).unwrap();
            first += portion;
        }
        for cache in [&mut at_once, &mut by_portion] {
            cache.truncate(cut.clamp(1, tokens));
        }
        prop_assert_eq!(all(&at_once.keys().unwrap()), all(&by_portion.keys().unwrap()));
        prop_assert_eq!(at_once.bytes(), by_portion.bytes());
    }
}
