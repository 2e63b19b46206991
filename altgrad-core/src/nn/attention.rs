//! The functions of [`candle_nn::attention`], and attention that trains.

use altgrad_kernels::attention::{self as kernels, AttentionOperands};
use altgrad_kernels::transformer::{TokenRows, merge_heads as merge, split_heads as split};
use altgrad_kernels::{Role, TokenPanels, zeroed};
use candle_core::{D, Result, Tensor};
pub use candle_nn::attention::*;

use super::{check_dtype, check_shape, ops};
use crate::Mask;
use crate::autograd::{Pass, attach, attach_all, computed, floats, tensor};
use crate::quantizer::has_kernels;

/// `softmax(q · kᵀ · scale) · v` over the tokens that a mask shows to a query, for queries `(batch, heads, time, dim)`,
/// keys `(batch, key heads, tokens, dim)` and values `(batch, key heads, tokens, value dim)`. The queries are those of
/// the last tokens. A head of queries belongs to the head of keys and values whose number is its own divided by the
/// number of query heads per key head, as in grouped-query attention; the keys are not repeated for it.
///
/// Forward and backward, the scores of some rows are in memory at a time, never all of them. The usual scale is
/// `1 / √dim`. For tokens that come one after the other, use a [`KvCache`](crate::KvCache).
///
/// ```
/// use altgrad::Mask;
/// use altgrad::nn::attention::scaled_dot_product_attention;
/// use candle_core::{Device, Tensor};
///
/// let (batch, time, dim) = (1, 10, 16);
/// let q = Tensor::randn(0f32, 1.0, (batch, 6, time, dim), &Device::Cpu)?;
/// let k = Tensor::randn(0f32, 1.0, (batch, 2, time, dim), &Device::Cpu)?; // one for three heads of queries
/// let v = Tensor::randn(0f32, 1.0, (batch, 2, time, dim), &Device::Cpu)?;
/// let y = scaled_dot_product_attention(&q, &k, &v, 0.25, Mask::Causal)?;
/// assert_eq!(y.dims(), [batch, 6, time, dim]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
///
/// Tensors whose shapes do not fit, or with different dtypes; more queries than tokens under a mask that is not
/// [`Mask::All`].
pub fn scaled_dot_product_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Mask) -> Result<Tensor> {
    let (batch, heads, time, dim) = q.dims4()?;
    let (_, key_heads, tokens, _) = k.dims4()?;
    let value_dim = v.dim(D::Minus1)?;
    check_shape("the keys", k, &[batch, key_heads, tokens, dim])?;
    check_shape("the values", v, &[batch, key_heads, tokens, value_dim])?;
    check_dtype("the keys", k, q.dtype())?;
    check_dtype("the values", v, q.dtype())?;
    if key_heads == 0 || !heads.is_multiple_of(key_heads) {
        candle_core::bail!("{heads} heads of queries cannot be divided among {key_heads} heads of keys");
    }
    if mask != Mask::All && time > tokens {
        candle_core::bail!("{time} queries are those of the last of {tokens} tokens; use `Mask::All` for others");
    }
    let (streams, rows) = (batch * key_heads, heads / key_heads * time);
    let shape = (batch, heads, time, value_dim);
    if !has_kernels(q.dtype(), q.device()) || q.elem_count() == 0 || v.elem_count() == 0 {
        let q = (q.reshape((streams, rows, dim))? * f64::from(scale))?;
        let scores = q.matmul(&k.reshape((streams, tokens, dim))?.t()?)?;
        let weights = ops::masked_softmax(&scores.reshape((batch, heads, time, tokens))?, mask)?;
        let y = weights.reshape((streams, rows, tokens))?.matmul(&v.reshape((streams, tokens, value_dim))?)?;
        return y.reshape(shape);
    }
    let panels = move |role, values: &[f32], dim: usize| {
        let mut panels = TokenPanels::new(role, None, streams, dim, tokens);
        panels.append_floats(values, tokens, 0..tokens);
        panels
    };
    let visible = move |row: usize| mask.visible(row % time, time, tokens);
    let mut y = zeroed(streams * rows * value_dim);
    {
        let keys = panels(Role::Keys, &floats(k)?, dim);
        let values = panels(Role::Values, &floats(v)?, value_dim);
        let (keys, values) = (std::slice::from_ref(&keys), std::slice::from_ref(&values));
        kernels::attend(keys, values, &floats(q)?, (rows, time), scale, &visible, &mut y);
    }
    attach(computed(y, q.dtype())?, shape, &[q, k, v], move |pass: Pass<'_>| {
        let (q, k, v) = (pass.arguments[0], pass.arguments[1], pass.arguments[2]);
        let mut gradients = [q, k, v].map(|argument| zeroed(argument.elem_count()));
        {
            let (queries, keys, dy) = (floats(q)?, floats(k)?, floats(pass.dy)?);
            let operands = AttentionOperands {
                keys: &panels(Role::Keys, &keys, dim),
                keys_to_sum: &panels(Role::Values, &keys, dim),
                values: &panels(Role::Keys, &floats(v)?, value_dim),
                queries: &queries,
                dy: &dy,
            };
            kernels::attend_gradients(
                operands,
                (rows, time),
                scale,
                &visible,
                gradients.each_mut().map(|to| &mut to[..]),
            );
        }
        let [dq, dk, dv] = gradients;
        let gradient = |values, of: &Tensor| Ok::<_, crate::Error>(Some(tensor(values, of.shape(), of.dtype())?));
        Ok([gradient(dq, q)?, gradient(dk, k)?, gradient(dv, v)?])
    })
}

