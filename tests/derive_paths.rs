//! The paths of a whole model equal the names that its variables have for `VarBuilder`, in the order of declaration.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use altgrad::visit::{Path, Visit};
use altgrad::{AnySlot, Error, Fp8, Linear, ModelError, Quantizable, linear, linear_no_bias};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Embedding, LayerNorm, VarBuilder, VarMap, embedding, layer_norm};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

#[derive(Quantizable)]
struct Attention {
    #[quant(rename = "q_proj")]
    q: Linear,
    #[quant(rename = "kv.packed")]
    kv: Linear,
    out: Projection,
}

#[derive(Quantizable)]
struct Projection(Linear);

#[derive(Quantizable)]
enum FeedForward {
    Dense(Mlp),
    Experts { gate: Linear, experts: HashMap<String, Mlp>, shared: Option<Mlp> },
    Pair(Linear, Linear),
    Nothing,
}

#[derive(Quantizable)]
struct Mlp {
    up: Linear,
    r#type: candle_nn::Activation,
    down: Linear,
}

#[derive(Quantizable)]
struct Block {
    ln: LayerNorm,
    attn: Attention,
    #[quant(rename = "ffn")]
    feed_forward: FeedForward,
    adapter: Option<Box<Linear>>,
}

/// Its fields come right under the path of whatever holds it.
#[derive(Quantizable)]
struct Heads {
    lm_head: Linear,
    by_language: BTreeMap<&'static str, (Linear, LayerNorm, Linear)>,
}

#[derive(Quantizable)]
struct Gpt<const N: usize> {
    embeddings: Embedding,
    #[quant(rename = "h")]
    blocks: Vec<Block>,
    last: [Linear; N],
    #[quant(ignore)]
    config: Config,
    #[quant(flatten)]
    heads: Heads,
}

struct Config {
    width: usize,
}

impl Attention {
    fn new(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            q: linear(width, width, vb.pp("q_proj"))?,
            kv: linear_no_bias(width, 2 * width, vb.pp("kv").pp("packed"))?,
            out: Projection(linear(width, width, vb.pp("out"))?),
        })
    }
}

impl Mlp {
    fn new(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            up: linear(width, 4 * width, vb.pp("up"))?,
            r#type: candle_nn::Activation::Gelu,
            down: linear_no_bias(4 * width, width, vb.pp("down"))?,
        })
    }
}

impl FeedForward {
    /// Another variant at each depth.
    fn new(depth: usize, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(match depth % 4 {
            0 => Self::Dense(Mlp::new(width, vb)?),
            1 => {
                let expert = |name: &str| Ok((name.to_owned(), Mlp::new(width, &vb.pp("experts").pp(name))?));
                Self::Experts {
                    gate: linear_no_bias(width, 3, vb.pp("gate"))?,
                    experts: ["rust", "math", "10", "9"].into_iter().map(expert).collect::<Result<_>>()?,
                    shared: Some(Mlp::new(width, &vb.pp("shared"))?),
                }
            }
            2 => Self::Pair(linear(width, width, vb.pp(0))?, linear(width, width, vb.pp(1))?),
            _ => Self::Nothing,
        })
    }
}

impl Block {
    fn new(depth: usize, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let adapter = || linear(width, width, vb.pp("adapter")).map(Box::new);
        Ok(Self {
            ln: layer_norm(width, 1e-5, vb.pp("ln"))?,
            attn: Attention::new(width, &vb.pp("attn"))?,
            feed_forward: FeedForward::new(depth, width, &vb.pp("ffn"))?,
            adapter: (depth % 2 == 1).then(adapter).transpose()?,
        })
    }
}

impl Heads {
    fn new(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let head = |language| {
            let vb = vb.pp("by_language").pp(language);
            let first = linear(width, width, vb.pp(0))?;
            Ok((language, (first, layer_norm(width, 1e-5, vb.pp(1))?, linear(width, 10, vb.pp(2))?)))
        };
        Ok(Self {
            lm_head: linear_no_bias(width, 10, vb.pp("lm_head"))?,
            by_language: ["fr", "de"].into_iter().map(head).collect::<Result<_>>()?,
        })
    }
}

