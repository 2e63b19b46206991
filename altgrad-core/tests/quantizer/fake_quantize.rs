//! The forward pass of fake quantization on tensors.

use altgrad_core::kernels::{self, Blocks, Conversion};
use altgrad_core::{
    ConfigError, Error, FormatError, Fp8, Fp8Tensor, Granularity, Infinity, Quantizer, Result, Scaling, Ste,
    TensorError, compute_scale, fake_quantize, fake_quantize_with_scale,
};
use altgrad_testing::corpus;
use candle_core::{DType, Device, Tensor};

use crate::{FLOAT_DTYPES, bits, expected, formats, numbers, tensor, values};

#[test]
fn every_format_and_dtype() {
    for (format, oracle) in formats() {
        for dtype in FLOAT_DTYPES {
            let x = tensor(&numbers(3000, 60.0), dtype).reshape((30, 100)).unwrap();
            // -60 is in the tensor and exact in every dtype.
            let scale = 60.0 / oracle.largest() as f32;
            for scaling in [Scaling::Current, Scaling::Window { len: 16 }] {
                let q = fake_quantize(&x, &Quantizer::new(format).scaling(scaling)).unwrap();
                assert_eq!((q.dtype(), q.dims()), (dtype, x.dims()));
                let expected: Vec<_> = values(&x).iter().map(|x| expected(*x, dtype, &oracle, scale).1).collect();
                assert_eq!(bits(&q), expected, "{format} {dtype:?}");
            }
        }
    }
}

#[test]
fn every_value_under_a_given_scale() {
    for (format, oracle) in formats() {
        for dtype in FLOAT_DTYPES {
            for scale in [1.0, 0.3, 2f32.powi(-20)] {
                let inputs: Vec<_> = corpus::f64s(&oracle).into_iter().map(|x| x * f64::from(scale)).collect();
                let x = tensor(&inputs, dtype);
                let q = fake_quantize_with_scale(&x, format, scale, Ste::Clipped).unwrap();
                let expected: Vec<_> = values(&x).iter().map(|x| expected(*x, dtype, &oracle, scale).1).collect();
                assert_eq!(bits(&q), expected, "{format} {dtype:?} {scale}");
            }
        }
    }
}

#[test]
fn by_hand() {
    let x = Tensor::new(&[896f32, -1.0, 33.0, 2.125, -0.0, 1e-9], &Device::Cpu).unwrap();
    let q = fake_quantize(&x, &Quantizer::from(Fp8::E4M3)).unwrap();
    // Under the scale 2: 448, -0.5, 16.5 → 16 (a tie of 16 and 18 it is not), 1.0625 → 1 (a tie), -0, 0.
    assert_eq!(q.to_vec1::<f32>().unwrap(), [896.0, -1.0, 32.0, 2.0, -0.0, 0.0]);
    assert!(q.to_vec1::<f32>().unwrap()[4].is_sign_negative());
    let q = fake_quantize_with_scale(&x, Fp8::E4M3, 1.0, Ste::PassThrough).unwrap();
    assert_eq!(q.to_vec1::<f32>().unwrap(), [448.0, -1.0, 32.0, 2.0, -0.0, 0.0]);
}

#[test]
fn nan_stays_and_infinity_saturates_where_it_is_to() {
    for (format, oracle) in formats() {
        for dtype in FLOAT_DTYPES {
            let x = tensor(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0], dtype);
            let quantizer = Quantizer::from(format);
            assert!(values(&fake_quantize(&x, &quantizer).unwrap()).iter().all(|q| q.is_nan()), "{format} {dtype:?}");
            // Without a finite amax the scale is 1.
            let q = values(&fake_quantize(&x, &quantizer.infinity(Infinity::Saturate)).unwrap());
            let saturated = values(&tensor(&[oracle.largest()], dtype))[0];
            assert!(q[0].is_nan(), "{format} {dtype:?}");
            assert_eq!(q[1..], [saturated, -saturated, 0.0], "{format} {dtype:?}");
        }
    }
}

#[test]
fn the_largest_magnitude_comes_back_as_it_was() {
    for (format, _) in formats() {
        for (dtype, largest) in [
            (DType::F32, f64::from(f32::MAX)),
            (DType::F64, f64::from(f32::MAX)),
            (DType::BF16, f64::from(half::bf16::MAX)),
            (DType::F16, 65504.0),
        ] {
            let x = tensor(&[largest, -largest, 1.0], dtype);
            let q = values(&fake_quantize(&x, &Quantizer::from(format)).unwrap());
            let error = (q[0] - largest).abs() / largest;
            // E0M7's largest value is below 1, so that its scale would be out of range.
            let bound = if format == Fp8::E0M7 { 1.0 / 127.0 } else { 2f64.powi(-23) };
            assert!(error <= bound && q[1] == -q[0], "{format} {dtype:?}: {q:?}");
        }
    }
}

#[test]
fn tiny_tensors_keep_a_scale() {
    let x = Tensor::new(&[f32::from_bits(1), -1e-40, 0.0], &Device::Cpu).unwrap();
    for (format, oracle) in formats() {
        let q = fake_quantize(&x, &Quantizer::from(format)).unwrap();
        let expected: Vec<_> =
            values(&x).iter().map(|x| expected(*x, DType::F32, &oracle, f32::MIN_POSITIVE).1).collect();
        assert_eq!(bits(&q), expected, "{format}");
    }
}

