//! Infers the where clause: which types must implement the trait for the generated code to compile.
//!
//! The bounds are on the parameters that field types use, not on the field types: `Option<Box<Node<T>>>: Visit` in the
//! implementation for `Node<T>` would depend on itself, `T: Visit` does not.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{Expr, Ident, Macro, TypePath};

use crate::model::{Container, FieldAction};

/// The where clause of the implementation, or nothing.
pub(crate) fn where_clause(container: &Container<'_>) -> TokenStream {
    let mut predicates: Vec<TokenStream> = Vec::new();
    if let Some(declared) = &container.generics.where_clause {
        predicates.extend(declared.predicates.iter().map(ToTokens::to_token_stream));
    }
    if let Some(bound) = &container.attrs.bound {
        predicates.extend(bound.value.iter().map(ToTokens::to_token_stream));
    } else {
        let krate = container.krate();
        let types = inferred(container);
        predicates.extend(types.into_iter().map(|ty| quote!(#ty: #krate::visit::Visit)));
    }
    if predicates.is_empty() {
        return TokenStream::new();
    }
    quote!(where #(#predicates,)*)
}

/// The types to bind, each once, in the order of their first use.
fn inferred<'a>(container: &'a Container<'_>) -> Vec<&'a TypePath> {
    let mut uses = Uses {
        params: container.generics.type_params().map(|param| &param.ident).collect(),
        types: Vec::new(),
        texts: Vec::new(),
    };
    for field in container.fields() {
        if matches!(field.action(), FieldAction::Visit { .. }) {
            uses.visit_type(field.ty);
        }
    }
    uses.types
}

/// Type parameters and projections from them that types mention.
struct Uses<'a> {
    params: Vec<&'a Ident>,
    types: Vec<&'a TypePath>,
    /// `types` as text, by which they are compared.
    texts: Vec<String>,
}

impl Uses<'_> {
    /// Whether `ty` is `T`, `T::Assoc` or `<T as Trait>::Assoc` for a parameter `T`.
    fn starts_with_param(&self, ty: &TypePath) -> bool {
        match &ty.qself {
            Some(qself) => match ungroup(&qself.ty) {
                syn::Type::Path(inner) => self.starts_with_param(inner),
                _ => false,
            },
            None => {
                ty.path.leading_colon.is_none()
                    && ty.path.segments.first().is_some_and(|first| self.params.contains(&&first.ident))
            }
        }
    }
}

fn ungroup(mut ty: &syn::Type) -> &syn::Type {
    while let syn::Type::Group(group) = ty {
        ty = &group.elem;
    }
    ty
}

impl<'ast> Visit<'ast> for Uses<'ast> {
    fn visit_type_path(&mut self, ty: &'ast TypePath) {
        if self.starts_with_param(ty) {
            let text = ty.to_token_stream().to_string();
            if !self.texts.contains(&text) {
                self.texts.push(text);
                self.types.push(ty);
            }
            return;
        }
        // It implements the trait for every parameter.
        let is_phantom = ty.path.segments.last().is_some_and(|last| last.ident == "PhantomData");
        if !is_phantom {
            visit::visit_type_path(self, ty);
        }
    }

    /// An array's length mentions no type that is visited.
    fn visit_expr(&mut self, _: &'ast Expr) {}

    /// What a macro expands to is unknown.
    fn visit_macro(&mut self, _: &'ast Macro) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts the where clause for a type; `Visit` stands for `::altgrad::visit::Visit`.
    fn assert_bounds(input: &str, expected: &str) {
        let input = syn::parse_str(input).expect("the input is a type");
        let (container, _) = crate::analyze(&input);
        let actual = where_clause(&container).to_string().replace(' ', "");
        let expected = expected.replace("Visit", "::altgrad::visit::Visit").replace(' ', "");
        assert_eq!(actual, expected, "{}", input.to_token_stream());
    }

    #[test]
    fn parameters_that_visited_fields_use() {
        assert_bounds("struct A { a: Linear }", "");
        assert_bounds("struct A<T> { a: T }", "where T: Visit,");
        assert_bounds("struct A<T, U> { a: Linear, u: Vec<Option<U>> }", "where U: Visit,");
        assert_bounds("struct A<T, U>([(U, T); 2], U, T);", "where U: Visit, T: Visit,");
        assert_bounds("enum A<T, U> { X, Y(T), Z { z: Box<U> } }", "where T: Visit, U: Visit,");
        assert_bounds("struct A<T> { a: (other::Wrapper<T>, [T]) }", "where T: Visit,");
        assert_bounds("struct A<T> { a: Box<dyn Model<T>> }", "where T: Visit,");
        assert_bounds("struct A<T> { #[quant(skip)] a: T }", "where T: Visit,");
    }

    #[test]
    fn parameters_that_they_do_not_use() {
        assert_bounds("struct A<T> { #[quant(ignore)] a: T }", "");
        assert_bounds("struct A<T> { a: PhantomData<T>, b: ::core::marker::PhantomData<fn(T)> }", "");
        assert_bounds("struct A<T> { a: Vec<other::T>, b: ::T, c: U }", "");
        assert_bounds("struct A<T> { a: [Linear; size_of::<T>()] }", "");
        assert_bounds("struct A<T> { a: mac!(T) }", "");
        assert_bounds("struct A<'a, const N: usize> { a: Text<'a>, b: Heads<N>, c: [Linear; N] }", "");
    }

    #[test]
    fn projections() {
        assert_bounds("struct A<T: M> { a: T::Inner }", "where T::Inner: Visit,");
        assert_bounds("struct A<T: M> { a: Vec<T::Inner>, b: T::Inner }", "where T::Inner: Visit,");
        assert_bounds("struct A<T: M> { a: <T as M>::X<u8> }", "where <T as M>::X<u8>: Visit,");
        assert_bounds("struct A<T: M> { a: <T>::X }", "where <T>::X: Visit,");
        assert_bounds("struct A<T: M> { a: <T::B as M>::C }", "where <T::B as M>::C: Visit,");
        assert_bounds("struct A<T: M> { a: T::Inner, b: T }", "where T::Inner: Visit, T: Visit,");
        assert_bounds("struct A<T> { a: <Vec<T> as M>::Inner }", "where T: Visit,");
    }

    #[test]
    fn recursion_binds_the_parameter_only() {
        assert_bounds("struct A<T> { a: T, b: Option<Box<Self>>, c: Vec<A<T>> }", "where T: Visit,");
    }

    #[test]
    fn the_declared_clause_stays() {
        assert_bounds(
            "struct A<T: Clone = u8> where T: Copy, Vec<T>: Send { a: T }",
            "where T: Copy, Vec<T>: Send, T: Visit,",
        );
    }

    #[test]
    fn a_written_bound_replaces_the_inferred_one() {
        assert_bounds("#[quant(bound = \"\")] struct A<T> { a: T }", "");
        assert_bounds("#[quant(bound = \"\")] struct A<T> where T: Copy { a: T }", "where T: Copy,");
        assert_bounds(
            "#[quant(bound = \"T: Layer, for<'a> &'a T: Sized,\")] struct A<T> where T: Copy { a: T }",
            "where T: Copy, T: Layer, for<'a> &'a T: Sized,",
        );
    }
}
