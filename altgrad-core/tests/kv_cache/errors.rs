//! What does not fit is an error, and the cache is as it was.

use altgrad_core::{Error, Granularity, QuantizerError, Rounding, TensorError};

use super::*;

fn text(result: Result<impl Sized, Error>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn shapes_that_do_not_fit() {
    for cache in [KvCache::new(Fp8::E4M3).unwrap(), KvCache::full_precision()] {
        let mut cache = cache;
        let x = |dims| values(dims, 1, DType::F32);
        assert!(text(cache.keys()).contains("append some first"));
        assert!(text(cache.scores(&x((1, 1, 1, 8)))).contains("append some first"));
        cache.append(&x((1, 2, 3, 8)), &x((1, 2, 3, 8))).unwrap();
        let before = all(&cache.keys().unwrap());
        for dims in [(2, 2, 3, 8), (1, 3, 3, 8), (1, 2, 3, 7)] {
            let error = cache.append(&x(dims), &x(dims)).unwrap_err();
            assert!(matches!(error, Error::Tensor(TensorError::ShapeMismatch { what: "the keys", .. })), "{error}");
        }
        let error = text(cache.append(&x((1, 2, 3, 8)), &x((1, 2, 4, 8))));
        assert!(error.contains("the values") && error.contains("as the keys"), "{error}");
        let flat = x((1, 2, 3, 8)).flatten_all().unwrap();
        assert!(text(cache.append(&flat, &flat)).contains("(batch, heads, tokens, head size)"));
        let double = values((1, 2, 3, 8), 1, DType::F64);
        assert!(text(cache.append(&double, &double)).contains("dtype F64"));
        assert_eq!(all(&cache.keys().unwrap()), before);
        assert_eq!(all(&cache.values().unwrap()).len(), before.len());

        for dims in [(1, 3, 1, 8), (1, 0, 1, 8), (2, 2, 1, 8), (1, 2, 1, 9)] {
            let error = text(cache.scores(&x(dims)));
            assert!(
                error.contains("the queries") && error.contains("(1, a multiple of 2 heads, queries, 8"),
                "{error}"
            );
        }
        let error = text(cache.mix(&x((1, 2, 1, 4))));
        assert!(error.contains("the attention weights") && error.contains("3 tokens of the cache"), "{error}");
    }
}

#[test]
fn quantizers_that_do_not_quantize_a_token_by_itself() {
    let e4m3 = || Quantizer::new(Fp8::E4M3);
    for quantizer in [
        e4m3().granularity(Granularity::PerChannel),
        e4m3().granularity(Granularity::PerBlock { rows: 2, cols: 8 }),
        e4m3().scaling(Scaling::Delayed { len: 4, margin: 0 }),
        e4m3().rounding(Rounding::Stochastic { seed: 1 }),
    ] {
        let error = KvCache::new(quantizer).unwrap_err();
        assert_eq!(error.to_string(), Error::from(QuantizerError::NotForCache).to_string());
    }
    for scales in [&[][..], &[0.0], &[1.0, f32::NAN]] {
        KvCache::with_scales(Fp8::E4M3, scales, &[1.0]).unwrap_err();
        KvCache::with_scales(Fp8::E4M3, &[1.0], scales).unwrap_err();
    }
    let mut cache = KvCache::with_scales(Fp8::E4M3, &[1.0, 2.0], &[1.0]).unwrap();
    let x = values((1, 3, 1, 8), 1, DType::F32);
    assert!(text(cache.append(&x, &x)).contains("2 heads, one for each scale"));
    assert!(cache.is_empty());
}

#[test]
fn values_that_are_not_finite() {
    let x = values((1, 2, 2, 8), 1, DType::F32);
    let nan = (&x * f64::NAN).unwrap();
    // In a format with NaN they show; in one without they are an error, and keys that were appended before are gone.
    let mut cache = KvCache::new(Fp8::E4M3).unwrap();
    cache.append(&x, &nan).unwrap();
    assert!(all(&cache.values().unwrap()).iter().all(|value| value.is_nan()));
    assert!(all(&cache.mix(&values((1, 2, 1, 2), 1, DType::F32)).unwrap()).iter().all(|value| value.is_nan()));
    let mut cache = KvCache::new(Fp8::E2M1).unwrap();
    cache.append(&x, &x).unwrap();
    let error = text(cache.append(&x, &nan));
    assert!(error.contains("no code for NaN"), "{error}");
    assert_eq!(cache.len(), 2);
    assert_eq!(cache.keys().unwrap().dims(), cache.values().unwrap().dims());
}
