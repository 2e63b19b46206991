//! The derive macro `Quantizable` of the `altgrad` crate.
//!
//! Use it through `altgrad`, which re-exports it beside the trait of the same name. The stages of the expansion are one
//! file each, in this order: `attr` reads `#[quant(…)]` (`recipe` recognizes invalid values of that attribute), `model`
//! describes the type, `check` holds the rules that concern more than one attribute or field, `bound` infers the where
//! clause, `expand` writes the implementation. Mistakes are collected in `ctxt` and reported together, beside the stub
//! of `fallback`.

#![cfg_attr(test, allow(clippy::expect_used, reason = "a test may fail by panicking"))]

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_macro_input};

mod attr;
mod bound;
mod check;
mod ctxt;
mod expand;
mod fallback;
mod lints;
mod model;
mod recipe;
mod symbol;

#[cfg(test)]
mod errors;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
mod snapshots;

/// Implements `altgrad::visit::Visit`, which makes a type `Quantizable`: altgrad can then find the layers of a model by
/// dotted path.
///
/// ```ignore (a macro crate cannot depend on the crate whose names it writes)
/// use altgrad::{Fp8, Linear, Quantizable};
/// use candle_nn::{Embedding, LayerNorm};
///
/// #[derive(Quantizable)]
/// struct Mlp {
///     c_fc: Linear,
///     c_proj: Linear,
/// }
///
/// #[derive(Quantizable)]
/// struct Gpt {
///     wte: Embedding,
///     #[quant(rename = "h")]
///     blocks: Vec<Mlp>,
///     ln_f: LayerNorm,
///     #[quant(skip)] // tied to `wte`: stays in full precision
///     lm_head: Linear,
/// }
/// ```
///
/// # What it accepts
///
/// Structs with named fields, tuple structs, unit structs and enums, with any generics. Every field is visited, in the
/// order of declaration, so every field's type must implement `Visit`, for example by deriving `Quantizable`. Mark a
/// field that is not part of the model with `#[quant(ignore)]`. Unions are refused.
///
/// # Paths
///
/// Each field adds one segment to the dotted path of the layers below it, so that a path equals the layer's
/// `VarBuilder` prefix and its key in a checkpoint:
///
/// | field | segment |
/// |---|---|
/// | named | its name (`r#type` adds `type`) |
/// | of a tuple struct or tuple variant | its index |
/// | the only field of a tuple struct or tuple variant | none |
///
/// The name of an enum's variant adds no segment.
///
/// # On a field
///
/// | attribute | meaning |
/// |---|---|
/// | `skip` | everything below stays in full precision; it is still visited, for reports and to find tied tensors |
/// | `ignore` | not part of the model: never visited, and its type need not implement `Quantizable` |
/// | `rename = "name"` | the path segment, instead of the field's name; dots separate several segments |
/// | `flatten` | the field adds no path segment |
/// | `recipe = EXPR` | the recipe of this subtree: any expression whose type implements `Into<Recipe>` |
///
/// ```ignore (a macro crate cannot depend on the crate whose names it writes)
/// #[derive(Quantizable)]
/// struct Block {
///     #[quant(recipe = Fp8::E3M4)]
///     attn: Attention,
///     #[quant(flatten)]
///     mlp: Mlp,
///     #[quant(rename = "head.out", skip)]
///     head: Linear,
///     #[quant(ignore)]
///     tokenizer: Tokenizer,
/// }
/// ```
///
/// Attributes may be in one list or in several. The following exclude each other: `ignore` and any other; `skip` and
/// `recipe`; `flatten` and `rename`. The expression of `recipe` is evaluated at each visit of its field, in the scope
/// of the type: it may name `Self` and the type's generic parameters, but not `self`, and it may use `?` on a result of
/// altgrad, as in `recipe = Fp8::new(4, 3, 8, Specials::Fnuz)?`.
///
/// An enum's variants take no attributes; their fields take those above.
///
/// # On the struct or enum
///
/// | attribute | meaning |
/// |---|---|
/// | `crate = path` | the path of `altgrad`, if a crate re-exports or renames it; `::altgrad` by default |
/// | `bound = "predicates"` | replaces the inferred predicates of the where clause; `""` removes them |
///
/// ```ignore (a macro crate cannot depend on the crate whose names it writes)
/// #[derive(Quantizable)]
/// #[quant(crate = my_framework::reexport::altgrad, bound = "L: MyLayer")]
/// struct Wrapper<L> {
///     layer: L,
/// }
/// ```
///
/// # Bounds
///
/// A type parameter must implement `Quantizable` if the type of a visited field mentions it outside of `PhantomData`,
/// and so must an associated type of a parameter (`T::Inner`, `<T as Trait>::Inner`) that such a field mentions. The
/// where clause of the type is kept. If these bounds are too strict or too weak, give the right ones with `bound`: for
/// `HashMap<String, T, S>`, for example, only `T` must be `Quantizable`.
#[proc_macro_derive(Quantizable, attributes(quant))]
pub fn derive_quantizable(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive(&input).into()
}

/// Expands the derive; if there are errors, expands to all of them and a stub.
fn derive(input: &DeriveInput) -> TokenStream {
    match analyze(input) {
        (container, Ok(())) => expand::expand(&container),
        (container, Err(error)) => {
            let errors = error.into_compile_error();
            let stub = fallback::expand(&container);
            quote!(#errors #stub)
        }
    }
}

/// Describes the type and collects all errors in it.
fn analyze(input: &DeriveInput) -> (model::Container<'_>, syn::Result<()>) {
    let mut ctxt = ctxt::Ctxt::new();
    let container = model::Container::from_input(&mut ctxt, input);
    check::check(&mut ctxt, &container);
    (container, ctxt.finish())
}
