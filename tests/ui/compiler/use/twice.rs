//! The derive and an implementation by hand.

use altgrad::{Linear, Quantizable, Result};
use altgrad::visit::{Path, Visit, Visitor, VisitorMut};

#[derive(Quantizable)]
struct Model {
    layer: Linear,
}

impl Visit for Model {
    fn visit<'m>(&'m self, _: &Path<'_>, _: &mut dyn Visitor<'m>) -> Result<()> {
        Ok(())
    }
    fn visit_mut<'m>(&'m mut self, _: &Path<'_>, _: &mut dyn VisitorMut<'m>) -> Result<()> {
        Ok(())
    }
}

fn main() {}
