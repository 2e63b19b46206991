//! What layers remember from step to step, and what eval mode and frozen layers make of it.

use altgrad_core::{AmaxHistory, E8M0Rule, Fp8, Infinity, Quantizer, Recipe, ScaleEncoding, Scaling, Ste};
use candle_core::{DType, Module, Tensor, Var};

use crate::{Trained, cpu, numbers, uneven, values};

/// A layer with a weight of one element, with one step done for each triple of weight, input and gradient of the
/// output.
fn one_by_one(recipe: Recipe) -> Trained {
    Trained::new(&cpu(vec![1.0], (1, 1)), None, recipe)
}

fn one(value: f32) -> Tensor {
    cpu(vec![value], (1, 1))
}

fn held(history: &AmaxHistory) -> Vec<f32> {
    history.iter().collect()
}

#[test]
fn histories_move_in_training_only_and_that_of_gradients_in_the_backward_pass() {
    let mut trained = one_by_one(Recipe::hybrid());
    let histories = |trained: &Trained| {
        let layer = &trained.layer;
        [layer.weight_history(), layer.input_history(), layer.gradient_history()].map(|history| held(&history))
    };
    assert_eq!(histories(&trained), [const { Vec::<f32>::new() }; 3]);

    let x = Var::from_tensor(&one(-3.0)).unwrap();
    let y = trained.layer.forward(&x).unwrap();
    assert_eq!(histories(&trained), [vec![1.0], vec![3.0], vec![]], "a forward pass");
    let loss = (y * 5.0).unwrap();
    loss.backward().unwrap();
    assert_eq!(histories(&trained), [vec![1.0], vec![3.0], vec![5.0]], "a backward pass");
    loss.backward().unwrap();
    assert_eq!(histories(&trained), [vec![1.0], vec![3.0], vec![5.0, 5.0]], "a backward pass once more");

    trained.weight.set(&one(2.0)).unwrap();
    trained.step(&one(4.0), &one(-6.0));
    let after_training = [vec![1.0, 2.0], vec![3.0, 4.0], vec![5.0, 5.0, 6.0]];
    assert_eq!(histories(&trained), after_training);

    trained.layer.set_training(false);
    for _ in 0..3 {
        trained.step(&one(100.0), &one(100.0));
        trained.layer.quantized_weight().unwrap();
        trained.layer.freeze().unwrap().forward(&one(7.0)).unwrap();
    }
    assert_eq!(histories(&trained), after_training, "eval");

    // Packing and freezing are no steps in training mode either.
    trained.layer.set_training(true);
    trained.layer.quantized_weight().unwrap();
    trained.layer.freeze().unwrap().forward(&one(7.0)).unwrap();
    assert_eq!(histories(&trained), after_training, "packed");
    trained.step(&one(8.0), &one(9.0));
    assert_eq!(histories(&trained), [vec![1.0, 2.0, 2.0], vec![3.0, 4.0, 8.0], vec![5.0, 5.0, 6.0, 9.0]]);

    // A clone goes its own way.
    let clone = trained.layer.clone();
    clone.forward(&one(1.0)).unwrap();
    assert_eq!(held(&clone.input_history()), [3.0, 4.0, 8.0, 1.0]);
    assert_eq!(held(&trained.layer.input_history()), [3.0, 4.0, 8.0]);
}

#[test]
fn layers_that_look_at_one_step_only_remember_nothing() {
    for (name, recipe) in Recipe::NAMED.into_iter().filter(|(name, _)| *name != "hybrid") {
        let trained = one_by_one(recipe());
        trained.step(&one(2.0), &one(3.0));
        let Trained { layer, .. } = &trained;
        for history in [layer.weight_history(), layer.input_history(), layer.gradient_history()] {
            assert_eq!((history.len(), history.capacity()), (0, 0), "{name}");
        }
    }
    let layer = one_by_one(Recipe::hybrid()).layer;
    assert_eq!(layer.weight_history().capacity(), 1024);
    let layer = one_by_one(Fp8::E4M3.into()).layer;
    assert_eq!(layer.weight_history().capacity(), 15);
    assert_eq!((layer.input_history().capacity(), layer.gradient_history().capacity()), (0, 0));
}

