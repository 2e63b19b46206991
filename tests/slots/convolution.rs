//! Convolutions: equal to candle's where everything is exact, and to a linear layer of their windows under every
//! recipe.

use altgrad::{
    Fp8, Frozen, Granularity, Quantizable, Quantized, QuantizedLinear, Quantizer, Recipe, Scaling, Slot, SlotState, nn,
};
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{Conv1dConfig, Conv2dConfig, ModuleT};

use super::{assert_close, assert_same, integers, step, tensor, values};

/// All that convolutions can be told.
fn configs() -> Vec<Conv2dConfig> {
    let mut configs = Vec::new();
    for stride in 1..=2 {
        for padding in 0..=2 {
            for dilation in 1..=2 {
                for groups in [1, 2, 4] {
                    configs.push(Conv2dConfig { padding, stride, dilation, groups, ..Conv2dConfig::default() });
                }
            }
        }
    }
    configs
}

/// Every value is one of E4M3 or E5M2 as it is.
fn exact() -> Recipe {
    let one = |format| Quantizer::new(format).scaling(Scaling::Static(1.0));
    Recipe::weight_only(one(Fp8::E4M3)).activations(one(Fp8::E4M3)).gradients(one(Fp8::E4M3))
}

/// The gradients of input and weight of a convolution for `dy`, in plain loops with exact sums.
struct Loops {
    dx: Vec<f64>,
    dw: Vec<f64>,
}

fn loops(x: &Tensor, weight: &Tensor, dy: &Tensor, config: &Conv2dConfig) -> Loops {
    let (images, channels, height, width) = x.dims4().unwrap();
    let (outputs, inputs, kernel_height, kernel_width) = weight.dims4().unwrap();
    let (_, _, down, across) = dy.dims4().unwrap();
    let exact = |x: &Tensor| values(x).into_iter().map(f64::from).collect::<Vec<_>>();
    let (xs, ws, dys) = (exact(x), exact(weight), exact(dy));
    let mut loops = Loops { dx: vec![0.0; xs.len()], dw: vec![0.0; ws.len()] };
    for image in 0..images {
        for output in 0..outputs {
            for place in 0..down * across {
                let y = (image * outputs + output) * down * across + place;
                for element in 0..inputs * kernel_height * kernel_width {
                    let (input, k) =
                        (element / (kernel_height * kernel_width), element % (kernel_height * kernel_width));
                    let at = |place: usize, k: usize, side: usize| {
                        let at = (place * config.stride + k * config.dilation).checked_sub(config.padding)?;
                        (at < side).then_some(at)
                    };
                    let row = at(place / across, k / kernel_width, height);
                    let Some((row, col)) = row.zip(at(place % across, k % kernel_width, width)) else { continue };
                    let channel = output / (outputs / config.groups) * inputs + input;
                    let x = ((image * channels + channel) * height + row) * width + col;
                    let w = output * inputs * kernel_height * kernel_width + element;
                    loops.dx[x] += dys[y] * ws[w];
                    loops.dw[w] += dys[y] * xs[x];
                }
            }
        }
    }
    loops
}

fn exact_values(x: &Tensor) -> Vec<f64> {
    values(x).into_iter().map(f64::from).collect()
}

