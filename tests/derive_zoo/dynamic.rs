//! Trait objects: parts whose type is not known before the program runs.

use altgrad::visit::{Path, Visit, Visitor, VisitorMut};
use altgrad::{Linear, Quantizable, Result};
use candle_core::{Module, Tensor};

use super::{assert_seen, layer};

#[derive(Quantizable)]
struct Mlp {
    up: Linear,
    down: Linear,
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.down.forward(&self.up.forward(x)?)
    }
}

fn mlp() -> Mlp {
    Mlp { up: layer(), down: layer() }
}

#[test]
fn boxed_models() {
    #[derive(Quantizable)]
    struct Model {
        blocks: Vec<Box<dyn Visit>>,
        sent: Box<dyn Visit + Send + Sync>,
        local: Option<Box<dyn Visit + 'static>>,
    }

    let model = Model { blocks: vec![Box::new(mlp()), Box::new(layer())], sent: Box::new(mlp()), local: None };
    assert_seen(model, ["blocks.0.up", "blocks.0.down", "blocks.1", "sent.up", "sent.down"]);
}

#[test]
fn borrowing_models() {
    struct Borrowed<'a>(&'a mut Linear);
    impl Visit for Borrowed<'_> {
        fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
            visitor.slot(path, self.0)
        }
        fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
            visitor.slot(path, self.0)
        }
    }
    #[derive(Quantizable)]
    struct Model<'a> {
        part: Box<dyn Visit + 'a>,
    }

    assert_seen(Model { part: Box::new(Borrowed(&mut layer())) }, ["part"]);
}

#[test]
fn traits_of_the_users_own() {
    trait Layer: Module + Visit {}
    impl<T: Module + Visit> Layer for T {}
    #[derive(Quantizable)]
    struct Stack {
        layers: Vec<Box<dyn Layer>>,
    }

    assert_seen(
        Stack { layers: vec![Box::new(layer()), Box::new(mlp())] },
        ["layers.0", "layers.1.up", "layers.1.down"],
    );
}

/// The parameter of a trait object need not implement the trait, which `bound` has to say.
#[test]
fn traits_with_parameters() {
    trait Decode<T>: Visit {
        fn decode(&self, token: T) -> T;
    }
    struct Token;
    impl<T> Decode<T> for Mlp {
        fn decode(&self, token: T) -> T {
            token
        }
    }
    #[derive(Quantizable)]
    #[quant(bound = "")]
    struct Decoder<T> {
        decode: Box<dyn Decode<T>>,
        #[quant(ignore)]
        last: Option<T>,
    }

    let decoder = Decoder { decode: Box::new(mlp()), last: Some(Token) };
    assert!(decoder.last.as_ref().is_some());
    let Token = decoder.decode.decode(Token);
    assert_seen(decoder, ["decode.up", "decode.down"]);
}

/// All methods work on the object itself.
#[test]
fn surgery_on_objects() {
    let mut object: Box<dyn Visit> = Box::new(Mlp { up: ones(), down: ones() });
    assert_eq!(object.quantize(altgrad::Fp8::E4M3).unwrap().quantized(), 2);
    let by_reference: &mut dyn Visit = object.as_mut();
    assert_eq!(by_reference.quantize(altgrad::Recipe::tensorwise()).unwrap().quantized(), 2);
    let x = super::tensor(&[2, 2]).ones_like().unwrap();
    let report = by_reference.calibrate(|model| {
        for (_, layer) in model.layers()? {
            layer.forward(&x)?;
        }
        Ok(())
    });
    assert_eq!(report.unwrap().layers.len(), 2);
    assert_eq!(object.as_mut().dequantize().unwrap().quantized(), 0);
    let paths: Vec<_> = object.as_ref().layers().unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["up", "down"]);
}

fn ones() -> Linear {
    Linear::new(super::tensor(&[2, 2]).ones_like().unwrap(), None)
}
