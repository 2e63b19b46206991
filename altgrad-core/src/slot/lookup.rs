//! Looking up rows of a weight that is quantized, by their numbers.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::autograd::{self, Pass};
use crate::quantizer::{CachedCodes, Clip, FixedWeight, Granularity, Quantizer, Rounding};

/// The rows' values, and where their gradients stop.
pub(super) type LookedUp = (Tensor, Clip);

/// Whether a row is quantized as it would be in the whole weight, without looking at the other rows.
pub(super) fn is_by_row(quantizer: &Quantizer) -> bool {
    let is_scaled_by_row = match quantizer.granularity {
        Granularity::PerTensor => quantizer.scaling.static_scale().is_some(),
        Granularity::PerRow | Granularity::PerChannel => true,
        Granularity::PerBlock { rows, .. } => rows == 1,
    };
    // A random draw depends on the position of the element in the whole weight.
    is_scaled_by_row && quantizer.rounding == Rounding::NearestEven
}

/// The row numbers in one dimension.
pub(super) fn numbers(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.flatten_all()?)
}

/// The rows of a table in full precision, as a matrix.
pub(super) fn rows(table: &Tensor, rows: &Tensor) -> Result<Tensor> {
    Ok(table.index_select(&numbers(rows)?, 0)?)
}

/// The rows of kept codes.
pub(super) fn kept(kept: &CachedCodes, rows: &Tensor) -> Result<LookedUp> {
    let numbers = numbers(rows)?;
    Ok((kept.codes.rows(&numbers)?, kept.clip.rows(&numbers)?))
}

/// The rows of codes, in the shape of the row numbers plus one dimension.
pub(super) fn frozen(codes: &FixedWeight, rows: &Tensor) -> Result<Tensor> {
    let values = codes.rows(&numbers(rows)?)?;
    let dims = dims(rows, &values)?;
    Ok(values.reshape(dims)?)
}

/// The rows, in the shape of the row numbers plus one dimension. Their gradient goes to the weight, and `on_gradient`
/// is called when it does.
pub(super) fn attach(
    (values, clip): LookedUp,
    weight: &Tensor,
    rows: &Tensor,
    on_gradient: impl Fn() + Send + Sync + 'static,
) -> Result<Tensor> {
    let dims = dims(rows, &values)?;
    let (numbers, cols) = (numbers(rows)?, weight.dim(1)?);
    let backward = move |pass: Pass<'_>| {
        // An optimizer is about to change the weight.
        on_gradient();
        let dy = clip.stop(&pass.dy.detach().contiguous()?.reshape((numbers.elem_count(), cols))?)?;
        Ok([Some(table_gradient(pass.arguments[0], &numbers, &dy)?), None, None])
    };
    Ok(autograd::attach(autograd::owned(values)?, dims, &[weight], backward)?)
}

/// The gradient of a table: the sum of the gradients of each row.
fn table_gradient(table: &Tensor, numbers: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let Some(to) = autograd::buffer(table).filter(|_| dy.dtype() == DType::F32) else {
        let zeros = Tensor::zeros(table.shape(), dy.dtype(), dy.device())?;
        return Ok(zeros.index_add(numbers, dy, 0)?);
    };
    let (numbers, cols) = (numbers.to_dtype(DType::U32)?.to_vec1::<u32>()?, dy.dim(1)?);
    let dy = autograd::floats(dy)?;
    autograd::write(&to, |to| {
        to.fill(0.0);
        for (number, dy) in numbers.iter().zip(dy.chunks_exact(cols.max(1))) {
            let row = to.get_mut(*number as usize * cols..).and_then(|rows| rows.get_mut(..cols));
            row.into_iter().flatten().zip(dy).for_each(|(to, dy)| *to += dy);
        }
        Ok(())
    })?;
    Ok(to)
}

fn dims(rows: &Tensor, values: &Tensor) -> Result<Vec<usize>> {
    let mut dims = rows.dims().to_vec();
    dims.push(values.dim(1)?);
    Ok(dims)
}

/// Checks that numbers are integers.
pub(super) fn check_numbers(rows: &Tensor) -> Result<()> {
    match rows.dtype() {
        DType::U8 | DType::U32 | DType::I64 => Ok(()),
        dtype => Err(crate::Error::Tensor(crate::TensorError::DTypeMismatch {
            what: "the row numbers",
            expected: DType::U32,
            actual: dtype,
        })),
    }
}
