//! `#[derive(Quantizable)]` on every kind of type: each must compile, and where it holds layers each must be seen,
//! once, under its path and with what the attributes say of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "most types of the zoo are only derived for")]
#![allow(unreachable_pub, reason = "visibilities are part of the zoo")]
#![allow(
    clippy::allow_attributes_without_reason,
    clippy::struct_field_names,
    clippy::pub_underscore_fields,
    reason = "the zoo shows what users may write, not what is good style"
)]

mod attributes;
mod dynamic;
mod fields;
mod generics;
mod hygiene;
mod shapes;

use std::fmt::Write as _;

use altgrad::visit::{Path, Visitor, VisitorMut};
use altgrad::{AnySlot, Linear, Quantizable, Result};
use candle_core::{DType, Device, Tensor};

/// A layer of 2 inputs and 2 outputs.
fn layer() -> Linear {
    Linear::new(tensor(&[2, 2]), None)
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// What a walk saw: `path` for a slot, `path!` for one to skip, `path@E3M4` for one with a recipe, and
/// `path: 2×3` for a tensor with its shape.
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    fn slot(&mut self, path: &Path<'_>) {
        let mut text = path.to_string();
        if path.is_skipped() {
            text.push('!');
        }
        if let Some(recipe) = path.recipe() {
            write!(text, "@{}", recipe.weights.format).unwrap();
        }
        self.0.push(text);
    }

    fn tensor(&mut self, path: &Path<'_>, tensor: &Tensor) {
        let shape: Vec<_> = tensor.dims().iter().map(ToString::to_string).collect();
        self.0.push(format!("{path}: {}", shape.join("×")));
    }
}

impl<'m> Visitor<'m> for Seen {
    fn slot(&mut self, path: &Path<'_>, _: &'m dyn AnySlot) -> Result<()> {
        self.slot(path);
        Ok(())
    }

    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()> {
        self.tensor(path, tensor);
        Ok(())
    }
}

impl<'m> VisitorMut<'m> for Seen {
    fn slot(&mut self, path: &Path<'_>, _: &'m mut dyn AnySlot) -> Result<()> {
        self.slot(path);
        Ok(())
    }

    fn tensor(&mut self, path: &Path<'_>, tensor: &'m Tensor) -> Result<()> {
        self.tensor(path, tensor);
        Ok(())
    }
}

/// Asserts what both kinds of visit see in `model`.
#[track_caller]
fn assert_seen<const N: usize>(mut model: impl Quantizable, expected: [&str; N]) {
    let (mut by_visit, mut by_visit_mut) = (Seen::default(), Seen::default());
    model.visit(&Path::root(), &mut by_visit).unwrap();
    assert_eq!(by_visit.0, expected);
    model.visit_mut(&Path::root(), &mut by_visit_mut).unwrap();
    assert_eq!(by_visit_mut.0, expected, "`visit_mut` differs from `visit`");
}

/// Compiles if `T` implements the trait.
const fn assert_quantizable<T: Quantizable + ?Sized>() {}
