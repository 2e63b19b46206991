//! What every mistake is told: where it is, what it is, and what could be there.

use std::error::Error as _;
use std::fs;

use altgrad_core::{ConfigError, Error, Fp8, Granularity, QuantConfig, Quantizer, Recipe, Scaling};

/// What is said of a name that is no format.
const FORMATS: &str = "is not a format; known are E0M7, E1M6, E2M5, E3M4, E4M3, E5M2, E6M1, E7M0, E4M3_FNUZ, \
                       E5M2_FNUZ, E4M3_B11_FNUZ, E4M3_IEEE, E3M4_IEEE, E2M3, E3M2, E2M1, or a custom one such as \
                       `E4M3(bias=5, specials=none)` with specials none, nan_only, ieee or fnuz";

/// What is said of a name that is no recipe either.
const RECIPES: &str = "is neither a recipe nor a format; recipes are tensorwise, rowwise, hybrid, blockwise, \
                       mxfp8, and a format such as E4M3 or E5M2 quantizes weights only";

fn toml(text: &str) -> String {
    QuantConfig::from_toml(text).unwrap_err().to_string()
}

fn json(text: &str) -> String {
    QuantConfig::from_json(text).unwrap_err().to_string()
}

#[test]
fn unknown_fields() {
    assert_eq!(
        toml("recipe = 'hybrid'\nrule = []"),
        "config:2:1: `rule`: unknown field `rule`, expected one of `recipe`, `rules`, `ties`; did you mean `rules`?"
    );
    assert_eq!(
        toml("recipe = 'hybrid'\nseed = 1"),
        "config:2:1: `seed`: unknown field `seed`, expected one of `recipe`, `rules`, `ties`"
    );
    assert_eq!(
        toml("recipe = 'hybrid'\n[[rules]]\npattern = 'h'\n[rules.recipe]\nbase = 'E4M3'\ngradient = 'E5M2'"),
        "config:6:1: `rules[0].recipe.gradient`: unknown field `gradient`, expected one of `base`, `weights`, \
         `activations`, `gradients`, `ste`; did you mean `gradients`?"
    );
    assert_eq!(
        json("{\n  \"recipe\": {\n    \"weights\": { \"format\": \"E4M3\", \"granularty\": \"per_row\" }\n  }\n}"),
        "config:3:47: `recipe.weights.granularty`: unknown field `granularty`, expected one of `format`, \
         `granularity`, `scaling`, `scale_encoding`, `amax_epsilon`, `amax_bound`, `rounding`, `overflow`, \
         `infinity`; did you mean `granularity`?"
    );
    assert_eq!(
        json(r#"{"recipe": "hybrid", "rules": [{"pattern": "h", "recpie": "E4M3"}]}"#),
        "config:1:56: `rules[0].recpie`: unknown field `recpie`, expected `pattern` or `recipe`; \
         did you mean `recipe`?"
    );
    // Inside of a setting.
    let blocks =
        "`granularity` may be \"per_tensor\", \"per_row\", \"per_channel\", { per_block = { rows = 128, cols = 128 } }";
    assert_eq!(
        toml("recipe.weights = { format = 'E4M3', granularity = { per_block = { rows = 1, cols = 2, x = 3 } } }"),
        format!(
            "config:1:87: `recipe.weights.granularity.per_block`: unexpected keys in table: x, \
             available keys: rows, cols; {blocks}"
        )
    );
    assert_eq!(
        json(r#"{"recipe": {"weights": {"format": "E4M3", "rounding": {"stochastic": {"sed": 1}}}}}"#),
        "config:1:75: `recipe.weights.rounding.stochastic.sed`: unknown field `sed`, expected `seed`; \
         did you mean `seed`?"
    );
}

#[test]
fn unknown_names() {
    assert_eq!(toml("recipe = 'hybird'"), format!("config:1:10: `recipe`: `hybird` {RECIPES}; did you mean `hybrid`?"));
    assert_eq!(json(r#"{"recipe": "E4M4"}"#), format!("config:1:17: `recipe`: `E4M4` {RECIPES}"));
    assert_eq!(toml("recipe.base = 'fp8'"), format!("config:1:15: `recipe.base`: `fp8` {RECIPES}"));
    assert_eq!(
        toml("recipe = 'hybrid'\nrules = [{ pattern = 'h', recipe = 'none' }]"),
        format!("config:2:36: `rules[0].recipe`: `none` {RECIPES}; `full_precision` quantizes nothing")
    );
    assert_eq!(toml("recipe.weights = 'hybrid'"), format!("config:1:18: `recipe.weights`: `hybrid` {FORMATS}"));
    assert_eq!(
        toml("recipe = { base = 'hybrid', gradients = 'E5M3' }"),
        format!("config:1:41: `recipe.gradients`: `E5M3` {FORMATS}; `full_precision` quantizes nothing")
    );
    assert_eq!(
        json(r#"{"recipe": {"weights": {"format": "E9M9"}}}"#),
        format!("config:1:40: `recipe.weights.format`: `E9M9` {FORMATS}")
    );
}

#[test]
fn full_precision_where_it_is_none() {
    let elsewhere = "`full_precision` is not allowed here; use it in a rule for layers: a `pattern` and the `recipe` \
                     \"full_precision\"";
    assert_eq!(toml("recipe = 'full_precision'"), format!("config:1:10: `recipe`: {elsewhere}"));
    assert_eq!(toml("recipe.weights = 'full_precision'"), format!("config:1:18: `recipe.weights`: {elsewhere}"));
}

#[test]
fn wrong_types() {
    let recipe = "expected the name of a recipe such as \"hybrid\", the name of a format such as \"E4M3\" or a table \
                  with `weights` or a `base`";
    let quantizer = "expected the name of a format such as \"E4M3\" or a table with at least a `format`";
    assert_eq!(toml("recipe = 8"), format!("config:1:10: `recipe`: invalid type: integer `8`, {recipe}"));
    assert_eq!(json(r#"{"recipe": []}"#), format!("config:1:13: `recipe`: invalid type: sequence, {recipe}"));
    assert_eq!(
        toml("recipe.weights = true"),
        format!("config:1:18: `recipe.weights`: invalid type: boolean `true`, {quantizer}")
    );
    // JSON has a null, but what it would mean is said in words.
    assert_eq!(
        json(r#"{"recipe": {"base": "hybrid", "activations": null}}"#),
        "config:1:49: `recipe.activations`: invalid type: null, expected the name of a format such as \"E4M3\", \
         a table with at least a `format` or \"full_precision\""
    );
    assert_eq!(
        toml("recipe.weights.format = 3"),
        "config:1:25: `recipe.weights.format`: invalid type: integer `3`, \
         expected the name of a format such as \"E4M3\""
    );
    assert_eq!(
        toml("recipe = 'hybrid'\nrules = ['h.0']"),
        "config:2:10: `rules[0]`: invalid type: string \"h.0\", expected a rule: a table with a `pattern` and a \
         `recipe`; `rules` may be [{ pattern = \"h.0\", recipe = \"full_precision\" }] or more of them"
    );
    assert_eq!(
        toml("recipe = 'hybrid'\n[rules]\npattern = 'h'"),
        "config:2:1: `rules`: invalid type: map, expected a sequence; \
         `rules` may be [{ pattern = \"h.0\", recipe = \"full_precision\" }] or more of them"
    );
    assert_eq!(
        toml("recipe.weights = { format = 'E4M3', amax_epsilon = '0' }"),
        "config:1:52: `recipe.weights.amax_epsilon`: invalid type: string \"0\", expected f64"
    );
    assert_eq!(
        toml("recipe.weights = { format = 'E4M3', rounding = { stochastic = { seed = -1 } } }"),
        "config:1:72: `recipe.weights.rounding.stochastic.seed`: invalid value: integer `-1`, expected u64; \
         `rounding` may be \"nearest_even\", { stochastic = { seed = 1 } }"
    );
    assert_eq!(
        json("\"hybrid\""),
        "config:1:8: invalid type: string \"hybrid\", expected a config: a table with a `recipe`, and perhaps `rules` \
         and `ties`"
    );
}

#[test]
fn wrong_settings() {
    let toml_scaling = "`scaling` may be \"current\", { window = { len = 16 } }, \
                        { delayed = { len = 1024, margin = 0 } }, { static = 0.05 }";
    let json_scaling =
        r#"`scaling` may be "current", {"window":{"len":16}}, {"delayed":{"len":1024,"margin":0}}, {"static":0.05}"#;
    for (scaling, column, place, why) in [
        ("'curent'", 47, "", "unknown variant `curent`"),
        ("'window'", 47, ".window", "a name is not enough here"),
        ("'static'", 47, ".static", "a name is not enough here"),
        ("1", 47, "", "this is neither a name nor a table with one field"),
        ("{}", 47, "", "a table with one field is needed here"),
        ("{ static = 1, window = { len = 1 } }", 47, "", "a table with one field is needed here"),
        ("{ window = {} }", 58, ".window", "missing field `len`"),
        ("{ window = 16 }", 58, ".window", "invalid type: integer `16`, expected struct variant Scaling::Window"),
        ("{ static = 'a' }", 58, ".static", "invalid type: string \"a\", expected f32"),
    ] {
        let nearest = if scaling == "'curent'" { "; did you mean `current`?" } else { "" };
        assert_eq!(
            toml(&format!("recipe.weights = {{ format = 'E4M3', scaling = {scaling} }}")),
            format!("config:1:{column}: `recipe.weights.scaling{place}`: {why}; {toml_scaling}{nearest}")
        );
    }
    for (scaling, column, place, why) in [
        (r#""curent""#, 61, "", "unknown variant `curent`"),
        (r#""window""#, 62, ".window", "a name is not enough here"),
        ("null", 54, "", "this is neither a name nor a table with one field"),
        ("{}", 55, "", "this is neither a name nor a table with one field"),
        (r#"{"static": 1, "window": {"len": 1}}"#, 65, "", "this is neither a name nor a table with one field"),
        (r#"{"window": {}}"#, 66, ".window", "missing field `len`"),
    ] {
        let nearest = if scaling.contains("curent") { "; did you mean `current`?" } else { "" };
        assert_eq!(
            json(&format!(r#"{{"recipe": {{"weights": {{"format": "E4M3", "scaling": {scaling}}}}}}}"#)),
            format!("config:1:{column}: `recipe.weights.scaling{place}`: {why}; {json_scaling}{nearest}")
        );
    }
    for (setting, message) in [
        (
            "granularity = 'per_rows'",
            "config:1:51: `recipe.weights.granularity`: unknown variant `per_rows`; `granularity` may be \
             \"per_tensor\", \"per_row\", \"per_channel\", { per_block = { rows = 128, cols = 128 } }; did you mean \
             `per_row`?",
        ),
        (
            "scale_encoding = { e8m0 = 'ceil' }",
            "config:1:63: `recipe.weights.scale_encoding.e8m0`: unknown variant `ceil`; `scale_encoding` may be \
             \"f32\", \"f32_reciprocal\", \"power_of_two\", { e8m0 = \"floor\" }, { e8m0 = \"round_up\" }",
        ),
        (
            "rounding = 'stochastic'",
            "config:1:48: `recipe.weights.rounding.stochastic`: a name is not enough here; `rounding` may be \
             \"nearest_even\", { stochastic = { seed = 1 } }",
        ),
        (
            "overflow = 'clamp'",
            "config:1:48: `recipe.weights.overflow`: unknown variant `clamp`; `overflow` may be \"saturate\", \
             \"special\"",
        ),
    ] {
        assert_eq!(toml(&format!("recipe.weights = {{ format = 'E4M3', {setting} }}")), message);
    }
    assert_eq!(
        toml("recipe = { base = 'E4M3', ste = 'clip' }"),
        "config:1:33: `recipe.ste`: unknown variant `clip`; `ste` may be \"pass_through\", \"clipped\"; \
         did you mean `clipped`?"
    );
    assert_eq!(
        toml("recipe = 'hybrid'\nties = 'Quantize'"),
        "config:2:8: `ties`: unknown variant `Quantize`; `ties` may be \"keep_full_precision\", \"quantize\"; \
         did you mean `quantize`?"
    );
}

#[test]
fn missing_fields() {
    assert_eq!(
        toml(""),
        "config:1:1: missing field `recipe`; `recipe` may be \"hybrid\", \"E4M3\" or another recipe or format, or a \
         table"
    );
    assert_eq!(
        toml("recipe = 'hybrid'\n[[rules]]\npattern = 'h'"),
        "config:2:1: `rules[0]`: missing field `recipe`; `recipe` may be \"hybrid\", \"E4M3\" or another recipe or \
         format, or a table"
    );
    assert_eq!(
        json(r#"{"recipe": "hybrid", "rules": [{"recipe": "E4M3"}]}"#),
        "config:1:49: `rules[0]`: missing field `pattern`; `pattern` may be \"h.0\", \"h.*.mlp\", \"**.c_attn\" or \
         another path"
    );
    assert_eq!(
        toml("[recipe]\nactivations = 'E4M3'"),
        "config:1:1: `recipe`: a recipe needs `weights`, or a `base` that has them such as \"hybrid\" or \"E4M3\""
    );
    assert_eq!(
        toml("[recipe.weights]\ngranularity = 'per_row'"),
        "config:1:1: `recipe.weights`: missing field `format`; `format` may be \"E4M3\", \"E5M2\" or another format"
    );
}

#[test]
fn invalid_values() {
    assert_eq!(
        toml("recipe = 'hybrid'\n[[rules]]\npattern = 'h..attn'\nrecipe = 'E4M3'"),
        "config:3:11: `rules[0].pattern`: rule `h..attn` is not a pattern: it has an empty segment; write one dot \
         between segments and none at the ends"
    );
    assert_eq!(
        toml("[recipe]\nbase = 'hybrid'\ngradients = { format = 'E4M3', scaling = { window = { len = 0 } } }"),
        "config:3:13: `recipe.gradients`: invalid quantizer: a window of length 0 has no amax to scale by; \
         use `Scaling::Window { len: 1 }` or more, or `Scaling::Current`"
    );
    let contradiction = "invalid quantizer: Window { len: 16 } scaling is for one scale a tensor, \
                         but the granularity is PerRow; use `Scaling::Current`";
    assert_eq!(
        toml(
            "recipe = 'hybrid'\n[[rules]]\npattern = 'h'\n[rules.recipe.weights]\n\
             format = 'E4M3'\ngranularity = 'per_row'\nscaling.window.len = 16"
        ),
        format!("config:4:1: `rules[0].recipe.weights`: {contradiction}")
    );
    assert_eq!(
        json(
            r#"{"recipe": {"weights":
              {"format": "E4M3", "granularity": "per_row", "scaling": {"window": {"len": 16}}}}}"#
        ),
        format!("config:2:94: `recipe.weights`: {contradiction}")
    );
    assert_eq!(
        toml("recipe.weights = { format = 'E4M3', scaling = { static = 0 } }"),
        "config:1:18: `recipe.weights`: a scale must be a positive finite number, this one is 0"
    );
}

#[test]
fn bad_syntax() {
    assert_eq!(
        toml("recipe = 'hybrid'\nrules = [{ pattern = 'h'"),
        "config:2:25: this is not TOML: unclosed inline table, expected `}`"
    );
    // Columns are characters.
    assert_eq!(
        toml("recipe = 'é' oops"),
        "config:1:14: this is not TOML: unexpected key or value, expected newline, `#`"
    );
    assert_eq!(toml("recipe = 'hybrid'\nrecipe = 'E4M3'"), "config:2:1: this is not TOML: duplicate key");
    assert_eq!(json("{\n  \"recipe\": hybrid\n}"), "config:2:13: this is not JSON: expected value");
    assert_eq!(json("{\"é\": \"é\" 1}"), "config:1:11: this is not JSON: expected `,` or `}`");
    assert_eq!(json(""), "config:1:1: this is not JSON: EOF while parsing a value");
    assert_eq!(json("{\"recipe\": \"E4M3\"}}"), "config:1:19: this is not JSON: trailing characters");
    assert_eq!(json(r#"{"recipe": "hybrid", "recipe": "E4M3"}"#), "config:1:29: duplicate field `recipe`");
}

#[test]
fn files() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("experiment.toml");
    fs::write(&file, "# The first.\r\nrecipe = 'hybird'\r\n").unwrap();
    let error = QuantConfig::from_file(&file).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}:2:10: `recipe`: `hybird` {RECIPES}; did you mean `hybrid`?", file.display())
    );
    let Error::Config(ConfigError::Invalid { file: Some(path), position: Some((2, 10)), field, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!((path, field.as_str()), (file, "recipe"));

    let missing = directory.path().join("missing.json");
    let error = QuantConfig::from_file(&missing).unwrap_err();
    let source = error.source().unwrap().to_string();
    assert_eq!(error.to_string(), format!("cannot read the config `{}`: {source}", missing.display()));

    for name in ["experiment.yaml", "experiment", ".toml"] {
        assert_eq!(
            QuantConfig::from_file(name).unwrap_err().to_string(),
            format!("cannot tell the syntax of the config `{name}` by its extension; name it `.toml` or `.json`")
        );
    }
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let rows = Quantizer::new(Fp8::E4M3).granularity(Granularity::PerRow).scaling(Scaling::Static(1.0));
    let nan = Quantizer::new(Fp8::E4M3).scaling(Scaling::Static(f32::NAN));
    for (config, message) in [
        (
            QuantConfig::new(nan.clone()),
            "config: `recipe`: weights: a scale must be a positive finite number, this one is NaN",
        ),
        (
            QuantConfig::new(Fp8::E4M3).rule("h", None).rule("g", Recipe::from(Fp8::E4M3).gradients(rows)),
            "config: `rules[1].recipe`: gradients: invalid quantizer: Static(1.0) scaling is for one scale a tensor, \
             but the granularity is PerRow; use `Scaling::Current`",
        ),
        (
            QuantConfig::new(Fp8::E4M3).skip("h."),
            "config: `rules[0].pattern`: rule `h.` is not a pattern: it has an empty segment; write one dot between \
             segments and none at the ends",
        ),
    ] {
        assert_eq!(config.to_toml().unwrap_err().to_string(), message);
        assert_eq!(config.to_json().unwrap_err().to_string(), message);
    }
}
