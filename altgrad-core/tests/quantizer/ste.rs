//! The backward pass of fake quantization.

use altgrad_core::{Fp8, Quantizer, Ste, compute_scale, fake_quantize, fake_quantize_with_scale};
use candle_core::{DType, Device, Tensor, Var};

use crate::{FLOAT_DTYPES, bits, formats, numbers, tensor, values};

/// The gradient of `Σ upstream × q(x)` with respect to `x`.
fn gradient(x: &Tensor, upstream: &Tensor, quantize: impl Fn(&Tensor) -> altgrad_core::Result<Tensor>) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    let loss = (quantize(x.as_tensor()).unwrap() * upstream).unwrap().sum_all().unwrap();
    loss.backward().unwrap().get(&x).unwrap().clone()
}

#[test]
fn pass_through_is_the_upstream_gradient() {
    for (format, _) in formats() {
        for dtype in FLOAT_DTYPES {
            let x = tensor(&numbers(100, 1e4), dtype);
            let upstream = tensor(&numbers(101, 3.0)[1..], dtype);
            let explicit = gradient(&x, &upstream, |x| fake_quantize_with_scale(x, format, 0.01, Ste::PassThrough));
            assert_eq!(bits(&explicit), bits(&upstream), "{format} {dtype:?}");
            // The scale, although made from `x`, is a constant.
            let own_scale = gradient(&x, &upstream, |x| fake_quantize(x, &Quantizer::from(format)));
            assert_eq!(bits(&own_scale), bits(&upstream), "{format} {dtype:?}");
        }
    }
    assert_eq!(Ste::default(), Ste::PassThrough);
}

#[test]
fn pass_through_whatever_the_values() {
    let x = tensor(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e30], DType::F32);
    let upstream = tensor(&[1.0, -2.0, 3.0, f64::INFINITY, f64::NAN, 1e-45], DType::F32);
    let gradient = gradient(&x, &upstream, |x| fake_quantize_with_scale(x, Fp8::E4M3, 1.0, Ste::PassThrough));
    assert_eq!(bits(&gradient), bits(&upstream));
}

#[test]
fn clipped_is_zero_where_the_range_was_too_small() {
    // Whether the gradient passes for E4M3 under the scale 0.5, whose range ends at 224. The next value would be 240;
    // halfway, 232 goes to the even code, which is that of 224.
    let cases = [
        (0.0f32, true),
        (-0.0, true),
        (1.0, true),
        (-100.0, true),
        (223.0, true),
        (224.0, true),
        (-224.0, true),
        (224f32.next_up(), true),
        (225.0, true),
        (-225.0, true),
        (232.0, true),
        (-232.0, true),
        (232f32.next_up(), false),
        ((-232f32).next_down(), false),
        (240.0, false),
        (1e30, false),
        (f32::MAX, false),
        (f32::INFINITY, false),
        (f32::NEG_INFINITY, false),
        // NaN is not beyond anything.
        (f32::NAN, true),
        (f32::from_bits(1), true),
    ];
    let inputs: Vec<_> = cases.iter().map(|(x, _)| f64::from(*x)).collect();
    let upstream: Vec<_> = (0..cases.len()).map(|i| i as f64 - 7.5).collect();
    let expected: Vec<_> = cases.iter().zip(&upstream).map(|((_, passes), g)| if *passes { *g } else { 0.0 }).collect();
    for dtype in [DType::F32, DType::F64] {
        let gradient = gradient(&tensor(&inputs, dtype), &tensor(&upstream, dtype), |x| {
            fake_quantize_with_scale(x, Fp8::E4M3, 0.5, Ste::Clipped)
        });
        assert_eq!(gradient.dtype(), dtype);
        assert_eq!(values(&gradient), expected, "{dtype:?}");
    }
}