/// Where quantization changes nothing and sums are exact, the output of a slot is that of candle's layer, and the
/// gradients are those of the formula. (Those of candle 0.11 are not: it fails for some strides, and is wrong for
/// several images of one dimension.)
#[test]
fn geometry_is_candles() {
    for recipe in [exact(), exact().gradients(None), exact().activations(None), Recipe::from(exact().weights)] {
        for (number, config) in configs().into_iter().enumerate() {
            let seed = number as u64;
            let weight = Var::from_tensor(&integers((8, 4 / config.groups, 3, 2), seed)).unwrap();
            let bias = integers(8, seed + 100);
            let layer = candle_nn::Conv2d::new(weight.as_tensor().clone(), Some(bias), config);
            let x = integers((2, 4, 7, 9), seed + 200);
            let expected = layer.forward(&x).unwrap();
            let dy = integers(expected.shape().clone(), seed + 300);
            let quantized = Quantized::new(layer, recipe.clone()).unwrap();
            let actual = step(&quantized, &x, Some(&weight), |_| dy.clone());
            let what = format!("{config:?}");
            assert_eq!(values(&actual.y), values(&expected), "{what}");
            let loops = loops(&x, &weight, &dy, &config);
            assert_eq!(exact_values(&actual.dx), loops.dx, "dx, {what}");
            assert_eq!(exact_values(&actual.dw.unwrap()), loops.dw, "dw, {what}");
        }
    }
}

/// One dimension is two with a height of 1.
#[test]
fn one_dimension_is_candles() {
    for (number, config) in configs().into_iter().enumerate() {
        let Conv2dConfig { padding, stride, dilation, groups, .. } = config;
        let config = Conv1dConfig { padding, stride, dilation, groups, ..Conv1dConfig::default() };
        let seed = number as u64;
        let weight = Var::from_tensor(&integers((8, 4 / groups, 3), seed)).unwrap();
        let bias = integers(8, seed + 100);
        let layer = candle_nn::Conv1d::new(weight.as_tensor().clone(), Some(bias), config);
        let x = integers((2, 4, 11), seed + 200);
        let expected = layer.forward(&x).unwrap();
        let dy = integers(expected.shape().clone(), seed + 300);
        let actual = step(&Quantized::new(layer, exact()).unwrap(), &x, Some(&weight), |_| dy.clone());
        assert_eq!(values(&actual.y), values(&expected), "{config:?}");
        // Padded by hand, since rows of zeros above and below would be windows of their own.
        let whole = Conv2dConfig { stride, dilation, groups, ..Conv2dConfig::default() };
        let x = x.unsqueeze(2).unwrap().pad_with_zeros(3, padding, padding).unwrap();
        let loops = loops(&x, &weight.unsqueeze(2).unwrap(), &dy.unsqueeze(2).unwrap(), &whole);
        let width = 11 + 2 * padding;
        let dx: Vec<f64> = loops.dx.chunks(width).flat_map(|row| row[padding..padding + 11].to_vec()).collect();
        assert_eq!(exact_values(&actual.dx), dx, "dx, {config:?}");
        assert_eq!(exact_values(&actual.dw.unwrap()), loops.dw, "dw, {config:?}");
    }
}

/// The windows of a convolution without groups, one element at a time: `(images × output height × output width,
/// channels × kernel height × kernel width)`, with the place in the images of each element that is inside of one.
fn windows(x: &Tensor, kernel: [usize; 2], config: &Conv2dConfig) -> (Vec<Option<usize>>, [usize; 2]) {
    let (images, channels, height, width) = x.dims4().unwrap();
    let output = |side: usize, kernel: usize| {
        (side + 2 * config.padding - config.dilation * (kernel - 1) - 1) / config.stride + 1
    };
    let (down, across) = (output(height, kernel[0]), output(width, kernel[1]));
    let mut places = Vec::new();
    for image in 0..images {
        for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
            for channel in 0..channels {
                for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
                    let at = |place: usize, k: usize, side: usize| {
                        let at = (place * config.stride + k * config.dilation).checked_sub(config.padding)?;
                        (at < side).then_some(at)
                    };
                    let place = at(y, ky, height).zip(at(x, kx, width));
                    places.push(place.map(|(y, x)| ((image * channels + channel) * height + y) * width + x));
                }
            }
        }
    }
    (places, [down, across])
}

