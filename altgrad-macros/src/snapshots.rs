//! Tests that each expansion equals `snapshots/NAME.expected.rs`, which a reader can review.
//!
//! `BLESS=1 cargo test -p altgrad-macros` rewrites the files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use proc_macro2::TokenStream;
use quote::quote;
use similar::TextDiff;

use crate::hygiene::assert_hygienic;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/snapshots")
}

fn pretty(tokens: &TokenStream) -> String {
    let file = syn::parse2(tokens.clone()).expect("these tokens are a list of items");
    prettyplease::unparse(&file)
}

/// The input as a comment, above the expansion.
fn render(input: &TokenStream, expansion: &TokenStream) -> String {
    let mut text = String::new();
    for line in pretty(input).lines() {
        writeln!(text, "// {line}").expect("a string takes any text");
    }
    text + "\n" + &pretty(expansion)
}

/// Reads a snapshot, formatted as `render` would.
fn normalize(text: &str) -> String {
    let (comment, expansion) = text.split_once("\n\n").unwrap_or((text, ""));
    let expansion = expansion.parse().expect("a snapshot holds Rust");
    format!("{comment}\n\n{}", pretty(&expansion))
}

fn assert_snapshot(name: &str, input: &TokenStream) {
    let parsed = syn::parse2(input.clone()).expect("the input is a type");
    let expansion = crate::derive(&parsed);
    assert_hygienic(&parsed, &expansion);
    let actual = render(input, &expansion);
    let path = directory().join(format!("{name}.expected.rs"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, actual).expect("the snapshot can be written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let expected = normalize(&expected);
    let diff = TextDiff::from_lines(&expected, &actual);
    assert!(
        expected == actual,
        "the expansion differs from {}; BLESS=1 accepts it\n{}",
        path.display(),
        diff.unified_diff().header("expected", "actual")
    );
}

macro_rules! snapshots {
    ($($name:ident { $($input:tt)* })*) => {
        $(
            #[test]
            fn $name() {
                assert_snapshot(stringify!($name), &quote!($($input)*));
            }
        )*

        #[test]
        fn no_file_is_left_over() {
            let tested: BTreeSet<String> = [$(concat!(stringify!($name), ".expected.rs").to_owned()),*].into();
            let files: BTreeSet<String> = fs::read_dir(directory())
                .expect("the snapshots lie there")
                .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
                .collect();
            let left_over: Vec<_> = files.difference(&tested).collect();
            assert!(left_over.is_empty(), "no test writes {left_over:?}");
        }
    };
}

snapshots! {
    unit_struct { struct Unit; }
    named_struct { struct Mlp { c_fc: Linear, c_proj: nn::Linear } }
    tuple_struct { struct Pair(Linear, Vec<Linear>); }
    newtype { struct Wrapper(Linear); }
    enum_all_shapes {
        enum Layer {
            Unit,
            NoFields {},
            Newtype(Linear),
            Tuple(Linear, #[quant(ignore)] Config, Linear),
            Named { up: Linear, #[quant(ignore)] size: usize, down: Linear },
            #[allow(dead_code)]
            Ignored(#[quant(ignore)] Config),
        }
    }
    enum_empty { enum Never {} }
    generics { struct Pair<A, B: Clone = Linear> { a: A, b: Vec<B>, a_again: Option<A> } }
    generics_with_attributes { struct Pair<#[other] 'a, #[allow(x)] A, #[doc = ""] const N: usize>(A, Text<'a, N>); }
    associated_types {
        struct Stack<T: Model, U> {
            inner: T::Inner,
            outer: Vec<<U as Model>::Outer>,
            marker: PhantomData<T>,
        }
    }
    const_generics { struct Heads<const N: usize, const M: usize = 2> { heads: [[Linear; N]; M] } }
    lifetimes_and_where {
        struct Borrowed<'a, 'm, T: 'a>
        where
            T: Clone,
        {
            layer: Linear,
            #[quant(ignore)]
            name: &'a str,
            marker: PhantomData<(&'m (), T)>,
            value: T,
        }
    }
    fresh_lifetime { struct Taken<'__model>(Cow<'__model, str>, for<'__model_> fn(&'__model_ ())); }
    recursive { struct Node<T> { value: T, next: Option<Box<Self>>, other: Option<Box<Node<T>>> } }
    skip { struct Head { #[quant(skip)] lm_head: Linear, rest: Linear } }
    skip_newtype { struct Head(#[quant(skip)] Linear); }
    ignore {
        struct Model<T, C> {
            layer: T,
            #[quant(ignore)]
            config: C,
        }
    }
    rename { struct Model { #[quant(rename = "h")] blocks: Linear, #[quant(rename = "a.0.b")] deep: Linear } }
    rename_newtype { struct Model(#[quant(rename = "model")] Linear); }
    flatten { struct Model { #[quant(flatten)] inner: Inner, #[quant(flatten, skip)] head: Inner } }
    recipe {
        struct Model<T: Choice> {
            #[quant(recipe = Fp8::E3M4)]
            a: Linear,
            #[quant(rename = "bb", recipe = T::recipe(Self::BITS, |x| x + 1))]
            b: T,
            #[quant(flatten)]
            #[quant(recipe = Recipe { weights, ..hybrid() })]
            c: Linear,
        }
    }
    recipe_in_enum { enum Model { A(#[quant(recipe = __field0)] Linear), B { #[quant(recipe = path)] path: Linear } } }
    bound { #[quant(bound = "T: Layer + 'static, U: Copy")] struct Model<T, U> where T: Clone { t: T, u: Other<U> } }
    bound_empty { #[quant(bound = "")] struct Model<T> { t: Always<T> } }
    crate_path { #[quant(crate = my_crate::reexport)] enum Model<T> { A { #[quant(skip, rename = "x")] a: T }, B(T) } }
    crate_path_absolute { #[quant(crate = ::altgrad_core)] struct Model(#[quant(recipe = r())] Linear, Linear); }
    crate_path_relative { #[quant(crate = super::super::altgrad)] struct Model { a: Linear } }
    raw_identifiers { struct r#struct { r#type: r#mod::Linear, r#fn: Linear } }
    hostile_names {
        struct Result<Option, Ok> {
            __path: Option,
            __visitor: Ok,
            visitor: Linear,
            self_: Linear,
            core: core::Linear,
        }
    }
    lints {
        #[allow(clippy::use_self)]
        #[expect(dead_code, reason = "an example")]
        #[deny(unused)]
        struct Old { #[deprecated = "use `new`"] old: Linear, #[allow(non_snake_case)] New: Linear }
    }
    fallback {
        #[quant(crate = my::altgrad, skip)]
        struct Model<'a, T: 'a, const N: usize>
        where
            T: Clone,
        {
            #[quant(skip = 1)]
            a: [T; N],
            #[quant(frobnicate)]
            b: &'a (),
        }
    }
    fallback_union { #[quant(crate = "my::altgrad")] union Model<T: Copy> { a: T, b: u8 } }
}
