//! Names that would change the meaning of an expansion that is not hygienic.

use super::{assert_quantizable, assert_seen, layer};

/// Everything that the expansion could name, with another meaning.
#[allow(non_camel_case_types, non_snake_case, unused_macros)]
mod shadowed {
    #[derive(Clone, Copy)]
    pub struct Result;
    pub struct Option;
    pub struct Ok;
    pub struct Err;
    pub struct Some;
    pub struct None;
    pub struct From;
    pub struct Into;
    pub struct Path;
    pub struct Visitor;
    pub struct VisitorMut;
    pub struct Recipe;
    pub struct Error;
    pub struct Box;
    pub struct Vec;
    pub struct String;
    pub struct str;
    pub struct bool;
    pub struct usize;
    pub struct visit;
    pub trait Quantizable {}
    pub trait Fn {}
    pub mod core {}
    pub mod std {}
    pub mod alloc {}
    pub mod altgrad {}
    pub mod altgrad_core {}

    macro_rules! shadow { ($($name:ident)*) => { $( macro_rules! $name { () => { compile_error!("shadowed") } } )* } }
    shadow! { vec panic matches assert unreachable write format }

    use ::altgrad::{Fp8, Linear};

    const FORMAT: Fp8 = Fp8::E3M4;

    #[derive(::altgrad::Quantizable)]
    pub struct Named {
        pub Ok: Linear,
        pub None: (Linear, Linear),
        #[quant(skip)]
        pub core: Linear,
        #[quant(recipe = FORMAT)]
        pub altgrad: Linear,
        #[quant(ignore)]
        pub result: Result,
    }

