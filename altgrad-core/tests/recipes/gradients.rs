//! Outputs and gradients of layers under each recipe, against the same formulas in `f64`.

use altgrad_core::{E8M0Rule, Fp8, Granularity, Quantizer, Recipe, ScaleEncoding, Scaling, Ste};
use candle_core::{DType, Module, Tensor, Var};

use crate::reference::{Group, LayerReference, Matrix, Memory, Reference, Remembered, Rule, Sums};
use crate::{Trained, cpu, numbers, uneven, values};

/// Tokens, inputs and outputs: more than a block of 128 each, and no multiple of it nor of 32.
const LARGE: [usize; 3] = [130, 150, 140];
const SMALL: [usize; 3] = [19, 45, 23];

/// Every element is within 1e-5 of the sum of the magnitudes of its products: the products are exact in `f64`, so what
/// remains is how `f32` rounds each of them and the sums, at most 2⁻²⁴ × (number of products) in the worst case.
fn check(actual: &Tensor, expected: &Sums, what: &str) {
    let actual = values(actual);
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (actual, (sum, magnitude))) in actual.iter().zip(expected).enumerate() {
        let error = (actual - sum).abs();
        assert!(
            error <= 1e-5 * magnitude,
            "{what}[{i}]: {actual:e}, should be {sum:e}, off by {:e}",
            error / magnitude
        );
    }
}

/// Trains for some steps, with another weight, input and gradient of the output in each; says how many elements of the
/// input and of the weight were clipped.
fn compare(
    recipe: impl Into<Recipe>,
    reference: LayerReference,
    [tokens, inputs, outputs]: [usize; 3],
    steps: u64,
) -> [usize; 2] {
    let bias = numbers(outputs, 77);
    let bias_tensor = cpu(bias.clone(), outputs);
    let trained = Trained::new(&cpu(vec![0.0; outputs * inputs], (outputs, inputs)), Some(&bias_tensor), recipe);
    let mut memory = Memory::default();
    let mut stopped = [0, 0];
    for step in 0..steps {
        // Magnitudes go up and down, so that it matters which steps a scale is made from.
        let size = |seed: u64| [1.0, 0.02, 7.0, 0.3][((step + seed) % 4) as usize];
        let scaled = |values: Vec<f32>, size: f32| values.into_iter().map(|value| value * size).collect::<Vec<_>>();
        let x = scaled(uneven(tokens, inputs, 3 * step), size(0));
        let w = scaled(uneven(outputs, inputs, 3 * step + 1), size(1));
        let dy = scaled(uneven(tokens, outputs, 3 * step + 2), size(2) * 1e-3);
        trained.weight.set(&cpu(w.clone(), (outputs, inputs))).unwrap();
        let actual = trained.step(&cpu(x.clone(), (tokens, inputs)), &cpu(dy.clone(), (tokens, outputs)));
        let expected = reference.step(
            &Matrix::new(tokens, inputs, &x),
            &Matrix::new(outputs, inputs, &w),
            &bias,
            &Matrix::new(tokens, outputs, &dy),
            &mut memory,
        );
        check(&actual.y, &expected.y, &format!("step {step}: y"));
        check(&actual.dx, &expected.dx, &format!("step {step}: dx"));
        check(&actual.dw, &expected.dw, &format!("step {step}: dw"));
        check(&actual.dbias.unwrap(), &expected.dbias, &format!("step {step}: dbias"));
        stopped = [stopped[0] + expected.stopped[0], stopped[1] + expected.stopped[1]];
    }
    stopped
}

fn weights_only(weights: Reference) -> LayerReference {
    LayerReference { weights, activations: None, gradients: None, clipped: false }
}

/// The same way for all three tensors.
fn uniform(reference: Reference) -> LayerReference {
    LayerReference { activations: Some(reference), gradients: Some(reference), ..weights_only(reference) }
}

const TORCHAO: Rule = Rule::Multiplier { epsilon: 1e-12 };

