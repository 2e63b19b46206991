//! Tests of the error messages: every mistake, the tokens it is reported under, and the full text.

use proc_macro2::TokenStream;
use quote::ToTokens as _;
use syn::visit::{self, Visit};
use syn::{DeriveInput, ItemImpl, Macro};

/// What deriving for `input` reports: the tokens under the error and its text.
fn errors(input: &str) -> Vec<(String, String)> {
    let input: DeriveInput = syn::parse_str(input).expect("the input is a type");
    let (_, result) = crate::analyze(&input);
    let errors: Vec<_> = result.err().into_iter().flatten().collect();
    assert_stub(&input, errors.len());
    let place = |error: &syn::Error| error.span().source_text().unwrap_or_default();
    errors.iter().map(|error| (place(error), error.to_string())).collect()
}

/// Beside `errors` errors the expansion must hold one implementation, which does nothing.
fn assert_stub(input: &DeriveInput, errors: usize) {
    #[derive(Default)]
    struct Count {
        errors: usize,
        bodies: Vec<TokenStream>,
    }
    impl<'ast> Visit<'ast> for Count {
        fn visit_macro(&mut self, mac: &'ast Macro) {
            self.errors += usize::from(mac.path.segments.last().is_some_and(|last| last.ident == "compile_error"));
        }
        fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
            self.bodies.extend(item.items.iter().map(|item| match item {
                syn::ImplItem::Fn(method) => method.block.to_token_stream(),
                other => other.to_token_stream(),
            }));
            visit::visit_item_impl(self, item);
        }
    }
    let expansion = syn::parse2(crate::derive(input)).expect("an expansion is a list of items");
    let mut count = Count::default();
    count.visit_file(&expansion);
    assert_eq!(count.errors, errors);
    let bodies: Vec<_> = count.bodies.iter().map(ToString::to_string).collect();
    if errors > 0 {
        assert_eq!(bodies, ["{ :: core :: result :: Result :: Ok (()) }"; 2]);
    } else {
        assert_eq!(bodies.len(), 2);
    }
}

/// Asserts all errors of `input`.
fn assert_errors(input: &str, expected: &[(&str, &str)]) {
    let actual = errors(input);
    let actual: Vec<_> = actual.iter().map(|(place, text)| (place.as_str(), text.as_str())).collect();
    assert_eq!(actual, expected, "{input}");
    for (_, text) in actual {
        let starts_low = text.starts_with(|c: char| c == '`' || c.is_lowercase());
        assert!(starts_low && !text.ends_with('.'), "not in the style of the others: {text}");
    }
}

/// Asserts the only error of a struct with the field attribute `#[quant(attr)]`.
fn assert_on_field(attr: &str, place: &str, text: &str) {
    assert_errors(&format!("struct Model {{ #[quant({attr})] a: Linear, b: Linear }}"), &[(place, text)]);
}

/// Asserts the only error of a generic struct with the attribute `#[quant(attr)]`.
fn assert_on_struct(attr: &str, place: &str, text: &str) {
    assert_errors(&format!("#[quant({attr})] struct Model<T> {{ a: T }}"), &[(place, text)]);
}

#[test]
fn unknown() {
    let known = "a field takes `skip`, `ignore`, `rename`, `flatten` and `recipe`";
    let meant = |wrong, right| format!("unknown attribute `{wrong}`; did you mean `{right}`? {known}");
    assert_on_field("skp", "skp", &meant("skp", "skip"));
    assert_on_field("name = \"x\"", "name", &meant("name", "rename"));
    assert_on_field("flat", "flat", &meant("flat", "flatten"));
    assert_on_field("freeze", "freeze", &format!("unknown attribute `freeze`; {known}"));
    assert_on_field("freeze(a, b = c)", "freeze", &format!("unknown attribute `freeze`; {known}"));
    assert_on_struct(
        "krate = x",
        "krate",
        "unknown attribute `krate`; did you mean `crate`? a struct takes `crate` and `bound`",
    );
    assert_errors(
        "#[quant(default)] enum Model {}",
        &[("default", "unknown attribute `default`; an enum takes `crate` and `bound`")],
    );
}

#[test]
fn duplicate() {
    let text = "duplicate attribute `skip`; keep one of them";
    assert_on_field("skip, skip", "skip", text);
    assert_on_field("rename = \"x\", rename = \"y\"", "rename", "duplicate attribute `rename`; keep one of them");
    assert_on_struct("crate = a, crate = b", "crate", "duplicate attribute `crate`; keep one of them");
    assert_errors("struct Model { #[quant(skip)] #[doc = \"\"] #[quant(skip)] a: Linear }", &[("skip", text)]);
}