/// Under every recipe, forward, dX and dW are those of a linear layer whose input are the windows.
#[test]
fn every_recipe_means_what_it_means_for_a_linear_layer_of_windows() {
    let named = Recipe::NAMED.map(|(name, recipe)| (name, recipe()));
    let others = [("E5M2", Recipe::from(Fp8::E5M2)), ("inference", Recipe::rowwise().gradients(None))];
    for (name, recipe) in named.into_iter().chain(others) {
        for config in configs().into_iter().filter(|config| config.groups == 1) {
            let what = format!("{name}, {config:?}");
            let weight = Var::from_tensor(&tensor((6, 4, 3, 2), 1)).unwrap();
            let bias = tensor(6, 2);
            let x = tensor((2, 4, 7, 9), 3);
            let (places, [down, across]) = windows(&x, [3, 2], &config);
            let elements = values(&x);
            let rows: Vec<f32> = places.iter().map(|place| place.map_or(0.0, |place| elements[place])).collect();
            let rows = Tensor::from_vec(rows, (2 * down * across, 24), &Device::Cpu).unwrap();
            let dy = tensor((2, 6, down, across), 4);
            let dy_rows = dy.permute((0, 2, 3, 1)).unwrap().reshape((2 * down * across, 6)).unwrap();

            let matrix = Var::from_tensor(&weight.reshape((6, 24)).unwrap()).unwrap();
            let linear = candle_nn::Linear::new(matrix.as_tensor().clone(), Some(bias.clone()));
            let linear = QuantizedLinear::new(linear, recipe.clone()).unwrap();
            let layer = candle_nn::Conv2d::new(weight.as_tensor().clone(), Some(bias), config);
            let layer = Quantized::new(layer, recipe.clone()).unwrap();
            // Twice, for scales that depend on the step before.
            for _ in 0..2 {
                let expected = step(&linear, &rows, Some(&matrix), |_| dy_rows.clone());
                let actual = step(&layer, &x, Some(&weight), |_| dy.clone());
                let y = expected.y.reshape((2, down, across, 6)).unwrap().permute((0, 3, 1, 2)).unwrap();
                assert_same(&what, &actual.y, &y.contiguous().unwrap());
                assert_same(&what, &actual.dw.unwrap(), &expected.dw.unwrap().reshape((6, 4, 3, 2)).unwrap());
                let mut dx = vec![0f64; elements.len()];
                for (place, gradient) in places.iter().zip(values(&expected.dx)) {
                    if let Some(place) = place {
                        dx[*place] += f64::from(gradient);
                    }
                }
                let dx: Vec<f32> = dx.into_iter().map(|x| x as f32).collect();
                let dx = Tensor::from_vec(dx, (2, 4, 7, 9), &Device::Cpu).unwrap();
                // At most six windows overlap, so as many sums are rounded to f32.
                assert_close(&what, &actual.dx, &dx, 6.0 * 2f32.powi(-24));
            }
        }
    }
}

/// Groups are as many convolutions, and where scales do not reach over groups, equal to them bit for bit.
#[test]
fn groups_are_convolutions_by_themselves() {
    for recipe in [Recipe::rowwise(), exact(), Recipe::mxfp8(), Recipe::rowwise().gradients(None)] {
        for config in configs().into_iter().filter(|config| config.groups > 1) {
            let groups = config.groups;
            let weight = tensor((8, 4 / groups, 3, 3), 1);
            let x = tensor((2, 4, 7, 9), 3);
            let whole = Var::from_tensor(&weight).unwrap();
            let layer = candle_nn::Conv2d::new(whole.as_tensor().clone(), None, config);
            let whole_step = step(&Quantized::new(layer, recipe.clone()).unwrap(), &x, Some(&whole), |y| {
                tensor(y.shape().clone(), 4)
            });
            let dy = tensor(whole_step.y.shape().clone(), 4);
            for group in 0..groups {
                let part = |x: &Tensor, dim: usize| {
                    let len = x.dim(dim).unwrap() / groups;
                    x.narrow(dim, group * len, len).unwrap().contiguous().unwrap()
                };
                let of_group = Var::from_tensor(&part(&weight, 0)).unwrap();
                let config = Conv2dConfig { groups: 1, ..config };
                let layer = candle_nn::Conv2d::new(of_group.as_tensor().clone(), None, config);
                let layer = Quantized::new(layer, recipe.clone()).unwrap();
                let one = step(&layer, &part(&x, 1), Some(&of_group), |_| part(&dy, 1));
                let what = format!("{config:?}, group {group} of {groups}");
                assert_same(&what, &part(&whole_step.y, 1), &one.y);
                assert_same(&what, &part(&whole_step.dx, 1), &one.dx);
                assert_same(&what, &part(whole_step.dw.as_ref().unwrap(), 0), &one.dw.unwrap());
            }
        }
    }
}

