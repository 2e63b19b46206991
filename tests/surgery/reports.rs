//! Reports, and models behind trait objects.

use super::common::{Gpt, gpt};
use super::*;
use altgrad::report::{Action, SkipReason};
use altgrad::visit::Visit;
use altgrad::{Error, Fp8, Linear, ModelError, Quantizable, linear};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};

#[test]
fn a_report_can_be_had_at_any_time() {
    let (mut model, variables) = gpt(DType::F32, 26);
    assert!(
        model.report().unwrap().layers.iter().all(|layer| layer.action == Action::Skipped(SkipReason::NotQuantized))
    );
    let quantized = model.quantize(Fp8::E4M3).unwrap();
    let before = fingerprint(&model);
    let report = model.report().unwrap();
    assert_eq!(report.layers[..8], quantized.layers[..8]);
    assert_eq!(fingerprint(&model), before);

    let ones = Tensor::ones((64, 16), DType::F32, &Device::Cpu).unwrap();
    variables.data().lock().unwrap()["h.0.mlp.c_fc.weight"].set(&ones).unwrap();
    assert_eq!(model.report().unwrap().layer("h.0.mlp.c_fc").unwrap().distortion.unwrap().max_abs_error, 0.0);
    assert_eq!(report.bytes_frozen(), model.freeze().unwrap().bytes_after());
}

#[test]
fn a_report_prints_as_a_table_and_as_json() {
    let (mut model, _) = gpt(DType::F32, 24);
    let report = model.quantize(Fp8::E4M3).unwrap();
    let text = report.to_string();
    assert!(text.contains("linear weights 26.6 kB (8.2 kB once frozen)"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["layers"][8]["action"]["skipped"]["tied"], "wte.weight");
    let report = model.freeze().unwrap();
    let text = report.to_string();
    for part in
        ["h.0.attn.c_attn", "48×16", "frozen", "E4M3", "3.1 kB → 772 B", "skipped: not", "8 of 9 layers quantized"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let narrow = format!("{report:80}");
    for (width, text) in [(100, &text), (80, &narrow)] {
        assert!(text.lines().all(|line| line.chars().count() <= width), "wider than {width}:\n{text}");
    }
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["layers"][0]["path"], "h.0.attn.c_attn");
    assert_eq!(json["layers"][0]["action"], "frozen");
    assert_eq!(json["layers"][0]["format"], "E4M3");
    assert_eq!(json["layers"][8]["action"]["skipped"], "not_quantized");
}

#[test]
fn a_model_behind_a_trait_object_works() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut model: Box<dyn Visit> = Box::new(vec![Some(linear(4, 4, vb).unwrap()), None]);
    model.quantize(Fp8::E4M3).unwrap();
    let inner: &mut dyn Visit = &mut *model;
    inner.eval().unwrap();
    inner.freeze().unwrap();
    assert_eq!(inner.layers().unwrap()[0].0, "0");
    inner.dequantize().unwrap();
}

#[test]
fn a_visit_that_shows_other_layers_than_visit_mut_is_an_error() {
    use altgrad::Result;
    use altgrad::visit::{Path, Visitor, VisitorMut};
    struct Inconsistent(Linear, Linear);
    impl Visit for Inconsistent {
        fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
            self.0.visit(&path.field("a"), visitor)?;
            self.1.visit(&path.field("b"), visitor)
        }

        fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
            self.0.visit_mut(&path.field("a"), visitor)
        }
    }
    let layer = || Linear::new(Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap(), None);
    let mut model = Inconsistent(layer(), layer());
    let error = model.quantize(Fp8::E4M3).unwrap_err();
    assert!(matches!(&error, Error::Model(ModelError::InconsistentVisit { path }) if path == "b"), "{error}");
    assert!(matches!(model.0, Linear::Full(_)), "left as it was");
}

#[test]
fn errors_convert_both_ways() {
    fn in_candle(model: &mut Gpt) -> candle_core::Result<()> {
        model.freeze()?;
        Ok(())
    }
    fn in_altgrad() -> altgrad::Result<()> {
        Tensor::zeros(3, DType::F32, &Device::Cpu)?.reshape(4)?;
        Ok(())
    }
    let (mut model, _) = gpt(DType::F32, 25);
    assert!(in_candle(&mut model).unwrap_err().to_string().contains("nothing to freeze"));
    assert!(matches!(in_altgrad().unwrap_err(), Error::Candle(_)));
}