#[test]
fn duplicate_is_under_the_second() {
    let input: DeriveInput = syn::parse_str("struct M {\n#[quant(skip)]\n#[quant(skip)]\na: u8 }").expect("a struct");
    let error = crate::analyze(&input).1.expect_err("a duplicate");
    assert_eq!(error.span().start().line, 3);
}

#[test]
fn misplaced() {
    assert_on_struct(
        "skip",
        "skip",
        "`skip` belongs on a field; move `#[quant(skip)]` to the fields that it is meant for",
    );
    assert_on_struct(
        "recipe = Fp8::E3M4",
        "recipe",
        "`recipe` belongs on a field; move `#[quant(recipe = …)]` to the fields that it is meant for",
    );
    assert_errors(
        "#[quant(ignore)] enum Model { A(Linear) }",
        &[(
            "ignore",
            "`ignore` belongs on a field; move `#[quant(ignore)]` to the fields of the variants that it is meant for",
        )],
    );
    assert_on_field("crate = x", "crate", "`crate` belongs on the struct or enum; move `#[quant(crate = …)]` above it");
    assert_on_field(
        "bound = \"\"",
        "bound",
        "`bound` belongs on the struct or enum; move `#[quant(bound = …)]` above it",
    );
}

#[test]
fn on_a_variant() {
    assert_errors(
        "enum Model { #[quant(skip)] A(Linear), #[quant] #[quant(nonsense +)] B { b: Linear }, #[quant(ignore)] C }",
        &[
            ("#[quant(skip)]", "an enum variant takes no `#[quant(…)]`; put it on the variant's fields"),
            ("#[quant]", "an enum variant takes no `#[quant(…)]`; put it on the variant's fields"),
            ("#[quant(nonsense +)]", "an enum variant takes no `#[quant(…)]`; put it on the variant's fields"),
            ("#[quant(ignore)]", "an enum variant takes no `#[quant(…)]`; this one has no fields, remove it"),
        ],
    );
}

#[test]
fn on_a_generic_parameter() {
    let text = "a generic parameter takes no `#[quant(…)]`; remove it";
    assert_errors(
        "struct Model<#[quant(skip)] 'a, #[quant] T, #[quant(x = )] const N: usize>(&'a [T; N]);",
        &[("#[quant(skip)]", text), ("#[quant]", text), ("#[quant(x = )]", text)],
    );
}

#[test]
fn missing_value() {
    let rename = "`rename` needs a value; write for example `rename = \"name\"`";
    for attr in ["rename", "rename =", "rename, skip", "rename =, skip"] {
        assert_on_field(attr, "rename", rename);
    }
    assert_on_field("recipe", "recipe", "`recipe` needs a value; write for example `recipe = Fp8::E4M3`");
    assert_on_struct("crate", "crate", "`crate` needs a value; write for example `crate = path::to::altgrad`");
    assert_on_struct("bound", "bound", "`bound` needs a value; write for example `bound = \"T: Quantizable\"`");
}

#[test]
fn value_in_parentheses() {
    assert_on_field(
        "rename(\"x\")",
        "(\"x\")",
        "`rename` takes its value after `=`; write for example `rename = \"name\"`",
    );
    assert_on_field(
        "recipe(Fp8::E3M4)",
        "(Fp8::E3M4)",
        "`recipe` takes its value after `=`; write for example `recipe = Fp8::E4M3`",
    );
}

#[test]
fn superfluous_value() {
    assert_on_field("skip = true", "true", "`skip` takes no value; write `skip` alone");
    assert_on_field("skip =", "skip", "`skip` takes no value; write `skip` alone");
    assert_on_field("ignore(all)", "(all)", "`ignore` takes no value; write `ignore` alone");
    assert_on_field("flatten = a + b", "a + b", "`flatten` takes no value; write `flatten` alone");
}

#[test]
fn wrong_kind_of_value() {
    let rename = "`rename` takes a string literal; write for example `rename = \"name\"`";
    for value in ["3", "name", "b\"name\"", "'n'", "\"name\"suffix", "concat!(\"a\", \"b\")"] {
        assert_on_field(&format!("rename = {value}"), value, rename);
    }
    assert_on_struct(
        "bound = T",
        "T",
        "`bound` takes a string literal; write for example `bound = \"T: Quantizable\"`",
    );
}

