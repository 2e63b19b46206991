//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).

use super::PART;
use super::moment::{BLOCK, Codec, Moment, MomentPart};
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

/// A step of AdamW, with everything that is the same for all elements.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// What the update is multiplied by.
    pub learning_rate: f32,
    /// What the weight is multiplied by before: 1 − learning rate × weight decay.
    pub decay: f32,
    /// How much of the first and of the second moment is kept.
    pub betas: [f32; 2],
    /// 1 − β, rounded once.
    pub rests: [f32; 2],
    /// What corrects the bias of each moment: 1 / (1 − β^step).
    pub corrections: [f32; 2],
    /// Added to the root of the second moment.
    pub eps: f32,
    /// What gradients are multiplied by first.
    pub gradient_factor: f32,
}

for_every_level! {
    /// A step for the elements of a part.
    fn adamw_part = adamw_loop, (
        rule: AdamW,
        weights: &mut [f32],
        gradients: &[f32],
        first: MomentPart<'_>,
        second: MomentPart<'_>
    );
}

/// A step for a variable: the mean `m` and the uncentered variance `v` of gradients `g` move, then
/// `w ← w·decay − learning rate · m̂ / (√v̂ + eps)`, with `m̂` and `v̂` corrected for their bias.
///
/// Every slice and moment has as many elements as there are weights.
pub fn adamw(rule: AdamW, weights: &mut [f32], gradients: &[f32], first: &mut Moment, second: &mut Moment) {
    let elements = weights.len();
    let moments = first.parts(PART).into_iter().zip(second.parts(PART));
    let parts = weights.chunks_mut(PART).zip(gradients.chunks(PART)).zip(moments).collect();
    threads::for_each(parts, 4 * elements, |((weights, gradients), (first, second)): Part<'_>| {
        adamw_part::<f32>(Level::detect(), rule, weights, gradients, first, second);
    });
}

type Part<'a> = ((&'a mut [f32], &'a [f32]), (MomentPart<'a>, MomentPart<'a>));

#[inline(always)]
fn adamw_loop(
    rule: AdamW,
    weights: &mut [f32],
    gradients: &[f32],
    mut first: MomentPart<'_>,
    mut second: MomentPart<'_>,
) {
    let AdamW { learning_rate, decay, betas, rests, corrections, eps, gradient_factor } = rule;
    let codec = Codec::new();
    let (mut first_block, mut second_block) = ([0.0; BLOCK], [0.0; BLOCK]);
    for (number, (weights, gradients)) in weights.chunks_mut(BLOCK).zip(gradients.chunks(BLOCK)).enumerate() {
        let (m, v) = (&mut first_block[..weights.len()], &mut second_block[..weights.len()]);
        first.load(&codec, number, m);
        second.load(&codec, number, v);
        for (((w, g), m), v) in weights.iter_mut().zip(gradients).zip(m.iter_mut()).zip(v.iter_mut()) {
            let g = g * gradient_factor;
            *m = *m * betas[0] + g * rests[0];
            *v = *v * betas[1] + g * g * rests[1];
            let update = *m * corrections[0] / ((*v * corrections[1]).sqrt() + eps);
            *w = *w * decay - update * learning_rate;
        }
        first.store(&codec, number, m);
        second.store(&codec, number, v);
    }
}
