//! Stochastic gradient descent, with momentum or without.

use super::PART;
use super::moment::{BLOCK, Codec, Moment, MomentPart};
use crate::element::Scalar;
use crate::level::{Level, for_every_level};
use crate::threads;

/// A step of gradient descent, with everything that is the same for all elements.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// What the update is multiplied by.
    pub learning_rate: f32,
    /// What the weight adds to its gradient.
    pub weight_decay: f32,
    /// How much of the velocity is kept.
    pub momentum: f32,
    /// Whether the update looks ahead along the velocity (Nesterov).
    pub nesterov: bool,
    /// What gradients are multiplied by first.
    pub gradient_factor: f32,
}

for_every_level! {
    /// A step for the elements of a part.
    fn sgd_part = sgd_loop, (rule: Sgd, weights: &mut [f32], gradients: &[f32], velocity: Option<MomentPart<'_>>);
}

/// A step for a variable: `g ← g + weight decay · w`; with a velocity `b ← momentum · b + g`, the update is `b`, or
/// `g + momentum · b` under Nesterov's rule, and `g` without one; then `w ← w − learning rate · update`. These are the
/// rules of PyTorch's `SGD` without dampening.
///
/// Every slice and moment has as many elements as there are weights.
pub fn sgd(rule: Sgd, weights: &mut [f32], gradients: &[f32], velocity: Option<&mut Moment>) {
    let elements = weights.len();
    let velocities: Vec<_> = match velocity {
        Some(velocity) => velocity.parts(PART).into_iter().map(Some).collect(),
        None => (0..elements.div_ceil(PART)).map(|_| None).collect(),
    };
    let parts = weights.chunks_mut(PART).zip(gradients.chunks(PART)).zip(velocities).collect();
    threads::for_each(parts, 2 * elements, |((weights, gradients), velocity): Part<'_>| {
        sgd_part::<f32>(Level::detect(), rule, weights, gradients, velocity);
    });
}

type Part<'a> = ((&'a mut [f32], &'a [f32]), Option<MomentPart<'a>>);

#[inline(always)]
fn sgd_loop(rule: Sgd, weights: &mut [f32], gradients: &[f32], mut velocity: Option<MomentPart<'_>>) {
    let Sgd { learning_rate, weight_decay, momentum, nesterov, gradient_factor } = rule;
    let codec = Codec::new();
    let mut block = [0.0; BLOCK];
    for (number, (weights, gradients)) in weights.chunks_mut(BLOCK).zip(gradients.chunks(BLOCK)).enumerate() {
        let gradient = |w: f32, g: f32| g * gradient_factor + w * weight_decay;
        let Some(velocity) = &mut velocity else {
            weights.iter_mut().zip(gradients).for_each(|(w, g)| *w -= gradient(*w, *g) * learning_rate);
            continue;
        };
        let b = &mut block[..weights.len()];
        velocity.load(&codec, number, b);
        for ((w, g), b) in weights.iter_mut().zip(gradients).zip(b.iter_mut()) {
            let g = gradient(*w, *g);
            *b = *b * momentum + g;
            let update = if nesterov { g + *b * momentum } else { *b };
            *w -= update * learning_rate;
        }
        velocity.store(&codec, number, b);
    }
}
