//! Embeddings: lookups of rows that are quantized by themselves, and their gradient.

use altgrad::{Fp8, Granularity, Quantizable, Quantizer, Recipe, Rounding, Ste, fake_quantize, nn};
use candle_core::{Device, Module, Tensor, Var};

use super::{assert_same, bits, tensor, values};

const IDS: [u32; 6] = [3, 0, 7, 3, 3, 9];

fn ids() -> Tensor {
    Tensor::new(&IDS, &Device::Cpu).unwrap().reshape((2, 3)).unwrap()
}

fn table(seed: u64) -> (Var, nn::Embedding) {
    let table = Var::from_tensor(&tensor((10, 12), seed)).unwrap();
    let slot = nn::Embedding::new(table.as_tensor().clone(), 12);
    (table, slot)
}

/// Whatever a recipe says of whole tensors, a table has a scale a row; and of blocks, a table has those of single rows.
#[test]
fn rows_are_those_of_the_quantized_table() {
    let by_row = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow);
    let blocks = |rows| Quantizer::new(Fp8::E4M3).granularity(Granularity::PerBlock { rows, cols: 4 });
    let stochastic = by_row.clone().rounding(Rounding::Stochastic { seed: 7 });
    for (recipe, quantizer) in [
        (Recipe::from(Fp8::E4M3), by_row.clone()),
        (Recipe::from(by_row.clone()), by_row),
        (Recipe::from(blocks(4)), blocks(1)),
        (Recipe::from(stochastic.clone()), stochastic),
    ] {
        let (_, mut slot) = table(1);
        slot.quantize(recipe).unwrap();
        let nn::Embedding::Quantized(layer) = &slot else { panic!("quantized") };
        assert_eq!(layer.recipe().weights.granularity, quantizer.granularity);
        assert_eq!(layer.recipe().activations, None);
        if quantizer.rounding == Rounding::NearestEven {
            let whole = fake_quantize(&tensor((10, 12), 1), &quantizer).unwrap();
            let rows = whole.index_select(&ids().flatten_all().unwrap(), 0).unwrap().reshape((2, 3, 12)).unwrap();
            assert_same("rows", &slot.forward(&ids()).unwrap(), &rows);
            slot.eval().unwrap();
            assert_same("rows that are kept", &slot.forward(&ids()).unwrap(), &rows);
        }
        // What freezing keeps is what the next lookup computes with.
        let mut frozen = slot.clone();
        frozen.freeze().unwrap();
        slot.eval().unwrap();
        assert_same("frozen", &frozen.forward(&ids()).unwrap(), &slot.forward(&ids()).unwrap());
    }
}

