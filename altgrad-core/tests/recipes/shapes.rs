//! Inputs of every shape and layout: a layer computes with the matrix of their rows.

use altgrad_core::{AmaxHistory, Fp8, FrozenLinear, Granularity, QuantizedLinear, Quantizer, Recipe, Ste};
use candle_core::{DType, Device, Module, Result, Tensor, Var};

use crate::{Trained, cpu, numbers, uneven, values};

const INPUTS: usize = 35;
const OUTPUTS: usize = 34;
const FLOAT_DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// A view of a tensor of the shape that comes before it.
type View = (&'static str, &'static [usize], fn(&Tensor) -> Result<Tensor>);

const SAME: fn(&Tensor) -> Result<Tensor> = |x| Ok(x.clone());

const VIEWS: [View; 14] = [
    ("matrix", &[4, INPUTS], SAME),
    ("batch of one", &[1, INPUTS], SAME),
    ("one token", &[1, 1, INPUTS], SAME),
    ("three dimensions", &[2, 3, INPUTS], SAME),
    ("four dimensions", &[2, 1, 3, INPUTS], SAME),
    ("transposed", &[INPUTS, 4], |x| x.t()),
    ("swapped batches", &[3, 2, INPUTS], |x| x.transpose(0, 1)),
    ("some columns", &[4, INPUTS + 5], |x| x.narrow(1, 3, INPUTS)),
    ("some rows", &[7, INPUTS], |x| x.narrow(0, 2, 4)),
    ("some rows of each batch", &[2, 5, INPUTS], |x| x.narrow(1, 1, 3)),
    ("some columns of each batch", &[2, 3, INPUTS + 1], |x| x.narrow(2, 1, INPUTS)),
    ("the same row", &[1, INPUTS], |x| x.broadcast_as((4, INPUTS))),
    ("the same row in batches", &[INPUTS], |x| x.broadcast_as((2, 3, INPUTS))),
    ("no rows", &[0, INPUTS], SAME),
];

/// Those that `candle_nn::Linear` misreads: it multiplies the wrong elements, or has an error.
const BATCHES: [View; 3] = [
    ("transposed in batches", &[2, INPUTS, 3], |x| x.transpose(1, 2)),
    ("transposed in batches of batches", &[2, 2, INPUTS, 3], |x| x.transpose(2, 3)),
    ("swapped heads", &[2, 3, 2, INPUTS], |x| x.transpose(1, 2)),
];

/// Those that `candle_nn::Linear` has an error for.
const UNUSUAL: [View; 4] = [
    ("no rows in batches", &[2, 0, INPUTS], SAME),
    ("no batches", &[0, 3, INPUTS], SAME),
    ("no rows in batches of batches", &[1, 2, 0, INPUTS], SAME),
    ("five dimensions", &[2, 1, 3, 2, INPUTS], SAME),
];

/// All named recipes, and others that go other ways through a layer.
fn recipes() -> Vec<(String, Recipe)> {
    let e4m3 = Quantizer::new(Fp8::E4M3);
    let block = Granularity::PerBlock { rows: 3, cols: 8 };
    let mut recipes: Vec<_> = Recipe::NAMED.iter().map(|(name, recipe)| ((*name).to_owned(), recipe())).collect();
    let without_gradients =
        Recipe::NAMED.iter().map(|(name, recipe)| (format!("{name}, no gradients"), recipe().gradients(None)));
    recipes.extend(without_gradients);
    recipes.extend([
        ("weights".to_owned(), Recipe::from(Fp8::E4M3)),
        ("weights by row".to_owned(), Recipe::from(e4m3.clone().granularity(Granularity::PerRow))),
        ("weights by block".to_owned(), Recipe::from(e4m3.clone().granularity(block))),
        ("everything by block".to_owned(), {
            let quantizer = e4m3.granularity(block);
            Recipe::from(quantizer.clone()).activations(quantizer.clone()).gradients(quantizer)
        }),
        ("gradients alone with weights".to_owned(), Recipe::tensorwise().activations(None)),
    ]);
    recipes
}

fn filled(dims: &[usize], seed: u64, dtype: DType) -> Tensor {
    let count = dims.iter().product();
    cpu(numbers(count, seed), dims).to_dtype(dtype).unwrap()
}

fn layer(recipe: Recipe, dtype: DType) -> Trained {
    let w = cpu(uneven(OUTPUTS, INPUTS, 5), (OUTPUTS, INPUTS)).to_dtype(dtype).unwrap();
    Trained::new(&w, Some(&filled(&[OUTPUTS], 6, dtype)), recipe)
}

