//! What the name of a tensor tells, where there is nothing else to go by.

/// The path of the layer whose weight a tensor of this name is, if it is that of one.
pub(crate) fn layer_of_weight(name: &str) -> Option<&str> {
    if name == "weight" { Some("") } else { name.strip_suffix(".weight") }
}

/// Whether the last segment of a path is a usual name of an embedding, of tokens or of positions, those of T5 among them.
pub(crate) fn looks_like_embedding(path: &str) -> bool {
    let segment = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    let is_sign = |word: &str| {
        matches!(word, "wte" | "wpe" | "emb" | "embs" | "embd" | "pos")
            || word.starts_with("embed")
            || word.starts_with("position")
    };
    matches!(&*segment, "shared" | "relative_attention_bias") || segment.split(['_', '-']).any(is_sign)
}

#[cfg(test)]
mod tests {
    use super::looks_like_embedding;

    #[test]
    fn embeddings_are_told_by_the_last_segment() {
        // Paths of models in candle-transformers, and of checkpoints that others read.
        for path in [
            "transformer.wte",
            "transformer.wpe",
            "wte",
            "shared",
            "encoder.embed_tokens",
            "model.decoder.embed_positions",
            "audio_tower.embed_positions",
            "embeddings.position_embedding",
            "bert.embeddings.word_embeddings",
            "model.embeddings.tok_embeddings",
            "blocks.0.ffn.s_emb",
            "blocks.0.qkv.k_emb_x",
            "pos_embed",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        ] {
            assert!(looks_like_embedding(path), "{path}");
        }
        for path in [
            "",
            "lm_head",
            "head",
            "cls.predictions.decoder",
            "model.layers.0.mlp.gate",
            "model.layers.0.self_attn.q_proj",
            "embeddings.projection",
            "t_embedder.mlp.0",
            "blocks.0.att.receptance",
            "shared_expert.gate_proj",
            "mid_block.attentions.0.proj_attn",
            "composition",
        ] {
            assert!(!looks_like_embedding(path), "{path}");
        }
    }
}