#[test]
fn clipped_in_f64_sees_what_f32_would_not() {
    let inputs = [232.0, 232f64.next_up(), 232f64.next_down(), (-232f64).next_down(), 232.0 + 1e-9];
    let gradient = gradient(&tensor(&inputs, DType::F64), &tensor(&[1.0; 5], DType::F64), |x| {
        fake_quantize_with_scale(x, Fp8::E4M3, 0.5, Ste::Clipped)
    });
    assert_eq!(values(&gradient), [1.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn clipped_in_half_precision_divides_in_f32() {
    for (dtype, step) in [(DType::F16, 0.125), (DType::BF16, 1.0)] {
        let inputs = [232.0, 232.0 + step, -232.0 - step, 232.0 - step, f64::INFINITY, f64::NAN];
        let gradient = gradient(&tensor(&inputs, dtype), &tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype), |x| {
            fake_quantize_with_scale(x, Fp8::E4M3, 0.5, Ste::Clipped)
        });
        assert_eq!((gradient.dtype(), values(&gradient)), (dtype, vec![1.0, 0.0, 0.0, 4.0, 0.0, 6.0]));
    }
    // Rounded to `bf16`, 1.007874 (1 / (127/128)) would be 1.0078125: the quotient of 1 would no longer be 127/128.
    let scale = 128.0f32 / 127.0;
    let gradient = gradient(&tensor(&[1.0, -1.0, 1.007_812_5], DType::BF16), &tensor(&[1.0; 3], DType::BF16), |x| {
        fake_quantize_with_scale(x, Fp8::E0M7, scale, Ste::Clipped)
    });
    assert_eq!(values(&gradient), [1.0, 1.0, 0.0]);
}

#[test]
fn clipped_at_the_end_of_every_format() {
    for (format, oracle) in formats() {
        for dtype in [DType::F32, DType::F64] {
            let largest = oracle.largest();
            // Between the largest value and the one that would follow: 2^(exponent - mantissa bits) further.
            let step = 2f64.powi(largest.log2().floor() as i32 - i32::from(format.mantissa_bits()));
            let step = if format.exponent_bits() == 0 { 1.0 - largest } else { step };
            let midpoint = (largest + step / 2.0) as f32;
            let (within, beyond) = (f64::from(midpoint.next_down()), f64::from(midpoint.next_up()));
            let x = tensor(&[largest, -largest, within, -within, beyond, -beyond, largest / 2.0], dtype);
            let gradient =
                gradient(&x, &tensor(&[2.0; 7], dtype), |x| fake_quantize_with_scale(x, format, 1.0, Ste::Clipped));
            assert_eq!(values(&gradient), [2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 2.0], "{format} {dtype:?}");
        }
    }
}

/// A value that defines the scale counts as within the range, however the scale was rounded.
#[test]
fn the_largest_element_of_a_tensor_is_not_clipped_under_its_own_scale() {
    for (format, _) in formats() {
        for amax in (1..2000).map(|i| 0.37 * i as f32) {
            let x = tensor(&[f64::from(amax), -f64::from(amax)], DType::F32);
            let scale = compute_scale(amax, format);
            let gradient = gradient(&x, &tensor(&[1.0; 2], DType::F32), |x| {
                fake_quantize_with_scale(x, format, scale, Ste::Clipped)
            });
            assert_eq!(values(&gradient), [1.0; 2], "{format} {amax}");
        }
    }
}

/// Halfway to the next value goes to the even code: E4M3's largest is even, E5M2's is odd.
#[test]
fn clipped_at_the_midpoint_follows_the_tie_rule() {
    for (format, midpoint, expected) in [(Fp8::E4M3, 464.0, 1.0), (Fp8::E5M2, 61440.0, 0.0)] {
        let gradient = gradient(&tensor(&[midpoint], DType::F32), &tensor(&[1.0], DType::F32), |x| {
            fake_quantize_with_scale(x, format, 1.0, Ste::Clipped)
        });
        assert_eq!(values(&gradient), [expected], "{format}");
    }
}

#[test]
fn clipped_keeps_the_upstream_bits_and_drops_them_whole() {
    let x = tensor(&[1.0, 1.0, 1.0, 1e9, 1e9, 1e9], DType::F32);
    let upstream = tensor(&[f64::NAN, f64::NEG_INFINITY, 1e-45, f64::NAN, f64::INFINITY, -1.0], DType::F32);
    let gradient = gradient(&x, &upstream, |x| fake_quantize_with_scale(x, Fp8::E4M3, 1.0, Ste::Clipped));
    // Zero where clipped, not zero times the gradient, which would be NaN.
    assert_eq!(bits(&gradient)[..3], bits(&upstream)[..3]);
    assert_eq!(bits(&gradient)[3..], [Some(0); 3]);
}

#[test]
fn gradients_of_views() {
    let x =
        Var::from_tensor(&tensor(&[1.0, 500.0, 3.0, -500.0, 5.0, 6.0], DType::F32).reshape((2, 3)).unwrap()).unwrap();
    let upstream = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], DType::F32).reshape((3, 2)).unwrap();
    for (ste, expected) in
        [(Ste::PassThrough, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]), (Ste::Clipped, [1.0, 0.0, 5.0, 0.0, 4.0, 6.0])]
    {
        let q = fake_quantize_with_scale(&x.t().unwrap(), Fp8::E4M3, 1.0, ste).unwrap();
        let gradients = (q * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&x).unwrap()), expected, "{ste:?}");
    }
    // A broadcast row collects the gradients of its copies.
    let row = Var::from_tensor(&tensor(&[1.0, 500.0], DType::F32)).unwrap();
    for (ste, expected) in [(Ste::PassThrough, [9.0, 12.0]), (Ste::Clipped, [9.0, 0.0])] {
        let q = fake_quantize_with_scale(&row.broadcast_as((3, 2)).unwrap(), Fp8::E4M3, 1.0, ste).unwrap();
        let gradients = (q * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&row).unwrap()), expected, "{ste:?}");
    }
}

#[test]
fn gradients_of_scalars_and_empty_tensors() {
    for ste in [Ste::PassThrough, Ste::Clipped] {
        let x = Var::from_tensor(&Tensor::new(3f32, &Device::Cpu).unwrap()).unwrap();
        let q = fake_quantize_with_scale(x.as_tensor(), Fp8::E4M3, 1.0, ste).unwrap();
        let gradients = (q * 2.0).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_scalar::<f32>().unwrap(), 2.0, "{ste:?}");

        let x = Var::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
        let q = fake_quantize_with_scale(x.as_tensor(), Fp8::E4M3, 1.0, ste).unwrap();
        let gradients = q.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().dims(), [0, 3], "{ste:?}");
    }
}