/// Equal but for the order of sums: candle multiplies batches that are not contiguous one by one.
fn close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!((a.dtype(), a.dims()), (b.dtype(), b.dims()), "{what}");
    let tolerance = match a.dtype() {
        DType::F64 => 1e-13,
        DType::F32 => 1e-5,
        DType::F16 => 2e-3,
        _ => 2e-2,
    };
    let (a, b) = (values(a), values(b));
    let largest = b.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}[{i}]: {a:e} and {b:e}");
    }
}

/// The output for a view of `base`, and the gradients of `base` and of the variables.
fn run(
    layer: &dyn Module,
    variables: &[&Var],
    base: &Tensor,
    view: &View,
    dy: &Tensor,
) -> (Tensor, Vec<Option<Tensor>>) {
    let base = Var::from_tensor(base).unwrap();
    let y = layer.forward(&(view.2)(&base).unwrap()).unwrap();
    let gradients = (&y * dy).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients =
        [&base].into_iter().chain(variables.iter().copied()).map(|var| gradients.get(var).cloned()).collect();
    (y, gradients)
}

/// Compares what a layer makes of a view with what its twin makes of the rows of that view as a contiguous matrix.
fn compare(layer: &dyn Module, twin: &dyn Module, variables: &[&Var], twins: &[&Var], view: &View, what: &str) {
    let dtype = variables[0].dtype();
    let base = filled(view.1, 7, dtype);
    let viewed = (view.2)(&base).unwrap();
    let rows = viewed.elem_count() / INPUTS;
    let mut dims = viewed.dims().to_vec();
    *dims.last_mut().unwrap() = OUTPUTS;
    let dy = filled(&[rows, OUTPUTS], 8, dtype);

    let (y, gradients) = run(layer, variables, &base, view, &dy.reshape(dims.as_slice()).unwrap());
    let matrix = viewed.contiguous().unwrap().reshape((rows, INPUTS)).unwrap();
    let (twin_y, twin_gradients) = run(twin, twins, &matrix, &("", &[], SAME), &dy);
    close(&y, &twin_y.reshape(dims.as_slice()).unwrap(), &format!("{what}: y"));

    // The gradient of the matrix on its way back through the view.
    let base = Var::from_tensor(&base).unwrap();
    let upstream = twin_gradients[0].as_ref().unwrap().reshape(viewed.shape()).unwrap();
    let back = ((view.2)(&base).unwrap() * upstream).unwrap().sum_all().unwrap().backward().unwrap();
    close(gradients[0].as_ref().unwrap(), back.get(&base).unwrap(), &format!("{what}: dx"));
    for (i, variable) in variables.iter().enumerate() {
        match (&gradients[i + 1], &twin_gradients[i + 1]) {
            (Some(gradient), Some(twin)) => {
                close(gradient, twin, &format!("{what}: gradient {i}"));
                assert_eq!(gradient.dims(), variable.dims(), "{what}: gradient {i}");
                assert!(rows > 0 || values(gradient).iter().all(|x| *x == 0.0), "{what}: gradient {i} of nothing");
            }
            // Candle leaves out the sum of nothing and a bias.
            (None, None) => assert!(rows == 0 && variable.dims() == [OUTPUTS], "{what}: gradient {i}"),
            other => panic!("{what}: gradient {i}: {other:?}"),
        }
    }
}

fn compare_all(dtype: DType, views: &[View], recipes: Vec<(String, Recipe)>) {
    for (name, recipe) in recipes {
        for view in views {
            let mut trained = [layer(recipe.clone(), dtype), layer(recipe.clone(), dtype)];
            for mode in ["training", "training again", "eval", "eval again"] {
                for trained in &mut trained {
                    trained.layer.set_training(mode.starts_with("training"));
                }
                let what = format!("{name}, {}, {mode}, {dtype:?}", view.0);
                let variables = trained.each_ref().map(|trained| [&trained.weight, trained.bias.as_ref().unwrap()]);
                compare(&trained[0].layer, &trained[1].layer, &variables[0], &variables[1], view, &what);
                let histories = trained.each_ref().map(|Trained { layer, .. }| {
                    [layer.weight_history(), layer.input_history(), layer.gradient_history()]
                });
                assert_eq!(histories[0], histories[1], "{what}");
            }
            let frozen: [FrozenLinear; 2] = trained.each_ref().map(|trained| trained.layer.freeze().unwrap());
            let biases = trained.each_ref().map(|trained| [trained.bias.as_ref().unwrap()]);
            let what = format!("{name}, {}, frozen, {dtype:?}", view.0);
            compare(&frozen[0], &frozen[1], &biases[0], &biases[1], view, &what);
        }
    }
}