impl<const N: usize> Gpt<N> {
    fn new(config: Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.width;
        let last: Vec<Linear> = (0..N).map(|i| linear(width, width, vb.pp("last").pp(i))).collect::<Result<_>>()?;
        Ok(Self {
            embeddings: embedding(10, width, vb.pp("embeddings"))?,
            blocks: (0..4).map(|depth| Block::new(depth, width, &vb.pp("h").pp(depth))).collect::<Result<_>>()?,
            last: last.try_into().unwrap(),
            heads: Heads::new(width, vb)?,
            config,
        })
    }
}

fn gpt() -> (VarMap, Gpt<2>) {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let model = Gpt::new(Config { width: 4 }, &vb).unwrap();
    assert_eq!(model.config.width, 4);
    (variables, model)
}

/// The order in which the fields are declared; maps in the order of their keys.
const PATHS: [&str; 36] = [
    "h.0.attn.q_proj",
    "h.0.attn.kv.packed",
    "h.0.attn.out",
    "h.0.ffn.up",
    "h.0.ffn.down",
    "h.1.attn.q_proj",
    "h.1.attn.kv.packed",
    "h.1.attn.out",
    "h.1.ffn.gate",
    "h.1.ffn.experts.10.up",
    "h.1.ffn.experts.10.down",
    "h.1.ffn.experts.9.up",
    "h.1.ffn.experts.9.down",
    "h.1.ffn.experts.math.up",
    "h.1.ffn.experts.math.down",
    "h.1.ffn.experts.rust.up",
    "h.1.ffn.experts.rust.down",
    "h.1.ffn.shared.up",
    "h.1.ffn.shared.down",
    "h.1.adapter",
    "h.2.attn.q_proj",
    "h.2.attn.kv.packed",
    "h.2.attn.out",
    "h.2.ffn.0",
    "h.2.ffn.1",
    "h.3.attn.q_proj",
    "h.3.attn.kv.packed",
    "h.3.attn.out",
    "h.3.adapter",
    "last.0",
    "last.1",
    "lm_head",
    "by_language.de.0",
    "by_language.de.2",
    "by_language.fr.0",
    "by_language.fr.2",
];

#[test]
fn paths_are_the_names_of_the_variables() {
    let (variables, model) = gpt();
    let variables = variables.data().lock().unwrap();
    // Of the model's variables, those of embeddings and norms belong to no linear layer.
    let is_linear = |name: &&String| {
        !name.starts_with("embeddings.")
            && !name.contains(".ln.")
            && !name.starts_with("by_language.de.1.")
            && !name.starts_with("by_language.fr.1.")
    };
    let expected: BTreeSet<String> = variables.keys().filter(is_linear).cloned().collect();

    let mut actual = BTreeSet::new();
    for (path, layer) in model.layers().unwrap() {
        let weight = format!("{path}.weight");
        assert_eq!(layer.weight().unwrap().id(), variables[&weight].as_tensor().id(), "another tensor at {weight}");
        actual.insert(weight);
        if let Some(tensor) = layer.bias() {
            let bias = format!("{path}.bias");
            assert_eq!(tensor.id(), variables[&bias].as_tensor().id(), "another tensor at {bias}");
            actual.insert(bias);
        }
    }
    assert_eq!(actual, expected);
}

#[test]
fn order_of_declaration() {
    let (_, model) = gpt();
    let paths: Vec<String> = model.layers().unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, PATHS);
}

/// Notes the paths and the addresses of what it sees.
#[derive(Default)]
struct Seen(Vec<(String, *const Linear)>);

impl<'m> altgrad::visit::Visitor<'m> for Seen {
    fn slot(&mut self, path: &Path<'_>, slot: &'m dyn AnySlot) -> altgrad::Result<()> {
        self.0.push((path.to_string(), slot.downcast_ref::<Linear>().unwrap()));
        Ok(())
    }

    fn tensor(&mut self, _: &Path<'_>, _: &'m Tensor) -> altgrad::Result<()> {
        Ok(())
    }
}

impl<'m> altgrad::visit::VisitorMut<'m> for Seen {
    fn slot(&mut self, path: &Path<'_>, slot: &'m mut dyn AnySlot) -> altgrad::Result<()> {
        self.0.push((path.to_string(), slot.downcast_ref::<Linear>().unwrap()));
        Ok(())
    }

