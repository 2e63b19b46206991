//! Recognizes expressions for `recipe` that are wrong by their form; the compiler's own errors would not say what to
//! write instead.

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Expr, ExprLit, ExprPath, Item, Lit};

/// What is wrong with `expr`, and where.
pub(crate) fn problem(expr: &Expr) -> Option<(Span, String)> {
    match expr {
        Expr::Lit(ExprLit { lit, .. }) => Some((lit.span(), literal(lit))),
        Expr::Path(path) if path.path.is_ident("None") => {
            let message = "`recipe` cannot be `None`; write `skip` to keep everything below in full precision";
            Some((path.span(), message.to_owned()))
        }
        _ => {
            let mut uses = UsesOfSelf(None);
            uses.visit_expr(expr);
            let message =
                "`recipe` cannot use `self`; it may use `Self`, the type's parameters, constants and functions";
            Some((uses.0?, message.to_owned()))
        }
    }
}

fn literal(lit: &Lit) -> String {
    let meant = match lit {
        Lit::Str(lit) => unquote(&lit.value()),
        _ => None,
    };
    match meant {
        Some(meant) => format!("`recipe` takes an expression without quotes; write `recipe = {meant}`"),
        None => "`recipe` takes a format or a recipe, not a literal; write for example `recipe = Fp8::E4M3`".to_owned(),
    }
}

/// The expression that a string was probably meant to be: a path, or the name of a format.
fn unquote(text: &str) -> Option<String> {
    let upper = text.to_uppercase();
    if let [b'E', exponent, b'M', mantissa, ..] = upper.as_bytes()
        && exponent.is_ascii_digit()
        && mantissa.is_ascii_digit()
    {
        return Some(format!("Fp8::{upper}"));
    }
    syn::parse_str::<ExprPath>(text).is_ok().then(|| text.to_owned())
}

/// The first `self` that is a value of the surrounding scope.
struct UsesOfSelf(Option<Span>);

impl<'ast> Visit<'ast> for UsesOfSelf {
    fn visit_expr_path(&mut self, expr: &'ast ExprPath) {
        if expr.path.is_ident("self") {
            self.0.get_or_insert(expr.span());
        }
        visit::visit_expr_path(self, expr);
    }

    /// The methods of an item have a `self` of their own.
    fn visit_item(&mut self, _: &'ast Item) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(expr: &str) -> Option<String> {
        let expr = syn::parse_str(expr).expect("an expression");
        problem(&expr).map(|(_, message)| message)
    }

    #[test]
    fn quoted() {
        for (text, meant) in
            [("E4M3", "Fp8::E4M3"), ("e4m3_fnuz", "Fp8::E4M3_FNUZ"), ("Fp8::E4M3", "Fp8::E4M3"), ("HYBRID", "HYBRID")]
        {
            let expected = format!("`recipe` takes an expression without quotes; write `recipe = {meant}`");
            assert_eq!(message(&format!("{text:?}")), Some(expected));
        }
    }

    #[test]
    fn other_literals() {
        for text in ["8", "1.5", "true", "'x'", "b\"x\"", "\"not a path\"", "\"\""] {
            let expected =
                "`recipe` takes a format or a recipe, not a literal; write for example `recipe = Fp8::E4M3`".to_owned();
            assert_eq!(message(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn uses_of_self() {
        for text in ["self", "self.recipe()", "{ let x = &self.x; f(x) }", "|| self.x", "f([(self, 1)])"] {
            assert!(message(text).is_some_and(|message| message.contains("cannot use `self`")), "{text}");
        }
        for text in ["self::F", "Self::F", "f::<Self>()", "{ struct S; impl S { fn f(self) { self; } } F }", "x.self_"]
        {
            assert_eq!(message(text), None, "{text}");
        }
    }

    #[test]
    fn fine() {
        for text in ["Fp8::E4M3", "Fp8::new(4, 3, 7, S)?", "Some(x)", "a::None", "\"E4M3\".parse()", "-1"] {
            assert_eq!(message(text), None, "{text}");
        }
    }
}
