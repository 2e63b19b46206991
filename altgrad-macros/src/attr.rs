//! Reads `#[quant(…)]`: turns tokens into values, each with the key that it belongs to.

use proc_macro2::{Group, TokenTree};
use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, ExprLit, GenericParam, Ident, Lit, LitStr, Meta, Path, Token, WhereClause, WherePredicate};

use crate::ctxt::Ctxt;
use crate::recipe;
use crate::symbol::{self, Symbol};

/// An attribute that was given: its key, for error messages, and its value.
pub(crate) struct Attr<T> {
    pub(crate) key: Ident,
    pub(crate) value: T,
}

/// What the attributes of one field say.
#[derive(Default)]
pub(crate) struct FieldAttrs {
    pub(crate) skip: Option<Attr<()>>,
    pub(crate) ignore: Option<Attr<()>>,
    pub(crate) rename: Option<Attr<LitStr>>,
    pub(crate) flatten: Option<Attr<()>>,
    pub(crate) recipe: Option<Attr<Expr>>,
}

/// What the attributes of the struct or enum say.
#[derive(Default)]
pub(crate) struct ContainerAttrs {
    pub(crate) krate: Option<Attr<Path>>,
    pub(crate) bound: Option<Attr<Vec<WherePredicate>>>,
}

/// Where an attribute stands.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Field,
    Struct,
    Enum,
}

/// Reads the attributes of a field.
pub(crate) fn on_field(ctxt: &mut Ctxt, attrs: &[Attribute]) -> FieldAttrs {
    let mut found = FieldAttrs::default();
    for_each_entry(ctxt, attrs, Place::Field, |ctxt, entry| match entry.symbol.name {
        "skip" => found.skip = entry.read(ctxt, flag),
        "ignore" => found.ignore = entry.read(ctxt, flag),
        "rename" => found.rename = entry.read(ctxt, segments),
        "flatten" => found.flatten = entry.read(ctxt, flag),
        _ => found.recipe = entry.read(ctxt, expression),
    });
    found
}

/// Reads the attributes of a struct or an enum.
pub(crate) fn on_container(ctxt: &mut Ctxt, attrs: &[Attribute], place: Place) -> ContainerAttrs {
    let mut found = ContainerAttrs::default();
    for_each_entry(ctxt, attrs, place, |ctxt, entry| match entry.symbol.name {
        "crate" => found.krate = entry.read(ctxt, crate_path),
        _ => found.bound = entry.read(ctxt, predicates),
    });
    found
}

/// Refuses the attributes of an enum's variant.
pub(crate) fn on_variant(ctxt: &mut Ctxt, variant: &syn::Variant) {
    let fix =
        if variant.fields.is_empty() { "this one has no fields, remove it" } else { "put it on the variant's fields" };
    for attr in variant.attrs.iter().filter(|attr| is_quant(attr)) {
        ctxt.error(attr, format!("an enum variant takes no `#[quant(…)]`; {fix}"));
    }
}

/// Refuses the attributes of a generic parameter.
pub(crate) fn on_param(ctxt: &mut Ctxt, param: &GenericParam) {
    for attr in param_attrs(param).iter().filter(|attr| is_quant(attr)) {
        ctxt.error(attr, "a generic parameter takes no `#[quant(…)]`; remove it");
    }
}

fn param_attrs(param: &GenericParam) -> &[Attribute] {
    match param {
        GenericParam::Lifetime(param) => &param.attrs,
        GenericParam::Type(param) => &param.attrs,
        GenericParam::Const(param) => &param.attrs,
    }
}

fn is_quant(attr: &Attribute) -> bool {
    attr.path().is_ident("quant")
}

/// One element of the list in `#[quant(…)]`: a known key in a valid place, with what follows it.
struct Entry {
    key: Ident,
    symbol: &'static Symbol,
    value: Value,
}

enum Value {
    /// `key`
    None,
    /// `key =`
    Missing,
    /// `key = expr`
    Expr(Expr),
    /// `key(…)`
    List(Group),
    /// Malformed, which has been reported.
    Broken,
}

/// Gives `read` the elements of all the `#[quant(…)]` lists among `attrs`. Malformed, unknown, misplaced and duplicate
/// elements are reported and left out.
fn for_each_entry(ctxt: &mut Ctxt, attrs: &[Attribute], place: Place, mut read: impl FnMut(&mut Ctxt, Entry)) {
    let mut seen: Vec<Ident> = Vec::new();
    for attr in attrs.iter().filter(|attr| is_quant(attr)) {
        for (key, value) in list(ctxt, attr, place) {
            let Some(symbol) = resolve(ctxt, &key, place) else {
                continue;
            };
            if seen.contains(&key) {
                ctxt.error(&key, format!("duplicate attribute `{key}`; keep one of them"));
                continue;
            }
            seen.push(key.clone());
            read(ctxt, Entry { key, symbol, value });
        }
    }
}