/// A row that is not looked up is not read.
#[test]
fn a_lookup_touches_only_its_rows() {
    let (variable, mut slot) = table(2);
    slot.quantize(Recipe::tensorwise()).unwrap();
    let expected = slot.forward(&ids()).unwrap();
    let mut spoilt = tensor((10, 12), 2).to_vec2::<f32>().unwrap();
    for row in [1, 2, 4, 5, 6, 8] {
        spoilt[row] = vec![f32::NAN, 1e30, f32::INFINITY, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    }
    variable.set(&Tensor::new(spoilt, &Device::Cpu).unwrap()).unwrap();
    assert_same("rows that are finite", &slot.forward(&ids()).unwrap(), &expected);
    let other = slot.forward(&Tensor::new(&[1u32], &Device::Cpu).unwrap()).unwrap();
    assert!(values(&other).iter().any(|value| value.is_nan()), "what is not finite shows");
}

#[test]
fn the_gradient_goes_to_the_rows_of_the_table() {
    for eval in [false, true] {
        let (variable, mut slot) = table(3);
        slot.quantize(Fp8::E4M3).unwrap();
        if eval {
            slot.eval().unwrap();
        }
        let dy = tensor((2, 3, 12), 4);
        let y = slot.forward(&ids()).unwrap();
        let gradients = (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&variable).unwrap().to_vec2::<f32>().unwrap();
        let rows = dy.reshape((6, 12)).unwrap().to_vec2::<f32>().unwrap();
        let mut expected = vec![vec![0f32; 12]; 10];
        for (id, row) in IDS.into_iter().zip(rows) {
            expected[id as usize].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        assert_eq!(gradient, expected, "eval: {eval}");
    }
}

#[test]
fn a_gradient_stops_where_a_value_was_clipped() {
    // One scale for all, by which the larger half of the values is beyond the range.
    let scale = 0.05 / Fp8::E4M3.largest_finite();
    let quantizer = Quantizer::new(Fp8::E4M3).scaling(altgrad::Scaling::Static(scale));
    let (variable, mut slot) = table(5);
    slot.quantize(Recipe::from(quantizer).ste(Ste::Clipped)).unwrap();
    let y = slot.forward(&ids()).unwrap();
    let gradient = y.sum_all().unwrap().backward().unwrap().get(&variable).unwrap().to_vec2::<f32>().unwrap();
    let weights = variable.to_vec2::<f32>().unwrap();
    let mut clipped = 0;
    for (row, (weights, gradient)) in weights.into_iter().zip(gradient).enumerate() {
        let count = IDS.iter().filter(|id| **id as usize == row).count() as f32;
        for (weight, gradient) in weights.into_iter().zip(gradient) {
            // What is nearer to the next value than to the largest, 448, is clipped: from 464 on.
            let is_clipped = weight.abs() / scale >= 464.0;
            assert_eq!(gradient, if is_clipped { 0.0 } else { count }, "{weight}");
            clipped += usize::from(is_clipped && count > 0.0);
        }
    }
    assert!(clipped > 10);
}

#[test]
fn a_frozen_table_takes_a_byte_a_weight() {
    let (_, mut slot) = table(6);
    slot.quantize(Fp8::E4M3).unwrap();
    let report = slot.freeze().unwrap();
    assert_eq!(report.layers[0].kind, "embedding");
    assert_eq!(slot.weight_bytes(), 10 * 12 + 10 * 4);
    assert_eq!(report.layers[0].bytes_frozen, Some(slot.weight_bytes()));
    assert_eq!(bits(slot.embeddings()), bits(&slot.weight().unwrap()));
    assert_eq!(slot.hidden_size(), 12);
    let error = slot.forward(&Tensor::new(&[10u32], &Device::Cpu).unwrap());
    assert!(error.is_err(), "there is no such row");
}

#[test]
fn numbers_must_be_integers() {
    let mut model = vec![table(7).1];
    model.quantize(Fp8::E4M3).unwrap();
    let error = model[0].forward(&tensor((2, 3), 1)).unwrap_err().to_string();
    assert!(error.contains("layer `0`") && error.contains("row numbers"), "{error}");
    for ids in [Tensor::new(&[1i64, 2], &Device::Cpu), Tensor::new(&[1u8, 2], &Device::Cpu)] {
        assert_eq!(model[0].forward(&ids.unwrap()).unwrap().dims(), [2, 12]);
    }
    model.freeze().unwrap();
    assert!(model[0].forward(&tensor((2, 3), 1)).is_err());
}

/// The largest number of an integer type is a row of zeros to candle's lookups, which models use for padding.
#[test]
fn padding_is_a_row_of_zeros_in_every_state() {
    let (variable, mut slot) = table(8);
    let ids = Tensor::new(&[2u32, u32::MAX, 4], &Device::Cpu).unwrap();
    let full = slot.forward(&ids).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(full[1], [0.0; 12]);
    slot.quantize(Fp8::E4M3).unwrap();
    let y = slot.forward(&ids).unwrap();
    let training = y.to_vec2::<f32>().unwrap();
    assert_eq!(training[1], [0.0; 12]);
    let gradients = y.sum_all().unwrap().backward().unwrap();
    let sum: f32 = values(gradients.get(&variable).unwrap()).into_iter().sum();
    assert_eq!(sum, 24.0, "of the other two rows");
    slot.eval().unwrap();
    assert_eq!(slot.forward(&ids).unwrap().to_vec2::<f32>().unwrap(), training);
    slot.freeze().unwrap();
    assert_eq!(slot.forward(&ids).unwrap().to_vec2::<f32>().unwrap(), training);
}