    #[derive(::altgrad::Quantizable)]
    pub struct Tuple(pub Linear, #[quant(rename = "core")] pub Linear, #[quant(ignore)] pub Path);

    #[derive(::altgrad::Quantizable)]
    pub enum Enum {
        Ok,
        Err(Linear),
        Some { Some: Linear },
        None(#[quant(ignore)] Result, #[quant(recipe = FORMAT)] Linear),
        Self_,
    }

    pub const RESULT: Result = Result;
}

#[test]
fn shadowed_names() {
    use shadowed::{Enum, Named, Path, RESULT, Tuple};
    let named = Named { Ok: layer(), None: (layer(), layer()), core: layer(), altgrad: layer(), result: RESULT };
    assert_seen(named, ["Ok", "None.0", "None.1", "core!", "altgrad@E3M4"]);
    assert_seen(Tuple(layer(), layer(), Path), ["0", "core"]);
    assert_seen(Enum::Ok, []);
    assert_seen(Enum::Err(layer()), [""]);
    assert_seen(Enum::Some { Some: layer() }, ["Some"]);
    assert_seen(Enum::None(RESULT, layer()), ["1@E3M4"]);
    assert_seen(Enum::Self_, []);
}

mod without_prelude {
    #![no_implicit_prelude]

    use ::altgrad::{Fp8, Linear};

    #[derive(::altgrad::Quantizable)]
    pub struct Block<T> {
        pub inner: T,
        #[quant(recipe = Fp8::E2M5)]
        pub layers: ::std::vec::Vec<Linear>,
        #[quant(skip, rename = "a.b")]
        pub head: ::core::option::Option<Linear>,
    }

    #[derive(::altgrad::Quantizable)]
    pub enum Choice<T> {
        A(T),
        B {
            #[quant(recipe = Fp8::E2M5)]
            layer: Linear,
        },
        C,
    }

    #[derive(::altgrad::Quantizable)]
    pub enum Never {}
}

#[test]
fn no_prelude() {
    use without_prelude::{Block, Choice, Never};
    let block = Block { inner: layer(), layers: vec![layer(), layer()], head: Some(layer()) };
    assert_seen(block, ["inner", "layers.0@E2M5", "layers.1@E2M5", "a.b!"]);
    assert_seen(Choice::A(layer()), [""]);
    assert_seen(Choice::<()>::B { layer: layer() }, ["layer@E2M5"]);
    assert_seen(Choice::<()>::C, []);
    assert_quantizable::<Never>();
}

/// The names that the expansion gives to its own parameters and variables, and names near them.
#[test]
fn fields_named_like_variables_of_the_expansion() {
    use altgrad::{Fp8, Linear, Quantizable};

    #[derive(Quantizable)]
    struct Named {
        path: Linear,
        visitor: Linear,
        __path: Linear,
        __visitor: Linear,
        __recipe: Linear,
        __field0: Linear,
        recipe: Linear,
        self_: Linear,
        this: Linear,
        model: Linear,
        visit: Linear,
        visit_mut: Linear,
        _0: Linear,
        __: Linear,
    }
    #[derive(Quantizable)]
    enum Variants {
        A {
            __field1: Linear,
            __field0: Linear,
            __path: Linear,
            __visitor: Linear,
        },
        B {
            #[quant(recipe = Fp8::E3M4)]
            __recipe: Linear,
            __self: Linear,
        },
    }

    let named = Named {
        path: layer(),
        visitor: layer(),
        __path: layer(),
        __visitor: layer(),
        __recipe: layer(),
        __field0: layer(),
        recipe: layer(),
        self_: layer(),
        this: layer(),
        model: layer(),
        visit: layer(),
        visit_mut: layer(),
        _0: layer(),
        __: layer(),
    };
    let expected = [
        "path",
        "visitor",
        "__path",
        "__visitor",
        "__recipe",
        "__field0",
        "recipe",
        "self_",
        "this",
        "model",
        "visit",
        "visit_mut",
        "_0",
        "__",
    ];
    assert_seen(named, expected);
    let a = Variants::A { __field1: layer(), __field0: layer(), __path: layer(), __visitor: layer() };
    assert_seen(a, ["__field1", "__field0", "__path", "__visitor"]);
    assert_seen(Variants::B { __recipe: layer(), __self: layer() }, ["__recipe@E3M4", "__self"]);
}

/// The expression of a recipe means what it means outside, whatever the expansion calls its variables.
#[test]
fn recipes_named_like_variables_of_the_expansion() {
    use altgrad::{Fp8, Linear, Quantizable};

    mod constants {
        use altgrad::Fp8;
        #[allow(non_upper_case_globals)]
        pub(super) static path: Fp8 = Fp8::E3M4;
        #[allow(non_upper_case_globals)]
        pub(super) static visitor: Fp8 = Fp8::E2M5;
    }
    use constants::{path, visitor};

    #[derive(Quantizable)]
    struct Model {
        #[quant(recipe = path)]
        a: Linear,
        #[quant(recipe = visitor)]
        b: Linear,
        #[quant(recipe = { let __path = [Fp8::E5M2]; let __recipe = 0; __path[__recipe] })]
        c: Linear,
    }

    assert_seen(Model { a: layer(), b: layer(), c: layer() }, ["a@E3M4", "b@E2M5", "c@E5M2"]);
}

#[test]
fn raw_identifiers() {
    use altgrad::{Linear, Quantizable};

    mod r#mod {
        #[allow(non_camel_case_types)]
        pub(super) type r#type = altgrad::Linear;
    }
    #[derive(Quantizable)]
    #[allow(non_camel_case_types)]
    struct r#struct {
        r#type: r#mod::r#type,
        r#fn: Linear,
        r#async: Linear,
        r#gen: Linear,
        r#match: r#enum,
    }
    #[derive(Quantizable)]
    #[allow(non_camel_case_types)]
    enum r#enum {
        r#if { r#else: Linear },
        r#while(Linear, Linear),
    }

    let r#match = r#enum::r#if { r#else: layer() };
    let model = r#struct { r#type: layer(), r#fn: layer(), r#async: layer(), r#gen: layer(), r#match };
    assert_seen(model, ["type", "fn", "async", "gen", "match.else"]);
    assert_seen(r#enum::r#while(layer(), layer()), ["0", "1"]);
}

#[test]
fn letters_of_the_world() {
    use altgrad::{Linear, Quantizable};

    #[derive(Quantizable)]
    struct Größe<Typ> {
        höhe: Linear,
        幅: Typ,
        #[quant(rename = "глубина.🦀")]
        depth: Linear,
    }

    let model = Größe { höhe: layer(), 幅: layer(), depth: layer() };
    assert_seen(model, ["höhe", "幅", "глубина.🦀"]);
}

