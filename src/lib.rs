// `tests/readme.rs` runs the README's examples, so that they need no lines that are there for a test alone.
#![cfg_attr(not(doctest), doc = include_str!("../README.md"))]

pub use altgrad_core::*;
/// Derives the trait [`trait@Quantizable`] for a model: see the macro's page for the attributes.
pub use altgrad_macros::Quantizable;

/// What most programs import: `use altgrad::prelude::*`.
///
/// ```
/// use altgrad::prelude::*;
/// # use candle_core::{DType, Device};
/// # use candle_nn::{VarBuilder, VarMap};
///
/// #[derive(Quantizable)]
/// struct Head {
///     fc: Linear,
/// }
///
/// # let variables = VarMap::new();
/// # let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let mut model = Head { fc: linear(8, 4, vb.pp("fc"))? };
/// model.quantize(QuantConfig::new(Recipe::tensorwise()).rule("fc", Fp8::E3M4))?;
/// # Ok::<(), altgrad::Error>(())
/// ```
pub mod prelude {
    pub use crate::{
        Fp8, Granularity, Linear, QuantConfig, Quantizable, Quantizer, Recipe, Rounding, ScaleEncoding, Scaling, Ste,
        TiePolicy, linear, linear_b, linear_no_bias,
    };
}
