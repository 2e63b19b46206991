//! Packed tensors.

use altgrad_core::{
    ConfigError, Error, FormatError, Fp8, Fp8Tensor, Granularity, Infinity, Quantizer, Scaling, Ste, fake_quantize,
    fake_quantize_with_scale,
};
use altgrad_testing::corpus;
use candle_core::{DType, Device, Tensor};

use crate::{FLOAT_DTYPES, bits, expected, formats, numbers, tensor, values};

/// Bytes that no quantizer gives are not read as other numbers in silence.
#[test]
fn codes_of_narrow_formats_are_in_the_upper_bits() {
    let one = || Tensor::new(1f32, &Device::Cpu).unwrap();
    let tensor = |codes: &[u8], format| {
        let codes = Tensor::new(codes, &Device::Cpu).unwrap();
        Fp8Tensor::from_parts(codes, one(), Granularity::PerTensor, format, DType::F32)
    };
    for format in [Fp8::E2M1, Fp8::E2M3, Fp8::E3M2] {
        let codes: Vec<u8> = format.values().map(|(code, _)| code).collect();
        let values: Vec<f32> = format.values().map(|(_, value)| value).collect();
        let decoded = tensor(&codes, format).unwrap().dequantize().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(decoded, values);
        for bit in 0..8 - format.bits() {
            let error = tensor(&[0x80, 1 << bit], format).unwrap_err();
            assert!(matches!(error, Error::Format(FormatError::NotACode { .. })), "{error}");
        }
        assert!(tensor(&[], format).is_ok());
    }
    assert!(tensor(&[1], Fp8::E2M5).is_ok());
}

#[test]
fn packing_keeps_what_fake_quantization_gives() {
    for (format, oracle) in formats() {
        for dtype in FLOAT_DTYPES {
            let quantizer = Quantizer::from(format);
            let x = tensor(&numbers(2000, 60.0), dtype).reshape((20, 10, 10)).unwrap();
            let packed = Fp8Tensor::quantize(&x, &quantizer).unwrap();
            assert_eq!((packed.format(), packed.dtype(), packed.shape()), (format, dtype, x.shape()));
            assert_eq!((packed.codes().dtype(), packed.codes().dims()), (DType::U8, x.dims()));
            assert_eq!((packed.scales().dtype(), packed.scales().rank()), (DType::F32, 0));
            assert_eq!(packed.bytes(), 2004);

            let scale = 60.0 / oracle.largest() as f32;
            assert_eq!(packed.scales().to_scalar::<f32>().unwrap(), scale, "{format} {dtype:?}");
            let (codes, expected_bits): (Vec<_>, Vec<_>) =
                values(&x).iter().map(|x| expected(*x, dtype, &oracle, scale)).unzip();
            let packed_codes = packed.codes().flatten_all().unwrap().to_vec1::<u8>().unwrap();
            assert_eq!(packed_codes.into_iter().map(Some).collect::<Vec<_>>(), codes, "{format} {dtype:?}");

            let restored = packed.dequantize().unwrap();
            assert_eq!((restored.dtype(), restored.dims()), (dtype, x.dims()));
            assert_eq!(bits(&restored), expected_bits, "{format} {dtype:?}");
            assert_eq!(bits(&restored), bits(&fake_quantize(&x, &quantizer).unwrap()), "{format} {dtype:?}");
        }
    }
}

#[test]
fn packing_under_a_scale_keeps_every_value() {
    for (format, oracle) in formats() {
        for dtype in FLOAT_DTYPES {
            for scale in [1.0, 0.3, 2f32.powi(-20), 1e-30, f32::MIN_POSITIVE, f32::MAX / 4.0] {
                let corpus = corpus::f64s(&oracle).into_iter().map(|x| x * f64::from(scale));
                let x = tensor(&corpus.filter(|x| format.has_nan() || !x.is_nan()).collect::<Vec<_>>(), dtype);
                let packed = Fp8Tensor::quantize_with_scale(&x, format, scale).unwrap();
                let fake = fake_quantize_with_scale(&x, format, scale, Ste::PassThrough).unwrap();
                assert_eq!(bits(&packed.dequantize().unwrap()), bits(&fake), "{format} {dtype:?} {scale:e}");
            }
        }
    }
}

#[test]
fn views_and_empty_tensors() {
    let base = tensor(&numbers(60, 448.0), DType::F32).reshape((3, 4, 5)).unwrap();
    let views = [
        base.t().unwrap(),
        base.narrow(1, 1, 2).unwrap(),
        base.narrow(0, 2, 1).unwrap().broadcast_as((2, 4, 5)).unwrap(),
        base.narrow(0, 0, 0).unwrap(),
        base.get(0).unwrap().get(0).unwrap().get(0).unwrap(),
    ];
    for view in views {
        let packed = Fp8Tensor::quantize_with_scale(&view, Fp8::E4M3, 0.5).unwrap();
        let fake = fake_quantize_with_scale(&view, Fp8::E4M3, 0.5, Ste::PassThrough).unwrap();
        assert_eq!(packed.shape(), view.shape());
        assert_eq!(bits(&packed.dequantize().unwrap()), bits(&fake), "{:?}", view.layout());
        let packed = Fp8Tensor::quantize(&view, &Quantizer::from(Fp8::E4M3)).unwrap();
        assert_eq!(packed.bytes(), view.elem_count() + 4);
    }
}