    fn tensor(&mut self, _: &Path<'_>, _: &'m Tensor) -> altgrad::Result<()> {
        Ok(())
    }
}

#[test]
fn both_visits_see_the_same_slots() {
    let (_, mut model) = gpt();
    let (mut by_visit, mut by_visit_mut) = (Seen::default(), Seen::default());
    model.visit(&Path::root(), &mut by_visit).unwrap();
    model.visit_mut(&Path::root(), &mut by_visit_mut).unwrap();
    assert_eq!(by_visit.0.len(), PATHS.len());
    assert_eq!(by_visit.0, by_visit_mut.0);
}

/// A part is visited under the path of whatever holds it.
#[test]
fn below_another_root() {
    let (_, model) = gpt();
    let (root, mut seen) = (Path::root(), Seen::default());
    let parent = root.field("model");
    model.heads.visit(&parent, &mut seen).unwrap();
    let paths: Vec<_> = seen.0.into_iter().map(|(path, _)| path).collect();
    let expected = ["lm_head", "by_language.de.0", "by_language.de.2", "by_language.fr.0", "by_language.fr.2"];
    assert_eq!(paths, expected.map(|path| format!("model.{path}")));
}

#[test]
fn an_error_of_the_visitor_ends_the_visit() {
    struct Stops(usize);
    impl<'m> altgrad::visit::Visitor<'m> for Stops {
        fn slot(&mut self, _: &Path<'_>, _: &'m dyn AnySlot) -> altgrad::Result<()> {
            self.0 += 1;
            if self.0 == 10 { Err(Error::Model(ModelError::NoLayers)) } else { Ok(()) }
        }

        fn tensor(&mut self, _: &Path<'_>, _: &'m Tensor) -> altgrad::Result<()> {
            Ok(())
        }
    }
    let (_, model) = gpt();
    let mut visitor = Stops(0);
    assert!(matches!(model.visit(&Path::root(), &mut visitor), Err(Error::Model(ModelError::NoLayers))));
    assert_eq!(visitor.0, 10);
}

fn layer() -> Linear {
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    linear(4, 4, vb).unwrap()
}

fn mlp() -> Mlp {
    Mlp { up: layer(), r#type: candle_nn::Activation::Gelu, down: layer() }
}

#[track_caller]
fn assert_duplicate(mut model: impl Quantizable, expected: &str) {
    let errors =
        [model.layers().unwrap_err(), model.layer("elsewhere").unwrap_err(), model.quantize(Fp8::E4M3).unwrap_err()];
    let text = format!(
        "two layers have the path `{expected}`; paths name layers in rules, reports and checkpoints, so they must \
         differ: rename one with `#[quant(rename = \"…\")]` or remove a `flatten`"
    );
    for error in errors {
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, Error::Model(ModelError::DuplicatePath { path }) if path == expected));
    }
}

/// What the derive cannot see, because the second segment is another type's, is noticed when the model is used.
#[test]
fn paths_that_meet() {
    #[derive(Quantizable)]
    struct Renamed {
        mlp: Mlp,
        #[quant(rename = "mlp.down")]
        other: Linear,
    }
    #[derive(Quantizable)]
    struct Flattened {
        up: Linear,
        #[quant(flatten)]
        mlp: Mlp,
    }
    #[derive(Quantizable)]
    struct Keys {
        #[quant(flatten)]
        map: BTreeMap<&'static str, Linear>,
        layer: Linear,
    }
    assert_duplicate(Renamed { mlp: mlp(), other: layer() }, "mlp.down");
    assert_duplicate(Flattened { up: layer(), mlp: mlp() }, "up");
    let keys = Keys { map: [("a", layer()), ("layer", layer())].into(), layer: layer() };
    assert_duplicate(keys, "layer");
}

/// Where nothing else is said the report shows nothing but the recipe of the config.
#[test]
fn the_default_is_the_weakest() {
    let (_, mut model) = gpt();
    let report = model.quantize(Fp8::E5M2).unwrap();
    assert_eq!(report.layers.len(), PATHS.len());
    assert!(report.layers.iter().all(|layer| layer.format == Some(Fp8::E5M2)), "{report}");
}
