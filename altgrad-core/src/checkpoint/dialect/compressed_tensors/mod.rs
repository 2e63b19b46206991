//! The dialect of compressed-tensors: `weight_scale`, and groups of layers with their schemes in `config.json`.

mod layout;
mod scheme;

use fancy_regex::Regex;
use serde_json::Value;

use self::layout::MX_INPUTS;
use super::facts::{Facts, Holds, Name, Names, Write};
use super::pair::{Pairing, input_scale};
use super::tensors::DialectTensors;
use super::tensors::layer_of;
use crate::checkpoint::config::{Configs, Section, is_listed};
use crate::checkpoint::shards::Shards;
use crate::checkpoint::stored::{Stored, StoredActivations};
use crate::quantizer::{Granularity, Quantizer, ScaleEncoding, Scaling};
use crate::{ConfigError, Error, Fp8, Result};
use layout::{config, layout};
use scheme::{Args, Config, Dynamic, Group, preset};

pub(super) const FACTS: Facts = Facts {
    name: "compressed-tensors",
    methods: &["compressed-tensors"],
    names: Names {
        scales: &[Name::After("_scale")],
        further_scales: &[],
        inputs: &[Name::Beside("input_scale")],
        others: &[
            Name::Beside("weight_zero_point"),
            Name::Beside("input_zero_point"),
            Name::Beside("output_scale"),
            Name::Beside("weight_shape"),
        ],
    },
    read,
    write: Some(Write {
        layout,
        config,
        repertoire: "; it has E4M3 weights per tensor, row or whole block, with inputs in full precision, or in E4M3 \
                     with dynamic or static scales",
    }),
    holds: Holds::LanguageModels,
};

/// Weights with their `weight_scale`. If a model was saved uncompressed, its weights are in full precision and are read
/// as they are.
fn read(shards: &Shards, configs: &Configs) -> Result<DialectTensors> {
    let section = configs.quantization.as_ref();
    let known = section.map(groups).transpose()?.unwrap_or_default();
    let (groups, ignored) = (Groups::new(shards, &known.groups, section)?, known.ignore);
    // In an uncompressed model, weights are in full precision, and scales lie beside them.
    let is_uncompressed = section.is_some_and(|section| {
        section.text("format") == Some("dense")
            || section.text("quantization_status").is_some_and(|status| status != "compressed")
    });
    let describe = |codes: &str, scales: &str| {
        let group = groups.of(layer_of(codes));
        let weights = group.and_then(|group| group.weights.as_ref());
        let mut stored = Stored::new(shards, codes, Some(scales), weights.and_then(Args::block))?;
        stored.activations = match group.and_then(|group| group.input_activations.as_ref()) {
            Some(args) => Some(activations(shards, codes, args)?),
            None => None,
        };
        Ok(stored)
    };
    let is_plain = |layer: &str| is_listed(ignored.as_deref(), layer);
    let pairing = Pairing {
        names: &FACTS.names,
        is_plain: &is_plain,
        keeps_full_precision: is_uncompressed,
        describe: &describe,
    };
    pairing.find(shards)
}

/// The groups of a configuration, and the layers that are in none.
#[derive(Default)]
struct Known {
    groups: Vec<(String, Group)>,
    ignore: Option<Vec<String>>,
}

/// The groups of a configuration with their names. Fails if the weights of a group are not FP8.
fn groups(section: &Section) -> Result<Known> {
    let read = |(name, group): (String, Value)| {
        let group = if group.is_array() {
            preset(&name, &group).ok_or_else(|| {
                section.invalid(format!("the scheme `{name}` is not FP8, FP8_DYNAMIC, FP8_BLOCK, MXFP8 or MXFP8A16"))
            })?
        } else {
            group
        };
        let group: Group = section.parse_part(&format!("config_groups.{name}"), &group)?;
        // Whatever is stored in place of FP8 codes would be misread.
        if let Some(Err(why)) = group.weights.as_ref().map(Args::check) {
            return Err(section.invalid(format!("altgrad does not read the weights of `{name}`: {why}")));
        }
        Ok((name, group))
    };
    let Config { config_groups, ignore } = section.parse::<Config>()?;
    Ok(Known { groups: config_groups.into_iter().map(read).collect::<Result<_>>()?, ignore })
}

