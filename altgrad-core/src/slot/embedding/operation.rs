//! An embedding as an operation over operands.

use candle_core::{Module, Tensor};

use crate::quantizer::{Clip, Granularity, Quantizer};
use crate::slot::lookup;
use crate::slot::{Evaluation, Operation, Recipe};
use crate::{Error, Result, TensorError};

impl Operation for candle_nn::Embedding {
    type Config = ();

    const KIND: &'static str = "embedding";

    fn config(&self) {}

    fn weight(&self) -> &Tensor {
        self.embeddings()
    }

    fn bias(&self) -> Option<&Tensor> {
        None
    }

    fn from_parts((): (), weight: Tensor, _: Option<Tensor>) -> Self {
        let hidden_size = weight.dims().last().copied().unwrap_or_default();
        Self::new(weight, hidden_size)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let table = self.embeddings();
        if !table.track_op() {
            return Ok(Module::forward(self, x)?);
        }
        let rows = lookup::rows(&table.detach(), x)?;
        lookup::attach((rows, Clip::default()), table, x, || ())
    }

    fn evaluation((): &(), weight: &[usize]) -> Result<Evaluation> {
        if weight.len() == 2 {
            return Ok(Evaluation::Lookup);
        }
        let expected = "two dimensions, (rows, hidden size)".to_owned();
        Err(Error::Tensor(TensorError::ShapeMismatch { what: "the table", expected, actual: weight.to_vec() }))
    }

    /// Keeps only the quantizer of weights, with scales of single rows.
    fn adapt(recipe: Recipe) -> Recipe {
        Recipe { weights: by_row(recipe.weights), activations: None, gradients: None, ..recipe }
    }
}

/// The same quantizer with scales of single rows, unless it has one static scale for all.
fn by_row(quantizer: Quantizer) -> Quantizer {
    match (quantizer.granularity, quantizer.scaling.static_scale()) {
        (Granularity::PerTensor, Some(_)) => quantizer,
        (Granularity::PerTensor, _) => quantizer.granularity(Granularity::PerRow),
        (granularity, _) => Quantizer { granularity: granularity.of_single_rows(), ..quantizer },
    }
}
