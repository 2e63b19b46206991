//! Checks the rules that concern more than one attribute or more than one field.

use syn::Member;

use crate::attr::FieldAttrs;
use crate::ctxt::Ctxt;
use crate::model::{Container, Data, Field, FieldAction, Segment};

/// Reports every rule that `container` breaks.
pub(crate) fn check(ctxt: &mut Ctxt, container: &Container<'_>) {
    bound_needs_generics(ctxt, container);
    for field in container.fields() {
        conflicts(ctxt, &field.attrs);
        newtype_is_flat(ctxt, field);
    }
    match &container.data {
        Data::Struct(fields) => distinct_segments(ctxt, fields),
        Data::Enum(variants) => {
            for variant in variants {
                distinct_segments(ctxt, &variant.fields);
            }
        }
    }
}

fn bound_needs_generics(ctxt: &mut Ctxt, container: &Container<'_>) {
    if let Some(bound) = &container.attrs.bound
        && container.generics.params.is_empty()
    {
        let ident = container.ident;
        ctxt.error(
            &bound.key,
            format!("`bound` has nothing to bound, because `{ident}` has no generic parameters; remove it"),
        );
    }
}

/// Attributes of one field that exclude each other. The error is reported at the one that has no effect.
fn conflicts(ctxt: &mut Ctxt, attrs: &FieldAttrs) {
    let skip = attrs.skip.as_ref().map(|attr| &attr.key);
    let rename = attrs.rename.as_ref().map(|attr| &attr.key);
    let flatten = attrs.flatten.as_ref().map(|attr| &attr.key);
    let recipe = attrs.recipe.as_ref().map(|attr| &attr.key);
    if attrs.ignore.is_some() {
        for key in [skip, rename, flatten, recipe].into_iter().flatten() {
            let message = format!(
                "`{key}` has no effect beside `ignore`, which takes the field out of the model; remove one of them"
            );
            ctxt.error(key, message);
        }
        return;
    }
    if let (Some(_), Some(recipe)) = (skip, recipe) {
        let message = "`recipe` has no effect beside `skip`, which keeps everything below in full precision; remove \
                       one of them";
        ctxt.error(recipe, message);
    }
    if let (Some(flatten), Some(_)) = (flatten, rename) {
        let message = "`flatten` adds no path segment, but `rename` names one; remove one of them";
        ctxt.error(flatten, message);
    }
}

fn newtype_is_flat(ctxt: &mut Ctxt, field: &Field<'_>) {
    if let Some(flatten) = &field.attrs.flatten
        && field.is_newtype
        && field.attrs.ignore.is_none()
        && field.attrs.rename.is_none()
    {
        let message = "the only field of a tuple already adds no segment; remove `flatten`";
        ctxt.error(&flatten.key, message);
    }
}

/// Two fields of a struct or a variant must not lead to the same path.
fn distinct_segments(ctxt: &mut Ctxt, fields: &[Field<'_>]) {
    let mut seen: Vec<(String, &Field<'_>)> = Vec::new();
    for field in fields {
        let FieldAction::Visit { segment, .. } = field.action() else {
            continue;
        };
        let text = match segment {
            Segment::Nothing => continue,
            Segment::Name(name) => name,
            Segment::Index(index) => index.to_string(),
        };
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == text) {
            let first = match &first.member {
                Member::Named(ident) => ident.to_string(),
                Member::Unnamed(index) => index.index.to_string(),
            };
            let message = format!(
                "the path segment `{text}` is already that of the field `{first}`; give one of them another name with \
                 `#[quant(rename = \"…\")]`"
            );
            match (&field.attrs.rename, &field.member) {
                (Some(rename), _) => ctxt.error(&rename.value, message),
                (None, Member::Named(ident)) => ctxt.error(ident, message),
                (None, Member::Unnamed(_)) => ctxt.error(field.ty, message),
            }
        } else {
            seen.push((text, field));
        }
    }
}
