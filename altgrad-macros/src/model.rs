//! Describes the type in plain structs, between reading the input and writing the implementation.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::{Data as SynData, DeriveInput, Expr, Fields, Generics, Ident, Index, Member, Path, Type};

use crate::attr::{self, ContainerAttrs, FieldAttrs, Place};
use crate::ctxt::Ctxt;
use crate::lints;

/// The struct or enum.
pub(crate) struct Container<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) generics: &'a Generics,
    pub(crate) attrs: ContainerAttrs,
    pub(crate) data: Data<'a>,
    /// The lint levels of the implementation.
    pub(crate) lints: TokenStream,
    /// A lifetime that no part of the input uses.
    pub(crate) fresh_lifetime: syn::Lifetime,
}

pub(crate) enum Data<'a> {
    Struct(Vec<Field<'a>>),
    Enum(Vec<Variant<'a>>),
}

pub(crate) struct Variant<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) fields: Vec<Field<'a>>,
}

pub(crate) struct Field<'a> {
    /// How the field is named in an expression or a pattern.
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    pub(crate) attrs: FieldAttrs,
    /// Whether it is the only field of a tuple struct or a tuple variant.
    pub(crate) is_newtype: bool,
}

/// What a visit does with a field.
pub(crate) enum FieldAction<'a> {
    Ignore,
    Visit { segment: Segment, skip: bool, recipe: Option<&'a Expr> },
}

/// What a field adds to the path of the layers below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Nothing,
    /// One name, or several between dots.
    Name(String),
    Index(u32),
}

impl<'a> Container<'a> {
    /// Describes `input`. Invalid parts are reported and left out.
    pub(crate) fn from_input(ctxt: &mut Ctxt, input: &'a DeriveInput) -> Self {
        let place = if matches!(input.data, SynData::Enum(_)) { Place::Enum } else { Place::Struct };
        let attrs = attr::on_container(ctxt, &input.attrs, place);
        for param in &input.generics.params {
            attr::on_param(ctxt, param);
        }
        let data = match &input.data {
            SynData::Struct(data) => Data::Struct(fields(ctxt, &data.fields)),
            SynData::Enum(data) => {
                let variants = data.variants.iter().map(|variant| Variant::new(ctxt, variant));
                Data::Enum(variants.collect())
            }
            SynData::Union(data) => {
                let message = "`Quantizable` cannot be derived for a union, because nothing says which of its fields \
                               holds a layer; use a struct or an enum";
                ctxt.error(data.union_token, message);
                Data::Struct(Vec::new())
            }
        };
        Self {
            ident: &input.ident,
            generics: &input.generics,
            attrs,
            data,
            lints: lints::attributes(input),
            fresh_lifetime: fresh_lifetime(input),
        }
    }

    /// The path of altgrad.
    pub(crate) fn krate(&self) -> Path {
        self.attrs.krate.as_ref().map_or_else(
            || Path {
                leading_colon: Some(syn::token::PathSep::default()),
                ..Path::from(Ident::new("altgrad", Span::mixed_site()))
            },
            |attr| attr.value.clone(),
        )
    }

    /// All fields, those of every variant of an enum.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field<'a>> {
        let (fields, variants) = match &self.data {
            Data::Struct(fields) => (fields.as_slice(), [].as_slice()),
            Data::Enum(variants) => ([].as_slice(), variants.as_slice()),
        };
        fields.iter().chain(variants.iter().flat_map(|variant| &variant.fields))
    }
}

impl<'a> Variant<'a> {
    fn new(ctxt: &mut Ctxt, variant: &'a syn::Variant) -> Self {
        attr::on_variant(ctxt, variant);
        Self { ident: &variant.ident, fields: fields(ctxt, &variant.fields) }
    }
}

fn fields<'a>(ctxt: &mut Ctxt, fields: &'a Fields) -> Vec<Field<'a>> {
    let is_newtype = matches!(fields, Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1);
    let member = |index, ident: Option<&Ident>| match ident {
        Some(ident) => Member::Named(ident.clone()),
        None => Member::Unnamed(Index { index, span: Span::mixed_site() }),
    };
    (0..)
        .zip(fields)
        .map(|(index, field)| Field {
            member: member(index, field.ident.as_ref()),
            ty: &field.ty,
            attrs: attr::on_field(ctxt, &field.attrs),
            is_newtype,
        })
        .collect()
}

impl Field<'_> {
    /// What a visit does with the field.
    pub(crate) fn action(&self) -> FieldAction<'_> {
        if self.attrs.ignore.is_some() {
            return FieldAction::Ignore;
        }
        FieldAction::Visit {
            segment: self.segment(),
            skip: self.attrs.skip.is_some(),
            recipe: self.attrs.recipe.as_ref().map(|attr| &attr.value),
        }
    }

    fn segment(&self) -> Segment {
        if let Some(rename) = &self.attrs.rename {
            return Segment::Name(rename.value.value());
        }
        if self.attrs.flatten.is_some() || self.is_newtype {
            return Segment::Nothing;
        }
        match &self.member {
            Member::Named(ident) => Segment::Name(ident.unraw().to_string()),
            Member::Unnamed(index) => Segment::Index(index.index),
        }
    }
}

/// A lifetime for the methods that no lifetime of the input shadows: lifetimes have no hygiene.
fn fresh_lifetime(input: &DeriveInput) -> syn::Lifetime {
    let text = input.to_token_stream().to_string();
    let mut name = "'__model".to_owned();
    while text.contains(&name) {
        name.push('_');
    }
    syn::Lifetime::new(&name, Span::mixed_site())
}
