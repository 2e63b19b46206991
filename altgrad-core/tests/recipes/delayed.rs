//! Delayed scaling through layers, step by step, against the tables of Transformer Engine's rule.

use std::collections::BTreeMap;

use altgrad_core::{Quantizer, Recipe, ScaleEncoding, Scaling};
use candle_core::{DType, Tensor};

use crate::tables::{Decoder, Inputs, Table, Tally, dtypes, histories, oracle, tables};
use crate::{Trained, cpu, values};

/// The tables of each sequence and group of roles, in the order of steps.
fn sequences() -> BTreeMap<(String, String), Vec<Table>> {
    let mut sequences: BTreeMap<_, Vec<Table>> = BTreeMap::new();
    for table in tables("hybrid") {
        let ["hybrid", sequence, step] = table.recipe.split('/').collect::<Vec<_>>()[..] else {
            panic!("{}", table.recipe)
        };
        let steps = sequences.entry((sequence.to_owned(), table.roles.join(","))).or_default();
        assert_eq!(step.parse(), Ok(steps.len()), "{}", table.recipe);
        steps.push(table);
    }
    sequences
}

/// The dtypes that hold all inputs of a sequence exactly.
fn common_dtypes(steps: &[Table]) -> &'static [DType] {
    steps.iter().map(|table| dtypes(&table.input)).min_by_key(|dtypes| dtypes.len()).unwrap()
}

/// The input of a table as a column.
fn column(inputs: &Inputs, table: &Table, dtype: DType) -> Tensor {
    inputs.of(table, dtype).reshape(((), 1)).unwrap()
}

/// A scale that is its history's: the one for a step, before the step is recorded.
fn compare_scales(steps: &[Table], quantizer: &Quantizer, inputs: &Inputs) {
    let mut history = quantizer.history();
    for table in steps {
        let amax = values(&inputs.of(table, DType::F32)).into_iter().fold(0.0, |amax: f64, x| amax.max(x.abs())) as f32;
        assert_eq!(quantizer.scale(amax, &history).to_bits(), table.scales[0].to_bits(), "{}", table.recipe);
        quantizer.record(amax, &mut history);
    }
}

/// Weights that become those of the next step after each, packed before each step and multiplied in it.
fn compare_weights(steps: &[Table], dtype: DType, inputs: &Inputs, decoder: &mut Decoder) {
    // Zeros below the weights of smaller steps change no largest magnitude.
    let rows = steps.iter().map(|table| table.codes.len()).max().unwrap();
    let one = Tensor::ones((1, 1), dtype, &candle_core::Device::Cpu).unwrap();
    let start = Tensor::zeros((rows, 1), dtype, one.device()).unwrap();
    let trained = Trained::new(&start, None, Recipe::hybrid().weights);
    for table in steps {
        let what = format!("{} {dtype:?}", table.recipe);
        let column = column(inputs, table, dtype);
        let count = column.elem_count();
        trained.weight.set(&column.pad_with_zeros(0, 0, rows - count).unwrap()).unwrap();

        let packed = trained.layer.quantized_weight().unwrap();
        assert_eq!(packed.scales().to_scalar::<f32>().unwrap().to_bits(), table.scales[0].to_bits(), "{what}: scale");
        let codes: Vec<u8> = packed.codes().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(codes[..count], table.codes, "{what}: codes");
        assert!(codes[count..].iter().all(|code| *code == 0), "{what}");

        // A product with 1 gives the weight itself, but for the sign of zeros.
        let y = trained.step(&one, &Tensor::ones((1, rows), dtype, one.device()).unwrap()).y;
        assert_eq!(values(&y)[..count], decoder.values(table, dtype), "{what}: product");
    }
}

