//! Tests that expansions do not depend on what is in scope where the user derives.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{Attribute, DeriveInput, Expr, Lifetime, PatIdent, Path, TypePath};

use crate::model::Container;

/// Fails the test if `expansion` uses a name that could mean something else in the user's scope.
pub(crate) fn assert_hygienic(input: &DeriveInput, expansion: &TokenStream) {
    let file = syn::parse2(expansion.clone()).expect("an expansion is a list of items");
    let (container, _) = crate::analyze(input);
    let mut check = Check::new(input, &container);
    check.visit_file(&file);
    assert!(check.found.is_empty(), "names without hygiene: {:?}", check.found);
}

/// Collects names that are neither absolute, nor the user's own, nor local.
struct Check {
    /// The user's types and bounds as text.
    written: String,
    /// The user's expressions as text, whose names are not our concern.
    recipes: Vec<String>,
    krate: String,
    fresh_lifetime: String,
    found: Vec<String>,
}

fn text(tokens: &dyn ToTokens) -> String {
    tokens.to_token_stream().to_string()
}

impl Check {
    fn new(input: &DeriveInput, container: &Container<'_>) -> Self {
        let (_, generics, _) = container.generics.split_for_impl();
        let ident = container.ident;
        let mut written = text(input) + &text(&quote!(#ident #generics));
        if let Some(bound) = &container.attrs.bound {
            written.extend(bound.value.iter().map(|predicate| text(predicate)));
        }
        let recipes = container.fields().filter_map(|field| field.attrs.recipe.as_ref());
        Self {
            written,
            recipes: recipes.map(|recipe| text(&recipe.value)).collect(),
            krate: text(&container.krate()) + " ::",
            fresh_lifetime: text(&container.fresh_lifetime),
            found: Vec::new(),
        }
    }
}

impl<'ast> Visit<'ast> for Check {
    fn visit_expr(&mut self, expr: &'ast Expr) {
        if !self.recipes.contains(&text(expr)) {
            visit::visit_expr(self, expr);
        }
    }

    fn visit_type_path(&mut self, ty: &'ast TypePath) {
        if !self.written.contains(&text(ty)) {
            visit::visit_type_path(self, ty);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let text = text(path);
        let first = path.segments[0].ident.to_string();
        let is_fixed = path.leading_colon.is_some() || text.starts_with(&self.krate);
        let is_local = first == "self" || first == "Self" || first.starts_with("__");
        let is_users = self.written.contains(&text);
        if !is_fixed && !is_local && !is_users {
            self.found.push(text);
        }
        visit::visit_path(self, path);
    }

    fn visit_pat_ident(&mut self, pat: &'ast PatIdent) {
        let name = pat.ident.to_string();
        if !name.starts_with("__") {
            self.found.push(name);
        }
        visit::visit_pat_ident(self, pat);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        let text = lifetime.to_string();
        if text != "'_" && text != self.fresh_lifetime && !self.written.contains(&text) {
            self.found.push(text);
        }
    }

    /// Attributes are built in, lints are named by the compiler.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

#[test]
fn notices_every_kind_of_loose_name() {
    let input: DeriveInput = syn::parse_quote!(
        struct A {
            b: users::Own,
        }
    );
    for loose in [
        quote!(
            fn f() {
                Ok(())
            }
        ),
        quote!(
            fn f() {
                core::mem::drop(())
            }
        ),
        quote!(
            fn f() -> Result<()> {}
        ),
        quote!(impl Quantizable for A {}),
        quote!(
            fn f(__x: u8) {}
        ),
        quote!(
            fn f() {
                let x = ();
            }
        ),
        quote!(
            fn f<'a>() {}
        ),
        quote!(
            fn f() {
                match __x {
                    x => {}
                }
            }
        ),
        quote!(
            const _: () = { ::core::mem::drop(None::<::core::primitive::u8>) };
        ),
    ] {
        let result = std::panic::catch_unwind(|| assert_hygienic(&input, &loose));
        assert!(result.is_err(), "{loose}");
    }
    let tight = quote!(
        fn f() {
            let __x: users::Own = ::core::mem::take(self.b);
            Self::A;
        }
    );
    assert_hygienic(&input, &tight);
}