#[test]
fn nan_needs_a_format_that_has_it() {
    for (format, _) in formats() {
        for dtype in FLOAT_DTYPES {
            let x = tensor(&[1.0, f64::NAN, -2.0], dtype);
            let saturating = Quantizer::from(format).infinity(Infinity::Saturate);
            for packed in [Fp8Tensor::quantize(&x, &saturating), Fp8Tensor::quantize_with_scale(&x, format, 0.5)] {
                if format.has_nan() {
                    let restored = values(&packed.unwrap().dequantize().unwrap());
                    assert!(restored[1].is_nan() && !restored[0].is_nan() && !restored[2].is_nan(), "{format}");
                    continue;
                }
                let error = packed.unwrap_err();
                let Error::Format(FormatError::NanNotRepresentable { format: named }) = &error else {
                    panic!("{error}")
                };
                assert_eq!(*named, format.to_string());
                assert_eq!(
                    error.to_string(),
                    format!(
                        "{format} has no code for NaN, and the tensor holds a value that is not finite; \
                         use a format with NaN such as E4M3 or E5M2, or remove it first"
                    )
                );
            }
        }
    }
    // Where infinities propagate, NaN and they take all of their block along.
    for special in [f64::NAN, f64::INFINITY] {
        let x = tensor(&[1.0, special], DType::F32);
        let packed = Fp8Tensor::quantize(&x, &Quantizer::from(Fp8::E5M2)).unwrap();
        assert!(packed.scales().to_scalar::<f32>().unwrap().is_nan());
        assert!(values(&packed.dequantize().unwrap()).iter().all(|value| value.is_nan()));
        let error = Fp8Tensor::quantize(&x, &Quantizer::from(Fp8::E3M4)).unwrap_err();
        assert!(matches!(error, Error::Format(FormatError::NanNotRepresentable { .. })), "{error}");
    }
    // Infinities that saturate need nothing.
    let x = tensor(&[f64::INFINITY, f64::NEG_INFINITY], DType::F32);
    let packed = Fp8Tensor::quantize_with_scale(&x, Fp8::E3M4, 1.0).unwrap();
    assert_eq!(packed.codes().to_vec1::<u8>().unwrap(), [0x7F, 0xFF]);
}

#[test]
fn inputs_that_cannot_be_packed() {
    let x = Tensor::ones((2, 2), DType::U32, &Device::Cpu).unwrap();
    let message = "the tensor has dtype U32, but only f32, f64, f16 and bf16 tensors can be quantized";
    assert_eq!(Fp8Tensor::quantize(&x, &Quantizer::from(Fp8::E4M3)).unwrap_err().to_string(), message);
    assert_eq!(Fp8Tensor::quantize_with_scale(&x, Fp8::E4M3, 1.0).unwrap_err().to_string(), message);

    let x = Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap();
    let invalid = Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 0 });
    assert!(matches!(Fp8Tensor::quantize(&x, &invalid), Err(Error::Config(ConfigError::InvalidQuantizer { .. }))));
    for scale in [0.0, -0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let error = Fp8Tensor::quantize_with_scale(&x, Fp8::E4M3, scale).unwrap_err();
        assert!(matches!(error, Error::Format(FormatError::InvalidScale { .. })), "{scale}: {error:?}");
        // Not that a NaN is in the way, which only the scale brings in.
        let error = Fp8Tensor::quantize_with_scale(&x.zeros_like().unwrap(), Fp8::E3M4, scale).unwrap_err();
        assert!(matches!(error, Error::Format(FormatError::InvalidScale { .. })), "{scale}: {error:?}");
    }
}

#[test]
fn from_parts() {
    let device = &Device::Cpu;
    let codes = Tensor::new(&[[0x38u8, 0xFE], [0x00, 0x01]], device).unwrap();
    let scale = Tensor::new(2f32, device).unwrap();
    let packed =
        Fp8Tensor::from_parts(codes.clone(), scale.clone(), Granularity::PerTensor, Fp8::E4M3, DType::BF16).unwrap();
    assert_eq!(values(&packed.dequantize().unwrap()), [2.0, -896.0, 0.0, 2f64.powi(-8)]);
    assert_eq!(packed.dequantize().unwrap().dtype(), DType::BF16);
    // A transposed view of codes is as good as any.
    let turned =
        Fp8Tensor::from_parts(codes.t().unwrap(), scale.clone(), Granularity::PerTensor, Fp8::E4M3, DType::F32)
            .unwrap();
    assert_eq!(values(&turned.dequantize().unwrap()), [2.0, 0.0, -896.0, 2f64.powi(-8)]);

    let error = |codes: &Tensor, scale: &Tensor, dtype| {
        Fp8Tensor::from_parts(codes.clone(), scale.clone(), Granularity::PerTensor, Fp8::E4M3, dtype)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(&codes.to_dtype(DType::U32).unwrap(), &scale, DType::F32),
        "the tensor of codes has dtype U32, expected U8; convert it with `to_dtype`"
    );
    assert_eq!(
        error(&codes, &scale.to_dtype(DType::F64).unwrap(), DType::F32),
        "the tensor of scales has dtype F64, expected F32; convert it with `to_dtype`"
    );
    assert_eq!(
        error(&codes, &scale.reshape(1).unwrap(), DType::F32),
        "the tensor of scales has shape [1], expected a scalar, one scale for the whole tensor"
    );
    assert_eq!(
        error(&codes, &scale, DType::U8),
        "the dequantized tensor has dtype U8, but only f32, f64, f16 and bf16 tensors can be quantized"
    );
    for (value, text) in [(0f32, "0"), (-1.5, "-1.5"), (f32::INFINITY, "inf"), (f32::NAN, "NaN")] {
        assert_eq!(
            error(&codes, &Tensor::new(value, device).unwrap(), DType::F32),
            format!("a scale must be a positive finite number, this one is {text}")
        );
    }
}