fn tensorwise() -> LayerReference {
    let reference = Reference::new("E4M3", Group::Tensor, TORCHAO);
    LayerReference { gradients: Some(Reference { format: "E5M2", ..reference }), ..uniform(reference) }
}

fn rowwise() -> LayerReference {
    uniform(Reference::new("E4M3", Group::Row, Rule::Power { epsilon: 1e-12 }))
}

fn hybrid() -> LayerReference {
    let delayed = |format| Reference {
        history: Some(Remembered::Delayed(1024)),
        ..Reference::new(format, Group::Tensor, Rule::Multiplier { epsilon: 0.0 })
    };
    LayerReference { gradients: Some(delayed("E5M2")), ..uniform(delayed("E4M3")) }
}

fn blockwise() -> LayerReference {
    let reference = Reference::new("E4M3", Group::Block(1, 128), TORCHAO);
    LayerReference { weights: Reference { group: Group::Block(128, 128), ..reference }, ..uniform(reference) }
}

fn mxfp8() -> LayerReference {
    uniform(Reference::new("E4M3", Group::Block(1, 32), Rule::Floor))
}

#[test]
fn of_weight_only() {
    let mut weights = Reference::new("E4M3", Group::Tensor, Rule::Quotient);
    weights.history = Some(Remembered::Window(16));
    compare(Fp8::E4M3, weights_only(weights), SMALL, 6);
    compare(Recipe::weight_only(Fp8::E5M2), weights_only(Reference { format: "E5M2", ..weights }), LARGE, 1);
    weights.history = Some(Remembered::Window(2));
    compare(Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 2 }), weights_only(weights), SMALL, 6);
}

#[test]
fn of_weight_only_per_row_and_per_block() {
    let weights = Reference::new("E4M3", Group::Row, Rule::Quotient);
    compare(Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow), weights_only(weights), LARGE, 2);
    let quantizer = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerBlock { rows: 7, cols: 16 });
    compare(quantizer, weights_only(Reference { group: Group::Block(7, 16), ..weights }), SMALL, 2);
}

#[test]
fn of_tensorwise() {
    compare(Recipe::tensorwise(), tensorwise(), LARGE, 2);
}

#[test]
fn of_rowwise() {
    compare(Recipe::rowwise(), rowwise(), LARGE, 2);
}

#[test]
fn of_hybrid() {
    compare(Recipe::hybrid(), hybrid(), SMALL, 8);
    compare(Recipe::hybrid(), hybrid(), LARGE, 2);
}

#[test]
fn of_blockwise() {
    compare(Recipe::blockwise(), blockwise(), LARGE, 2);
    compare(Recipe::blockwise(), blockwise(), SMALL, 1);
    compare(Recipe::blockwise(), blockwise(), [257, 129, 128], 1);
}

#[test]
fn of_mxfp8() {
    compare(Recipe::mxfp8(), mxfp8(), LARGE, 2);
    compare(Recipe::mxfp8(), mxfp8(), [1, 1, 1], 1);
    let round_up = |quantizer: Quantizer| quantizer.scale_encoding(ScaleEncoding::E8M0(E8M0Rule::RoundUp));
    let Recipe { weights, activations, gradients, .. } = Recipe::mxfp8();
    let recipe = Recipe::weight_only(round_up(weights))
        .activations(activations.map(round_up))
        .gradients(gradients.map(round_up));
    let reference = Reference::new("E4M3", Group::Block(1, 32), Rule::Power { epsilon: 0.0 });
    compare(recipe, uniform(reference), LARGE, 2);
}

#[test]
fn of_quantized_activations_with_full_precision_gradients() {
    for (recipe, reference) in named() {
        compare(recipe.gradients(None), LayerReference { gradients: None, ..reference }, SMALL, 3);
    }
}

#[test]
fn of_full_precision_activations_with_quantized_gradients() {
    for (recipe, reference) in named() {
        compare(recipe.activations(None), LayerReference { activations: None, ..reference }, SMALL, 3);
    }
}

