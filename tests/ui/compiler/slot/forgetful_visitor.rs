//! A visitor that does not say what it does with slots.

use altgrad::Result;
use altgrad::visit::{Path, Visitor};
use candle_core::Tensor;

struct Names(Vec<String>);

impl<'m> Visitor<'m> for Names {
    fn tensor(&mut self, path: &Path<'_>, _: &'m Tensor) -> Result<()> {
        self.0.push(path.to_string());
        Ok(())
    }
}

fn main() {}
