//! ∞ and NaN in an operand of a layer: what is not finite afterwards, to the element. The table is that of
//! [`Infinity`].

use altgrad_core::{Fp8, FrozenLinear, Infinity, Quantizer, Recipe, Scaling};
use candle_core::{DType, Module, Tensor, Var};

use crate::{Step, Trained, cpu, numbers, uneven, values};

/// Tokens, inputs and outputs: more than a block of 128 of each.
const DIMS: [usize; 3] = [131, 139, 133];
/// Where the value is that is not finite; not in the first block of outputs.
const AT: [usize; 3] = [3, 5, 130];

/// What an operand that is not finite reaches.
#[derive(Clone, Copy, Debug)]
enum Reach {
    /// What computes with the element.
    Element,
    /// What computes with a square of 128 around it.
    Block,
    /// What computes with the tensor.
    Tensor,
}

impl Reach {
    /// Whether `index` computes with what is at `at` along that dimension.
    fn includes(self, index: usize, at: usize) -> bool {
        match self {
            Self::Element => index == at,
            Self::Block => index / 128 == at / 128,
            Self::Tensor => true,
        }
    }
}

/// A recipe, and what a value reaches that is not finite in x, W and dY.
struct Case {
    name: String,
    recipe: Recipe,
    reach: [Reach; 3],
}

fn cases() -> Vec<Case> {
    use Reach::{Block, Element, Tensor};
    let named = Recipe::NAMED.map(|(name, recipe)| {
        let reach = match name {
            "tensorwise" => [Tensor, Tensor, Tensor],
            "rowwise" | "mxfp8" | "hybrid" => [Element, Element, Element],
            "blockwise" => [Element, Block, Element],
            _ => panic!("the table says nothing of {name}"),
        };
        Case { name: name.to_owned(), recipe: recipe(), reach }
    });
    let formats = Fp8::NAMED.map(|(name, format)| {
        let fixed = Quantizer::new(format).scaling(Scaling::Static(2.0));
        let all =
            |quantizer: Quantizer| Recipe::from(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer);
        [
            Case { name: name.to_owned(), recipe: format.into(), reach: [Element, Tensor, Element] },
            Case { name: format!("{name}, static"), recipe: all(fixed), reach: [Element; 3] },
            Case { name: format!("{name}, window"), recipe: all(format.into()), reach: [Tensor; 3] },
        ]
    });
    named.into_iter().chain(formats.into_iter().flatten()).collect()
}

fn with(x: &Tensor, (row, col): (usize, usize), value: f64) -> Tensor {
    let (rows, cols) = x.dims2().unwrap();
    let mut elements = values(x);
    elements[row * cols + col] = value;
    Tensor::from_vec(elements, (rows, cols), x.device()).unwrap().to_dtype(x.dtype()).unwrap()
}

#[track_caller]
fn check(result: &Tensor, is_reached: impl Fn(usize, usize) -> bool, what: &str) {
    let (_, cols) = result.dims2().unwrap();
    for (at, value) in values(result).into_iter().enumerate() {
        let (row, col) = (at / cols, at % cols);
        assert_eq!(value.is_finite(), !is_reached(row, col), "{what}: {value} at [{row}, {col}]");
    }
}

fn operands(dtype: DType) -> [Tensor; 3] {
    let [tokens, inputs, outputs] = DIMS;
    let tensor = |values: Vec<f32>, dims: (usize, usize)| cpu(values, dims).to_dtype(dtype).unwrap();
    [
        tensor(numbers(tokens * inputs, 3), (tokens, inputs)),
        tensor(uneven(outputs, inputs, 1), (outputs, inputs)),
        tensor(numbers(tokens * outputs, 4), (tokens, outputs)),
    ]
}

fn check_dtype(dtype: DType, specials: &[f64]) {
    let [x, w, dy] = operands(dtype);
    let [t, i, o] = AT;
    for Case { name, recipe, reach: [of_x, of_w, of_dy] } in cases() {
        for training in [true, false] {
            let mut trained = Trained::new(&w, None, recipe.clone());
            // One step, so that delayed scales are known.
            check(&trained.step(&x, &dy).y, |_, _| false, &name);
            let histories = |trained: &Trained| {
                let layer = &trained.layer;
                [layer.weight_history(), layer.input_history(), layer.gradient_history()]
            };
            trained.layer.set_training(training);
            for special in specials {
                let what = |operand: &str| format!("{name}, {dtype:?}, training {training}, {special} in {operand}");
                let before = histories(&trained);

                let step = trained.step(&with(&x, (t, i), *special), &dy);
                check(&step.y, |row, _| of_x.includes(row, t), &what("x, y"));
                check(&step.dx, |_, _| false, &what("x, dx"));
                check(&step.dw, |_, col| of_x.includes(col, i), &what("x, dw"));

                let step = trained.step(&x, &with(&dy, (t, o), *special));
                check(&step.y, |_, _| false, &what("dy, y"));
                check(&step.dx, |row, _| of_dy.includes(row, t), &what("dy, dx"));
                check(&step.dw, |row, _| of_dy.includes(row, o), &what("dy, dw"));

                trained.weight.set(&with(&w, (o, i), *special)).unwrap();
                trained.layer.set_training(training);
                let step = trained.step(&x, &dy);
                check(&step.y, |_, col| of_w.includes(col, o), &what("w, y"));
                check(&step.dx, |_, col| of_w.includes(col, i), &what("w, dx"));
                check(&step.dw, |_, _| false, &what("w, dw"));

                trained.weight.set(&w).unwrap();
                trained.layer.set_training(training);
                // What is recorded is finite; nothing is in eval mode.
                for (before, after) in before.iter().zip(histories(&trained)) {
                    assert!(after.iter().all(f32::is_finite), "{}", what("some"));
                    assert!(training || *before == after, "{}", what("some"));
                }
            }
            check_frozen(&trained.layer.freeze().unwrap(), &x, &dy, of_x, specials, &format!("{name}, {dtype:?}"));
        }
    }
}

