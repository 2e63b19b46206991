//! What a transformer is made of beside its linear layers: values and gradients against candle's operations in f64.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::num::NonZeroUsize;

use altgrad_core::Mask;
use altgrad_core::nn::attention::scaled_dot_product_attention;
use altgrad_core::nn::{LayerNorm, RmsNorm, loss, ops, rotary_emb};
use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor, Var};

/// Relative to the largest value: the bound of `nn::ops`, and the rounding of the result's dtype.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 2e-2,
        // Candle computes these with an epsilon that is an f32.
        _ => 8e-6,
    }
}

const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Numbers from -2 to 2 that every dtype has, without a pattern.
fn numbers(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 129) as f64 / 32.0 - 2.0
    };
    let count: usize = shape.iter().product();
    Tensor::from_vec((0..count).map(|_| next()).collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, bound: f64, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let list = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (found, expected) = (list(found).unwrap(), list(expected).unwrap());
    let scale = expected.iter().fold(1e-2, |largest: f64, value| largest.max(value.abs()));
    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() <= bound * scale, "{what}: {found} at {place}, not {expected}");
    }
}

type Operation<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Values and gradients of `found` in every dtype against those of `expected` in f64.
#[track_caller]
fn check(what: &str, shapes: &[&[usize]], found: Operation<'_>, expected: Operation<'_>) {
    let arguments: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| numbers(shape, seed)).collect();
    let run = |operation: Operation<'_>, dtype: DType, strided: bool| {
        let vars: Vec<Var> = arguments.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype)?)).collect::<Result<_>>()?;
        let tensors: Vec<Tensor> = vars
            .iter()
            .map(|var| {
                // The same values in another order in memory.
                let order: Vec<usize> = (0..var.rank()).rev().collect();
                let turned = |x: &Tensor| x.permute(&order[..]);
                if strided { turned(&turned(var)?.contiguous()?) } else { Ok(var.as_tensor().clone()) }
            })
            .collect::<Result<_>>()?;
        let y = operation(&tensors)?;
        let weights = numbers(y.dims(), 99).to_dtype(dtype)?;
        let grads = (&y * weights)?.sum_all()?.backward()?;
        let of_vars = vars.iter().map(|var| grads.get(var).cloned()).collect::<Vec<_>>();
        Ok::<_, candle_core::Error>((y, of_vars))
    };
    let (y, dy) = run(expected, DType::F64, false).unwrap();
    for dtype in DTYPES {
        for strided in [false, true] {
            let what = format!("{what} in {dtype:?}, strided: {strided}");
            let (found, gradients) = run(found, dtype, strided).unwrap();
            assert_eq!(found.dtype(), dtype);
            assert_close(&found, &y, bound(dtype), &what);
            for (place, (found, expected)) in gradients.iter().zip(&dy).enumerate() {
                let Some(expected) = expected else { continue };
                let found = found.as_ref().unwrap_or_else(|| panic!("{what}: no gradient of argument {place}"));
                assert_close(found, expected, 4.0 * bound(dtype), &format!("{what}, gradient of argument {place}"));
            }
        }
    }
}

fn normalized(x: &Tensor, centered: bool) -> Result<Tensor> {
    let x = if centered { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?)
}

#[test]
fn norms() {
    for shape in [&[3, 7][..], &[2, 3, 40], &[1, 1], &[70, 2, 33]] {
        let size = &shape[shape.len() - 1..];
        check(
            "layer norm",
            &[shape, size, size],
            &|a| LayerNorm::new(a[1].clone(), a[2].clone(), 1e-5).forward(&a[0]),
            &|a| normalized(&a[0], true)?.broadcast_mul(&a[1])?.broadcast_add(&a[2]),
        );
        check(
            "layer norm without bias",
            &[shape, size],
            &|a| LayerNorm::new_no_bias(a[1].clone(), 1e-5).forward(&a[0]),
            &|a| normalized(&a[0], true)?.broadcast_mul(&a[1]),
        );
        check("RMS norm", &[shape, size], &|a| RmsNorm::new(a[1].clone(), 1e-5).forward(&a[0]), &|a| {
            normalized(&a[0], false)?.broadcast_mul(&a[1])
        });
    }
}