/// A recipe that delays the scales of inputs and of gradients, under a weight that is exact.
fn delayed(len: usize, margin: i32) -> Recipe {
    let exact = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(1.0));
    let delayed = |format| Quantizer::new(format).scaling(Scaling::Delayed { len, margin });
    Recipe::weight_only(exact).activations(delayed(Fp8::E4M3)).gradients(delayed(Fp8::E5M2))
}

#[test]
fn delayed_scales_clip_what_has_grown_and_follow_a_step_later() {
    let trained = one_by_one(delayed(2, 0));
    // Inputs and what is left of them: the scale is that of the last two steps before, 1 at first.
    let steps = [
        (1000.0, 448.0),
        (448.0 * 8.0, 1000.0),
        (448.0 * 4.0, 448.0 * 4.0),
        (448.0 * 16.0, 448.0 * 8.0),
        (448.0 * 16.0, 448.0 * 16.0),
    ];
    for (i, (x, expected)) in steps.into_iter().enumerate() {
        // In E4M3 under a scale of 1000 / 448, 1000 is 448 × that.
        let y = values(&trained.step(&one(x), &one(1.0)).y)[0];
        assert!((y - expected).abs() <= 1e-4 * expected, "step {i}: {y}, should be {expected}");
    }
    let largest = 57344.0;
    let steps = [(1e9, largest), (1.0, 1.0), (1e9, 1e9), (1e3, 1024.0), (4e9, 1e9)];
    let trained = one_by_one(delayed(2, 0));
    for (i, (dy, expected)) in steps.into_iter().enumerate() {
        let dx = values(&trained.step(&one(1.0), &one(dy)).dx)[0];
        let step = 0.13 * expected;
        assert!((dx - expected).abs() <= step, "step {i}: {dx}, should be {expected}");
    }
}

#[test]
fn steps_without_a_magnitude_leave_delayed_scales_alone() {
    let saturate = |quantizer: Quantizer| quantizer.infinity(Infinity::Saturate);
    let mut recipe = delayed(8, 0);
    recipe.activations = recipe.activations.map(saturate);
    recipe.gradients = recipe.gradients.map(saturate);
    let trained = one_by_one(recipe);
    trained.step(&one(896.0), &one(1.0));
    for x in [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0] {
        let y = values(&trained.step(&one(x), &one(x)).y)[0];
        // Under the scale of 2 that the first step left, infinities saturate.
        assert_eq!(y.is_nan(), x.is_nan());
        assert!(y.is_nan() || y == f64::from(x.clamp(-896.0, 896.0)), "{x}: {y}");
    }
    assert_eq!(held(&trained.layer.input_history()), [896.0]);
    assert_eq!(held(&trained.layer.gradient_history()), [1.0]);
}

#[test]
fn finite_inputs_stay_finite_with_a_margin() {
    let trained = one_by_one(delayed(1, 1));
    for x in [3e38, f32::MAX, f32::MAX] {
        let step = trained.step(&one(x), &one(x));
        assert!(values(&step.y)[0].is_finite(), "the output for {x:e}");
        assert!(values(&step.dx)[0].is_finite(), "the gradient for {x:e}");
    }
}

#[test]
fn a_window_of_weights_ends_with_the_weight_at_hand() {
    let mut trained = one_by_one(Quantizer::new(Fp8::E4M3).scaling(Scaling::Window { len: 3 }).into());
    let scale = |trained: &Trained| trained.layer.quantized_weight().unwrap().scales().to_scalar::<f32>().unwrap();
    // Weights in multiples of 448, and the scales that they are quantized under.
    for (weight, expected) in [(2.0, 2.0), (8.0, 8.0), (1.0, 8.0), (4.0, 8.0), (1.0, 4.0), (1.0, 4.0), (0.5, 1.0)] {
        trained.weight.set(&one(weight * 448.0)).unwrap();
        assert_eq!(scale(&trained), expected, "before the step");
        trained.step(&one(1.0), &one(1.0));
    }
    assert_eq!(held(&trained.layer.weight_history()), [448.0, 224.0]);
    // In eval mode it is the same window, and stays so.
    trained.layer.set_training(false);
    for _ in 0..5 {
        trained.layer.forward(&one(1.0)).unwrap();
        assert_eq!(scale(&trained), 1.0);
    }
    // Kept codes are forgotten with the mode.
    trained.weight.set(&one(448.0 * 3.0)).unwrap();
    assert_eq!(scale(&trained), 1.0);
    trained.layer.set_training(false);
    assert_eq!(scale(&trained), 3.0);
}

