//! A kind of slot that does not say how it is computed.

use altgrad::{Operation, Result};
use candle_core::Tensor;

#[derive(Clone, Debug)]
struct Scaled(Tensor);

impl Operation for Scaled {
    type Config = ();

    const KIND: &'static str = "scaled";

    fn config(&self) {}

    fn weight(&self) -> &Tensor {
        &self.0
    }

    fn bias(&self) -> Option<&Tensor> {
        None
    }

    fn from_parts((): (), weight: Tensor, _: Option<Tensor>) -> Self {
        Self(weight)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x * &self.0)?)
    }
}

fn main() {}
