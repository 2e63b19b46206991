//! Trait objects: parts whose type is not known before the program runs.

use altgrad::{Linear, Path, Quantizable, Result, Visitor, VisitorMut};
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
        blocks: Vec<Box<dyn Quantizable>>,
        sent: Box<dyn Quantizable + Send + Sync>,
        local: Option<Box<dyn Quantizable + 'static>>,
    }

    let model = Model { blocks: vec![Box::new(mlp()), Box::new(layer())], sent: Box::new(mlp()), local: None };
    assert_seen(model, ["blocks.0.up", "blocks.0.down", "blocks.1", "sent.up", "sent.down"]);
}

#[test]
fn borrowing_models() {
    struct Borrowed<'a>(&'a mut Linear);
    impl Quantizable for Borrowed<'_> {
        fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
            visitor.linear(path, self.0)
        }
        fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
            visitor.linear(path, self.0)
        }
    }
    #[derive(Quantizable)]
    struct Model<'a> {
        part: Box<dyn Quantizable + 'a>,
    }

    assert_seen(Model { part: Box::new(Borrowed(&mut layer())) }, ["part"]);
}

#[test]
fn traits_of_the_users_own() {
    trait Layer: Module + Quantizable {}
    impl<T: Module + Quantizable> Layer for T {}
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
    trait Decode<T>: Quantizable {
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

/// The methods that need no size work on the object itself, the others on its box.
#[test]
fn surgery_on_objects() {
    let mut object: Box<dyn Quantizable> = Box::new(Mlp { up: ones(), down: ones() });
    assert_eq!(object.quantize(altgrad::Fp8::E4M3).unwrap().quantized(), 2);
    assert_eq!(object.as_mut().dequantize().unwrap().quantized(), 0);
    let paths: Vec<_> = object.as_ref().layers().unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["up", "down"]);
}

fn ones() -> Linear {
    Linear::new(super::tensor(&[2, 2]).ones_like().unwrap(), None)
}
