//! The expansion triggers no lint of the user's: the same types under one group of lints after another.
//!
//! The compiler's own groups are checked by compiling this file, those of clippy by `cargo clippy --all-targets`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the types of a library are public")]
#![deny(non_ascii_idents, rust_2021_compatibility, rust_2024_compatibility)] // only a whole crate can

use altgrad::Quantizable as _;
use candle_core::{DType, Device, Tensor};

/// For each group a module that denies its lints, with all types in it, and a test that finds their layers.
macro_rules! denied {
    ($($group:ident: $($lint:path)+;)+) => {$(
        /// The types under these lints.
        pub mod $group {
            #![deny($($lint),+)]
            include!("derive_lints/types.rs");
        }

        #[test]
        fn $group() {
            let weight = Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap();
            let layer = altgrad::Linear::new(weight, None);
            let mut counts = Vec::new();
            $group::each(&layer, |model| counts.push(model.layers().unwrap().len()));
            assert_eq!(counts, [0, 0, 0, 7, 0, 1, 1, 1, 0, 0, 3, 1, 1, 1, 1]);
        }
    )+};
}

denied! {
    warnings_by_default: warnings;
    unused: unused unused_qualifications unused_results unused_lifetimes unused_import_braces unused_extern_crates;
    dead_code: dead_code unreachable_code unreachable_patterns;
    lifetimes: single_use_lifetimes elided_lifetimes_in_paths redundant_lifetimes explicit_outlives_requirements
        mismatched_lifetime_syntaxes;
    docs: missing_docs;
    style: nonstandard_style let_underscore unit_bindings;
    casts: trivial_casts trivial_numeric_casts;
    editions: rust_2018_idioms keyword_idents
        absolute_paths_not_starting_with_crate;
    deprecated: deprecated deprecated_in_future;
    privacy: private_bounds private_interfaces unnameable_types;
    places: non_local_definitions ambiguous_associated_items macro_use_extern_crate meta_variable_misuse;
    code: unsafe_code variant_size_differences;
    clippy_all: clippy::all;
    clippy_pedantic: clippy::pedantic;
    clippy_nursery: clippy::nursery;
    clippy_attributes: clippy::allow_attributes clippy::allow_attributes_without_reason;
    clippy_names: clippy::min_ident_chars clippy::single_char_lifetime_names clippy::shadow_reuse clippy::shadow_same
        clippy::shadow_unrelated clippy::same_name_method clippy::renamed_function_params;
    clippy_paths: clippy::absolute_paths clippy::std_instead_of_core clippy::std_instead_of_alloc
        clippy::alloc_instead_of_core;
    clippy_control_flow: clippy::implicit_return clippy::question_mark_used clippy::missing_trait_methods
        clippy::missing_inline_in_public_items clippy::try_err;
    clippy_patterns: clippy::pattern_type_mismatch clippy::ref_patterns clippy::rest_pat_in_fully_bound_structs
        clippy::unneeded_field_pattern clippy::wildcard_enum_match_arm;
    clippy_statements: clippy::semicolon_inside_block clippy::semicolon_outside_block clippy::let_underscore_untyped
        clippy::redundant_type_annotations clippy::default_numeric_fallback clippy::as_conversions;
    clippy_docs: clippy::missing_docs_in_private_items;
}

/// What the definition may do, the implementation may too: on the type, a variant or a field.
pub mod allowed {
    #![deny(deprecated, clippy::use_self)]
    #![allow(missing_docs, clippy::allow_attributes_without_reason, reason = "they do not matter here")]

    use altgrad::{Linear, Quantizable};

    #[deprecated]
    pub type Old = Linear;

    #[allow(deprecated)]
    #[derive(Quantizable)]
    pub struct OnType(pub Old);

    #[derive(Quantizable)]
    pub enum OnVariant {
        #[allow(deprecated)]
        Variant(Old),
    }

    #[derive(Quantizable)]
    pub enum OnField {
        Variant(#[allow(deprecated)] Old),
    }

    #[allow(clippy::use_self)]
    #[derive(Quantizable)]
    pub struct Node {
        pub next: Option<Box<Node>>,
    }

    #[test]
    fn compiles() {
        assert!(Node { next: None }.layers().unwrap().is_empty());
    }
}

/// A lint that is forbidden cannot be allowed again, not even by an expansion.
pub mod forbidden {
    #![forbid(unsafe_code, unused_qualifications, unused_variables, single_use_lifetimes, clippy::all)]

    use altgrad::{Linear, Quantizable};

    /// A model.
    #[derive(Quantizable)]
    pub struct Model {
        /// A layer.
        pub layer: Linear,
    }

    /// A generic model.
    #[derive(Quantizable)]
    pub struct Generic<T: Quantizable> {
        /// A part.
        pub layer: T,
    }

    #[test]
    fn compiles() {
        let weight = super::Tensor::zeros((1, 1), super::DType::F32, &super::Device::Cpu).unwrap();
        let model = Generic { layer: Model { layer: Linear::new(weight, None) } };
        assert_eq!(model.layers().unwrap()[0].0, "layer.layer");
    }
}
