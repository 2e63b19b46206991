//! The implementation that is expanded beside errors, so that uses of the type cause no further errors.

use proc_macro2::TokenStream;

use crate::expand;
use crate::model::Container;

/// An implementation that visits nothing.
pub(crate) fn expand(container: &Container<'_>) -> TokenStream {
    expand::implementation(container, |_| expand::ok())
}
