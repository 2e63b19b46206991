//! `#[quant(crate = path)]`: the expansion takes every name of altgrad from there and none from anywhere else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use altgrad::Linear;

/// As much of altgrad as an expansion names, with other types in every place.
mod fake {
    pub(crate) use altgrad::Quantizable as Derive;

    pub(crate) mod visit {
        pub(crate) use super::{Path, Visit, Visitor, VisitorMut};
    }

    /// The segments of a path and what attributes said, in one text.
    pub(crate) struct Path<'a>(pub(crate) &'a str, pub(crate) Vec<String>);
    pub(crate) struct Recipe(pub(crate) u8);
    pub(crate) struct Error;
    pub(crate) type Result<T> = std::result::Result<T, Error>;
    /// The fake of a layer.
    pub(crate) struct Slot;

    pub(crate) trait Visitor<'m> {
        fn slot(&mut self, path: &Path<'_>, slot: &'m Slot) -> Result<()>;
    }

    pub(crate) trait VisitorMut<'m> {
        fn slot(&mut self, path: &Path<'_>, slot: &'m mut Slot) -> Result<()>;
    }

    pub(crate) trait Visit {
        fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()>;
        fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()>;
    }

    impl Visit for Slot {
        fn visit<'m>(&'m self, path: &Path<'_>, visitor: &mut dyn Visitor<'m>) -> Result<()> {
            visitor.slot(path, self)
        }
        fn visit_mut<'m>(&'m mut self, path: &Path<'_>, visitor: &mut dyn VisitorMut<'m>) -> Result<()> {
            visitor.slot(path, self)
        }
    }

    impl Path<'_> {
        fn with(&self, text: &str) -> Self {
            Self(self.0, [self.1.as_slice(), &[text.to_owned()]].concat())
        }
        pub(crate) fn field(&self, name: &str) -> Self {
            self.with(name)
        }
        pub(crate) fn index(&self, index: usize) -> Self {
            self.with(&index.to_string())
        }
        pub(crate) fn transparent(&self) -> Self {
            self.with("-")
        }
        pub(crate) fn skipped(self) -> Self {
            self.with("skipped")
        }
        pub(crate) fn with_recipe(self, recipe: &Recipe) -> Self {
            self.with(&format!("recipe {}", recipe.0))
        }
    }

    /// Formats of the fake are plain numbers.
    impl From<u8> for Recipe {
        fn from(bits: u8) -> Self {
            Self(bits)
        }
    }
}

/// Compiles only if the type does not implement altgrad's own trait: otherwise `_` has two solutions.
macro_rules! assert_not_quantizable {
    ($type:ty) => {
        const _: fn() = || {
            trait AmbiguousIfQuantizable<A> {
                fn check() {}
            }
            impl<T: ?Sized> AmbiguousIfQuantizable<()> for T {}
            impl<T: ?Sized + altgrad::visit::Visit> AmbiguousIfQuantizable<u8> for T {}
            <$type as AmbiguousIfQuantizable<_>>::check()
        };
    };
}

const fn assert_fake<T: fake::Visit>() {}
const fn assert_quantizable<T: altgrad::Quantizable>() {}

const BITS: u8 = 4;

#[derive(fake::Derive)]
#[quant(crate = fake)]
struct Model<T> {
    first: fake::Slot,
    #[quant(skip, rename = "a.b")]
    second: fake::Slot,
    #[quant(recipe = BITS)]
    third: T,
    #[quant(ignore)]
    real: Option<Linear>,
    pair: Pair,
}

