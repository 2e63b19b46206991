//! The attributes of fields and of types, in every form in which they may be written.

use altgrad::{Fp8, Linear, Quantizable, Quantizer, Recipe, Scaling, Specials};

use super::{assert_seen, layer};

#[derive(Quantizable)]
struct Mlp {
    up: Linear,
    down: Linear,
}

fn mlp() -> Mlp {
    Mlp { up: layer(), down: layer() }
}

#[test]
fn skip() {
    #[derive(Quantizable)]
    struct Model {
        #[quant(skip)]
        head: Linear,
        #[quant(skip)]
        blocks: Vec<Mlp>,
        tail: Linear,
    }

    let model = Model { head: layer(), blocks: vec![mlp()], tail: layer() };
    assert_seen(model, ["head!", "blocks.0.up!", "blocks.0.down!", "tail"]);
}

/// An ignored field may be of any type, and layers in it are not seen.
#[test]
fn ignore() {
    struct Tokenizer;
    #[derive(Quantizable)]
    struct Model<'a> {
        #[quant(ignore)]
        tokenizer: Tokenizer,
        #[quant(ignore)]
        hidden: Linear,
        #[quant(ignore)]
        pointer: *const Linear,
        #[quant(ignore)]
        function: fn(&Linear) -> Box<dyn Fn()>,
        #[quant(ignore)]
        shared: std::sync::Arc<dyn candle_core::Module>,
        #[quant(ignore)]
        cell: std::cell::RefCell<&'a mut [Linear]>,
        seen: Linear,
    }

    let model = Model {
        tokenizer: Tokenizer,
        hidden: layer(),
        pointer: std::ptr::null(),
        function: |_| Box::new(|| ()),
        shared: std::sync::Arc::new(layer()),
        cell: std::cell::RefCell::new(&mut []),
        seen: layer(),
    };
    assert_seen(model, ["seen"]);
}

