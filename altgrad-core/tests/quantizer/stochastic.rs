//! Stochastic rounding: right on average, and the same whenever it is asked for again.

use altgrad_core::{Fp8, Fp8Tensor, Granularity, QuantizedLinear, Quantizer, Recipe, Rounding, Scaling, fake_quantize};
use candle_core::{DType, Device, Module, Tensor, Var};

use crate::values;

fn quantizer(format: Fp8, seed: u64) -> Quantizer {
    Quantizer::new(format).scaling(Scaling::Static(1.0)).rounding(Rounding::Stochastic { seed })
}

#[test]
fn a_million_draws_are_right_on_average() {
    const DRAWS: usize = 1_000_000;
    // A format, two neighbouring values, and how far a value lies from the lower to the upper one.
    let cases = [
        (Fp8::E4M3, 1.0, 1.125, 0.5),
        (Fp8::E4M3, 16.0, 18.0, 0.01),
        (Fp8::E4M3, 15.0, 16.0, 0.99),
        // Next to zero, within the subnormals, and up to the largest.
        (Fp8::E4M3, 0.0, 2f64.powi(-9), 0.25),
        (Fp8::E4M3, 3.0 * 2f64.powi(-9), 4.0 * 2f64.powi(-9), 0.7),
        (Fp8::E4M3, 416.0, 448.0, 0.125),
        (Fp8::E5M2, 1.25, 1.5, 1.0 / 3.0),
        (Fp8::E5M2, 0.0, 2f64.powi(-16), 0.001),
        (Fp8::E3M4, 1.0, 1.0625, 0.9),
        (Fp8::E7M0, 2.0, 4.0, 0.3),
        (Fp8::E7M0, 0.0, 2f64.powi(-62), 0.6),
        (Fp8::E0M7, 0.5, 0.5 + 2f64.powi(-7), 0.4),
    ];
    for (number, (format, low, high, part)) in cases.into_iter().enumerate() {
        for (dtype, sign) in [(DType::F32, 1.0), (DType::F64, -1.0)] {
            let x = Tensor::full(sign * (low + part * (high - low)), DRAWS, &Device::Cpu).unwrap();
            let x = x.to_dtype(dtype).unwrap();
            // Of the value that the dtype holds.
            let part = (values(&x)[0].abs() - low) / (high - low);
            let rounded = values(&fake_quantize(&x, &quantizer(format, number as u64)).unwrap());
            let ups = rounded.iter().filter(|value| value.abs() == high).count();
            let downs = rounded.iter().filter(|value| value.abs() == low).count();
            assert_eq!(ups + downs, DRAWS, "{format}: only the neighbours of {low} + {part}");
            let error = ups as f64 / DRAWS as f64 - part;
            let standard_error = (part * (1.0 - part) / DRAWS as f64).sqrt();
            assert!(error.abs() <= 4.0 * standard_error, "{format} at {low} + {part}: off by {error}");
        }
    }
}

#[test]
fn values_of_the_format_stay_what_they_are() {
    let all: Vec<f32> = Fp8::E5M2.values().map(|(_, value)| value).filter(|value| value.is_finite()).collect();
    let x = Tensor::new(all.as_slice(), &Device::Cpu).unwrap();
    for seed in 0..20 {
        let rounded = fake_quantize(&x, &quantizer(Fp8::E5M2, seed)).unwrap();
        assert_eq!(rounded.to_vec1::<f32>().unwrap(), all);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let x = Tensor::rand(-1f32, 1.0, (300, 1000), &Device::Cpu).unwrap();
    let codes = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let packed = pool.install(|| Fp8Tensor::quantize(&x, &quantizer(Fp8::E4M3, 7)).unwrap());
        packed.codes().flatten_all().unwrap().to_vec1::<u8>().unwrap()
    };
    let one = codes(1);
    assert_eq!(one, codes(2));
    // Two at a time, on other threads than this one.
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| codes(1)));
        for thread in threads {
            assert_eq!(thread.join().unwrap(), one);
        }
    });
}

