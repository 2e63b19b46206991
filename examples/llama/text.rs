//! Text to tokens and back.

use std::path::Path;

use anyhow::{Error, Result};
use tokenizers::Tokenizer;

/// The tokenizer of a hub folder.
pub(crate) struct Text(Tokenizer);

impl Text {
    pub(crate) fn of_folder(folder: &Path) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&file).map_err(Error::from_boxed);
        Ok(Self(tokenizer.map_err(|error| error.context(format!("cannot read `{}`", file.display())))?))
    }

    /// The tokens of a text, after those that the tokenizer begins every text with.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.0.encode(text, true).map_err(Error::from_boxed)?.get_ids().to_vec())
    }

    /// What each of the tokens adds to a text. A character of several tokens comes with the last of them.
    pub(crate) fn stream(&self) -> impl FnMut(u32) -> Result<String> + '_ {
        let mut stream = self.0.decode_stream(true);
        move |token| Ok(stream.step(token).map_err(Error::from_boxed)?.unwrap_or_default())
    }
}
