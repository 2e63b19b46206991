//! The implementation that stands beside the errors, so that uses of the type raise no further ones.

use proc_macro2::TokenStream;

use crate::expand;
use crate::model::Container;

/// An implementation that visits nothing.
pub(crate) fn expand(container: &Container<'_>) -> TokenStream {
    expand::implementation(container, |_| expand::ok())
}