#[derive(fake::Derive)]
#[quant(crate = fake)]
struct Pair(fake::Slot, #[quant(flatten)] Choice);

#[derive(fake::Derive)]
#[quant(crate = fake)]
enum Choice {
    Slot(fake::Slot),
    #[expect(dead_code, reason = "one is enough")]
    Nothing,
}

assert_not_quantizable!(Model<Linear>);
assert_not_quantizable!(Model<fake::Slot>);
assert_not_quantizable!(Pair);
assert_not_quantizable!(Choice);

#[derive(Default)]
struct Seen(Vec<String>);

impl<'m> fake::Visitor<'m> for Seen {
    fn slot(&mut self, path: &fake::Path<'_>, _: &'m fake::Slot) -> fake::Result<()> {
        self.0.push(format!("{}/{}", path.0, path.1.join("/")));
        Ok(())
    }
}

impl<'m> fake::VisitorMut<'m> for Seen {
    fn slot(&mut self, path: &fake::Path<'_>, slot: &'m mut fake::Slot) -> fake::Result<()> {
        fake::Visitor::slot(self, path, slot)
    }
}

#[test]
fn implements_the_trait_that_is_found_there() {
    use fake::Visit as _;
    let pair = Pair(fake::Slot, Choice::Slot(fake::Slot));
    let mut model = Model { first: fake::Slot, second: fake::Slot, third: fake::Slot, real: None, pair };
    let expected = ["root/first", "root/a/b/skipped", "root/third/recipe 4", "root/pair/0", "root/pair/-/-"];
    let root = fake::Path("root", Vec::new());

    let mut seen = Seen::default();
    assert!(model.visit(&root, &mut seen).is_ok());
    assert_eq!(seen.0, expected);
    let mut seen = Seen::default();
    assert!(model.visit_mut(&root, &mut seen).is_ok());
    assert_eq!(seen.0, expected);
    assert!(model.real.is_none());
}

/// Every way to write the path of a module, from a module of every depth.
mod forms {
    use super::{assert_fake, assert_quantizable};

    /// A framework that re-exports altgrad under another name.
    pub(super) mod framework {
        pub(crate) mod reexport {
            pub(crate) use altgrad as quantization;
            pub(crate) use altgrad::*;
        }
        pub(crate) use super::super::fake as renamed;
    }

    #[derive(altgrad::Quantizable)]
    #[quant(crate = super::fake)]
    struct Super(super::fake::Slot);

    #[derive(altgrad::Quantizable)]
    #[quant(crate = crate::fake)]
    struct Crate(super::fake::Slot);

    #[derive(altgrad::Quantizable)]
    #[quant(crate = framework::renamed)]
    struct Relative(super::fake::Slot);

    #[derive(altgrad::Quantizable)]
    #[quant(crate = self::framework::renamed)]
    struct InSelf(super::fake::Slot);

    #[derive(altgrad::Quantizable)]
    #[quant(crate = self::super::fake)]
    struct SelfSuper(super::fake::Slot);

    #[derive(altgrad::Quantizable)]
    #[quant(crate = ::altgrad)]
    struct Absolute(altgrad::Linear);

    #[derive(altgrad::Quantizable)]
    #[quant(crate = altgrad)]
    struct ByName(altgrad::Linear);

    #[derive(framework::reexport::Quantizable)]
    #[quant(crate = framework::reexport)]
    struct Reexport(altgrad::Linear);

    #[derive(framework::reexport::quantization::Quantizable)]
    #[quant(crate = crate::forms::framework::reexport::quantization)]
    struct RenamedReexport(altgrad::Linear);

    mod inner {
        #[derive(altgrad::Quantizable)]
        #[quant(crate = super::super::fake)]
        pub(super) struct SuperSuper(crate::fake::Slot);

        mod altgrad_like {
            pub(super) use altgrad::visit;
            pub(super) use altgrad::{Linear, Quantizable, Recipe, Result};

            #[derive(Quantizable)]
            #[quant(crate = self)]
            pub(in super::super) struct InItself(Linear, #[quant(recipe = altgrad::Fp8::E4M3)] Linear);

            pub(in super::super) mod below {
                #[derive(altgrad::Quantizable)]
                #[quant(crate = super)]
                pub(in super::super::super) struct InParent(altgrad::Linear);
            }
        }
        pub(super) use altgrad_like::InItself;
        pub(super) use altgrad_like::below::InParent;
    }

    const _: () = {
        assert_fake::<Super>();
        assert_fake::<Crate>();
        assert_fake::<Relative>();
        assert_fake::<InSelf>();
        assert_fake::<SelfSuper>();
        assert_fake::<inner::SuperSuper>();
        assert_quantizable::<Absolute>();
        assert_quantizable::<ByName>();
        assert_quantizable::<Reexport>();
        assert_quantizable::<RenamedReexport>();
        assert_quantizable::<inner::InItself>();
        assert_quantizable::<inner::InParent>();
    };
    assert_not_quantizable!(Super);
    assert_not_quantizable!(Crate);
    assert_not_quantizable!(Relative);
    assert_not_quantizable!(InSelf);
    assert_not_quantizable!(SelfSuper);
    assert_not_quantizable!(inner::SuperSuper);
}

/// Where the crate itself is called otherwise, as in the `Cargo.toml` line `fp8 = { package = "altgrad" }`.
mod renamed_dependency {
    extern crate altgrad as fp8;

    use fp8::Quantizable as _;

    #[derive(fp8::Quantizable)]
    #[quant(crate = fp8)]
    struct Model {
        #[quant(skip)]
        layer: fp8::Linear,
    }

    #[test]
    fn is_found() {
        let weight = candle_core::Tensor::zeros((1, 1), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let model = Model { layer: fp8::Linear::new(weight, None) };
        assert_eq!(model.layers().unwrap()[0].0, "layer");
    }
}
