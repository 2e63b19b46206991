//! Phrases that several error messages share.

/// `; did you mean `…`?` with the most similar of `known`, or nothing if none is similar.
pub(crate) fn did_you_mean<'k>(unknown: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(&unknown.to_ascii_lowercase(), &known.to_ascii_lowercase());
    let scored = known.into_iter().map(|known| (likeness(known), known));
    match scored.filter(|(likeness, _)| *likeness >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

/// Suggests the names most similar to one that does not exist.
pub(super) fn nearest_text(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        [one] => format!("; the nearest is `{one}`"),
        many => format!("; the nearest are {}", quoted(many)),
    }
}

/// Paths in a list; a model that is a single layer has the empty path.
pub(super) fn quoted_layers(paths: &[String]) -> String {
    match paths {
        [path] if path.is_empty() => "the layer".to_owned(),
        paths => quoted(paths),
    }
}

/// Names in a list.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