/// Frozen layers quantize their input as before, and no gradient.
fn check_frozen(layer: &FrozenLinear, x: &Tensor, dy: &Tensor, of_x: Reach, specials: &[f64], what: &str) {
    let [t, i, o] = AT;
    for special in specials {
        let y = layer.forward(&with(x, (t, i), *special)).unwrap();
        check(&y, |row, _| of_x.includes(row, t), &format!("{what}, frozen, {special}"));
        let x = Var::from_tensor(x).unwrap();
        let y = (layer.forward(&x).unwrap() * with(dy, (t, o), *special)).unwrap().sum_all().unwrap();
        check(y.backward().unwrap().get(&x).unwrap(), |row, _| row == t, &format!("{what}, frozen, {special} in dy"));
    }
}

#[test]
fn in_f32() {
    check_dtype(DType::F32, &[f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
}

#[test]
fn in_f64_which_candle_multiplies() {
    check_dtype(DType::F64, &[f64::NEG_INFINITY, f64::NAN]);
}

#[test]
fn in_half_precisions() {
    check_dtype(DType::F16, &[f64::INFINITY]);
    check_dtype(DType::BF16, &[f64::INFINITY]);
}

#[test]
fn infinities_saturate_where_a_quantizer_says_so() {
    let [x, w, dy] = operands(DType::F32);
    let [t, i, o] = AT;
    for Case { name, mut recipe, .. } in cases() {
        recipe.weights.infinity = Infinity::Saturate;
        for quantizer in [&mut recipe.activations, &mut recipe.gradients].into_iter().flatten() {
            quantizer.infinity = Infinity::Saturate;
        }
        let all_finite = |step: Step| {
            for result in [step.y, step.dx, step.dw] {
                check(&result, |_, _| false, &name);
            }
        };
        let trained = Trained::new(&w, None, recipe.clone());
        for special in [f64::INFINITY, f64::NEG_INFINITY] {
            if recipe.activations.is_some() {
                all_finite(trained.step(&with(&x, (t, i), special), &dy));
            }
            if recipe.gradients.is_some() {
                all_finite(trained.step(&x, &with(&dy, (t, o), special)));
            }
            trained.weight.set(&with(&w, (o, i), special)).unwrap();
            all_finite(trained.step(&x, &dy));
            trained.weight.set(&w).unwrap();
        }
        // NaN never does, but it does not spread to its block either.
        let step = trained.step(&with(&x, (t, i), f64::NAN), &dy);
        check(&step.y, |row, _| row == t, &name);
    }
}

#[test]
fn the_quantizer_of_a_tensor_says_it_of_free_functions_too() {
    let x = cpu(vec![1.0, f32::INFINITY, -2.0, 3.0], (2, 2));
    let rows = Recipe::rowwise().weights;
    let propagated = values(&altgrad_core::fake_quantize(&x, &rows).unwrap());
    assert!(
        propagated[..2].iter().all(|value| value.is_nan()) && propagated[2..].iter().all(|value| value.is_finite())
    );
    let saturated = values(&altgrad_core::fake_quantize(&x, &rows.infinity(Infinity::Saturate)).unwrap());
    assert_eq!(saturated[..2], [1.0, 448.0]);
    // Under a scale that was known before, the element alone; as an infinity, where the format has one.
    for (format, expected) in [(Fp8::E4M3, f64::NAN), (Fp8::E5M2, f64::INFINITY), (Fp8::E3M4, f64::NAN)] {
        let fixed = Quantizer::new(format).scaling(Scaling::Static(1.0));
        let values = values(&altgrad_core::fake_quantize(&x, &fixed).unwrap());
        assert_eq!([values[0], values[2], values[3]], [1.0, -2.0, 3.0]);
        assert!(values[1] == expected || values[1].is_nan() && expected.is_nan(), "{format}: {}", values[1]);
    }
}