/// The keys and values of one `#[quant(…)]`.
fn list(ctxt: &mut Ctxt, attr: &Attribute, place: Place) -> Vec<(Ident, Value)> {
    let example = match place {
        Place::Field => "skip",
        Place::Struct | Place::Enum => "crate = path::to::altgrad",
    };
    let problem = match &attr.meta {
        Meta::List(list) if list.tokens.is_empty() => "is empty",
        Meta::List(_) => {
            let mut pairs = Vec::new();
            let parsed = attr.parse_args_with(|input: ParseStream<'_>| {
                while !input.is_empty() {
                    pairs.extend(pair(ctxt, input, example));
                }
                Ok(())
            });
            if let Err(error) = parsed {
                ctxt.error_at(error.span(), error);
            }
            return pairs;
        }
        Meta::Path(_) => "needs a list",
        Meta::NameValue(_) => "takes a list, not a value",
    };
    ctxt.error(attr, format!("`quant` {problem}; write for example `#[quant({example})]`, or remove it"));
    Vec::new()
}

/// Takes one element and the comma after it from `input`. If there is no element, the error shows the `example`.
fn pair(ctxt: &mut Ctxt, input: ParseStream<'_>, example: &str) -> Option<(Ident, Value)> {
    let Ok(key) = input.call(Ident::parse_any) else {
        ctxt.error_at(input.span(), format!("expected the name of an attribute; write for example `{example}`"));
        to_next(input);
        return None;
    };
    let mut value = Value::None;
    if input.parse::<Token![=]>().is_ok() {
        value = if input.is_empty() || input.peek(Token![,]) {
            Value::Missing
        } else {
            input.parse().map_or_else(
                |error: syn::Error| {
                    let known = symbol::FIELD.iter().chain(symbol::CONTAINER).find(|symbol| key == symbol.name);
                    let fix = known.map(|symbol| format!("; write for example `{}`", symbol.example));
                    let fix = fix.unwrap_or_default();
                    ctxt.error_at(error.span(), format!("the value of `{key}` is malformed: {error}{fix}"));
                    to_comma(input);
                    Value::Broken
                },
                Value::Expr,
            )
        };
    } else if let Ok(group) = input.parse::<Group>() {
        value = Value::List(group);
    }
    if !input.is_empty() && !input.peek(Token![,]) {
        ctxt.error_at(input.span(), format!("expected a comma after the attribute `{key}`"));
    }
    to_next(input);
    Some((key, value))
}

/// Skips the tokens up to the next comma.
fn to_comma(input: ParseStream<'_>) {
    while !input.peek(Token![,]) && input.parse::<TokenTree>().is_ok() {}
}

/// Skips the tokens up to the next comma, and the comma.
fn to_next(input: ParseStream<'_>) {
    to_comma(input);
    let _end_or_comma = input.parse::<Option<Token![,]>>();
}

/// The attribute called `key` that `place` takes. If there is none, the error says where it belongs or which one was
/// meant.
fn resolve(ctxt: &mut Ctxt, key: &Ident, place: Place) -> Option<&'static Symbol> {
    let (here, elsewhere, kind) = match place {
        Place::Field => (symbol::FIELD, symbol::CONTAINER, "field"),
        Place::Struct => (symbol::CONTAINER, symbol::FIELD, "struct"),
        Place::Enum => (symbol::CONTAINER, symbol::FIELD, "enum"),
    };
    let name = key.to_string();
    if let Some(symbol) = symbol::find(here, &name) {
        return Some(symbol);
    }
    let message = if let Some(symbol) = symbol::find(elsewhere, &name) {
        let whole = symbol.in_list();
        match place {
            Place::Field => format!("`{name}` belongs on the struct or enum; move {whole} above it"),
            Place::Struct => {
                format!("`{name}` belongs on a field; move {whole} to the fields that it is meant for")
            }
            Place::Enum => {
                format!("`{name}` belongs on a field; move {whole} to the fields of the variants that it is meant for")
            }
        }
    } else {
        let meant =
            symbol::nearest(here, &name).map_or_else(|| ";".to_owned(), |s| format!("; did you mean `{}`?", s.name));
        let known = symbol::enumerate(here);
        let article = if kind == "enum" { "an" } else { "a" };
        format!("unknown attribute `{name}`{meant} {article} {kind} takes {known}")
    };
    ctxt.error(key, message);
    None
}