/// Inputs and gradients of outputs that are those of the next step after each, through a layer whose weight is 1.
fn compare_activations_and_gradients(
    activations: &[Table],
    gradients: &[Table],
    dtype: DType,
    inputs: &Inputs,
    decoder: &mut Decoder,
) {
    let one = cpu(vec![1.0], (1, 1)).to_dtype(dtype).unwrap();
    let hybrid = Recipe::hybrid();
    let exact = Quantizer::new(hybrid.weights.format).scaling(Scaling::Static(1.0));
    let trained = Trained::new(&one, None, hybrid.weights(exact));
    for (activation, gradient) in activations.iter().zip(gradients) {
        assert_eq!((&activation.recipe, &activation.input), (&gradient.recipe, &gradient.input));
        let what = format!("{} {dtype:?}", activation.recipe);
        let x = column(inputs, activation, dtype);
        let step = trained.step(&x, &x);
        assert_eq!(values(&step.y), decoder.values(activation, dtype), "{what}: activations");
        assert_eq!(values(&step.dx), decoder.values(gradient, dtype), "{what}: gradients");
    }
}

#[test]
fn hybrid_layers_are_those_of_transformer_engine() {
    let (inputs, mut decoder) = (Inputs::read(), Decoder::default());
    let mut tally = Tally::default();
    let sequences = sequences();
    let hybrid = Recipe::hybrid();
    for ((sequence, roles), forward) in &sequences {
        let quantizers = match roles.as_str() {
            "weights,activations" => [Some(hybrid.weights.clone()), hybrid.activations.clone()],
            "gradients" => [hybrid.gradients.clone(), None],
            _ => panic!("{roles}"),
        };
        for quantizer in quantizers.into_iter().flatten() {
            compare_scales(forward, &quantizer, &inputs);
        }
        for table in forward {
            tally.add(table);
        }
        if roles == "gradients" {
            continue;
        }
        let gradients = &sequences[&(sequence.clone(), "gradients".to_owned())];
        assert_eq!(forward.len(), gradients.len(), "{sequence}");
        for &dtype in common_dtypes(forward) {
            compare_weights(forward, dtype, &inputs, &mut decoder);
            compare_activations_and_gradients(forward, gradients, dtype, &inputs, &mut decoder);
        }
    }
    println!("hybrid: {tally:?} in {} sequences", sequences.len());
    assert_eq!(tally, Tally::of_file("hybrid"));
    assert_eq!(tally, Tally { tables: 86, scales: 86, codes: 51_582 }, "the file has other tables than it had");
}

/// Runs all histories, and compares the scale of each step with those that `expected` allows: that of the table, and
/// whether its product with the largest value of the format is finite. Says how many steps there were of either kind.
fn run_histories(expected: impl Fn(f32, f32, f32) -> bool) -> [usize; 2] {
    let mut steps = [0, 0];
    let mut wrong = Vec::new();
    for table in histories() {
        let quantizer = Quantizer::new(table.format)
            .scaling(Scaling::Delayed { len: table.len, margin: table.margin })
            .scale_encoding(ScaleEncoding::F32Reciprocal);
        let largest = oracle(table.format).largest() as f32;
        let mut history = quantizer.history();
        for (number, [amax, multiplier, scale]) in table.steps.iter().enumerate() {
            assert_eq!((1.0 / multiplier).to_bits(), scale.to_bits(), "{} step {number}", table.name);
            let actual = quantizer.scale(*amax, &history);
            steps[usize::from((scale * largest).is_infinite())] += 1;
            if !expected(actual, *scale, largest) {
                wrong.push(format!(
                    "{} {} len {} margin {} step {number}: {actual:e}, should be {scale:e}",
                    table.name, table.format, table.len, table.margin
                ));
            }
            quantizer.record(*amax, &mut history);
        }
    }
    assert!(wrong.is_empty(), "{} of {steps:?} steps:\n{}", wrong.len(), wrong.join("\n"));
    steps
}

#[test]
fn every_step_of_the_histories_has_the_scale_of_transformer_engine() {
    let steps = run_histories(|actual, expected, largest| {
        (expected * largest).is_infinite() || actual.to_bits() == expected.to_bits()
    });
    println!(
        "hybrid_histories: {} histories, {} steps, {} more without end of range",
        histories().len(),
        steps[0],
        steps[1]
    );
    assert_eq!((histories().len(), steps), (105, [2755, 20]));
}

#[test]
fn with_a_margin_scales_near_the_end_of_f32_are_those_of_transformer_engine_or_finite_in_products() {
    run_histories(|actual, expected, largest| actual.to_bits() == expected.to_bits() || (actual * largest).is_finite());
}
