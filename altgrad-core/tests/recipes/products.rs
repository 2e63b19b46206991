//! Products from codes, in f32 and the half precisions, against the same layers in `f64`.

use altgrad_core::{
    Compute, Error, Fp8, Fp8Tensor, FrozenLinear, Granularity, Quantizer, Recipe, ScaleEncoding, Scaling, Ste,
};
use candle_core::{DType, Device, Module, Tensor, Var};

use crate::{Step, Trained, cpu, numbers, uneven, values};

/// Tokens, inputs and outputs: parts of a tile, whole tiles, and a little more than that.
const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [5, 37, 13], [6, 64, 64], [1, 300, 65], [70, 131, 129], [13, 600, 7]];

/// Half of the distance of neighbours, relative to them.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-8),
    }
}

/// Recipes with powers of two for scales, under which codes are the same whatever precision a layer computes in.
fn recipes() -> Vec<(String, Recipe)> {
    let quantizer = Quantizer::new(Fp8::E4M3).scaling(Scaling::Current).scale_encoding(ScaleEncoding::PowerOfTwo);
    let everything = |granularity| {
        let quantizer = quantizer.clone().granularity(granularity);
        let gradients = quantizer.clone().format(Fp8::E5M2);
        Recipe::from(quantizer.clone()).activations(quantizer).gradients(gradients)
    };
    let block = |rows, cols| Granularity::PerBlock { rows, cols };
    let granularities = [
        ("tensor", Granularity::PerTensor),
        ("rows", Granularity::PerRow),
        ("squares", block(16, 16)),
        ("parts of rows", block(1, 32)),
        ("odd blocks", block(3, 5)),
    ];
    let mut recipes = Vec::new();
    for (name, granularity) in granularities {
        let recipe = everything(granularity);
        recipes.push((format!("{name}, no gradients"), recipe.clone().gradients(None)));
        recipes.push((format!("{name}, no activations"), recipe.clone().activations(None)));
        recipes.push((format!("{name}, weights"), recipe.clone().activations(None).gradients(None)));
        recipes.push((name.to_owned(), recipe));
    }
    recipes
}

/// A layer's operands in one dtype.
struct Operands {
    w: Tensor,
    bias: Tensor,
    x: Tensor,
    dy: Tensor,
}

impl Operands {
    fn new([tokens, inputs, outputs]: [usize; 3], dtype: DType) -> Self {
        let tensor = |values: Vec<f32>, dims: &[usize]| cpu(values, dims).to_dtype(dtype).unwrap();
        Self {
            w: tensor(uneven(outputs, inputs, 1), &[outputs, inputs]),
            bias: tensor(numbers(outputs, 2), &[outputs]),
            x: tensor(numbers(tokens * inputs, 3), &[tokens, inputs]),
            dy: tensor(numbers(tokens * outputs, 4), &[tokens, outputs]),
        }
    }

    fn map(&self, function: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Self {
        let [w, bias, x, dy] = [&self.w, &self.bias, &self.x, &self.dy].map(|tensor| function(tensor).unwrap());
        Self { w, bias, x, dy }
    }

    fn step(&self, recipe: &Recipe) -> Step {
        Trained::new(&self.w, Some(&self.bias), recipe.clone()).step(&self.x, &self.dy)
    }
}

fn check(actual: &Tensor, exact: &Tensor, magnitudes: &Tensor, tolerance: f64, what: &str) {
    let magnitudes = values(magnitudes);
    for (i, (actual, exact)) in values(actual).into_iter().zip(values(exact)).enumerate() {
        let error = (actual - exact).abs();
        // Half precision has numbers of less precision near zero.
        let bound = tolerance * magnitudes[i] + 2f64.powi(-24);
        assert!(error <= bound, "{what}[{i}]: {actual:e}, should be {exact:e}, off by {error:e}, bound {bound:e}");
    }
}

#[test]
fn are_within_the_bound_of_those_in_f64() {
    for shape in SHAPES {
        let [tokens, inputs, outputs] = shape;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let operands = Operands::new(shape, dtype);
            let wide = operands.map(|tensor| tensor.to_dtype(DType::F64));
            let magnitudes = wide.map(Tensor::abs);
            for (name, recipe) in recipes() {
                let what = format!("{name} {shape:?} {dtype:?}");
                let (actual, exact, magnitudes) =
                    (operands.step(&recipe), wide.step(&recipe), magnitudes.step(&recipe));
                let bound = |products: usize| 2.0 * products as f64 * 2f64.powi(-24) + unit(dtype);
                check(&actual.y, &exact.y, &magnitudes.y, bound(inputs + 1), &format!("{what}: y"));
                check(&actual.dx, &exact.dx, &magnitudes.dx, bound(outputs), &format!("{what}: dx"));
                // Without codes it is candle's product, in the layer's own precision.
                let of_dw = if name.contains("weights") { tokens as f64 * unit(dtype) } else { 0.0 };
                check(&actual.dw, &exact.dw, &magnitudes.dw, bound(tokens) + of_dw, &format!("{what}: dw"));
                let [actual, exact, magnitudes] = [actual, exact, magnitudes].map(|step| step.dbias.unwrap());
                let of_candle = tokens as f64 * unit(DType::F32);
                check(&actual, &exact, &magnitudes, bound(tokens) + of_candle, &format!("{what}: dbias"));
            }
        }
    }
}