#[test]
fn activations() {
    for shape in [&[1][..], &[3, 7], &[2, 3, 40], &[20_000]] {
        check("silu", &[shape], &|a| ops::silu(&a[0]), &|a| a[0].silu());
        check("gelu", &[shape], &|a| ops::gelu(&a[0]), &|a| a[0].gelu());
        check("gelu_erf", &[shape], &|a| ops::gelu_erf(&a[0]), &|a| a[0].gelu_erf());
        check("silu_mul", &[shape, shape], &|a| ops::silu_mul(&a[0], &a[1]), &|a| a[0].silu()?.mul(&a[1]));
        check("gelu_mul", &[shape, shape], &|a| ops::gelu_mul(&a[0], &a[1]), &|a| a[0].gelu()?.mul(&a[1]));
    }
    check("swiglu", &[&[3, 14]], &|a| ops::swiglu(&a[0]), &|a| {
        a[0].narrow(1, 0, 7)?.contiguous()?.silu()?.mul(&a[0].narrow(1, 7, 7)?.contiguous()?)
    });
}

/// The softmax of candle's operations, with 0 for rows that see nothing.
fn softmax(x: &Tensor, mask: Mask) -> Result<Tensor> {
    let (queries, tokens) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
    let sees = |query: usize, token: usize| {
        let own = (tokens + query) as i64 - queries as i64;
        let age = own - token as i64;
        match mask {
            Mask::All => true,
            Mask::Window(window) => age >= 0 && age < window.get() as i64,
            _ => age >= 0,
        }
    };
    let places = (0..queries).flat_map(|query| (0..tokens).map(move |token| (query, token)));
    let shown = Tensor::from_iter(places.map(|(query, token)| f64::from(u8::from(sees(query, token)))), &Device::Cpu)?;
    let terms = x.exp()?.broadcast_mul(&shown.reshape((queries, tokens))?.to_dtype(x.dtype())?)?;
    terms.broadcast_div(&(terms.sum_keepdim(D::Minus1)? + 1e-30)?)
}

#[test]
fn softmaxes() {
    let window = Mask::Window(NonZeroUsize::new(2).unwrap());
    for shape in [&[1, 1][..], &[3, 7], &[7, 3], &[2, 2, 5, 40]] {
        check("softmax_last_dim", &[shape], &|a| ops::softmax_last_dim(&a[0]), &|a| softmax(&a[0], Mask::All));
        check("softmax of a dimension", &[shape], &|a| ops::softmax(&a[0], 0), &|a| {
            softmax(&a[0].transpose(0, D::Minus1)?, Mask::All)?.transpose(0, D::Minus1)
        });
        for mask in [Mask::Causal, window] {
            check("masked_softmax", &[shape], &|a| ops::masked_softmax(&a[0], mask), &|a| softmax(&a[0], mask));
        }
    }
    for dtype in [DType::F32, DType::F64] {
        let large = Tensor::new(&[[1e4f32, -1e4, 1e4]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let y = ops::softmax_last_dim(&large).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[0.5, 0.0, 0.5]]);
        // More queries than tokens: the first ones see nothing.
        let x = Tensor::ones((4, 2), dtype, &Device::Cpu).unwrap();
        let y = ops::masked_softmax(&x, Mask::Causal).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.5, 0.5]]);
    }
}

