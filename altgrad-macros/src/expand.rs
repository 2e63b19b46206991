//! Writes the implementation.
//!
//! Names are absolute, so that nothing in the user's scope changes their meaning. Locals carry the macro's hygiene, so
//! that the user's expressions neither see nor shadow them. The type of a field keeps its own span: if it does not
//! implement the trait, the error is reported there.

use proc_macro2::{Literal, Span, TokenStream};
use quote::{format_ident, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, GenericParam, Generics, Ident, Lifetime, LitStr, Member, Path};

use crate::bound;
use crate::model::{Container, Data, Field, FieldAction, Segment, Variant};

/// The implementation of `Visit` for `container`, which makes it `Quantizable`.
pub(crate) fn expand(container: &Container<'_>) -> TokenStream {
    implementation(container, |method| match &container.data {
        Data::Struct(fields) => method.visit_struct(fields),
        Data::Enum(variants) => method.visit_enum(variants),
    })
}

/// The implementation, with method bodies from `body`.
pub(crate) fn implementation(container: &Container<'_>, body: impl Fn(&Method) -> TokenStream) -> TokenStream {
    let krate = &container.krate();
    let Container { ident, lints, .. } = container;
    let generics = without_attributes(container.generics);
    let (impl_generics, ty_generics, _) = generics.split_for_impl();
    let where_clause = bound::where_clause(container);
    let methods = Method::both(container).map(|method| {
        let body = body(&method);
        method.function(&container.fresh_lifetime, &body)
    });
    let site = Span::mixed_site();
    quote_spanned! {site=>
        const _: () = {
            #[automatically_derived]
            #lints
            impl #impl_generics #krate::visit::Visit for #ident #ty_generics #where_clause {
                #(#methods)*
            }
        };
    }
}

/// Attributes of a parameter are dropped: they may belong to another derive, which does not process this
/// implementation.
fn without_attributes(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    for param in &mut generics.params {
        match param {
            GenericParam::Lifetime(param) => param.attrs.clear(),
            GenericParam::Type(param) => param.attrs.clear(),
            GenericParam::Const(param) => param.attrs.clear(),
        }
    }
    generics
}

/// One of the two methods of the trait; they differ in names and in a `mut`.
pub(crate) struct Method {
    krate: Path,
    name: Ident,
    visitor: Ident,
    mutability: Option<syn::Token![mut]>,
}

impl Method {
    fn both(container: &Container<'_>) -> [Self; 2] {
        let site = Span::mixed_site();
        let method = |name, visitor, mutability| Self {
            krate: container.krate(),
            name: Ident::new(name, site),
            visitor: Ident::new(visitor, site),
            mutability,
        };
        [method("visit", "Visitor", None), method("visit_mut", "VisitorMut", Some(syn::Token![mut](site)))]
    }