/// Traits in scope whose methods are called like those of the expansion, implemented for every type.
#[test]
fn ambiguous_methods() {
    use altgrad::{Linear, Quantizable};

    trait Other {
        fn visit(&self) {}
        fn visit_mut(&mut self) {}
        fn field(&self, _: &str) {}
        fn index(&self, _: usize) {}
        fn transparent(&self) {}
        fn skipped(&self) {}
        fn with_recipe(&self) {}
        fn into(&self) {}
    }
    impl<T: ?Sized> Other for T {}

    #[derive(Quantizable)]
    struct Model(
        #[quant(skip)] Linear,
        #[quant(recipe = altgrad::Fp8::E3M4)] (Linear, Linear),
        #[quant(rename = "x.y")] Linear,
        #[quant(flatten)] Vec<Linear>,
    );

    let model = Model(layer(), (layer(), layer()), layer(), vec![]);
    Other::into(&model);
    assert_seen(model, ["0!", "1.0@E3M4", "1.1@E3M4", "x.y"]);
}

mod generated {
    /// Hands over every kind of fragment.
    macro_rules! fragments {
        (
            $(#[$meta:meta])*
            $vis:vis struct $name:ident<$lifetime:lifetime, $param:ident> {
                $($field:ident: $ty:ty = $rename:literal, $recipe:expr;)*
            }
            by_path: $path:path,
            crate $($krate:tt)*
        ) => {
            $(#[$meta])*
            #[derive(altgrad::Quantizable)]
            #[quant(crate = $($krate)*)]
            $vis struct $name<$lifetime, $param> {
                $(#[quant(rename = $rename, recipe = $recipe)] pub(super) $field: $ty,)*
                pub(super) by_path: $path,
                pub(super) param: $param,
                pub(super) text: &$lifetime str,
            }
        };
    }
    fragments! {
        /// A comment.
        #[allow(non_snake_case)]
        pub(super) struct Fragments<'m, T> {
            a: altgrad::Linear = "x", altgrad::Fp8::E3M4;
            b: Option<altgrad::Linear> = "y.z", super::recipe(altgrad::Fp8::E4M3);
        }
        by_path: altgrad::Linear,
        crate ::altgrad
    }

    /// Field names of its own beside those that it is given, which may be spelt alike.
    macro_rules! own_names {
        ($name:ident, $field:ident) => {
            #[derive(altgrad::Quantizable)]
            pub(super) struct $name {
                pub(super) inner: altgrad::Linear,
                pub(super) $field: altgrad::Linear,
            }
        };
    }
    own_names!(OwnNames, given);

    /// A macro that defines a macro that defines the type.
    macro_rules! outer {
        ($outer:ident: $ty:ty) => {
            macro_rules! inner {
                ($inner:ident) => {
                    #[derive(altgrad::Quantizable)]
                    pub(super) enum $inner {
                        $outer(pub_less!($ty), #[quant(skip)] $ty),
                    }
                };
            }
            inner!(Nested);
        };
    }
    /// A type by macro.
    macro_rules! pub_less {
        ($ty:ty) => { Option<$ty> };
    }
    outer!(Variant: altgrad::Linear);
}

fn recipe(format: altgrad::Fp8) -> altgrad::Recipe {
    altgrad::Recipe::weight_only(format)
}

#[test]
fn generated_by_macros() {
    use generated::{Fragments, Nested, OwnNames};
    let fragments = Fragments { a: layer(), b: Some(layer()), by_path: layer(), param: layer(), text: "" };
    assert_seen(fragments, ["x@E3M4", "y.z@E4M3", "by_path", "param"]);
    assert_seen(OwnNames { inner: layer(), given: layer() }, ["inner", "given"]);
    assert_seen(Nested::Variant(Some(layer()), layer()), ["0", "1!"]);
}

/// A macro's `$crate` is how a crate that re-exports altgrad refers to it.
#[test]
fn the_crate_of_a_macro() {
    macro_rules! model {
        ($name:ident { $($field:ident),* }) => {
            #[derive(altgrad::Quantizable)]
            #[quant(crate = $crate::hygiene::reexport::altgrad)]
            struct $name { $($field: $crate::hygiene::reexport::altgrad::Linear),* }
        };
    }
    model!(Model { a, b });

    assert_seen(Model { a: layer(), b: layer() }, ["a", "b"]);
}

mod reexport {
    pub use altgrad;
}