#[test]
fn f32_inputs_count_as_the_matrix_of_their_rows() {
    compare_all(DType::F32, &VIEWS, recipes());
}

#[test]
fn f64_inputs_count_as_the_matrix_of_their_rows() {
    compare_all(DType::F64, &VIEWS, recipes());
}

#[test]
fn f16_inputs_count_as_the_matrix_of_their_rows() {
    compare_all(DType::F16, &VIEWS, recipes());
}

#[test]
fn bf16_inputs_count_as_the_matrix_of_their_rows() {
    compare_all(DType::BF16, &VIEWS, recipes());
}

#[test]
fn quantized_inputs_in_batches_of_any_layout_count_as_the_matrix_of_their_rows() {
    let recipes: Vec<_> = recipes().into_iter().filter(|(_, recipe)| recipe.activations.is_some()).collect();
    for dtype in FLOAT_DTYPES {
        compare_all(dtype, &BATCHES, recipes.clone());
    }
}

#[test]
fn inputs_in_batches_of_any_layout_count_as_the_matrix_of_their_rows() {
    compare_all(DType::F32, &BATCHES, recipes());
}

#[test]
fn batches_of_nothing_and_five_dimensions_count_as_the_matrix_of_their_rows() {
    compare_all(DType::F32, &UNUSUAL, recipes());
}

#[test]
fn inputs_that_do_not_fit_are_errors_and_leave_histories_alone() {
    let wrong: [(&[usize], DType, &str); 8] = [
        (&[], DType::F32, "the input has shape [], expected (…, 35) with at least two dimensions"),
        (&[35], DType::F32, "the input has shape [35], expected (…, 35) with at least two dimensions"),
        (&[4, 34], DType::F32, "the input has shape [4, 34], expected (…, 35) with at least two dimensions"),
        (&[35, 4], DType::F32, "the input has shape [35, 4], expected (…, 35) with at least two dimensions"),
        (&[2, 3, 0], DType::F32, "the input has shape [2, 3, 0], expected (…, 35) with at least two dimensions"),
        (&[4, 35], DType::F64, "the input has dtype F64, expected F32; convert it with `to_dtype`"),
        (&[4, 35], DType::BF16, "the input has dtype BF16, expected F32; convert it with `to_dtype`"),
        (&[4, 35], DType::U32, "the input has dtype U32, expected F32; convert it with `to_dtype`"),
    ];
    for (name, recipe) in recipes() {
        let mut trained = layer(recipe, DType::F32);
        // Candle may add a backtrace below the first line.
        let first_line = |y: Result<Tensor>| y.unwrap_err().to_string().lines().next().map(str::to_owned);
        for (dims, dtype, message) in wrong {
            let x = Tensor::ones(dims, dtype, &Device::Cpu).unwrap();
            for training in [true, false] {
                trained.layer.set_training(training);
                assert_eq!(first_line(trained.layer.forward(&x)).as_deref(), Some(message), "{name}");
            }
            assert_eq!(first_line(trained.layer.freeze().unwrap().forward(&x)).as_deref(), Some(message), "{name}");
        }
        let histories =
            [trained.layer.weight_history(), trained.layer.input_history(), trained.layer.gradient_history()];
        assert!(histories.iter().all(AmaxHistory::is_empty), "{name}");
    }
}

#[test]
fn weights_that_are_none_are_errors() {
    let wrong: [(&[usize], DType, Option<usize>, &str); 7] = [
        (&[], DType::F32, None, "the weight has shape [], expected two dimensions, (outputs, inputs)"),
        (&[4], DType::F32, None, "the weight has shape [4], expected two dimensions, (outputs, inputs)"),
        (&[2, 3, 4], DType::F32, None, "the weight has shape [2, 3, 4], expected two dimensions, (outputs, inputs)"),
        (&[3, 4], DType::F32, Some(4), "the bias has shape [4], expected [3], one value per output"),
        (&[3, 4], DType::F32, Some(0), "the bias has shape [0], expected [3], one value per output"),
        (&[3, 4], DType::U8, None, "the weight has dtype U8, but only f32, f64, f16 and bf16 tensors can be quantized"),
        (
            &[3, 4],
            DType::I64,
            None,
            "the weight has dtype I64, but only f32, f64, f16 and bf16 tensors can be quantized",
        ),
    ];
    for (name, recipe) in recipes() {
        for (dims, dtype, bias, message) in wrong {
            let weight = Tensor::ones(dims, dtype, &Device::Cpu).unwrap();
            let bias = bias.map(|outputs| Tensor::ones(outputs, dtype, &Device::Cpu).unwrap());
            let error = QuantizedLinear::new(candle_nn::Linear::new(weight, bias), recipe.clone()).unwrap_err();
            assert_eq!(error.to_string(), message, "{name}");
        }
    }
}

