//! The functions of [`candle_nn::rotary_emb`], of which the fused ones have a backward pass.

use altgrad_kernels::transformer::{self as kernels, Positions, Rotation};
use altgrad_kernels::zeroed;
use candle_core::{D, Result, Tensor};
pub use candle_nn::rotary_emb::*;

use super::{check_dtype, check_shape};
use crate::autograd::{Pass, attach, computed, floats, tensor};
use crate::quantizer::has_kernels;

/// Rotates pairs of elements that are half a row apart, as LLaMA does, of `x (batch, heads, time, dim)`. `cos` and
/// `sin` are `(positions, dim / 2)`, or `(batch, positions, dim / 2)`, with at least as many positions as `x` has.
///
/// No gradient is computed for `cos` and `sin`.
///
/// # Errors
///
/// Tensors whose shapes do not fit, or with different dtypes.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, heads, time, _) = x.dims4()?;
    rotate(x, cos, sin, false, Order { heads_first: true, heads, time })
}

/// Rotates pairs of neighbors, as GPT-J does; otherwise as [`rope`].
///
/// # Errors
///
/// Those of [`rope`].
pub fn rope_i(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, heads, time, _) = x.dims4()?;
    rotate(x, cos, sin, true, Order { heads_first: true, heads, time })
}

/// [`rope`] of `x (batch, time, heads, dim)`.
///
/// # Errors
///
/// Those of [`rope`].
pub fn rope_thd(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, time, heads, _) = x.dims4()?;
    rotate(x, cos, sin, false, Order { heads_first: false, heads, time })
}

/// The order of rows.
#[derive(Clone, Copy)]
struct Order {
    /// Whether all positions of a head come before the next head.
    heads_first: bool,
    heads: usize,
    time: usize,
}

fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool, order: Order) -> Result<Tensor> {
    let (batch, dim) = (x.dim(0)?, x.dim(D::Minus1)?);
    let Order { heads_first, heads, time } = order;
    let len = cos.dim(D::Minus2)?;
    if len < time {
        candle_core::bail!("the angles are those of {len} positions, but there are rows of {time}");
    }
    let shape = if cos.rank() == 2 { vec![len, dim / 2] } else { vec![batch, len, dim / 2] };
    for (what, table) in [("the cosines of positions", cos), ("the sines of positions", sin)] {
        check_shape(what, table, &shape)?;
        check_dtype(what, table, x.dtype())?;
    }
    if !dim.is_multiple_of(2) {
        candle_core::bail!("rotary embedding of rows of {dim} elements, which are not pairs");
    }
    if !has_kernels(x.dtype(), x.device()) {
        return composite(x, cos, sin, interleaved, order);
    }
    let positions = Positions {
        repeats: if heads_first { 1 } else { heads.max(1) },
        count: time.max(1),
        // Rows of one batch, for tables of each batch.
        rounds: match (cos.rank(), heads_first) {
            (2, _) => 0,
            (_, true) => heads.max(1),
            (_, false) => 1,
        },
    };
    let (cos, sin) = (cos.detach(), sin.detach());
    let turn = move |x: &Tensor, inverse: bool| -> crate::Result<Vec<f32>> {
        let mut to = zeroed(x.elem_count());
        let (x, cos, sin) = (floats(x)?, floats(&cos)?, floats(&sin)?);
        kernels::rotate(Rotation { interleaved, inverse }, &x, dim, (&cos, &sin, len), positions, &mut to);
        Ok(to)
    };
    attach(computed(turn(x, false)?, x.dtype())?, x.shape(), &[x], move |pass: Pass<'_>| {
        Ok([Some(tensor(turn(pass.dy, true)?, pass.dy.shape(), pass.dy.dtype())?), None, None])
    })
}

/// The same by candle's operations.
fn composite(x: &Tensor, cos: &Tensor, sin: &Tensor, interleaved: bool, order: Order) -> Result<Tensor> {
    let position = |table: &Tensor| {
        let table = table.narrow(D::Minus2, 0, order.time)?;
        let table = if table.rank() == 2 { table.unsqueeze(0)? } else { table };
        table.unsqueeze(if order.heads_first { 1 } else { 2 })
    };
    let (cos, sin) = (position(&cos.detach())?, position(&sin.detach())?);
    let half = x.dim(D::Minus1)? / 2;
    let (dims, pairs) = (x.dims(), if interleaved { (half, 2) } else { (2, half) });
    let split = x.reshape((dims[0], dims[1], dims[2], pairs.0, pairs.1))?;
    let dim = if interleaved { 4 } else { 3 };
    let part = |place| split.narrow(dim, place, 1)?.squeeze(dim);
    let (a, b) = (part(0)?, part(1)?);
    let to_a = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let to_b = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    Tensor::stack(&[to_a, to_b], dim)?.reshape(x.shape())
}
