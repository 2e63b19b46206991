//! A LLaMA of candle-transformers that is small enough for tests.

use candle_transformers::models::llama::Config;

/// Two blocks with four linear layers of attention and three others each, and a head of its own.
pub(crate) fn config() -> Config {
    Config {
        hidden_size: 16,
        intermediate_size: 24,
        vocab_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        ..Config::config_7b_v2(false)
    }
}