impl Entry {
    /// Interprets the value with `reader`, which reports errors in it.
    fn read<T>(self, ctxt: &mut Ctxt, reader: impl FnOnce(&mut Ctxt, &Self) -> Option<T>) -> Option<Attr<T>> {
        let value = reader(ctxt, &self)?;
        Some(Attr { key: self.key, value })
    }

    /// The expression after `=`, or the error that there is none.
    fn required(&self, ctxt: &mut Ctxt) -> Option<&Expr> {
        let Symbol { name, example } = self.symbol;
        match &self.value {
            Value::Expr(expr) => return Some(ungroup(expr)),
            Value::None | Value::Missing => {
                ctxt.error(&self.key, format!("`{name}` needs a value; write for example `{example}`"));
            }
            Value::List(group) => {
                ctxt.error(group, format!("`{name}` takes its value after `=`; write for example `{example}`"));
            }
            Value::Broken => {}
        }
        None
    }

    /// The string literal after `=`, or the error that there is none.
    fn string(&self, ctxt: &mut Ctxt) -> Option<LitStr> {
        let expr = self.required(ctxt)?;
        if let Expr::Lit(ExprLit { lit: Lit::Str(lit), .. }) = expr
            && lit.suffix().is_empty()
        {
            return Some(lit.clone());
        }
        let Symbol { name, example } = self.symbol;
        ctxt.error(expr, format!("`{name}` takes a string literal; write for example `{example}`"));
        None
    }
}

/// Sees through the invisible delimiters around a `macro_rules` fragment.
fn ungroup(mut expr: &Expr) -> &Expr {
    while let Expr::Group(group) = expr {
        expr = &group.expr;
    }
    expr
}

fn flag(ctxt: &mut Ctxt, entry: &Entry) -> Option<()> {
    let span = match &entry.value {
        Value::None => return Some(()),
        Value::Missing => entry.key.span(),
        Value::Expr(expr) => expr.span(),
        Value::List(group) => group.span(),
        Value::Broken => return None,
    };
    let name = entry.symbol.name;
    ctxt.error_at(span, format!("`{name}` takes no value; write `{name}` alone"));
    None
}

fn expression(ctxt: &mut Ctxt, entry: &Entry) -> Option<Expr> {
    let expr = entry.required(ctxt)?;
    if let Some((span, message)) = recipe::problem(expr) {
        ctxt.error_at(span, message);
        return None;
    }
    Some(expr.clone())
}

/// A path of one or more segments for `rename`.
fn segments(ctxt: &mut Ctxt, entry: &Entry) -> Option<LitStr> {
    let lit = entry.string(ctxt)?;
    let text = lit.value();
    let problem = if text.is_empty() {
        "is empty; give a name, or write `flatten` to add no path segment"
    } else if text.contains(char::is_whitespace) {
        "contains whitespace; a path segment has none"
    } else if text.split('.').any(str::is_empty) {
        "has an empty path segment; write a single dot between two segments and none at the ends"
    } else {
        return Some(lit);
    };
    ctxt.error(&lit, format!("the value of `rename` {problem}"));
    None
}

fn crate_path(ctxt: &mut Ctxt, entry: &Entry) -> Option<Path> {
    match entry.required(ctxt)? {
        Expr::Path(expr) if expr.qself.is_none() && is_crate_path(&expr.path) => return Some(expr.path.clone()),
        Expr::Lit(ExprLit { lit: Lit::Str(lit), .. }) => {
            let text = lit.value();
            let path = lit.parse::<Path>().is_ok_and(|path| is_crate_path(&path));
            let fix = if path { &text } else { "path::to::altgrad" };
            ctxt.error(lit, format!("`crate` takes a path without quotes; write `crate = {fix}`"));
        }
        other => ctxt.error(other, "`crate` takes the path of a module; write for example `crate = path::to::altgrad`"),
    }
    None
}

/// Whether names can be appended to `path` to find the items of a module.
fn is_crate_path(path: &Path) -> bool {
    let mut may_be_keyword = path.leading_colon.is_none();
    path.segments.iter().enumerate().all(|(i, segment)| {
        let ident = &segment.ident;
        let fits = if ident == "crate" || ident == "self" {
            may_be_keyword && i == 0
        } else if ident == "super" {
            may_be_keyword && path.segments.first().is_some_and(|first| first.ident != "crate")
        } else {
            may_be_keyword = false;
            ident != "Self"
        };
        fits && segment.arguments.is_none()
    })
}

