//! Is the model right? Its logits against those that transformers computes for a tiny random model of each family.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use altgrad::KvCache;
use altgrad_llama::Logits;
use common::{FAMILIES, Fixture, largest, largest_difference};

/// Logits in f32 may differ from those of another library by the order of sums alone.
const BOUND: f64 = 1e-4;

#[test]
fn logits_of_a_whole_text() {
    for name in FAMILIES {
        let Fixture { model, tokens, logits } = Fixture::new(name);
        let actual = model.forward(&tokens, &mut common::caches(&model), Logits::All).unwrap();
        assert_close(name, &actual.squeeze(0).unwrap(), &logits);
    }
}

#[test]
fn logits_without_a_cache() {
    for name in FAMILIES {
        let Fixture { model, tokens, logits } = Fixture::new(name);
        assert_close(name, &model.forward_without_cache(&tokens).unwrap().squeeze(0).unwrap(), &logits);
    }
}

#[test]
fn logits_of_a_text_in_parts() {
    for name in FAMILIES {
        let Fixture { model, tokens, logits } = Fixture::new(name);
        let mut caches = common::caches(&model);
        let mut first = 0;
        // Parts that are longer and shorter than the window of Mistral, then a token at a time.
        for count in [9, 3, 1, 1, 1, 5, 1, 1, 1, 1] {
            let part = tokens.narrow(1, first, count).unwrap();
            let actual = model.forward(&part, &mut caches, Logits::Last).unwrap();
            first += count;
            assert_eq!(caches[0].len(), first);
            assert_close(name, &actual.squeeze(0).unwrap(), &logits.narrow(0, first - 1, 1).unwrap());
        }
        assert_eq!(first, tokens.dims()[1]);
    }
}

#[test]
fn the_number_of_caches_is_checked() {
    let Fixture { model, tokens, .. } = Fixture::new("llama");
    let error = model.forward(&tokens, &mut [KvCache::full_precision()], Logits::All).unwrap_err();
    assert!(error.to_string().contains("the model has 2 blocks, but there are 1 caches"), "{error}");
}

fn assert_close(name: &str, actual: &candle_core::Tensor, expected: &candle_core::Tensor) {
    let difference = largest_difference(actual, expected) / largest(expected);
    assert!(difference <= BOUND, "{name}: {difference:.2e}");
}
