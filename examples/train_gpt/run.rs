//! The runs: training the model in full precision, under a recipe, or under a config from a file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use altgrad::{QuantConfig, Recipe};
use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// One way to train the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Run {
    /// The name to show.
    #[serde(rename = "recipe")]
    pub(crate) name: String,
    /// How the model is quantized; `None` leaves it in full precision.
    pub(crate) config: Option<QuantConfig>,
    /// What follows "training" in a message.
    #[serde(skip)]
    pub(crate) manner: String,
}

/// The runs of one argument, separated by commas.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Runs(pub(crate) Vec<Run>);

impl Run {
    pub(crate) fn is_full(&self) -> bool {
        self.config.is_none()
    }

    /// Under the config in a TOML or JSON file, whose stem is its name.
    fn from_file(file: &Path) -> Result<Self> {
        let config = QuantConfig::from_file(file).context("reading a --config")?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        // The name is printed to a terminal.
        let name = stem.replace(char::is_control, "\u{fffd}");
        Ok(Self { name, config: Some(config), manner: format!("under --config {}", file.display()) })
    }
}

impl FromStr for Run {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("full") {
            return Ok(Self {
                name: "full precision".to_owned(),
                config: None,
                manner: "in full precision".to_owned(),
            });
        }
        let recipe = text.parse::<Recipe>().map_err(|error| format!("{error}; `full` is full precision"))?;
        // The same name for every spelling of a recipe.
        let named = Recipe::NAMED.iter().find(|(_, named)| named() == recipe);
        let name = named.map_or_else(|| recipe.weights.format.to_string(), |(name, _)| (*name).to_owned());
        Ok(Self { manner: format!("under the recipe {name}"), name, config: Some(recipe.into()) })
    }
}

impl FromStr for Runs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut depth = 0;
        // Commas inside the parentheses of a custom format do not separate runs.
        let separates = |c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        };
        Ok(Self(text.split(separates).map(str::parse).collect::<Result<_, _>>()?))
    }
}

/// All requested runs, each with a unique name: those of `recipes`, then one for each config file.
pub(crate) fn all(recipes: &[Runs], files: &[PathBuf]) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = recipes.iter().flat_map(|runs| runs.0.iter().cloned()).collect();
    for file in files {
        runs.push(Run::from_file(file)?);
    }
    let mut names = HashSet::new();
    for run in &runs {
        ensure!(
            names.insert(&run.name),
            "cannot add a run {}: another one has the name `{}` already; leave one out, or give the config file \
             another name",
            run.manner,
            run.name,
        );
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use altgrad::Fp8;

    use super::*;

    #[test]
    fn formats_recipes_and_full_precision_go_into_one_list() -> Result<(), String> {
        let runs: Runs = "full, E4M3(bias=5, specials=none),e5m2,MXFP8".parse()?;
        let configs: Vec<_> = runs.0.iter().map(|run| run.config.clone()).collect();
        let custom: Fp8 = "E4M3(bias=5, specials=none)".parse().map_err(|error| format!("{error}"))?;
        assert_eq!(configs, [None, Some(custom.into()), Some(Fp8::E5M2.into()), Some(Recipe::mxfp8().into())]);
        let names: Vec<_> = runs.0.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["full precision", "E4M3(bias=5, specials=none)", "E5M2", "mxfp8"]);
        Ok(())
    }

    #[test]
    fn what_is_no_recipe_is_refused() {
        for text in ["", "E9M9", "E4M3,", "E4M3(bias=5", "fast"] {
            assert!(text.parse::<Runs>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_name_is_there_twice() -> Result<()> {
        let runs = |lists: &[&str], files: &[PathBuf]| {
            let lists = lists.iter().map(|list| list.parse()).collect::<Result<Vec<Runs>, String>>();
            all(&lists.map_err(anyhow::Error::msg)?, files)
        };
        assert_eq!(runs(&["full,E4M3", "hybrid"], &[])?.len(), 3);
        for lists in [&["full,Full"][..], &["hybrid", "E4M3,hybrid"], &["e4m3,E4M3(bias=7, specials=nan)"]] {
            assert!(runs(lists, &[]).is_err(), "{lists:?}");
        }

        let folder = tempfile::tempdir()?;
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "recipe = \"E4M3\"\n").map(|()| path)
        };
        let (mine, hybrid) = (file("mine.toml")?, file("hybrid.toml")?);
        assert_eq!(runs(&["hybrid"], std::slice::from_ref(&mine))?[1].name, "mine");
        for files in [&[mine.clone(), mine][..], &[hybrid], &[folder.path().join("none.toml")]] {
            let error = format!("{:#}", runs(&["hybrid"], files).err().context("these runs must be refused")?);
            let last = &files[files.len() - 1];
            assert!(error.contains(&last.display().to_string()), "{error}");
        }
        Ok(())
    }
}