    fn function(&self, model: &Lifetime, body: &TokenStream) -> TokenStream {
        let Self { krate, name, visitor, mutability } = self;
        quote_spanned! {Span::mixed_site()=>
            fn #name<#model>(
                &#model #mutability self,
                __path: &#krate::visit::Path<'_>,
                __visitor: &mut dyn #krate::visit::#visitor<#model>,
            ) -> #krate::Result<()> {
                #body
            }
        }
    }

    fn visit_struct(&self, fields: &[Field<'_>]) -> TokenStream {
        let mutability = self.mutability;
        let visits = fields.iter().filter_map(|field| {
            let member = &field.member;
            // A packed struct does not allow the reference; the error is reported at the field.
            let here = match member {
                Member::Named(ident) => ident.span(),
                Member::Unnamed(_) => field.ty.span(),
            };
            let reference = quote_spanned!(here.resolved_at(Span::mixed_site())=> &#mutability self.#member);
            self.visit_field(field, &reference)
        });
        let ok = ok();
        quote_spanned!(Span::mixed_site()=> #(#visits)* #ok)
    }

    fn visit_enum(&self, variants: &[Variant<'_>]) -> TokenStream {
        let site = Span::mixed_site();
        if variants.is_empty() {
            return quote_spanned!(site=> match *self {});
        }
        let arms = variants.iter().map(|variant| self.arm(variant));
        let ok = ok();
        quote_spanned! {site=>
            match self {
                #(#arms)*
            }
            #ok
        }
    }

    /// The arm of a match that visits the fields of one variant.
    fn arm(&self, variant: &Variant<'_>) -> TokenStream {
        let site = Span::mixed_site();
        let mut bindings = Vec::new();
        let mut visits = Vec::new();
        for (i, field) in variant.fields.iter().enumerate() {
            let local = format_ident!("__field{i}", span = site);
            if let Some(visit) = self.visit_field(field, &quote_spanned!(site=> #local)) {
                let member = &field.member;
                bindings.push(quote_spanned!(site=> #member: #local));
                visits.push(visit);
            }
        }
        if visits.len() < variant.fields.len() || visits.is_empty() {
            bindings.push(quote_spanned!(site=> ..));
        }
        let ident = variant.ident;
        quote_spanned!(site=> Self::#ident { #(#bindings),* } => { #(#visits)* })
    }

    /// The statement that visits `field`, to which `reference` refers.
    fn visit_field(&self, field: &Field<'_>, reference: &TokenStream) -> Option<TokenStream> {
        let FieldAction::Visit { segment, skip, recipe } = field.action() else {
            return None;
        };
        let site = Span::mixed_site();
        let Self { krate, name, .. } = self;
        let mut path = self.path(field, &segment);
        if skip {
            path = quote_spanned!(site=> #krate::visit::Path::skipped(#path));
        }
        if recipe.is_some() {
            path = quote_spanned!(site=> #krate::visit::Path::with_recipe(#path, &__recipe));
        }
        let ty = field.ty;
        let visit = quote_spanned! {site=>
            <#ty as #krate::visit::Visit>::#name(#reference, &#path, __visitor)?;
        };
        Some(match recipe {
            None => visit,
            Some(recipe) => {
                let recipe = self.recipe(recipe);
                quote_spanned!(site=> { #recipe #visit })
            }
        })
    }

    /// The path of a field.
    fn path(&self, field: &Field<'_>, segment: &Segment) -> TokenStream {
        let krate = &self.krate;
        let site = Span::mixed_site();
        match segment {
            Segment::Nothing => quote_spanned!(site=> #krate::visit::Path::transparent(__path)),
            Segment::Index(index) => {
                let index = Literal::u32_unsuffixed(*index);
                quote_spanned!(site=> #krate::visit::Path::index(__path, #index))
            }
            Segment::Name(names) => {
                let span = match &field.attrs.rename {
                    Some(rename) => rename.value.span(),
                    None => field.member.span(),
                };
                let child = |parent: Option<TokenStream>, name| {
                    let parent =
                        parent.map_or_else(|| quote_spanned!(site=> __path), |path| quote_spanned!(site=> &#path));
                    let name = LitStr::new(name, span.resolved_at(site));
                    Some(quote_spanned!(site=> #krate::visit::Path::field(#parent, #name)))
                };
                names.split('.').fold(None, child).unwrap_or_default()
            }
        }
    }

    /// Binds `__recipe`. If the expression has a wrong type, the error is reported there.
    fn recipe(&self, expr: &Expr) -> TokenStream {
        let krate = &self.krate;
        let here = expr.span().resolved_at(Span::mixed_site());
        let convert = quote_spanned!(here=> ::core::convert::Into::into(#expr));
        quote_spanned!(Span::mixed_site()=> let __recipe: #krate::Recipe = #convert;)
    }
}

/// The value of a method that succeeds.
pub(crate) fn ok() -> TokenStream {
    quote_spanned!(Span::mixed_site()=> ::core::result::Result::Ok(()))
}
