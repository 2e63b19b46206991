//! Attention against softmax and sums in `f64`, over the values that the cache says it holds.

use std::num::NonZeroUsize;

use altgrad_core::{Mask, TensorError};

use super::*;

/// What attention gives, and `Σ p·|v|` and the largest `scale·Σ|q||k|` of each output.
fn reference(cache: &KvCache, q: &Tensor, scale: f64, is_visible: impl Fn(usize, usize) -> bool) -> Vec<[f64; 3]> {
    let (batch, query_heads, queries, dim) = q.dims4().unwrap();
    let (_, heads, tokens, _) = cache.keys().unwrap().dims4().unwrap();
    let (q, keys, values) = (all(q), all(&cache.keys().unwrap()), all(&cache.values().unwrap()));
    let width = values.len() / (batch * heads * tokens);
    let mut outputs = Vec::new();
    for head in 0..batch * query_heads {
        let stream = head / query_heads * heads + head % query_heads / (query_heads / heads);
        for query in 0..queries {
            let q = &q[(head * queries + query) * dim..][..dim];
            let key = |token: usize| &keys[(stream * tokens + token) * dim..][..dim];
            let product = |token, of: fn(f64) -> f64| q.iter().zip(key(token)).map(|(q, k)| of(q * k)).sum::<f64>();
            let seen: Vec<usize> = (0..tokens).filter(|token| is_visible(query, *token)).collect();
            let scores: Vec<f64> = seen.iter().map(|token| scale * product(*token, |x| x)).collect();
            let magnitude = seen.iter().map(|token| scale * product(*token, f64::abs)).fold(0.0, f64::max);
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for element in 0..width {
                let value = |token: &usize| values[(stream * tokens + token) * width + element];
                let sum = |of: fn(f64) -> f64| {
                    seen.iter().zip(&weights).map(|(token, weight)| weight / total * of(value(token))).sum::<f64>()
                };
                outputs.push([sum(|x| x), sum(f64::abs), magnitude]);
            }
        }
    }
    outputs
}

fn check_attention(cache: &KvCache, q: &Tensor, scale: f64, mask: Mask, what: &str) {
    let (_, _, queries, dim) = q.dims4().unwrap();
    let tokens = cache.len();
    let is_visible = |query: usize, token: usize| {
        let own = tokens - queries + query;
        match mask {
            Mask::All => true,
            Mask::Causal => token <= own,
            Mask::Window(window) => token <= own && token + window.get() > own,
            _ => unreachable!(),
        }
    };
    let found = all(&cache.attend(q, scale, mask).unwrap());
    let expected = reference(cache, q, scale, is_visible);
    assert_eq!(found.len(), expected.len(), "{what}");
    let unit = 1.0 / f64::from(1 << 24);
    for (place, (found, [sum, magnitude, score])) in found.iter().zip(expected).enumerate() {
        // As documented.
        let relative = 64.0 * unit + 4.0 * tokens as f64 * unit + 8.0 * dim as f64 * unit * score;
        let bound = relative * magnitude + 1e-30;
        assert!((found - sum).abs() <= bound, "{what}, {mask:?}, output {place}: {found} for {sum}, bound {bound}");
    }
}

#[test]
fn attention_is_that_of_the_values() {
    let masks = [Mask::All, Mask::Causal, Mask::Window(NonZeroUsize::new(70).unwrap())];
    let windows = [1, 3, 64].map(|window| Mask::Window(NonZeroUsize::new(window).unwrap()));
    for (batch, heads, groups, dim) in [(1, 1, 1, 64), (2, 3, 3, 16), (1, 2, 7, 41), (1, 1, 2, 128), (1, 1, 1, 130)] {
        for cache in [KvCache::full_precision(), KvCache::new(Fp8::E4M3).unwrap(), KvCache::new(Fp8::E5M2).unwrap()] {
            let mut cache = cache;
            for (step, tokens) in PORTIONS.iter().enumerate() {
                let x = |seed| values((batch, heads, *tokens, dim), seed, DType::F32);
                cache.append(&x(step as u64), &x(100 + step as u64)).unwrap();
                for queries in [1, 2, *tokens] {
                    let queries = queries.min(cache.len());
                    let q = values((batch, heads * groups, queries, dim), 7, DType::F32);
                    for mask in masks.into_iter().chain(windows) {
                        check_attention(&cache, &q, 0.2, mask, &format!("{dim} of {} tokens", cache.len()));
                    }
                }
            }
        }
    }
}

/// Whether codes or the values that they stand for are multiplied makes no difference, to the bit.
#[test]
fn codes_and_values_give_the_same() {
    for dim in [16, 64, 72, 129] {
        let (mut codes, mut floats) = (KvCache::new(Fp8::E4M3).unwrap(), KvCache::full_precision());
        for tokens in [130, 1, 1] {
            let x = |seed| values((1, 2, tokens, dim), seed, DType::F32);
            codes.append(&x(1), &x(2)).unwrap();
            floats.append(&by_row(Fp8::E4M3)(&x(1)), &by_row(Fp8::E4M3)(&x(2))).unwrap();
            let q = values((1, 6, tokens, dim), 3, DType::F32);
            let of = |cache: &KvCache| all(&cache.attend(&q, 0.3, Mask::Causal).unwrap());
            assert_eq!(of(&codes), of(&floats));
        }
    }
}

/// A model's tokens may come at once or one by one.
#[test]
fn queries_do_not_depend_on_those_beside_them() {
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::BF16, 0.02), (DType::F64, 1e-12)] {
        for cache in [KvCache::new(Fp8::E4M3).unwrap(), KvCache::full_precision()] {
            let x = |heads, seed| values((1, heads, 100, 32), seed, dtype);
            let (q, k, v) = (x(4, 1), x(2, 2), x(2, 3));
            let (mut at_once, mut one_by_one) = (cache.clone(), cache);
            at_once.append(&k, &v).unwrap();
            let together = at_once.attend(&q, 0.2, Mask::Causal).unwrap();
            for token in 0..100 {
                let of = |x: &Tensor| x.narrow(2, token, 1).unwrap();
                one_by_one.append(&of(&k), &of(&v)).unwrap();
                let alone = all(&one_by_one.attend(&of(&q), 0.2, Mask::Causal).unwrap());
                for (a, b) in all(&of(&together)).iter().zip(&alone) {
                    assert!((a - b).abs() <= bound * (1.0 + a.abs()), "{dtype:?}, token {token}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn more_queries_than_tokens_are_an_error() {
    for cache in [KvCache::new(Fp8::E4M3).unwrap(), KvCache::full_precision()] {
        let mut cache = cache;
        let x = values((1, 2, 3, 8), 1, DType::F32);
        cache.append(&x, &x).unwrap();
        let q = values((1, 2, 4, 8), 1, DType::F32);
        assert_eq!(cache.attend(&q, 1.0, Mask::All).unwrap().dims(), [1, 2, 4, 8]);
        let error = cache.attend(&q, 1.0, Mask::Causal).unwrap_err();
        assert!(matches!(error, altgrad_core::Error::Tensor(TensorError::ShapeMismatch { what: "the queries", .. })));
        assert!(error.to_string().contains("queries of the last of 3 tokens"), "{error}");
    }
}