/// The groups by their targets, in order of precedence (compressed-tensors, `match_targets`): the name of a layer; a
/// regular expression over names, the first in alphabetical order; and a class of modules.
///
/// Tensors do not reveal the classes of their modules. All weights with codes are assumed to be of the class `Linear`
/// or, if no group targets that, of the first class that a group targets, such as one of fused experts. The input of a
/// layer without a group stays in full precision.
#[derive(Default)]
struct Groups<'c> {
    named: Vec<(&'c str, &'c Group)>,
    patterns: Vec<(&'c str, Regex, &'c Group)>,
    class: Option<&'c Group>,
}

/// The class of nearly all layers that are quantized.
const LINEAR: &str = "Linear";

impl<'c> Groups<'c> {
    fn new(shards: &Shards, known: &'c [(String, Group)], section: Option<&Section>) -> Result<Self> {
        let mut groups = Self::default();
        for (name, group) in known {
            for target in &group.targets {
                let Some(pattern) = target.strip_prefix("re:") else {
                    groups.named.push((target, group));
                    let is_class = !target.contains('.') && !shards.contains(&format!("{target}.weight"));
                    if is_class && (groups.class.is_none() || target == LINEAR) {
                        groups.class = Some(group);
                    }
                    continue;
                };
                // Python's `re.match` matches only at the beginning.
                let pattern = Regex::new(&format!("^(?:{pattern})")).map_err(|error| {
                    let why = format!("the target `{target}` of `{name}` is not a regular expression: {error}");
                    match section {
                        Some(section) => section.invalid(why),
                        None => Error::Config(ConfigError::InvalidPattern { pattern: target.clone(), why }),
                    }
                })?;
                groups.patterns.push((target, pattern, group));
            }
        }
        groups.patterns.sort_by_key(|(target, ..)| *target);
        Ok(groups)
    }

    fn of(&self, layer: &str) -> Option<&'c Group> {
        let named = self.named.iter().find(|(name, _)| *name == layer).map(|(_, group)| *group);
        // Matching fails with an error if a pattern would take too long.
        let is_match = |pattern: &Regex| pattern.is_match(layer).unwrap_or(false);
        let matched = || self.patterns.iter().find(|(_, pattern, _)| is_match(pattern)).map(|(.., group)| *group);
        named.or_else(matched).or(self.class)
    }
}

fn activations(shards: &Shards, codes: &str, args: &Args) -> Result<StoredActivations> {
    args.check().map_err(|why| {
        shards.invalid(codes, format!("has inputs that are quantized in a way that altgrad does not read: {why}"))
    })?;
    match args.dynamic {
        Dynamic::Always(true) => {}
        Dynamic::Always(false) => {
            return Ok(StoredActivations::Static(Fp8::E4M3, input_scale(shards, &FACTS.names, codes)?));
        }
        Dynamic::Other(ref word) => {
            return Err(
                shards.invalid(codes, format!("has inputs with `dynamic` `{word}`, which altgrad does not read"))
            );
        }
    }
    let granularity = match (args.strategy.as_deref(), args.block()) {
        (Some("token" | "channel"), _) => Granularity::PerRow,
        (Some("group") | None, Some([rows, cols])) => Granularity::PerBlock { rows, cols },
        (Some("tensor") | None, _) => Granularity::PerTensor,
        (Some(strategy), _) => {
            let why = format!("has inputs quantized by the strategy `{strategy}`, which altgrad does not read");
            return Err(shards.invalid(codes, why));
        }
    };
    let encoding = if args.is_mx() { MX_INPUTS } else { ScaleEncoding::F32 };
    let quantizer = Quantizer::new(Fp8::E4M3).granularity(granularity).scaling(Scaling::Current);
    Ok(StoredActivations::Dynamic(quantizer.scale_encoding(encoding)))
}