#[test]
fn recipe_is_no_recipe() {
    assert_on_field(
        "recipe = \"E3M4\"",
        "\"E3M4\"",
        "`recipe` takes an expression without quotes; write `recipe = Fp8::E3M4`",
    );
    assert_on_field(
        "recipe = 8",
        "8",
        "`recipe` takes a format or a recipe, not a literal; write for example `recipe = Fp8::E4M3`",
    );
    assert_on_field(
        "recipe = None",
        "None",
        "`recipe` cannot be `None`; write `skip` to keep everything below in full precision",
    );
    assert_on_field(
        "recipe = make(self.format)",
        "self",
        "`recipe` cannot use `self`; it may use `Self`, the type's parameters, constants and functions",
    );
}

#[test]
fn ill_formed_rename() {
    let empty = "the value of `rename` is empty; give a name, or write `flatten` to add no path segment";
    let white = "the value of `rename` contains whitespace; a path segment has none";
    let gap = "the value of `rename` has an empty path segment; write a single dot between two segments and none at \
               the ends";
    for (value, text) in [
        ("\"\"", empty),
        ("\" \"", white),
        ("\"a b\"", white),
        ("\"a\\n\"", white),
        ("\"a. b\"", white),
        ("\".\"", gap),
        ("\".a\"", gap),
        ("\"a.\"", gap),
        ("\"a..b\"", gap),
    ] {
        assert_on_field(&format!("rename = {value}"), value, text);
    }
}

#[test]
fn crate_is_no_path() {
    for (value, written) in [
        ("\"my::altgrad\"", "my::altgrad"),
        ("\"::altgrad_core\"", "::altgrad_core"),
        ("\"crate\"", "crate"),
        ("\"not a path\"", "path::to::altgrad"),
        ("\"\"", "path::to::altgrad"),
    ] {
        let text = format!("`crate` takes a path without quotes; write `crate = {written}`");
        assert_on_struct(&format!("crate = {value}"), value, &text);
    }
    let text = "`crate` takes the path of a module; write for example `crate = path::to::altgrad`";
    for value in
        ["3", "a()", "a::<T>::b", "Self", "a::Self", "::crate", "a::self", "a::super::b", "crate::super", "<T as A>::b"]
    {
        assert_on_struct(&format!("crate = {value}"), value, text);
    }
}

#[test]
fn bound_is_no_predicate() {
    let text = |error| {
        format!(
            "the value of `bound` is not a list of where predicates{error}; write for example `bound = \"T: \
             Quantizable\"`"
        )
    };
    assert_on_struct("bound = \"T\"", "\"T\"", &text(": expected `:`"));
    assert_on_struct(
        "bound = \"where T: Clone\"",
        "\"where T: Clone\"",
        "`bound` takes predicates without `where`; write `bound = \"T: Clone\"`",
    );
    assert_on_struct("bound = \"T: Clone; U\"", "\"T: Clone; U\"", &text(": expected `,`"));
    assert_on_struct("bound = \"3\"", "\"3\"", &text(""));
}

#[test]
fn bound_without_generics() {
    let text = "`bound` has nothing to bound, because `Model` has no generic parameters; remove it";
    assert_errors("#[quant(bound = \"\")] struct Model { a: Linear }", &[("bound", text)]);
    assert_errors("#[quant(bound = \"\")] struct Model<'a> { a: Text<'a> }", &[]);
}

#[test]
fn malformed_list() {
    let on_field = "write for example `#[quant(skip)]`, or remove it";
    for (attr, problem) in [
        ("#[quant]", "needs a list"),
        ("#[quant = \"skip\"]", "takes a list, not a value"),
        ("#[quant()]", "is empty"),
        ("#[quant{}]", "is empty"),
    ] {
        assert_errors(
            &format!("struct Model {{ {attr} a: Linear }}"),
            &[(attr, &format!("`quant` {problem}; {on_field}"))],
        );
        assert_errors(
            &format!("{attr} struct Model;"),
            &[(
                attr,
                &format!("`quant` {problem}; write for example `#[quant(crate = path::to::altgrad)]`, or remove it"),
            )],
        );
    }
    let name = "expected the name of an attribute; write for example `skip`";
    assert_on_field("\"skip\"", "\"skip\"", name);
    assert_on_field("skip, , flatten", ",", name);
    assert_on_field("= 3", "=", name);
    assert_on_field("skip rename = \"x\"", "rename", "expected a comma after the attribute `skip`");
    assert_on_field("skip::all", ":", "expected a comma after the attribute `skip`");
    assert_on_struct(
        "\"crate\"",
        "\"crate\"",
        "expected the name of an attribute; write for example `crate = path::to::altgrad`",
    );
    assert_on_field(
        "recipe = +, skip",
        "+",
        "the value of `recipe` is malformed: expected an expression; write for example `recipe = Fp8::E4M3`",
    );
}