#[test]
fn static_scales_quantize_every_step_alike() {
    let fixed = |scale| Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(scale));
    let recipe = Recipe::weight_only(fixed(0.5)).activations(fixed(2.0)).gradients(fixed(0.25)).ste(Ste::Clipped);
    let trained = one_by_one(recipe);
    for _ in 0..3 {
        // 17 lies between 16 and 18 under a scale of 1, here 34 between 32 and 36, with the even code below.
        let step = trained.step(&one(34.0), &one(1000.0));
        assert_eq!((values(&step.y)[0], values(&step.dx)[0], values(&step.dw)[0]), (32.0, 112.0, 112.0 * 32.0));
        let step = trained.step(&one(1e6), &one(1.0));
        assert_eq!((values(&step.y)[0], values(&step.dx)[0], values(&step.dw)[0]), (896.0, 0.0, 896.0));
    }
    assert!(trained.layer.input_history().is_empty());
}

fn everything() -> Vec<(String, Recipe)> {
    let mut recipes: Vec<_> = Recipe::NAMED.iter().map(|(name, recipe)| ((*name).to_owned(), recipe())).collect();
    let without =
        Recipe::NAMED.iter().map(|(name, recipe)| (format!("{name}, no gradients"), recipe().gradients(None)));
    recipes.extend(without);
    recipes.push(("weights".to_owned(), Fp8::E4M3.into()));
    let round_up = |quantizer: Quantizer| quantizer.scale_encoding(ScaleEncoding::E8M0(E8M0Rule::RoundUp));
    let Recipe { weights, activations, .. } = Recipe::mxfp8();
    recipes.push((
        "mxfp8, rounded up".to_owned(),
        Recipe::weight_only(round_up(weights)).activations(activations.map(round_up)),
    ));
    recipes
}

fn bits(x: &Tensor) -> Vec<u64> {
    values(x).into_iter().map(f64::to_bits).collect()
}

#[test]
fn frozen_layers_compute_what_eval_mode_computes() {
    for (name, recipe) in everything() {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            let (tokens, inputs, outputs) = (37, 131, 130);
            let what = format!("{name} {dtype:?}");
            let cast = |values: Vec<f32>, dims: (usize, usize)| cpu(values, dims).to_dtype(dtype).unwrap();
            let bias = cpu(numbers(outputs, 9), outputs).to_dtype(dtype).unwrap();
            let weight = |seed| cast(uneven(outputs, inputs, seed), (outputs, inputs));
            let mut trained = Trained::new(&weight(0), Some(&bias), recipe.clone());
            for step in 1..4 {
                trained.step(
                    &cast(uneven(tokens, inputs, step), (tokens, inputs)),
                    &cast(uneven(tokens, outputs, step), (tokens, outputs)),
                );
                trained.weight.set(&(weight(step) * (0.5 * step as f64)).unwrap()).unwrap();
            }
            let x = Var::from_tensor(&cast(uneven(tokens, inputs, 8), (tokens, inputs))).unwrap();
            let frozen = trained.layer.freeze().unwrap();
            trained.layer.set_training(false);
            let eval = trained.layer.forward(&x).unwrap();
            let output = frozen.forward(&x).unwrap();
            assert_eq!((output.dtype(), bits(&output)), (dtype, bits(&eval)), "{what}");
            // And once more from the codes that eval mode keeps.
            assert_eq!(bits(&trained.layer.forward(&x).unwrap()), bits(&eval), "{what}");
            assert_eq!(bits(&trained.layer.freeze().unwrap().forward(&x).unwrap()), bits(&eval), "{what}");

            // In training mode the same step follows, from the same codes.
            let packed = trained.layer.quantized_weight().unwrap();
            trained.layer.set_training(true);
            assert_eq!(
                bits(&packed.dequantize().unwrap()),
                bits(&frozen.weight().unwrap().dequantize().unwrap()),
                "{what}"
            );
            assert_eq!(bits(&trained.layer.forward(&x).unwrap()), bits(&eval), "{what}");

            // Gradients go through to the input alone.
            let gradients = output.sum_all().unwrap().backward().unwrap();
            assert!(gradients.get(&x).is_some() && gradients.get(&trained.weight).is_none(), "{what}");
        }
    }
}
