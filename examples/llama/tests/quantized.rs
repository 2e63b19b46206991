//! Is the model right in FP8? Frozen against fake-quantized layers, and a cache in FP8 against one in full precision.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::checkpoint::{Dialect, Writer};
use altgrad::{Fp8, Granularity, KvCache, QuantConfig, Quantizable, Quantizer, Recipe, TiePolicy};
use altgrad_llama::{Llama, Logits, mean_loss};
use candle_core::Tensor;
use common::{FAMILIES, Fixture, largest, largest_difference};

fn recipes() -> Vec<Recipe> {
    let rows = |format| Recipe::weight_only(Quantizer::new(format).granularity(Granularity::PerRow));
    let mut recipes = vec![rows(Fp8::E4M3), rows(Fp8::E5M2)];
    recipes.extend(["tensorwise", "rowwise", "blockwise", "mxfp8"].map(|name| name.parse().unwrap()));
    recipes
}

fn quantized(name: &str, recipe: &Recipe) -> Llama {
    let mut model = common::load(&common::folder(name));
    // The head reads its input as it is, since no file says that one of two layers with one table quantizes inputs.
    let head = Recipe::weight_only(recipe.weights.clone());
    let config = QuantConfig::new(recipe.clone()).rule("lm_head", head).ties(TiePolicy::Quantize);
    model.quantize(config).unwrap();
    model.eval().unwrap();
    model
}

fn logits(model: &Llama, tokens: &Tensor, caches: &mut [KvCache]) -> Tensor {
    model.forward(tokens, caches, Logits::All).unwrap()
}

#[test]
fn frozen_layers_compute_what_quantized_ones_do() {
    for name in FAMILIES {
        let tokens = Fixture::new(name).tokens;
        for recipe in recipes() {
            let mut model = quantized(name, &recipe);
            let before = logits(&model, &tokens, &mut common::caches(&model));
            let loss = mean_loss(&model, &tokens.squeeze(0).unwrap(), &mut common::caches(&model)).unwrap();
            model.freeze().unwrap();
            let after = logits(&model, &tokens, &mut common::caches(&model));
            assert_eq!(largest_difference(&before, &after), 0.0, "{name}, {recipe:?}");
            let frozen_loss = mean_loss(&model, &tokens.squeeze(0).unwrap(), &mut common::caches(&model)).unwrap();
            assert_eq!(loss, frozen_loss, "{name}, {recipe:?}");
        }
    }
}

/// The same values in full precision: candle's products differ from those of codes in the order of sums, and each
/// output of a layer is within `2·k·2⁻²⁴·Σ|x||w|` of the exact one. Through two blocks that stays below the bound on
/// logits between libraries.
#[test]
fn frozen_layers_compute_what_their_values_do() {
    for name in FAMILIES {
        let tokens = Fixture::new(name).tokens;
        for recipe in &recipes()[..2] {
            let mut model = quantized(name, recipe);
            model.freeze().unwrap();
            let frozen = logits(&model, &tokens, &mut common::caches(&model));
            model.dequantize().unwrap();
            let values = logits(&model, &tokens, &mut common::caches(&model));
            let difference = largest_difference(&frozen, &values) / largest(&values);
            assert!(difference > 0.0 && difference <= 1e-4, "{name}, {recipe:?}: {difference:.2e}");
        }
    }
}

/// A key or value is off by at most half a step, which is 2⁻⁴ of it in E4M3 and 2⁻³ in E5M2. A mean of values is off by
/// no more of their mean magnitude; scores move weights by about as much again; what attention adds is a part of the
/// residual stream. The bound on the norm of logits is twice half a step.
#[test]
fn a_cache_in_fp8_is_off_by_its_rounding() {
    for name in FAMILIES {
        let Fixture { model, tokens, logits: expected } = Fixture::new(name);
        let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let error = |format: Fp8| {
            let mut caches = vec![KvCache::new(format).unwrap(); model.config().layers];
            let actual = logits(&model, &tokens, &mut caches).squeeze(0).unwrap();
            norm(&(actual - &expected).unwrap()) / norm(&expected)
        };
        let (e4m3, e5m2) = (error(Fp8::E4M3), error(Fp8::E5M2));
        assert!(e4m3 > 0.0 && e4m3 < 2.0 / 16.0, "{name}: {e4m3}");
        assert!(e5m2 > e4m3 && e5m2 < 2.0 / 8.0, "{name}: {e5m2}");
    }
}

#[test]
fn a_model_comes_back_from_its_files() {
    let rows = recipes().swap_remove(0);
    for name in FAMILIES {
        comes_back(name, &rows, Dialect::CompressedTensors);
        for recipe in recipes() {
            comes_back(name, &recipe, Dialect::Altgrad);
        }
    }
}

fn comes_back(name: &str, recipe: &Recipe, dialect: Dialect) {
    let mut model = quantized(name, recipe);
    model.freeze().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let config = common::folder(name).join("config.json");
    Writer::new(dialect).config_from(config).unwrap().save(&model, &target).unwrap();
    let loaded = common::load(&target);
    let quantized = |model: &Llama| model.report().unwrap().quantized();
    assert_eq!(quantized(&loaded), quantized(&model), "{name}, {recipe:?}, {dialect}");
    let tokens = Fixture::new(name).tokens;
    let of = |model: &Llama| logits(model, &tokens, &mut common::caches(model));
    assert_eq!(largest_difference(&of(&model), &of(&loaded)), 0.0, "{name}, {recipe:?}, {dialect}");
}