#[test]
fn do_not_depend_on_how_the_weight_lies_in_memory() {
    let operands = Operands::new([9, 34, 21], DType::F32);
    let turned = operands.w.t().unwrap().contiguous().unwrap();
    for (name, recipe) in recipes() {
        for ste in [Ste::PassThrough, Ste::Clipped] {
            let recipe = recipe.clone().ste(ste);
            let expected = operands.step(&recipe);
            let variable = Var::from_tensor(&turned).unwrap();
            let linear = candle_nn::Linear::new(variable.t().unwrap(), Some(operands.bias.clone()));
            let mut layer = altgrad_core::QuantizedLinear::new(linear, recipe).unwrap();
            for training in [true, false] {
                layer.set_training(training);
                let x = Var::from_tensor(&operands.x).unwrap();
                let y = layer.forward(&x).unwrap();
                assert_eq!(values(&y), values(&expected.y), "{name}");
                let gradients = (y * &operands.dy).unwrap().sum_all().unwrap().backward().unwrap();
                assert_eq!(values(gradients.get(&x).unwrap()), values(&expected.dx), "{name}");
                let dw = gradients.get(&variable).unwrap().t().unwrap();
                assert_eq!(values(&dw), values(&expected.dw), "{name}");
            }
            assert_eq!(values(&layer.freeze().unwrap().forward(&operands.x).unwrap()), values(&expected.y), "{name}");
        }
    }
}

#[test]
fn of_nothing_are_nothing() {
    for shape in [[0, 3, 2], [4, 0, 2], [4, 3, 0], [0, 0, 2], [0, 3, 0], [0, 0, 0]] {
        let [tokens, inputs, outputs] = shape;
        for dtype in [DType::F32, DType::F64, DType::BF16] {
            let zeros = |dims: (usize, usize)| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
            for (name, recipe) in recipes() {
                let trained = Trained::new(&zeros((outputs, inputs)), None, recipe);
                let step = trained.step(&zeros((tokens, inputs)), &zeros((tokens, outputs)));
                let dims = [step.y.dims(), step.dx.dims(), step.dw.dims()];
                assert_eq!(dims, [[tokens, outputs], [tokens, inputs], [outputs, inputs]], "{name} {dtype:?}");
                assert!([step.y, step.dx, step.dw].iter().flat_map(values).all(|x| x == 0.0), "{name} {dtype:?}");
                let frozen = trained.layer.freeze().unwrap();
                assert_eq!(frozen.forward(&zeros((tokens, inputs))).unwrap().dims(), [tokens, outputs]);
                assert_eq!(frozen.dequantize().unwrap().weight().dims(), [outputs, inputs]);
            }
        }
    }
}

/// The same values with NaN in place of one.
fn with_nan(x: &Tensor, index: usize) -> Tensor {
    let mut elements: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    elements[index] = f32::NAN;
    cpu(elements, x.dims())
}

