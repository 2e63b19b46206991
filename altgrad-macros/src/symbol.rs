//! The attributes by name: where each belongs, how it is written, and which one a misspelt name meant.

/// An attribute that may stand inside of `#[quant(…)]`.
pub(crate) struct Symbol {
    pub(crate) name: &'static str,
    /// How to write it, for error messages.
    pub(crate) example: &'static str,
}

/// What a field takes.
pub(crate) const FIELD: &[Symbol] = &[
    Symbol::new("skip", "skip"),
    Symbol::new("ignore", "ignore"),
    Symbol::new("rename", "rename = \"name\""),
    Symbol::new("flatten", "flatten"),
    Symbol::new("recipe", "recipe = Fp8::E4M3"),
];

/// What a struct or an enum takes.
pub(crate) const CONTAINER: &[Symbol] =
    &[Symbol::new("crate", "crate = path::to::altgrad"), Symbol::new("bound", "bound = \"T: Quantizable\"")];

impl Symbol {
    const fn new(name: &'static str, example: &'static str) -> Self {
        Self { name, example }
    }

    /// The attribute in its list, without the value: `#[quant(rename = …)]`.
    pub(crate) fn in_list(&self) -> String {
        let value = if self.name == self.example { "" } else { " = …" };
        format!("`#[quant({}{value})]`", self.name)
    }
}

/// The symbol of that name among `symbols`.
pub(crate) fn find<'a>(symbols: &'a [Symbol], name: &str) -> Option<&'a Symbol> {
    symbols.iter().find(|symbol| symbol.name == name)
}

/// The names in a sentence: "`a`, `b` and `c`".
pub(crate) fn enumerate(symbols: &[Symbol]) -> String {
    let mut text = String::new();
    for (i, symbol) in symbols.iter().enumerate() {
        text.push_str(match i {
            0 => "`",
            _ if i + 1 == symbols.len() => "` and `",
            _ => "`, `",
        });
        text.push_str(symbol.name);
    }
    text.push('`');
    text
}

/// The symbol that a misspelt `name` most likely meant.
pub(crate) fn nearest<'a>(symbols: &'a [Symbol], name: &str) -> Option<&'a Symbol> {
    let near = |symbol: &&Symbol| {
        let longest = name.chars().count().max(symbol.name.len());
        let abbreviates = name.len() >= 3 && symbol.name.starts_with(name);
        let inflects = name.starts_with(symbol.name);
        abbreviates || inflects || edit_distance(name, symbol.name) <= longest / 3
    };
    symbols.iter().filter(near).min_by_key(|symbol| edit_distance(name, symbol.name))
}

/// The number of characters that must be inserted, removed or replaced to turn `a` into `b` (Levenshtein distance).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut previous = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(from != to);
            previous.push(replaced.min(row[j + 1] + 1).min(previous[j] + 1));
        }
        row = previous;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_known_by_hand() {
        for (a, b, distance) in [
            ("", "", 0),
            ("", "skip", 4),
            ("skip", "", 4),
            ("skip", "skip", 0),
            ("skp", "skip", 1),
            ("skpi", "skip", 2),
            ("kitten", "sitting", 3),
            ("überspringen", "uberspringen", 1),
        ] {
            assert_eq!(edit_distance(a, b), distance, "{a} → {b}");
        }
    }

    #[test]
    fn suggestions() {
        for (name, meant) in [
            ("skp", Some("skip")),
            ("Skip", Some("skip")),
            ("skipped", Some("skip")),
            ("ignored", Some("ignore")),
            ("name", Some("rename")),
            ("flat", Some("flatten")),
            ("recipes", Some("recipe")),
            ("s", None),
            ("freeze", None),
            ("default", None),
        ] {
            assert_eq!(nearest(FIELD, name).map(|s| s.name), meant, "{name}");
        }
        assert_eq!(nearest(CONTAINER, "bounds").map(|s| s.name), Some("bound"));
        assert_eq!(nearest(CONTAINER, "krate").map(|s| s.name), Some("crate"));
    }

    #[test]
    fn sentences() {
        assert_eq!(enumerate(CONTAINER), "`crate` and `bound`");
        assert_eq!(enumerate(FIELD), "`skip`, `ignore`, `rename`, `flatten` and `recipe`");
    }
}