/// The heads of a projection, `(batch, time, heads · dim)`, as attention takes them: `(batch, heads, time, dim)`.
///
/// ```
/// use altgrad::nn::attention::{merge_heads, split_heads};
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::randn(0f32, 1.0, (1, 10, 6 * 16), &Device::Cpu)?;
/// let heads = split_heads(&x, 6)?;
/// assert_eq!(heads.dims(), [1, 6, 10, 16]);
/// assert_eq!(merge_heads(&heads)?.to_vec3::<f32>()?, x.to_vec3::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
///
/// A last dimension that is not a multiple of `heads`.
pub fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    split_parts(x, [heads]).map(|[x]| x)
}

/// The queries, keys and values of one projection for all three, `(batch, time, (heads + 2 · key_heads) · dim)`:
/// queries `(batch, heads, time, dim)`, and keys and values `(batch, key_heads, time, dim)`.
///
/// ```
/// use altgrad::Mask;
/// use altgrad::nn::attention::{merge_heads, scaled_dot_product_attention, split_qkv};
/// use candle_core::{Device, Tensor};
///
/// let qkv = Tensor::randn(0f32, 1.0, (1, 10, (6 + 2 * 2) * 16), &Device::Cpu)?; // as GPT-2's `c_attn` gives it
/// let (q, k, v) = split_qkv(&qkv, 6, 2)?;
/// let y = scaled_dot_product_attention(&q, &k, &v, 0.25, Mask::Causal)?;
/// assert_eq!(merge_heads(&y)?.dims(), [1, 10, 6 * 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
///
/// A last dimension that is not a multiple of all heads.
pub fn split_qkv(qkv: &Tensor, heads: usize, key_heads: usize) -> Result<(Tensor, Tensor, Tensor)> {
    split_parts(qkv, [heads, key_heads, key_heads]).map(|[q, k, v]| (q, k, v))
}

/// Heads that attention gives, `(batch, heads, time, dim)`, as the next projection takes them: `(batch, time, heads ·
/// dim)`. The inverse of [`split_heads`].
///
/// # Errors
///
/// A tensor without four dimensions.
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, time, dim) = x.dims4()?;
    let shape = (batch, time, heads * dim);
    if !has_kernels(x.dtype(), x.device()) {
        return x.transpose(1, 2)?.contiguous()?.reshape(shape);
    }
    let rows = TokenRows { time, heads, dim };
    let mut y = zeroed(x.elem_count());
    merge(&[(heads, Some(&floats(x)?))], rows, &mut y);
    attach(computed(y, x.dtype())?, shape, &[x], move |pass: Pass<'_>| {
        let mut dx = zeroed(pass.dy.elem_count());
        split(&floats(pass.dy)?, rows, 0..heads, &mut dx);
        Ok([Some(tensor(dx, (batch, heads, time, dim), pass.dy.dtype())?), None, None])
    })
}

/// Parts of the heads of rows, each heads first.
fn split_parts<const N: usize>(x: &Tensor, parts: [usize; N]) -> Result<[Tensor; N]> {
    let (batch, time, width) = x.dims3()?;
    let heads: usize = parts.iter().sum();
    if heads == 0 || !width.is_multiple_of(heads) {
        candle_core::bail!("rows of {width} elements cannot be divided among {heads} heads");
    }
    let dim = width / heads;
    let mut first = 0;
    let parts = parts.map(|count| {
        first += count;
        (first - count, count)
    });
    let shape = move |count: usize| (batch, count, time, dim);
    if !has_kernels(x.dtype(), x.device()) {
        let all = x.reshape((batch, time, heads, dim))?.transpose(1, 2)?;
        return each(parts, |(first, count)| all.narrow(1, first, count)?.contiguous());
    }
    let rows = TokenRows { time, heads, dim };
    let split = {
        let from = floats(x)?;
        each(parts, |(first, count)| {
            let mut to = zeroed(batch * count * time * dim);
            split(&from, rows, first..first + count, &mut to);
            Ok((computed(to, x.dtype())?, shape(count).into()))
        })?
    };
    let (dims, dtype) = (x.shape().clone(), x.dtype());
    attach_all(split, &[x], move |_, gradients| {
        let gradients =
            gradients.iter().map(|dy| dy.as_ref().map(floats).transpose()).collect::<crate::Result<Vec<_>>>()?;
        let of_parts = parts.iter().zip(&gradients);
        let of_parts: Vec<_> = of_parts.map(|((_, count), dy)| (*count, dy.as_deref())).collect();
        let mut dx = zeroed(dims.elem_count());
        merge(&of_parts, rows, &mut dx);
        Ok([Some(tensor(dx, dims.clone(), dtype)?), None, None])
    })
}

/// The results for each element of an array.
fn each<T: Copy, R, const N: usize>(from: [T; N], mut function: impl FnMut(T) -> Result<R>) -> Result<[R; N]> {
    let results = from.into_iter().map(&mut function).collect::<Result<Vec<R>>>()?;
    results.try_into().map_err(|_| candle_core::Error::Msg("as many results as elements".to_owned()))
}