/// Blocks that are cut by the groups of a convolution of eight outputs.
fn cut() -> Recipe {
    let blocks = |format| Quantizer::new(format).granularity(Granularity::PerBlock { rows: 3, cols: 4 });
    Recipe::weight_only(blocks(Fp8::E4M3)).activations(blocks(Fp8::E4M3)).gradients(blocks(Fp8::E5M2))
}

/// Blocks that groups cut are those of all rows of an operand: the same numbers as by hand.
#[test]
fn blocks_that_groups_cut_are_those_of_the_whole_operand() {
    let config = Conv2dConfig { padding: 1, groups: 2, ..Conv2dConfig::default() };
    let blocks = |rows, cols| Quantizer::new(Fp8::E4M3).granularity(Granularity::PerBlock { rows, cols });
    for weights in [blocks(3, 4), blocks(5, 7), blocks(8, 18)] {
        let weight = Var::from_tensor(&tensor((8, 2, 3, 3), 1)).unwrap();
        let layer = candle_nn::Conv2d::new(weight.as_tensor().clone(), None, config);
        let layer = Quantized::new(layer, weights.clone()).unwrap();
        let x = tensor((2, 4, 6, 5), 3);
        let quantized = altgrad::fake_quantize(&tensor((8, 18), 1).detach(), &weights).unwrap();
        let quantized = quantized.reshape((8, 2, 3, 3)).unwrap();
        let expected = candle_nn::Conv2d::new(quantized.clone(), None, config).forward(&x).unwrap();
        let dy = tensor(expected.shape().clone(), 4);
        let actual = step(&layer, &x, Some(&weight), |_| dy.clone());
        let loops = loops(&x, &quantized, &dy, &config);
        let single = |x: Vec<f64>, like: &Tensor| {
            Tensor::from_vec(x.into_iter().map(|x| x as f32).collect::<Vec<_>>(), like.shape().clone(), &Device::Cpu)
        };
        // Sums of 18 products, of 72 and of 60.
        assert_close("y", &actual.y, &expected, 1e-6);
        assert_close("dx", &actual.dx, &single(loops.dx, &x).unwrap(), 1e-6);
        assert_close("dw", &actual.dw.unwrap(), &single(loops.dw, &weight).unwrap(), 1e-6);
    }
}

/// The gradient of a bias is the sum over images and places, in every group and dtype; and views are inputs like
/// others.
#[test]
fn biases_dtypes_and_views() {
    for groups in [1, 2, 4] {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let config = Conv2dConfig { padding: 1, groups, ..Conv2dConfig::default() };
            let weight = integers((8, 4 / groups, 3, 3), 1).to_dtype(dtype).unwrap();
            let bias = Var::from_tensor(&integers(8, 2).to_dtype(dtype).unwrap()).unwrap();
            let layer = candle_nn::Conv2d::new(weight, Some(bias.as_tensor().clone()), config);
            let layer = Quantized::new(layer, exact()).unwrap();
            // Height and width are exchanged without moving anything.
            let view = integers((2, 4, 5, 6), 3).to_dtype(dtype).unwrap().transpose(2, 3).unwrap();
            let y = layer.forward(&view).unwrap();
            assert_same("a view", &y, &layer.forward(&view.contiguous().unwrap()).unwrap());
            let dy = integers(y.shape().clone(), 4).to_dtype(dtype).unwrap();
            let gradients = (&y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
            let expected = dy.to_dtype(DType::F32).unwrap().sum((0, 2, 3)).unwrap();
            assert_eq!(values(gradients.get(&bias).unwrap()), values(&expected), "{groups} groups, {dtype:?}");
            let of_candle = candle_nn::Conv2d::new(
                layer.weight().to_dtype(DType::F32).unwrap(),
                Some(bias.to_dtype(DType::F32).unwrap()),
                config,
            );
            let expected = of_candle.forward(&view.contiguous().unwrap().to_dtype(DType::F32).unwrap()).unwrap();
            assert_eq!(values(&y), values(&expected), "integers are exact in {dtype:?}");
        }
    }
}

