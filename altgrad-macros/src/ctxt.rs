//! Collects errors, so that users see all of them at once.

use std::fmt::Display;

use proc_macro2::Span;
use quote::ToTokens;

/// The errors found so far. [`Ctxt::finish`] must be called to report them.
pub(crate) struct Ctxt {
    errors: Vec<syn::Error>,
    finished: bool,
}

impl Ctxt {
    pub(crate) fn new() -> Self {
        Self { errors: Vec::new(), finished: false }
    }

    /// Records an error at `tokens`.
    pub(crate) fn error(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.errors.push(syn::Error::new_spanned(tokens, message));
    }

    /// Records an error at a place that is known only by its span.
    pub(crate) fn error_at(&mut self, span: Span, message: impl Display) {
        self.errors.push(syn::Error::new(span, message));
    }

    /// All errors as one, or nothing if there is none.
    pub(crate) fn finish(mut self) -> syn::Result<()> {
        self.finished = true;
        let all = std::mem::take(&mut self.errors).into_iter();
        let combined = all.reduce(|mut first, next| {
            first.combine(next);
            first
        });
        combined.map_or(Ok(()), Err)
    }
}

impl Drop for Ctxt {
    fn drop(&mut self) {
        debug_assert!(self.finished || std::thread::panicking(), "errors were collected and never reported");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_ok() {
        assert!(Ctxt::new().finish().is_ok());
    }

    #[test]
    fn errors_keep_their_order() {
        let mut ctxt = Ctxt::new();
        ctxt.error_at(Span::call_site(), "first");
        ctxt.error(quote::quote!(x), "second");
        ctxt.error_at(Span::call_site(), "third");
        let error = ctxt.finish().expect_err("three errors were recorded");
        let texts: Vec<_> = error.into_iter().map(|e| e.to_string()).collect();
        assert_eq!(texts, ["first", "second", "third"]);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "never reported")]
    fn forgetting_to_finish_is_noticed() {
        drop(Ctxt::new());
    }
}