#[test]
fn of_nan_are_nan_where_it_takes_part_and_unchanged_elsewhere() {
    let [tokens, inputs, outputs] = [5, 7, 6];
    let operands = Operands::new([tokens, inputs, outputs], DType::F32);
    let close = |actual: &[f64], expected: &[f64], what: &str| {
        for (actual, expected) in actual.iter().zip(expected) {
            assert!((actual - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{what}: {actual} {expected}");
        }
    };
    // One format with a code for NaN, and one without.
    for format in [Fp8::E4M3, Fp8::E3M4] {
        let quantizer = Quantizer::new(format).scaling(Scaling::Static(2.0));
        let all = Recipe::from(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer);
        let recipes = [all.clone().gradients(None), all.clone().activations(None).gradients(None), all];
        for recipe in recipes {
            let what = format!("{format}, {:?}", recipe.gradients.is_some());
            let expected = operands.step(&recipe);
            for training in [true, false] {
                let mut trained = Trained::new(&operands.w, None, recipe.clone());
                trained.layer.set_training(training);

                let (x, dy) = (with_nan(&operands.x, 2 * inputs + 3), with_nan(&operands.dy, 3 * outputs + 1));
                let bias = Trained::new(&operands.w, None, recipe.clone()).step(&operands.x, &operands.dy).y;
                let layers: [&dyn Module; 2] = [&trained.layer, &trained.layer.freeze().unwrap()];
                for layer in layers {
                    for (row, y) in values(&layer.forward(&x).unwrap()).chunks(outputs).enumerate() {
                        if row == 2 {
                            assert!(y.iter().all(|y| y.is_nan()), "{what}: {y:?}");
                        } else {
                            close(y, &values(&bias)[row * outputs..][..outputs], &what);
                        }
                    }
                }
                let step = trained.step(&operands.x, &dy);
                for (row, dx) in values(&step.dx).chunks(inputs).enumerate() {
                    if row == 3 {
                        assert!(dx.iter().all(|dx| dx.is_nan()), "{what}: {dx:?}");
                    } else {
                        close(dx, &values(&expected.dx)[row * inputs..][..inputs], &what);
                    }
                }
                for (row, dw) in values(&step.dw).chunks(inputs).enumerate() {
                    if row == 1 {
                        assert!(dw.iter().all(|dw| dw.is_nan()), "{what}: {dw:?}");
                    } else {
                        close(dw, &values(&expected.dw)[row * inputs..][..inputs], &what);
                    }
                }

                trained.weight.set(&with_nan(&operands.w, 4 * inputs + 5)).unwrap();
                trained.layer.set_training(training);
                let step = trained.step(&operands.x, &operands.dy);
                for (i, y) in values(&step.y).into_iter().enumerate() {
                    assert_eq!(y.is_nan(), i % outputs == 4, "{what}: output {i}");
                }
                for (i, dx) in values(&step.dx).into_iter().enumerate() {
                    assert_eq!(dx.is_nan(), i % inputs == 5, "{what}: gradient {i}");
                }
                close(&values(&step.dw), &values(&expected.dw), &what);
            }
        }
    }
}

#[test]
fn of_activations_in_bf16_are_within_the_bound() {
    for [tokens, inputs, outputs] in SHAPES {
        let operands = Operands::new([tokens, inputs, outputs], DType::F32);
        for granularity in [Granularity::PerTensor, Granularity::PerRow, Granularity::PerBlock { rows: 3, cols: 24 }] {
            let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity);
            let weight = Fp8Tensor::quantize(&operands.w, &quantizer).unwrap();
            let wide = weight.dequantize().unwrap().to_dtype(DType::F64).unwrap();
            let x = operands.x.to_dtype(DType::F64).unwrap();
            let exact = x.matmul(&wide.t().unwrap()).unwrap();
            let magnitudes = x.abs().unwrap().matmul(&wide.abs().unwrap().t().unwrap()).unwrap();
            let mut frozen = FrozenLinear::new(weight, None).unwrap();
            let full = frozen.forward(&operands.x).unwrap();
            frozen.set_compute(Compute::Bf16Activations);
            assert_eq!(frozen.compute(), Compute::Bf16Activations);
            let rounded = frozen.forward(&operands.x).unwrap();
            let what = format!("{granularity:?} {tokens} × {inputs} × {outputs}");
            let bound = 2.0 * inputs as f64 * 2f64.powi(-24);
            check(&full, &exact, &magnitudes, bound, &what);
            check(&rounded, &exact, &magnitudes, bound + 2f64.powi(-8), &what);
            assert_ne!(values(&full), values(&rounded), "{what}: bf16 has fewer bits");
            // What is exact in bf16 already is not rounded.
            let x = operands.x.to_dtype(DType::BF16).unwrap();
            let exact = x.to_dtype(DType::F64).unwrap().matmul(&wide.t().unwrap()).unwrap();
            let y = frozen.forward(&x.to_dtype(DType::F32).unwrap()).unwrap();
            check(&y, &exact, &magnitudes, 1.01 * bound, &what);
        }
    }
}

#[test]
fn of_frozen_layers_from_their_parts_are_those_of_frozen_layers_that_were_trained() {
    let operands = Operands::new([9, 34, 21], DType::F32);
    let weights = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let fixed = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(1e-3));
    for activations in [fixed, Quantizer::new(Fp8::E5M2).scaling(Scaling::Current), Recipe::mxfp8().weights] {
        for ste in [Ste::PassThrough, Ste::Clipped] {
            let recipe = Recipe::from(weights.clone()).activations(activations.clone()).ste(ste);
            let trained = Trained::new(&operands.w, Some(&operands.bias), recipe).layer.freeze().unwrap();
            let packed = Fp8Tensor::quantize(&operands.w, &weights).unwrap();
            let built = FrozenLinear::new(packed, Some(operands.bias.clone())).unwrap();
            let built = built.with_activations(activations.clone(), ste).unwrap();
            assert_eq!(built.activations(), Some(&activations));
            let [trained, built] = [trained, built].map(|layer| {
                let x = Var::from_tensor(&operands.x).unwrap();
                let y = layer.forward(&x).unwrap();
                let gradients = (&y * &operands.dy).unwrap().backward().unwrap();
                [values(&y), values(gradients.get(&x).unwrap())]
            });
            assert_eq!(trained, built, "{activations:?} {ste:?}");
        }
    }
}