/// Sizes that no memory has room for are an error.
#[test]
fn monstrous_configurations_are_errors() {
    for (padding, dilation) in [(usize::MAX, 1), (usize::MAX / 2 + 1, 1), (1, usize::MAX), (1 << 40, 1)] {
        let config = Conv2dConfig { padding, dilation, ..Conv2dConfig::default() };
        let layer = candle_nn::Conv2d::new(tensor((8, 4, 3, 3), 1), None, config);
        let layer = Quantized::new(layer, Fp8::E4M3).unwrap();
        let error = layer.forward(&tensor((1, 4, 5, 5), 2)).unwrap_err().to_string();
        assert!(error.contains("the input"), "{error}");
    }
}

/// Frozen layers compute what eval mode computes, from one byte a weight, and let gradients through.
#[test]
fn frozen_convolutions_are_those_of_eval_mode() {
    for (recipe, groups) in [
        (Recipe::tensorwise(), 1),
        (Recipe::rowwise(), 2),
        (Recipe::from(Fp8::E5M2), 4),
        (Recipe::blockwise(), 2),
        // Blocks of three rows are cut by groups of four, so candle's operations compute it.
        (cut(), 2),
    ] {
        let config = Conv2dConfig { padding: 1, groups, ..Conv2dConfig::default() };
        let mut slot = nn::Conv2d::new(tensor((8, 4 / groups, 3, 3), 1), Some(tensor(8, 2)), config);
        let x = tensor((2, 4, 6, 5), 3);
        slot.eval().unwrap();
        slot.quantize(recipe.clone()).unwrap();
        let eval = slot.forward(&x).unwrap();
        let report = slot.freeze().unwrap();
        assert_eq!(slot.state(), SlotState::Frozen);
        assert_same("frozen", &slot.forward(&x).unwrap(), &eval);
        assert_eq!(report.layers[0].bytes_after, report.layers[0].bytes_frozen.unwrap(), "as was announced");
        assert!(report.layers[0].bytes_after < 2 * 8 * 4 / groups * 9, "about a byte a weight");
        let frozen = step(&slot, &x, None, |y| tensor(y.shape().clone(), 4));
        let mut trained = nn::Conv2d::new(slot.weight().unwrap(), slot.bias().cloned(), config);
        trained.quantize(recipe.gradients(None)).unwrap();
        let expected = step(&trained, &x, None, |y| tensor(y.shape().clone(), 4));
        assert_close("dx", &frozen.dx, &expected.dx, 1e-5);
        slot.dequantize().unwrap();
        assert_eq!(slot.weight().unwrap().dims(), [8, 4 / groups, 3, 3]);
    }
}