#[test]
fn rename() {
    #[derive(Quantizable)]
    struct Model {
        #[quant(rename = "h")]
        blocks: Vec<Mlp>,
        #[quant(rename = "model.layers.0")]
        deep: Linear,
        #[quant(rename = r#"raw-"name""#)]
        raw: Linear,
        #[quant(rename = "\u{e9}")]
        escaped: Linear,
        #[quant(rename = "down")]
        up: Linear,
        #[quant(rename = "up")]
        down: Linear,
    }
    #[derive(Quantizable)]
    struct Tuple(#[quant(rename = "1")] Linear, #[quant(rename = "0")] Linear);
    #[derive(Quantizable)]
    struct Newtype(#[quant(rename = "model")] Mlp);

    let model =
        Model { blocks: vec![mlp()], deep: layer(), raw: layer(), escaped: layer(), up: layer(), down: layer() };
    assert_seen(model, ["h.0.up", "h.0.down", "model.layers.0", "raw-\"name\"", "é", "down", "up"]);
    assert_seen(Tuple(layer(), layer()), ["1", "0"]);
    assert_seen(Newtype(mlp()), ["model.up", "model.down"]);
}

#[test]
fn flatten() {
    #[derive(Quantizable)]
    struct Model {
        #[quant(flatten)]
        mlp: Mlp,
        #[quant(flatten)]
        blocks: Vec<Linear>,
        #[quant(flatten)]
        choice: Choice,
    }
    #[derive(Quantizable)]
    enum Choice {
        A(#[quant(flatten)] Tail, Linear),
    }
    #[derive(Quantizable)]
    struct Tail {
        tail: Linear,
    }

    let choice = Choice::A(Tail { tail: layer() }, layer());
    let model = Model { mlp: mlp(), blocks: vec![layer(), layer(), layer()], choice };
    assert_seen(model, ["up", "down", "0", "1", "2", "tail", "1"]);
}

static STATIC: Fp8 = Fp8::E3M4;

mod recipes {
    use altgrad::{Fp8, Recipe};

    pub(super) const CONSTANT: Fp8 = Fp8::E5M2;

    pub(super) fn generic<T: Into<Recipe>>(recipe: T) -> Recipe {
        recipe.into()
    }
}

/// A type of the user's own that says how it becomes a recipe.
struct Preset {
    bits: u8,
}

impl From<Preset> for Recipe {
    fn from(preset: Preset) -> Self {
        Self::weight_only(if preset.bits == 4 { Fp8::E3M4 } else { Fp8::E5M2 })
    }
}

#[test]
fn recipes_of_every_kind_of_expression() {
    macro_rules! format {
        ($bits:literal) => {
            if $bits == 4 { Fp8::E3M4 } else { Fp8::E5M2 }
        };
    }
    #[derive(Quantizable)]
    struct Model {
        #[quant(recipe = Fp8::E4M3)]
        format: Linear,
        #[quant(recipe = Quantizer::new(Fp8::E4M3).scaling(Scaling::Current))]
        quantizer: Linear,
        #[quant(recipe = Recipe::weight_only(Fp8::E2M5))]
        recipe: Linear,
        #[quant(recipe = recipes::CONSTANT)]
        constant: Linear,
        #[quant(recipe = STATIC)]
        from_static: Linear,
        #[quant(recipe = recipes::generic::<Fp8>(recipes::CONSTANT))]
        turbofish: Linear,
        #[quant(recipe = Preset { bits: 4 })]
        of_ones_own: Linear,
        #[quant(recipe = match 1 + 1 { 2 => Fp8::E3M4, _ => Fp8::E5M2 })]
        matched: Linear,
        #[quant(recipe = format!(4))]
        by_macro: Linear,
        #[quant(recipe = [Fp8::E6M1].map(|format| format)[0])]
        closure: Linear,
        #[quant(recipe = [Fp8::E7M0, Fp8::E3M4][0])]
        indexed: Linear,
        #[quant(recipe = "E4M3_FNUZ".parse::<Fp8>().unwrap_or(Fp8::E3M4))]
        parsed: Linear,
        #[quant(recipe = Fp8::new(4, 3, 7, Specials::NanOnly)?)]
        fallible: Linear,
    }

    let model = Model {
        format: layer(),
        quantizer: layer(),
        recipe: layer(),
        constant: layer(),
        from_static: layer(),
        turbofish: layer(),
        of_ones_own: layer(),
        matched: layer(),
        by_macro: layer(),
        closure: layer(),
        indexed: layer(),
        parsed: layer(),
        fallible: layer(),
    };
    let expected = [
        "format@E4M3",
        "quantizer@E4M3",
        "recipe@E2M5",
        "constant@E5M2",
        "from_static@E3M4",
        "turbofish@E5M2",
        "of_ones_own@E3M4",
        "matched@E3M4",
        "by_macro@E3M4",
        "closure@E6M1",
        "indexed@E7M0",
        "parsed@E4M3_FNUZ",
        "fallible@E4M3",
    ];
    assert_seen(model, expected);
}

/// The inner recipe is the nearer one; a skip stays.
#[test]
fn inherited() {
    #[derive(Quantizable)]
    struct Block {
        #[quant(recipe = Fp8::E3M4)]
        near: Linear,
        far: Linear,
        #[quant(skip)]
        skipped: Mlp,
    }
    #[derive(Quantizable)]
    struct Model {
        #[quant(recipe = Fp8::E5M2)]
        block: Block,
        #[quant(skip)]
        other: Option<Block>,
    }

    let block = || Block { near: layer(), far: layer(), skipped: mlp() };
    let expected = [
        "block.near@E3M4",
        "block.far@E5M2",
        "block.skipped.up!@E5M2",
        "block.skipped.down!@E5M2",
        "other.near!@E3M4",
        "other.far!",
        "other.skipped.up!",
        "other.skipped.down!",
    ];
    assert_seen(Model { block: block(), other: Some(block()) }, expected);
}

/// In one list or in several, with other delimiters, with a comma at the end, on fields of every shape.
#[test]
fn spellings() {
    #[derive(Quantizable)]
    #[quant(crate = ::altgrad,)]
    #[quant(bound = "T: Quantizable")]
    struct Model<T> {
        #[quant(skip, rename = "a.b")]
        one_list: Linear,
        #[quant(skip)]
        #[doc = "between"]
        #[quant(rename = "c")]
        two_lists: Linear,
        #[quant{recipe = Fp8::E3M4, flatten}]
        braces: T,
        #[quant[skip]]
        brackets: Linear,
    }
    #[derive(Quantizable)]
    enum Choice {
        Newtype(#[quant(skip)] Linear),
        Tuple(#[quant(rename = "x")] Linear, #[quant(recipe = Fp8::E3M4)] Linear),
        Named {
            #[quant(flatten)]
            mlp: Mlp,
            #[quant(skip, rename = "tail")]
            last: Linear,
        },
    }

    let model = Model { one_list: layer(), two_lists: layer(), braces: mlp(), brackets: layer() };
    assert_seen(model, ["a.b!", "c!", "up@E3M4", "down@E3M4", "brackets!"]);
    assert_seen(Choice::Newtype(layer()), ["!"]);
    assert_seen(Choice::Tuple(layer(), layer()), ["x", "1@E3M4"]);
    assert_seen(Choice::Named { mlp: mlp(), last: layer() }, ["up", "down", "tail!"]);
}

/// Attributes of other derives and tools do not disturb.
#[test]
fn beside_other_derives() {
    #[derive(serde::Serialize, Quantizable, Default)]
    #[serde(rename_all = "UPPERCASE", bound = "T: serde::Serialize")]
    struct Config<T> {
        #[serde(skip)]
        #[quant(rename = "x")]
        layer: Option<Linear>,
        #[quant(ignore)]
        #[serde(rename = "Y")]
        value: T,
    }

    let config = Config { layer: Some(layer()), value: 3_u8 };
    assert_eq!(serde_json::to_string(&config).unwrap(), r#"{"Y":3}"#);
    assert_seen(config, ["x"]);
}

#[test]
#[allow(deprecated)]
fn deprecated_parts() {
    #[deprecated = "use another one"]
    #[derive(Quantizable)]
    struct Old {
        #[deprecated(note = "use `new`")]
        old: Linear,
        new: Linear,
    }
    #[derive(Quantizable)]
    enum Choice {
        #[deprecated]
        Old(Linear),
        New(#[deprecated] Linear, Linear),
    }

    assert_seen(Old { old: layer(), new: layer() }, ["old", "new"]);
    assert_seen(Choice::Old(layer()), [""]);
    assert_seen(Choice::New(layer(), layer()), ["0", "1"]);
}
