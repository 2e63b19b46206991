//! What `config.json` of a hub folder says of a model of the LLaMA family.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Which model it is, as transformers names it in `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// LLaMA 1 to 3 and what has their shape, such as `SmolLM`.
    Llama,
    /// Mistral, with or without a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: queries, keys and values have biases.
    Qwen2,
    /// Qwen3: queries and keys are normalized per head.
    Qwen3,
}

impl Family {
    const KNOWN: &str = "llama, mistral, qwen2 and qwen3";
}

/// The configuration of a model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which model it is.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads of queries.
    pub heads: usize,
    /// Attention heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Number added to the mean of squares in RMS norms.
    pub rms_norm_eps: f64,
    /// How positions become angles.
    pub rope: Rope,
    /// The longest sequence that the model was made for.
    pub max_positions: usize,
    /// Whether the head is the table of the embedding.
    pub tied_head: bool,
    /// Whether the projections of queries, keys and values have biases, and that of attention's output.
    pub attention_bias: (bool, bool),
    /// Whether the MLP's layers have biases.
    pub mlp_bias: bool,
    /// Number of tokens that attention looks back over, if that is limited.
    pub window: Option<NonZeroUsize>,
    /// The tokens that a text ends with.
    pub eos: Vec<u32>,
}

/// How positions become angles: rotary embeddings with a base, and what longer contexts than those of training need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base, `rope_theta`.
    pub theta: f64,
    /// What is done to frequencies.
    pub scaling: RopeScaling,
}

/// What is done to the frequencies of a rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    None,
    /// All are divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low ones are divided by a factor, high ones are kept, and those between are mixed: LLaMA 3.1.
    Llama3 {
        /// The factor of low frequencies.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low: f64,
        /// Turns within the original context above which a frequency is high.
        high: f64,
        /// Tokens of the original context.
        original: f64,
    },
}

/// A token, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Several(Vec<u32>),
}

/// The fields of the file.
#[derive(Debug, Deserialize)]
struct Fields {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeFields>,
    rope_parameters: Option<RopeFields>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: Option<String>,
    sliding_window: Option<NonZeroUsize>,
    use_sliding_window: Option<bool>,
    eos_token_id: Option<TokenIds>,
}

#[derive(Debug, Deserialize)]
struct RopeFields {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Config {
    /// Reads the `config.json` of a folder.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
        Self::from_json(&text).with_context(|| format!("`{}`", file.display()))
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text).context("this is not JSON")?;
        let Some(model_type) = json.get("model_type").and_then(Value::as_str) else {
            bail!("the field `model_type` is missing, which says what model this is");
        };
        let Ok(family) = Family::deserialize(Value::from(model_type)) else {
            bail!("the model type `{model_type}` is not one of {}, which this example has", Family::KNOWN);
        };
        let fields = Fields::deserialize(&json)?;
        if let Some(act) = fields.hidden_act.as_deref()
            && act != "silu"
        {
            bail!("`hidden_act` is `{act}`, but this example has `silu` alone");
        }
        let heads = fields.num_attention_heads;
        let kv_heads = fields.num_key_value_heads.unwrap_or(heads);
        ensure!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "{heads} attention heads cannot share {kv_heads} heads of keys and values"
        );
        let head_dim = fields.head_dim.unwrap_or(fields.hidden_size / heads);
        ensure!(head_dim.is_multiple_of(2), "the width of a head must be even, this one is {head_dim}");
        let is_qwen = matches!(family, Family::Qwen2 | Family::Qwen3);
        ensure!(
            !(is_qwen && fields.use_sliding_window == Some(true)),
            "`use_sliding_window` is true, but this example has no model with a window in only some of its layers"
        );
        Ok(Self {
            family,
            hidden_size: fields.hidden_size,
            intermediate_size: fields.intermediate_size,
            layers: fields.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size: fields.vocab_size,
            rms_norm_eps: fields.rms_norm_eps,
            rope: fields.rope()?,
            max_positions: fields.max_position_embeddings,
            tied_head: fields.tie_word_embeddings,
            attention_bias: match family {
                Family::Qwen2 => (true, false),
                Family::Llama | Family::Qwen3 => (fields.attention_bias, fields.attention_bias),
                Family::Mistral => (false, false),
            },
            mlp_bias: family == Family::Llama && fields.mlp_bias,
            window: fields.sliding_window.filter(|_| family == Family::Mistral),
            eos: fields.eos_token_id.map(TokenIds::all).unwrap_or_default(),
        })
    }
}

impl Fields {
    fn rope(&self) -> Result<Rope> {
        // Older files have `rope_theta` and `rope_scaling`, newer ones both in `rope_parameters`.
        let parameters = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let theta = self.rope_theta.or(parameters.and_then(|parameters| parameters.rope_theta)).unwrap_or(10_000.0);
        let Some(parameters) = parameters else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
        let need =
            |value: Option<f64>, name: &str| value.with_context(|| format!("the rotary embedding has no `{name}`"));
        let scaling = match parameters.rope_type.as_deref() {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: need(parameters.factor, "factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: need(parameters.factor, "factor")?,
                low: need(parameters.low_freq_factor, "low_freq_factor")?,
                high: need(parameters.high_freq_factor, "high_freq_factor")?,
                original: need(parameters.original_max_position_embeddings, "original_max_position_embeddings")?,
            },
            Some(other) => bail!("rotary embeddings of the type `{other}` are not among default, linear and llama3"),
        };
        Ok(Rope { theta, scaling })
    }
}

impl TokenIds {
    /// All of them.
    #[must_use]
    pub fn all(self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![token],
            Self::Several(tokens) => tokens,
        }
    }
}