#[test]
fn views_of_any_layout() {
    let base = tensor(&numbers(4 * 6 * 5, 448.0), DType::F32).reshape((4, 6, 5)).unwrap();
    let views = [
        base.t().unwrap(),
        base.transpose(0, 1).unwrap(),
        base.permute((2, 0, 1)).unwrap(),
        base.narrow(1, 2, 3).unwrap(),
        base.narrow(0, 1, 2).unwrap(),
        base.narrow(2, 1, 3).unwrap().t().unwrap(),
        base.narrow(0, 3, 1).unwrap().broadcast_as((7, 6, 5)).unwrap(),
        base.get(1).unwrap().get(2).unwrap().broadcast_as((3, 5)).unwrap(),
    ];
    for dtype in FLOAT_DTYPES {
        for (format, oracle) in formats() {
            for view in &views {
                let view = view.to_dtype(dtype).unwrap();
                let q = fake_quantize_with_scale(&view, format, 0.3, Ste::PassThrough).unwrap();
                assert_eq!((q.dims(), q.dtype()), (view.dims(), dtype));
                let expected: Vec<_> = values(&view).iter().map(|x| expected(*x, dtype, &oracle, 0.3).1).collect();
                assert_eq!(bits(&q), expected, "{format} {dtype:?} {:?}", view.layout());
            }
        }
    }
    // The scale comes from the view, not from the storage behind it.
    let x = Tensor::new(&[[448f32, 17.0], [3.5, -0.3]], &Device::Cpu).unwrap().narrow(0, 1, 1).unwrap();
    let q = fake_quantize(&x, &Quantizer::from(Fp8::E4M3)).unwrap();
    assert_eq!(q.to_vec2::<f32>().unwrap()[0][0], 3.5);
    assert_eq!(q.to_vec2::<f32>().unwrap()[0][1], -0.3125);
}

#[test]
fn empty_and_scalar_tensors() {
    for dtype in FLOAT_DTYPES {
        for shape in [&[0usize][..], &[0, 3], &[3, 0], &[2, 0, 5]] {
            let x = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
            let q = fake_quantize(&x, &Quantizer::from(Fp8::E4M3)).unwrap();
            assert_eq!((q.dims(), q.dtype(), q.elem_count()), (shape, dtype, 0));
        }
        let x = Tensor::new(-3.5f64, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let q = fake_quantize(&x, &Quantizer::from(Fp8::E5M2)).unwrap();
        assert_eq!((q.rank(), values(&q)), (0, vec![-3.5]), "{dtype:?}");
        let zeros = Tensor::zeros((2, 2), dtype, &Device::Cpu).unwrap();
        assert_eq!(values(&fake_quantize(&zeros, &Quantizer::from(Fp8::E4M3)).unwrap()), [0.0; 4]);
    }
}

#[test]
fn other_dtypes_are_an_error() {
    for dtype in [DType::U8, DType::U32, DType::I64] {
        let x = Tensor::ones(3, dtype, &Device::Cpu).unwrap();
        let message =
            format!("the tensor has dtype {dtype:?}, but only f32, f64, f16 and bf16 tensors can be quantized");
        let error = fake_quantize(&x, &Quantizer::from(Fp8::E4M3)).unwrap_err();
        assert!(matches!(error, Error::Tensor(TensorError::UnsupportedDType { .. })), "{error:?}");
        assert_eq!(error.to_string(), message);
        let error = fake_quantize_with_scale(&x, Fp8::E4M3, 1.0, Ste::PassThrough).unwrap_err();
        assert!(error.to_string().starts_with(&message), "{error}");
    }
}

#[test]
fn an_invalid_quantizer_is_an_error() {
    let x = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
    let error = fake_quantize(&x, &Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 0 })).unwrap_err();
    assert!(matches!(error, Error::Config(ConfigError::InvalidQuantizer { .. })), "{error:?}");
}

#[test]
fn a_scale_that_is_none_is_an_error() {
    let x = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
    for scale in [0.0, -0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for ste in [Ste::PassThrough, Ste::Clipped] {
            let error = fake_quantize_with_scale(&x, Fp8::E4M3, scale, ste).unwrap_err();
            assert!(matches!(error, Error::Format(FormatError::InvalidScale { .. })), "{scale}: {error:?}");
        }
    }
}

#[test]
fn a_magnitude_beyond_f32_is_an_error() {
    let quantizer = Quantizer::from(Fp8::E4M3);
    let x = Tensor::new(&[1f64, -1e300], &Device::Cpu).unwrap();
    let message = "the tensor has a magnitude of 1e300, but scales are f32 and end at 3.4e38; rescale the tensor";
    assert_eq!(fake_quantize(&x, &quantizer).unwrap_err().to_string(), message);
    assert_eq!(Fp8Tensor::quantize(&x, &quantizer).unwrap_err().to_string(), message);
    // An infinity is another matter.
    let x = Tensor::new(&[1f64, f64::NEG_INFINITY], &Device::Cpu).unwrap();
    assert_eq!(values(&fake_quantize(&x, &quantizer.infinity(Infinity::Saturate)).unwrap()), [1.0, -448.0]);
}

#[test]
fn slices_and_tensors_agree() -> Result<()> {
    let (rows, cols) = (7, 45);
    let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37) % 101) as f32 * 0.3 - 11.0).collect();
    let quantizer = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerBlock { rows: 2, cols: 16 });
    let tensor = Tensor::from_slice(&values, (rows, cols), &Device::Cpu)?;
    let expected = fake_quantize(&tensor, &quantizer)?.flatten_all()?.to_vec1::<f32>()?;

    let blocks = Blocks::per_block((rows, cols), (2, 16));
    let amaxes = kernels::amax(&values, blocks)?;
    let scales = amaxes.into_iter().map(|amax| compute_scale(amax as f32, Fp8::E4M3));
    let mut fake = vec![0.0; values.len()];
    kernels::fake_quantize(&values, &mut fake, &Conversion::new(Fp8::E4M3, blocks, scales)?)?;
    assert_eq!(fake, expected);
    Ok(())
}