#[test]
fn rotary_embeddings() {
    let (batch, heads, time, dim) = (2, 3, 5, 8);
    for tables in [None, Some(batch)] {
        let table = |seed| {
            let shape: Vec<usize> = tables.into_iter().chain([time + 2, dim / 2]).collect();
            numbers(&shape, seed)
        };
        let (cos, sin) = (table(7), table(8));
        let per_batch = |table: &Tensor| {
            let table = table.narrow(D::Minus2, 0, time)?;
            if tables.is_some() { table.unsqueeze(1) } else { Ok(table) }
        };
        let turned = |x: &Tensor, interleaved: bool| {
            let (cos, sin) = (per_batch(&cos)?, per_batch(&sin)?);
            let pick = |first: usize, step: usize| {
                let columns = Tensor::from_iter((0..dim / 2).map(|pair| (first + step * pair) as u32), &Device::Cpu)?;
                x.contiguous()?.index_select(&columns, 3)
            };
            let (a, b) = if interleaved { (pick(0, 2)?, pick(1, 2)?) } else { (pick(0, 1)?, pick(dim / 2, 1)?) };
            let to_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
            let to_b = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
            if interleaved { Tensor::stack(&[to_a, to_b], 4)?.flatten_from(3) } else { Tensor::cat(&[to_a, to_b], 3) }
        };
        let like = |table: &Tensor, x: &Tensor| table.to_dtype(x.dtype());
        let shape: &[usize] = &[batch, heads, time, dim];
        check("rope", &[shape], &|a| rotary_emb::rope(&a[0], &like(&cos, &a[0])?, &like(&sin, &a[0])?), &|a| {
            turned(&a[0], false)
        });
        check("rope_i", &[shape], &|a| rotary_emb::rope_i(&a[0], &like(&cos, &a[0])?, &like(&sin, &a[0])?), &|a| {
            turned(&a[0], true)
        });
        check(
            "rope_thd",
            &[&[batch, time, heads, dim]],
            &|a| rotary_emb::rope_thd(&a[0], &like(&cos, &a[0])?, &like(&sin, &a[0])?),
            &|a| turned(&a[0].transpose(1, 2)?, false)?.transpose(1, 2),
        );
    }
}

