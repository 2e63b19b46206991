//! Everything that the conversion of one tensor to a format depends on.

use super::blocks::Blocks;
use super::draws::Draws;
use crate::format::{Fp8, Overflow};

/// The scale of a block, and how quotients by it are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    value: f32,
    multiplier: Option<f32>,
}

impl Scale {
    /// Values are divided by `value` on the way into the format and multiplied by it on the way back.
    pub(crate) fn new(value: f32) -> Self {
        Self { value, multiplier: None }
    }

    /// Values are multiplied by `multiplier` on the way into the format and by `value` on the way back.
    pub(crate) fn with_multiplier(value: f32, multiplier: f32) -> Self {
        Self { value, multiplier: Some(multiplier) }
    }

    /// What decoded codes are multiplied by.
    pub(crate) fn value(self) -> f32 {
        self.value
    }

    /// What values are multiplied by instead of being divided by [`value`](Self::value).
    pub(crate) fn multiplier(self) -> Option<f32> {
        self.multiplier
    }
}

/// How the elements of one tensor become codes, with every choice made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversion {
    pub(crate) format: Fp8,
    pub(crate) overflow: Overflow,
    pub(crate) blocks: Blocks,
    /// One for each block, all of them with a multiplier or none.
    pub(crate) scales: Vec<Scale>,
    /// The numbers that decide between two neighbours; without them the nearest one wins.
    pub(crate) draws: Option<Draws>,
}