#[test]
fn frozen_layers_take_no_quantizer_that_needs_the_past() {
    let frozen = || {
        let weight = Tensor::ones((3, 4), DType::F32, &Device::Cpu).unwrap();
        FrozenLinear::new(Fp8Tensor::quantize(&weight, &Fp8::E4M3.into()).unwrap(), None).unwrap()
    };
    let delayed = Quantizer::new(Fp8::E4M3).scaling(Scaling::Delayed { len: 4, margin: 0 });
    let error = frozen().with_activations(delayed, Ste::PassThrough).unwrap_err();
    assert_eq!(
        error.to_string(),
        "activations: invalid quantizer: a frozen layer has no earlier steps to take a delayed scale from; \
         use `Scaling::Static` or `Scaling::Current`"
    );
    let invalid = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(-1.0));
    let error = frozen().with_activations(invalid, Ste::PassThrough).unwrap_err();
    assert!(matches!(error, Error::Role { role: "activations", .. }), "{error}");
}

#[test]
fn frozen_layers_tell_what_they_are_without_their_codes() {
    let weight = cpu(uneven(5, 7, 1), (5, 7));
    let rows = Quantizer::new(Fp8::E5M2).granularity(Granularity::PerRow);
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let packed = Fp8Tensor::quantize(&weight.to_dtype(dtype).unwrap(), &rows).unwrap();
        let layer = FrozenLinear::new(packed.clone(), None).unwrap();
        let told = (layer.dims(), layer.format(), layer.granularity(), layer.dtype());
        assert_eq!(told, (&[5, 7][..], Fp8::E5M2, Granularity::PerRow, dtype));
        let back = layer.weight().unwrap();
        assert_eq!(back.codes().to_vec2::<u8>().unwrap(), packed.codes().to_vec2::<u8>().unwrap());
        assert_eq!(back.scales().to_vec2::<f32>().unwrap(), packed.scales().to_vec2::<f32>().unwrap());
        // An odd row takes one byte more in panels.
        let bytes = if dtype == DType::F64 { 5 * 7 } else { 5 * 8 };
        assert_eq!(layer.weight_bytes(), bytes + 5 * 4, "{dtype:?}");
    }
}