#[test]
fn conflicts() {
    let ignored = |name| {
        format!("`{name}` has no effect beside `ignore`, which takes the field out of the model; remove one of them")
    };
    assert_on_field("ignore, skip", "skip", &ignored("skip"));
    assert_on_field("rename = \"x\", ignore", "rename", &ignored("rename"));
    assert_on_field("flatten, ignore", "flatten", &ignored("flatten"));
    assert_on_field("ignore, recipe = x", "recipe", &ignored("recipe"));
    assert_on_field(
        "skip, recipe = x",
        "recipe",
        "`recipe` has no effect beside `skip`, which keeps everything below in full precision; remove one of them",
    );
    assert_on_field(
        "rename = \"x\", flatten",
        "flatten",
        "`flatten` adds no path segment, but `rename` names one; remove one of them",
    );
}

#[test]
fn flatten_on_a_newtype() {
    let text = "the only field of a tuple already adds no segment; remove `flatten`";
    assert_errors("struct Model(#[quant(flatten)] Linear);", &[("flatten", text)]);
    assert_errors("enum Model { A(#[quant(flatten)] Linear) }", &[("flatten", text)]);
    assert_errors("struct Model(#[quant(flatten)] Linear, Linear);", &[]);
    assert_errors("struct Model { #[quant(flatten)] a: Linear }", &[]);
}

#[test]
fn same_segment_twice() {
    let text = |segment, first| {
        format!(
            "the path segment `{segment}` is already that of the field `{first}`; give one of them another name with \
             `#[quant(rename = \"…\")]`"
        )
    };
    for (input, place, segment, first) in [
        ("struct Model { a: Linear, #[quant(rename = \"a\")] b: Linear }", "\"a\"", "a", "a"),
        ("struct Model { #[quant(rename = \"b\")] a: Linear, b: Linear }", "b", "b", "a"),
        ("struct Model { r#type: Linear, #[quant(rename = \"type\", skip)] b: Linear }", "\"type\"", "type", "r#type"),
        ("struct Model(#[quant(rename = \"1\")] Linear, Vec<Linear>);", "Vec<Linear>", "1", "0"),
        (
            "enum Model { A { #[quant(rename = \"b.c\")] a: L, #[quant(rename = \"b.c\")] d: L } }",
            "\"b.c\"",
            "b.c",
            "a",
        ),
    ] {
        assert_errors(input, &[(place, &text(segment, first))]);
    }
    for fine in [
        "struct Model { #[quant(rename = \"b\")] a: Linear, #[quant(ignore)] b: Linear }",
        "struct Model { #[quant(rename = \"b\")] a: Linear, #[quant(flatten)] b: Linear }",
        "struct Model { #[quant(rename = \"b\")] a: Linear, #[quant(rename = \"a\")] b: Linear }",
        "enum Model { A { a: Linear }, B { a: Linear } }",
    ] {
        assert_errors(fine, &[]);
    }
}

#[test]
fn unions() {
    assert_errors(
        "union Model { a: u8, b: i8 }",
        &[(
            "union",
            "`Quantizable` cannot be derived for a union, because nothing says which of its fields holds a layer; \
             use a struct or an enum",
        )],
    );
}

#[test]
fn all_at_once() {
    let found = errors(
        "#[quant(skip, crate = 3)] #[quant]
         enum Model<T> {
             #[quant(skip)] A(#[quant(flatten)] T),
             B { #[quant(ignore, skip)] a: T, #[quant(rename, frob)] b: T, #[quant(rename = \"b\")] c: T },
         }",
    );
    let places: Vec<_> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["skip", "3", "#[quant]", "#[quant(skip)]", "rename", "frob", "flatten", "skip", "\"b\""]);
}

#[test]
fn valid_combinations() {
    for fine in [
        "struct Model { #[quant(skip, rename = \"x\",)] a: Linear }",
        "struct Model { #[quant(skip)] #[quant(flatten)] a: Linear }",
        "struct Model { #[quant(recipe = a::<B, C>(), rename = \"x.y\")] a: Linear }",
        "struct Model { #[quant{flatten, recipe = r}] a: Linear }",
        "struct Model(#[quant(rename = \"x\")] Linear);",
        "struct Model(#[quant(skip)] Linear);",
        "#[quant(crate = a::b, bound = \"T: Clone,\")] struct Model<T>(T);",
        "#[other(skip)] struct Model { #[serde(rename = 3)] #[quantum] a: Linear }",
    ] {
        assert_errors(fine, &[]);
    }
}