/// A layer without some of its sides gives its bias, and gradients of 0.
fn compare_with_bias(sides: &[[usize; 3]]) {
    for (name, recipe) in recipes() {
        for &[tokens, inputs, outputs] in sides {
            let what = format!("{name}, {tokens} tokens, {outputs} × {inputs}");
            let bias = (outputs > 0).then(|| cpu(numbers(outputs, 1), outputs));
            let mut trained = Trained::new(&cpu(vec![], (outputs, inputs)), bias.as_ref(), recipe.clone());
            let x = cpu(vec![1.0; tokens * inputs], (tokens, inputs));
            let expected: Vec<f64> = (0..tokens).flat_map(|_| bias.iter().flat_map(values)).collect();
            for training in [true, false] {
                trained.layer.set_training(training);
                let step = trained.step(&x, &cpu(vec![1.0; tokens * outputs], (tokens, outputs)));
                assert_eq!((step.y.dims(), values(&step.y)), (&[tokens, outputs][..], expected.clone()), "{what}");
                assert_eq!((step.dx.dims(), values(&step.dx)), (x.dims(), vec![0.0; tokens * inputs]), "{what}");
                assert_eq!(step.dw.dims(), [outputs, inputs], "{what}");
            }
            let y = trained.layer.freeze().unwrap().forward(&x).unwrap();
            assert_eq!((y.dims(), values(&y)), (&[tokens, outputs][..], expected), "{what}");
        }
    }
}

#[test]
fn layers_without_outputs_give_nothing() {
    compare_with_bias(&[[2, 3, 0], [0, 3, 0], [0, 0, 0]]);
}

#[test]
fn layers_without_inputs_give_their_bias() {
    compare_with_bias(&[[2, 0, 3], [2, 0, 0], [0, 0, 3]]);
}

#[test]
fn constants_need_no_gradients() {
    for (name, recipe) in recipes() {
        let trained = layer(recipe.clone(), DType::F32);
        let (x, dy) = (filled(&[4, INPUTS], 7, DType::F32), filled(&[4, OUTPUTS], 8, DType::F32));
        let both = trained.step(&x, &dy);

        // A constant input, as that of a model's first layer.
        let trained = layer(recipe.clone(), DType::F32);
        let loss = (trained.layer.forward(&x).unwrap() * &dy).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(values(gradients.get(&trained.weight).unwrap()), values(&both.dw), "{name}");

        // A constant weight, as below an adapter.
        let linear = candle_nn::Linear::new(trained.weight.as_detached_tensor(), None);
        let constant = QuantizedLinear::new(linear, recipe).unwrap();
        let input = Var::from_tensor(&x).unwrap();
        let loss = (constant.forward(&input).unwrap() * &dy).unwrap().sum_all().unwrap();
        assert_eq!(values(loss.backward().unwrap().get(&input).unwrap()), values(&both.dx), "{name}");
    }
}

#[test]
fn a_bias_of_another_dtype_is_an_error_before_the_first_step() {
    let weight = Tensor::ones((3, 4), DType::F32, &Device::Cpu).unwrap();
    let bias = Tensor::ones(3, DType::F16, &Device::Cpu).unwrap();
    let error = QuantizedLinear::new(candle_nn::Linear::new(weight, Some(bias)), Fp8::E4M3).unwrap_err();
    assert_eq!(error.to_string(), "the bias has dtype F16, expected F32; convert it with `to_dtype`");
}

/// Blocks count as no larger than the tensor, so they cost no more than it does.
#[test]
fn blocks_far_larger_than_the_tensor_are_blocks_of_the_whole() {
    for (rows, cols) in [(usize::MAX, usize::MAX), (1, usize::MAX), (1 << 40, 1)] {
        let block = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerBlock { rows, cols });
        let recipe = Recipe::weight_only(block.clone()).activations(block.clone()).gradients(block).ste(Ste::Clipped);
        let weight = Var::from_tensor(&Tensor::ones((3, 4), DType::F32, &Device::Cpu).unwrap()).unwrap();
        let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.as_tensor().clone(), None), recipe).unwrap();
        let y = layer.forward(&Tensor::ones((2, 4), DType::F32, &Device::Cpu).unwrap()).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&weight).unwrap().dims(), [3, 4]);
    }
}
