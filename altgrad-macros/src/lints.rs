//! The lints that the implementation must be silent about.
//!
//! The implementation repeats tokens of the type's definition, so lints that are allowed for the definition must be
//! allowed for it, too. Nothing is allowed without need: `#[allow]` is an error if the user forbids the lint.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::{Attribute, Data, DeriveInput, Field, Meta};

/// The attributes for the implementation of a trait for `input`.
pub(crate) fn attributes(input: &DeriveInput) -> TokenStream {
    let site = Span::mixed_site();
    let all = all_attributes(input);
    let inherited = all.iter().filter_map(|attr| match &attr.meta {
        // Copied as `expect`, the lint would have to occur in the implementation, too.
        Meta::List(list) if list.path.is_ident("allow") || list.path.is_ident("expect") => {
            let lints = &list.tokens;
            Some(quote_spanned!(site=> #[allow(#lints)]))
        }
        _ => None,
    });
    let is_deprecated = all.iter().any(|attr| attr.path().is_ident("deprecated"));
    let deprecated = is_deprecated.then(|| quote_spanned!(site=> #[allow(deprecated)]));
    // The declared bounds of a parameter may already contain the inferred one.
    let has_bounds = input.generics.type_params().next().is_some();
    let bounds = has_bounds.then(|| quote_spanned!(site=> #[allow(clippy::trait_duplication_in_bounds)]));
    quote_spanned!(site=> #(#inherited)* #deprecated #bounds)
}

/// The attributes of the type, of its variants and of its fields.
fn all_attributes(input: &DeriveInput) -> Vec<&Attribute> {
    let mut all: Vec<&Attribute> = input.attrs.iter().collect();
    let mut fields: Vec<&Field> = Vec::new();
    match &input.data {
        Data::Struct(data) => fields.extend(&data.fields),
        Data::Enum(data) => {
            for variant in &data.variants {
                all.extend(&variant.attrs);
                fields.extend(&variant.fields);
            }
        }
        Data::Union(_) => {}
    }
    all.extend(fields.iter().flat_map(|field| &field.attrs));
    all
}