/// In f64, candle's operations compute it; the numbers are those of f32 but for the rounding of sums.
#[test]
fn both_ways_to_compute_agree() {
    for (name, recipe) in Recipe::NAMED {
        for groups in [1, 2] {
            let config = Conv2dConfig { padding: 1, stride: 2, groups, ..Conv2dConfig::default() };
            let weight = tensor((8, 4 / groups, 3, 3), 1);
            let x = tensor((2, 4, 7, 9), 3);
            let run = |dtype: DType| {
                let weight = Var::from_tensor(&weight.to_dtype(dtype).unwrap()).unwrap();
                let layer = candle_nn::Conv2d::new(weight.as_tensor().clone(), None, config);
                let layer = Quantized::new(layer, recipe()).unwrap();
                step(&layer, &x.to_dtype(dtype).unwrap(), Some(&weight), |y| {
                    tensor(y.shape().clone(), 4).to_dtype(dtype).unwrap()
                })
            };
            let (single, double) = (run(DType::F32), run(DType::F64));
            let what = format!("{name}, {groups} groups");
            // A value next to a midpoint may round the other way, since quotients are rounded in f64.
            assert_close(&what, &single.y, &double.y.to_dtype(DType::F32).unwrap(), 1e-5);
            assert_close(&what, &single.dx, &double.dx.to_dtype(DType::F32).unwrap(), 1e-5);
            assert_close(&what, &single.dw.unwrap(), &double.dw.unwrap().to_dtype(DType::F32).unwrap(), 1e-5);
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_layer() {
    let config = Conv2dConfig::default();
    let mut model = vec![nn::Conv2d::new(tensor((8, 4, 3, 3), 1), None, config)];
    model.quantize(Fp8::E4M3).unwrap();
    let message = |x: &Tensor| model[0].forward(x).unwrap_err().to_string();
    let channels = message(&tensor((1, 3, 8, 8), 1));
    assert!(channels.contains("layer `0`") && channels.contains("(images, 4, height, width)"), "{channels}");
    let small = message(&tensor((1, 4, 2, 8), 1));
    assert!(small.contains("3×3"), "{small}");
    assert!(message(&tensor((4, 8, 8), 1)).contains("[4, 8, 8]"));
    let error = Quantized::new(candle_nn::Conv2d::new(tensor((8, 4, 3), 1), None, config), Fp8::E4M3).unwrap_err();
    assert!(error.to_string().contains("four dimensions"), "{error}");
    let groups = Conv2dConfig { groups: 3, ..config };
    let error = Quantized::new(candle_nn::Conv2d::new(tensor((8, 4, 3, 3), 1), None, groups), Fp8::E4M3).unwrap_err();
    assert!(error.to_string().contains("multiple of 3"), "{error}");
    let bias = Quantized::new(candle_nn::Conv2d::new(tensor((8, 4, 3, 3), 1), Some(tensor(7, 1)), config), Fp8::E4M3);
    assert!(bias.unwrap_err().to_string().contains("[8], one value per output"));
    let weight = altgrad::Fp8Tensor::quantize(&tensor((8, 4, 3, 3), 1), &Quantizer::new(Fp8::E4M3)).unwrap();
    let frozen: Slot<candle_nn::Conv2d> = Frozen::from_codes(config, &weight, None).unwrap().into();
    assert_eq!(frozen.weight().unwrap().dims(), [8, 4, 3, 3]);
}

/// What follows a convolution in inference becomes part of it before it is quantized, and not after.
#[test]
fn batch_normalization_is_absorbed_before_quantization() {
    let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
    let mut conv = nn::Conv2d::new(tensor((6, 4, 3, 3), 1), None, config);
    let (mean, variance) = (tensor(6, 2), tensor(6, 3).abs().unwrap());
    let norm = nn::BatchNorm::new(6, mean, variance, tensor(6, 4), tensor(6, 5), 1e-5).unwrap();
    let x = tensor((2, 4, 5, 5), 6);
    let absorbed = conv.absorb_bn(&norm).unwrap();
    assert_eq!(absorbed.config().padding, 1);
    let expected = norm.forward_t(&conv.forward(&x).unwrap(), false).unwrap();
    assert_close("absorbed", &absorbed.forward(&x).unwrap(), &expected, 1e-5);
    conv.quantize(Fp8::E4M3).unwrap();
    assert!(conv.absorb_bn(&norm).unwrap_err().to_string().contains("after it"));
}