/// The predicates of a where clause for `bound`.
fn predicates(ctxt: &mut Ctxt, entry: &Entry) -> Option<Vec<WherePredicate>> {
    let lit = entry.string(ctxt)?;
    let parser = Punctuated::<WherePredicate, Token![,]>::parse_terminated;
    match lit.parse_with(parser) {
        Ok(predicates) => Some(predicates.into_iter().collect()),
        Err(error) => {
            let message = if lit.parse::<WhereClause>().is_ok() {
                let text = lit.value();
                let predicates = text.trim_start().trim_start_matches("where").trim();
                format!("`bound` takes predicates without `where`; write `bound = \"{predicates}\"`")
            } else {
                // A list of everything that is allowed there does not help anybody.
                let detail = Some(error.to_string()).filter(|detail| !detail.starts_with("expected one of"));
                let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                let example = entry.symbol.example;
                format!("the value of `bound` is not a list of where predicates{detail}; write for example `{example}`")
            };
            ctxt.error(&lit, message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use quote::{ToTokens, quote};
    use syn::parse_quote;

    use super::*;

    fn text(tokens: impl ToTokens) -> String {
        tokens.to_token_stream().to_string()
    }

    #[test]
    fn everything_a_field_takes() {
        let mut ctxt = Ctxt::new();
        let attrs: [Attribute; 3] = [
            parse_quote!(#[quant(skip, rename = "a.b", recipe = Recipe::new::<A, B>(c, d))]),
            parse_quote!(#[serde(skip, nonsense)]),
            parse_quote!(#[quant(ignore, flatten,)]),
        ];
        let found = on_field(&mut ctxt, &attrs);
        assert!(ctxt.finish().is_ok());
        assert!(found.skip.is_some() && found.ignore.is_some() && found.flatten.is_some());
        assert_eq!(found.rename.map(|attr| attr.value.value()).as_deref(), Some("a.b"));
        assert_eq!(found.recipe.map(|attr| text(attr.value)), Some(text(quote!(Recipe::new::<A, B>(c, d)))));
    }

    #[test]
    fn everything_a_container_takes() {
        let mut ctxt = Ctxt::new();
        let attrs: [Attribute; 1] = [parse_quote!(#[quant(crate = ::a::b, bound = "T: Clone, 'a: 'b")])];
        let found = on_container(&mut ctxt, &attrs, Place::Enum);
        assert!(ctxt.finish().is_ok());
        assert_eq!(found.krate.map(|attr| text(attr.value)), Some(text(quote!(::a::b))));
        let bound: Vec<_> = found.bound.into_iter().flat_map(|attr| attr.value).map(text).collect();
        assert_eq!(bound, [text(quote!(T: Clone)), text(quote!('a: 'b))]);
    }

    #[test]
    fn crate_paths() {
        for path in
            ["a", "a::b", "::a", "crate", "crate::a", "self", "self::a", "super", "super::super::a", "self::super::a"]
        {
            let path: Path = syn::parse_str(path).expect(path);
            assert!(is_crate_path(&path), "{}", text(path));
        }
        for path in [
            "Self",
            "Self::a",
            "::crate",
            "::self::a",
            "::super::a",
            "a::crate",
            "a::self",
            "a::super",
            "crate::super::a",
            "crate::self",
            "a<T>",
            "a<T>::b",
        ] {
            let path: Path = syn::parse_str(path).expect(path);
            assert!(!is_crate_path(&path), "{}", text(path));
        }
    }

    #[test]
    fn fragments_of_macro_rules_are_seen_through() {
        let grouped = |tokens| Group::new(proc_macro2::Delimiter::None, tokens);
        let (name, krate) = (grouped(quote!("x")), grouped(quote!(a::b)));
        let mut ctxt = Ctxt::new();
        let field = on_field(&mut ctxt, &[parse_quote!(#[quant(rename = #name)])]);
        let container = on_container(&mut ctxt, &[parse_quote!(#[quant(crate = #krate)])], Place::Struct);
        assert!(ctxt.finish().is_ok());
        assert_eq!(field.rename.map(|attr| attr.value.value()).as_deref(), Some("x"));
        assert_eq!(container.krate.map(|attr| text(attr.value)), Some(text(quote!(a::b))));
    }
}