#[test]
fn of_weights_by_row_with_gradients_by_tensor() {
    // Each tensor goes by its own granularity: the weight is quantized anew for the backward pass, the others are not.
    let Recipe { weights, .. } = Recipe::rowwise();
    let reference = LayerReference { weights: rowwise().weights, ..tensorwise() };
    compare(Recipe::tensorwise().weights(weights), reference, SMALL, 2);
    let Recipe { gradients, .. } = Recipe::mxfp8();
    let reference = LayerReference { gradients: mxfp8().gradients, ..tensorwise() };
    compare(Recipe::tensorwise().gradients(gradients), reference, SMALL, 2);
}

fn named() -> [(Recipe, LayerReference); 5] {
    [
        (Recipe::tensorwise(), tensorwise()),
        (Recipe::rowwise(), rowwise()),
        (Recipe::hybrid(), hybrid()),
        (Recipe::blockwise(), blockwise()),
        (Recipe::mxfp8(), mxfp8()),
    ]
}

#[test]
fn stop_where_values_were_clipped() {
    // The rule of MXFP8 clips what is next to a power of two, delayed scaling what has grown since.
    for (name, recipe, reference, steps) in
        [("mxfp8", Recipe::mxfp8(), mxfp8(), 2), ("hybrid", Recipe::hybrid(), hybrid(), 8)]
    {
        let reference = LayerReference { clipped: true, ..reference };
        let stopped = compare(recipe.clone().ste(Ste::Clipped), reference, LARGE_FOR_CLIPPING, steps);
        assert!(stopped.iter().all(|count| *count > 0), "{name}: {stopped:?}");
        let recipe = recipe.gradients(None).ste(Ste::Clipped);
        let stopped = compare(recipe, LayerReference { gradients: None, ..reference }, SMALL, steps);
        assert!(stopped.iter().all(|count| *count > 0), "{name} without gradients: {stopped:?}");
    }
}

const LARGE_FOR_CLIPPING: [usize; 3] = [70, 66, 80];

#[test]
fn stop_where_a_fixed_scale_clips() {
    let fixed = |scale| (Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(scale)), Rule::Fixed(scale));
    let ((weights, weights_rule), (activations, activations_rule)) = (fixed(1e-3), fixed(2e-3));
    let weights_reference = Reference::new("E4M3", Group::Tensor, weights_rule);
    let reference = LayerReference { clipped: true, ..weights_only(weights_reference) };
    let recipe = Recipe::weight_only(weights).ste(Ste::Clipped);
    let [x, w] = compare(recipe.clone(), reference, SMALL, 2);
    assert!(x == 0 && w > 0, "{x} {w}");

    let activations_reference = Reference::new("E4M3", Group::Tensor, activations_rule);
    let reference = LayerReference { activations: Some(activations_reference), ..reference };
    let recipe = recipe.activations(activations);
    let [x, w] = compare(recipe.clone(), reference, SMALL, 2);
    assert!(x > 0 && w > 0, "{x} {w}");

    // What passes without the estimator is what makes the difference.
    compare(recipe.clone().ste(Ste::PassThrough), LayerReference { clipped: false, ..reference }, SMALL, 2);

    let Recipe { gradients, .. } = Recipe::tensorwise();
    let reference = LayerReference { gradients: tensorwise().gradients, ..reference };
    let [x, w] = compare(recipe.gradients(gradients), reference, SMALL, 2);
    assert!(x > 0 && w > 0, "{x} {w}");
}

#[test]
fn of_named_recipes_pass_where_nothing_was_clipped() {
    for (recipe, reference) in
        [(Recipe::tensorwise(), tensorwise()), (Recipe::rowwise(), rowwise()), (Recipe::blockwise(), blockwise())]
    {
        let stopped = compare(recipe.ste(Ste::Clipped), LayerReference { clipped: true, ..reference }, SMALL, 2);
        assert_eq!(stopped, [0, 0]);
    }
}