#[test]
fn cross_entropies() {
    for (rows, classes) in [(1u32, 1u32), (5, 3), (40, 700)] {
        let targets = Tensor::from_iter((0..rows).map(|row| row * 7 % classes), &Device::Cpu).unwrap();
        let expected = |a: &[Tensor]| {
            let x = &a[0];
            let log_sum = x.exp()?.sum_keepdim(1)?.log()?;
            log_sum.sub(&x.gather(&targets.unsqueeze(1)?, 1)?)?.mean_all()
        };
        for dtype in [DType::U32, DType::I64] {
            let targets = targets.to_dtype(dtype).unwrap();
            check(
                "cross_entropy",
                &[&[rows as usize, classes as usize]],
                &|a| loss::cross_entropy(&a[0], &targets),
                &expected,
            );
        }
    }
    let logits = Tensor::new(&[[0f32, f32::NEG_INFINITY]], &Device::Cpu).unwrap();
    let impossible = loss::cross_entropy(&logits, &Tensor::new(&[1u32], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(impossible.to_scalar::<f32>().unwrap(), f32::INFINITY);
}

#[test]
fn attention() {
    let window = Mask::Window(NonZeroUsize::new(3).unwrap());
    for (batch, heads, key_heads, time, tokens, dim, value_dim) in
        [(1, 1, 1, 1, 1, 1, 1), (2, 4, 2, 5, 9, 8, 6), (1, 3, 1, 130, 130, 16, 70), (2, 6, 2, 33, 65, 40, 40)]
    {
        for mask in [Mask::All, Mask::Causal, window] {
            let scale = 0.3;
            check(
                &format!("attention of {time} queries and {tokens} tokens, {mask:?}"),
                &[&[batch, heads, time, dim], &[batch, key_heads, tokens, dim], &[batch, key_heads, tokens, value_dim]],
                &|a| scaled_dot_product_attention(&a[0], &a[1], &a[2], scale, mask),
                &|a| {
                    let repeated = |x: &Tensor| {
                        let (batch, heads_of_keys, tokens, dim) = x.dims4()?;
                        let group = heads / heads_of_keys;
                        x.unsqueeze(2)?.repeat((1, 1, group, 1, 1))?.reshape((batch, heads, tokens, dim))?.contiguous()
                    };
                    let scores = (a[0].matmul(&repeated(&a[1])?.t()?.contiguous()?)? * f64::from(scale))?;
                    softmax(&scores, mask)?.matmul(&repeated(&a[2])?)
                },
            );
        }
    }
}

#[test]
fn empty_inputs_have_empty_results() {
    for dtype in DTYPES {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let weight = zeros(&[4]);
        assert_eq!(ops::layer_norm(&zeros(&[0, 4]), &weight, &weight, 1e-5).unwrap().dims(), [0, 4]);
        assert_eq!(ops::rms_norm(&zeros(&[2, 0, 4]), &weight, 1e-5).unwrap().dims(), [2, 0, 4]);
        assert_eq!(ops::silu(&zeros(&[0])).unwrap().dims(), [0]);
        assert_eq!(ops::gelu_mul(&zeros(&[0, 3]), &zeros(&[0, 3])).unwrap().dims(), [0, 3]);
        assert_eq!(ops::softmax_last_dim(&zeros(&[0, 3])).unwrap().dims(), [0, 3]);
        let rotated = rotary_emb::rope(&zeros(&[1, 2, 0, 4]), &zeros(&[3, 2]), &zeros(&[3, 2])).unwrap();
        assert_eq!(rotated.dims(), [1, 2, 0, 4]);
        let attended = scaled_dot_product_attention(
            &zeros(&[1, 2, 0, 4]),
            &zeros(&[1, 1, 3, 4]),
            &zeros(&[1, 1, 3, 5]),
            1.0,
            Mask::All,
        );
        assert_eq!(attended.unwrap().dims(), [1, 2, 0, 5]);
    }
}

#[test]
fn errors_say_what_does_not_fit() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let halves = |shape: &[usize]| Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap();
    for (found, expected) in [
        (
            message(ops::rms_norm(&zeros(&[2, 4]), &zeros(&[3]), 1e-5)),
            "the weight of a norm has shape [3], expected [4]",
        ),
        (
            message(ops::rms_norm(&zeros(&[2, 4]), &halves(&[4]), 1e-5)),
            "the weight of a norm has dtype BF16, expected F32; convert it with `to_dtype`",
        ),
        (message(ops::silu_mul(&zeros(&[2]), &zeros(&[3]))), "the gated tensor has shape [3], expected [2]"),
        (
            message(rotary_emb::rope(&zeros(&[1, 1, 5, 4]), &zeros(&[4, 2]), &zeros(&[4, 2]))),
            "the angles are those of 4 positions, but there are rows of 5",
        ),
        (
            message(loss::cross_entropy(&zeros(&[2, 3]), &Tensor::new(&[0u32, 3], &Device::Cpu).unwrap())),
            "target 3 of row 1 is not one of 3 classes",
        ),
        (
            message(loss::cross_entropy(&zeros(&[2, 3]), &zeros(&[2]))),
            "targets are numbers of classes, which are integers, but they are F32",
        ),
        (
            message(scaled_dot_product_attention(
                &zeros(&[1, 3, 1, 4]),
                &zeros(&[1, 2, 1, 4]),
                &zeros(&[1, 2, 1, 4]),
                1.0,
                Mask::All,
            )),
            "3 heads of queries cannot be divided among 2 heads of keys",
        ),
        (
            message(scaled_dot_product_attention(
                &zeros(&[1, 1, 3, 4]),
                &zeros(&[1, 1, 2, 4]),
                &zeros(&[1, 1, 2, 4]),
                1.0,
                Mask::Causal,
            )),
            "3 queries are those of the last of 2 tokens; use `Mask::All` for others",
        ),
    ] {
        assert!(found.contains(expected), "{found}\nexpected: {expected}");
    }
}

#[test]
fn what_needs_no_gradient_gets_none() {
    let x = Var::ones((2, 4), DType::F32, &Device::Cpu).unwrap();
    let weight = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
    let grads = ops::rms_norm(&x, &weight, 1e-5).unwrap().i(0).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());
    assert!(!ops::silu(&weight).unwrap().track_op());
}
