// Types of every shape; included in one module for each group of lints, see `tests/derive_lints.rs`.

use altgrad::visit::Visit;
use altgrad::{Fp8, Linear, Quantizable};

/// A unit struct.
#[derive(Quantizable)]
pub struct Unit;

/// A struct without fields.
#[derive(Quantizable)]
pub struct Empty {}

/// An enum without values.
#[derive(Quantizable)]
pub enum Never {}

/// A struct with named fields and all attributes.
#[derive(Quantizable)]
pub struct Model {
    /// A layer.
    pub layer: Linear,
    /// A layer to skip.
    #[quant(skip, rename = "deep.down")]
    pub skipped: Linear,
    /// A layer with a recipe.
    #[quant(recipe = Fp8::E3M4)]
    pub with_recipe: Linear,
    /// A layer with a recipe of the type.
    #[quant(recipe = Self::RECIPE)]
    pub own_recipe: Linear,
    /// Layers without a name of their own.
    #[quant(flatten)]
    pub flat: Vec<Linear>,
    /// A field that is no part of the model.
    #[quant(ignore)]
    pub ignored: usize,
    /// A part that hides its fields.
    pub tuple: Tuple,
}

impl Model {
    const RECIPE: Fp8 = Fp8::E4M3;
}

/// A tuple struct.
#[derive(Quantizable)]
pub struct Tuple(Linear, Newtype, #[quant(ignore)] pub usize);

/// A newtype.
#[derive(Quantizable)]
pub struct Newtype(Option<Box<Linear>>);

/// An enum with variants of every shape.
#[derive(Quantizable)]
pub enum Choice {
    /// A unit variant.
    Unit,
    /// A newtype variant.
    Newtype(Linear),
    /// A tuple variant.
    Tuple(Linear, #[quant(ignore)] usize, #[quant(recipe = Fp8::E3M4)] Box<Self>),
    /// A variant with named fields.
    Named {
        /// A layer.
        layer: Linear,
        /// A field that is no part of the model.
        #[quant(ignore)]
        ignored: usize,
    },
    /// A variant in which nothing is visited.
    Ignored(#[quant(ignore)] usize),
    /// A variant that cannot be.
    Never(Never),
}

/// A generic struct with bounds and a where clause.
#[derive(Quantizable)]
pub struct Generic<T: Quantizable, U, const N: usize>
where
    U: Clone,
{
    /// Layers.
    pub layers: [T; N],
    /// More of them.
    pub more: Vec<U>,
}

/// A struct with a lifetime.
#[derive(Quantizable)]
pub struct Named<'name, T> {
    /// The name.
    pub name: &'name str,
    /// The layer.
    pub layer: T,
}

/// A type that holds itself.
#[derive(Quantizable)]
pub struct Node<T> {
    /// The layer.
    pub layer: T,
    /// The next one.
    pub next: Option<Box<Self>>,
}

/// A type that is not to be used any more.
#[deprecated = "use `Model`"]
#[derive(Quantizable)]
pub struct Old {
    /// The layer.
    #[deprecated = "use another one"]
    pub layer: Linear,
}

/// A type that still uses the old one, which the implementation then does, too.
#[expect(deprecated, reason = "it is not yet replaced")]
#[derive(Quantizable)]
pub struct UsesOld {
    /// The old part.
    pub old: Old,
}

/// A type whose definition must break a lint.
#[expect(non_snake_case, reason = "names of a checkpoint")]
#[derive(Quantizable)]
pub struct Expected {
    /// A layer.
    pub Wk: Linear,
}

/// Shows all of them, so that none is dead code.
#[inline]
pub fn each(layer: &Linear, mut see: impl FnMut(&dyn Visit)) {
    see(&Unit);
    see(&Empty {});
    see(&None::<Never>);
    see(&Model {
        layer: layer.clone(),
        skipped: layer.clone(),
        with_recipe: layer.clone(),
        own_recipe: layer.clone(),
        flat: vec![layer.clone()],
        ignored: 1,
        tuple: Tuple(layer.clone(), Newtype(Some(Box::new(layer.clone()))), 1),
    });
    see(&Choice::Unit);
    see(&Choice::Newtype(layer.clone()));
    see(&Choice::Tuple(layer.clone(), 1, Box::new(Choice::Unit)));
    see(&Choice::Named { layer: layer.clone(), ignored: 1 });
    see(&Choice::Ignored(1));
    see(&None::<Choice>);
    see(&Generic { layers: [layer.clone(), layer.clone()], more: vec![layer.clone()] });
    see(&Named { name: "", layer: layer.clone() });
    see(&Node { layer: layer.clone(), next: None });
    #[expect(deprecated, reason = "it is derived for, too")]
    see(&UsesOld { old: Old { layer: layer.clone() } });
    see(&Expected { Wk: layer.clone() });
}
