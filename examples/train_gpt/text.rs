//! The text: where it comes from, which parts are held out, and batches of it.

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use ignore::WalkBuilder;
use rand::RngExt;
use rand::rngs::StdRng;

/// The maximum number of windows of held-out text that are evaluated.
const VALIDATION_WINDOWS: usize = 512;

/// Maximum length of the prompt in bytes.
const PROMPT: usize = 64;

/// A text as bytes, of which every tenth part is held out: nine parts to train on, one to evaluate on, and so on.
///
/// The usual choice, the end of the text, would be all tests here, and not representative of the rest.
pub(crate) struct Text {
    source: String,
    bytes: Vec<u8>,
    context: usize,
    training: Vec<Range<usize>>,
    held_out: Vec<Range<usize>>,
}

impl Text {
    pub(crate) fn from_file(file: &Path, context: usize) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read {}; --text takes a UTF-8 file", file.display()))?;
        Self::new(file.display().to_string(), text.into_bytes(), context)
    }

    /// The sources and docs of this repository, in the order of their paths.
    pub(crate) fn from_repository(context: usize) -> Result<Self> {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let advice = || format!("looking for sources and docs in {}; --text takes a file instead", root.display());
        // Only the repository's own ignore rules apply, so that the files are the same wherever it lies.
        let mut walk = WalkBuilder::new(root);
        walk.standard_filters(false).hidden(true).git_ignore(true).require_git(false);
        let mut files = Vec::new();
        for entry in walk.build() {
            let path = entry.with_context(advice)?.into_path();
            let wanted = path.extension().is_some_and(|extension| ["rs", "md", "toml"].iter().any(|e| extension == *e));
            if wanted && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        let mut bytes = Vec::new();
        for file in &files {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
            bytes.extend(text.with_context(advice)?.into_bytes());
        }
        Self::new(format!("{} sources and docs of this repository", files.len()), bytes, context)
    }

    fn new(source: String, bytes: Vec<u8>, context: usize) -> Result<Self> {
        // A window has one byte more than the context: the last one to predict.
        let part = (bytes.len() / 100).max(context + 1);
        let rounds = bytes.len() / (10 * part);
        ensure!(
            rounds > 0,
            "the text ({source}) has {} bytes, too few for a context of {context}: take a text of {} bytes or more, \
             or a smaller --context",
            bytes.len(),
            10 * (context + 1),
        );
        let mut training: Vec<_> = (0..rounds).map(|round| 10 * part * round..10 * part * round + 9 * part).collect();
        let held_out = training.iter().map(|range| range.end..range.end + part).collect();
        let rest = 10 * part * rounds..bytes.len();
        if rest.len() > context {
            training.push(rest);
        }
        Ok(Self { source, bytes, context, training, held_out })
    }

    /// A random batch to train on: `(batch, context)` bytes, and the bytes that follow each of them.
    pub(crate) fn training_batch(&self, batch: usize, rng: &mut StdRng) -> Result<(Tensor, Tensor)> {
        let starts: usize = self.training.iter().map(|range| range.len() - self.context).sum();
        let starts = (0..batch).map(|_| {
            let mut start = rng.random_range(0..starts);
            for range in &self.training {
                let here = range.len() - self.context;
                if start < here {
                    return range.start + start;
                }
                start -= here;
            }
            unreachable!("the start was drawn from all there are")
        });
        self.windows(&starts.collect::<Vec<_>>())
    }

    /// The windows to evaluate on, spread over all held-out parts, in batches like those for training.
    pub(crate) fn validation_batches(&self, batch: usize) -> impl Iterator<Item = Result<(Tensor, Tensor)>> + '_ {
        let all = self.held_out.iter().flat_map(|range| (range.start..range.end - self.context).step_by(self.context));
        let all: Vec<usize> = all.collect();
        let count = all.len().min(VALIDATION_WINDOWS);
        let starts: Vec<usize> = (0..count).map(|i| all[i * all.len() / count]).collect();
        let batches: Vec<Vec<usize>> = starts.chunks(batch).map(<[usize]>::to_vec).collect();
        batches.into_iter().map(|starts| self.windows(&starts))
    }

    fn windows(&self, starts: &[usize]) -> Result<(Tensor, Tensor)> {
        let shape = (starts.len(), self.context);
        let shifted = |by: usize| {
            let windows = starts.iter().flat_map(|start| &self.bytes[start + by..start + by + self.context]);
            Tensor::from_vec(windows.map(|byte| u32::from(*byte)).collect(), shape, &Device::Cpu)
        };
        Ok((shifted(0)?, shifted(1)?))
    }

    /// The beginning of a held-out part; starts at the first full line in it, if there is one.
    pub(crate) fn prompt(&self) -> &[u8] {
        let middle = &self.bytes[self.held_out[self.held_out.len() / 2].clone()];
        let line = middle.iter().position(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let start = if line + self.context.min(PROMPT) <= middle.len() { line } else { 0 };
        &middle[start..][..self.context.min(PROMPT)]
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn training_bytes(&self) -> usize {
        self.training.iter().map(ExactSizeIterator::len).sum()
    }

    pub(crate) fn held_out_bytes(&self) -> usize {
        self.held_out.iter().map(ExactSizeIterator::len).sum()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (training, held_out) = (self.training_bytes(), self.held_out_bytes());
        write!(f, "text: {}, {training} bytes to train on and {held_out} held out", self.source)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn training_never_sees_what_is_held_out() -> Result<()> {
        for length in [90, 99, 100, 9_999, 12_345] {
            let Ok(text) = Text::new("a test".to_owned(), (0..length).map(|i| i as u8).collect(), 8) else {
                assert!(length < 90, "{length}");
                continue;
            };
            let mut seen = vec![0u8; length];
            let mut starts: Vec<_> = text.training.iter().chain(&text.held_out).cloned().collect();
            starts.sort_by_key(|range| range.start);
            starts.into_iter().flatten().for_each(|i| seen[i] += 1);
            assert!(seen.iter().all(|times| *times <= 1));
            text.training_batch(500, &mut StdRng::seed_from_u64(1))?;
            assert!(text.validation_batches(16).count() > 0);
            assert_eq!(text.prompt().len(), 8);
        }
        assert!(Text::new("a test".to_owned(), vec![0; 89], 8).is_err());
        Ok(())
    }
}