#[test]
fn of_eval_mode_are_those_of_training() {
    let [tokens, inputs, outputs] = SMALL;
    let w = cpu(uneven(outputs, inputs, 1), (outputs, inputs));
    let (x, dy) =
        (cpu(uneven(tokens, inputs, 2), (tokens, inputs)), cpu(uneven(tokens, outputs, 3), (tokens, outputs)));
    let fixed = |scale| Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(scale));
    let mut recipes: Vec<_> = Recipe::NAMED.iter().map(|(name, recipe)| (*name, recipe())).collect();
    recipes.push(("fixed", Recipe::weight_only(fixed(1e-3)).activations(fixed(2e-3))));
    for (name, recipe) in recipes {
        let mut dw = Vec::new();
        for ste in [Ste::PassThrough, Ste::Clipped] {
            let recipe = recipe.clone().ste(ste);
            let training = Trained::new(&w, None, recipe.clone()).step(&x, &dy);
            let mut fresh = Trained::new(&w, None, recipe);
            fresh.layer.set_training(false);
            // The second time with codes that were kept.
            for eval in [fresh.step(&x, &dy), fresh.step(&x, &dy)] {
                assert_eq!(values(&training.y), values(&eval.y), "{name} {ste:?}");
                assert_eq!(values(&training.dx), values(&eval.dx), "{name} {ste:?}");
                assert_eq!(values(&training.dw), values(&eval.dw), "{name} {ste:?}");
            }
            dw.push(values(&training.dw));
        }
        assert_eq!(dw[0] != dw[1], ["mxfp8", "fixed"].contains(&name), "{name}: whether a weight was clipped");
    }
}

#[test]
fn of_weight_only_in_f64_are_bit_for_bit_those_of_a_candle_layer_with_the_quantized_weight() {
    // With powers of two for scales, values and codes are the same in f32, in which the reference computes them.
    let powers = Quantizer::new(Fp8::E4M3).scale_encoding(ScaleEncoding::PowerOfTwo);
    let quantizers = [
        ("one scale", powers.clone(), Group::Tensor),
        ("rows", powers.clone().granularity(Granularity::PerRow), Group::Row),
        ("blocks", powers.granularity(Granularity::PerBlock { rows: 16, cols: 8 }), Group::Block(16, 8)),
    ];
    let [tokens, inputs, outputs] = LARGE;
    let double = |values: Vec<f32>, dims: &[usize]| cpu(values, dims).to_dtype(DType::F64).unwrap();
    let w = uneven(outputs, inputs, 1);
    let bias = double(numbers(outputs, 4), &[outputs]);
    let x = double(uneven(tokens, inputs, 2), &[tokens, inputs]);
    let dy = double(uneven(tokens, outputs, 3), &[tokens, outputs]);
    for (name, quantizer, group) in quantizers {
        let reference = Reference::new("E4M3", group, Rule::Power { epsilon: 0.0 });
        let quantized = reference.quantize(&Matrix::new(outputs, inputs, &w), &[]).values.values;
        let quantized = double(quantized.into_iter().map(|value| value as f32).collect(), &[outputs, inputs]);
        let (weight, bias_var, input) =
            (Var::from_tensor(&quantized).unwrap(), Var::from_tensor(&bias).unwrap(), Var::from_tensor(&x).unwrap());
        let candle = candle_nn::Linear::new(weight.as_tensor().clone(), Some(bias_var.as_tensor().clone()));
        let y = candle.forward(&input).unwrap();
        let gradients = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();

        let trained = Trained::new(&double(w.clone(), &[outputs, inputs]), Some(&bias), quantizer);
        let step = trained.step(&x, &dy);
        let exact = |x: &Tensor| values(x).into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(exact(&step.y), exact(&y), "{name}");
        assert_eq!(exact(&step.dx), exact(gradients.get(&input).unwrap()), "{name}");
        assert_eq!(exact(&step.dw), exact(gradients.get(&weight).unwrap()), "{name}");
        assert_eq!(exact(&step.dbias.unwrap()), exact(gradients.get(&bias_var).unwrap()), "{name}");
    }
}