#[test]
fn seeds_differ() {
    let x = Tensor::rand(-1f32, 1.0, 1000, &Device::Cpu).unwrap();
    let rounded = |seed| values(&fake_quantize(&x, &quantizer(Fp8::E4M3, seed)).unwrap());
    assert_eq!(rounded(1), rounded(1));
    assert_ne!(rounded(1), rounded(2));
    assert_ne!(rounded(1), rounded(1 | 1 << 40));
}

#[test]
fn steps_of_training_differ_and_eval_stands_still() {
    let weight = Tensor::rand(-1f32, 1.0, (64, 64), &Device::Cpu).unwrap();
    let x = Tensor::eye(64, DType::F32, &Device::Cpu).unwrap();
    let layer = || QuantizedLinear::new(candle_nn::Linear::new(weight.clone(), None), quantizer(Fp8::E4M3, 1)).unwrap();
    let run = |layer: &QuantizedLinear| values(&layer.forward(&x).unwrap());
    let (mut one, other) = (layer(), layer());
    let steps: Vec<_> = (0..3).map(|_| run(&one)).collect();
    assert_ne!(steps[0], steps[1]);
    assert_ne!(steps[1], steps[2]);
    // The same steps again in another layer.
    assert_eq!(steps, (0..3).map(|_| run(&other)).collect::<Vec<_>>());
    one.set_training(false);
    let fourth = run(&one);
    assert_eq!(run(&one), fourth);
    assert_eq!(run(&other), fourth);
    assert_eq!(values(&one.freeze().unwrap().forward(&x).unwrap()), fourth);
}

#[test]
fn the_tensors_of_a_layer_draw_apart() {
    let values_of = |recipe: Recipe, x: &Tensor, weight: &Tensor| {
        let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.clone(), None), recipe).unwrap();
        values(&layer.forward(x).unwrap())
    };
    let (random, eye) =
        (Tensor::rand(-1f32, 1.0, (64, 64), &Device::Cpu).unwrap(), Tensor::eye(64, DType::F32, &Device::Cpu).unwrap());
    let stochastic = quantizer(Fp8::E4M3, 1);
    let recipe = || Recipe::weight_only(stochastic.clone()).activations(stochastic.clone());
    // The same numbers, once as input and once as weight.
    let input = values_of(recipe(), &random, &eye);
    let weight =
        values_of(recipe(), &eye, &random.t().unwrap().contiguous().unwrap().t().unwrap().contiguous().unwrap());
    let weight = Tensor::new(weight, &Device::Cpu).unwrap().reshape((64, 64)).unwrap().t().unwrap();
    assert_ne!(input, values(&weight));
}

#[test]
fn the_transposed_gradient_draws_apart() {
    const SIZE: usize = 32;
    let rows = quantizer(Fp8::E4M3, 1).granularity(Granularity::PerRow);
    let exact = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(1.0));
    let recipe = Recipe::weight_only(exact.clone()).activations(exact).gradients(rows);
    let eye = Tensor::eye(SIZE, DType::F32, &Device::Cpu).unwrap();
    let [x, weight] = [&eye, &eye].map(|eye| Var::from_tensor(eye).unwrap());
    let layer = QuantizedLinear::new(candle_nn::Linear::new(weight.as_tensor().clone(), None), recipe).unwrap();
    // Every row and column has the scale 1 and elsewhere one value between two of the format, so that the two copies of
    // the gradient, along its rows (dX) and its columns (dW transposed), differ in their draws alone.
    let dy = ((&eye * (448.0 - 17.0)).unwrap() + 17.0).unwrap();
    let y = layer.forward(&x).unwrap();
    let gradients = (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let (rows, columns) = (gradients.get(&x).unwrap(), gradients.get(&weight).unwrap());
    assert_ne!(values(rows), values(columns));
    assert_ne!(values(rows), values(&columns.t().unwrap()));
    for value in values(rows).into_iter().chain(values(columns)) {
        assert!([16.0, 18.0, 448.0].contains(&value), "{value}");
    }
}
