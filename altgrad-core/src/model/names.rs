//! Guesses what a tensor is by its name, if there is nothing else to go by.

/// The path of the layer whose weight has this name; `None` if it is not the name of a weight.
pub(crate) fn layer_of_weight(name: &str) -> Option<&str> {
    if name == "weight" { Some("") } else { name.strip_suffix(".weight") }
}

/// Whether the last segment of a path is a usual name of an embedding of tokens or positions, including the names that
/// T5 uses.
pub(crate) fn looks_like_embedding(path: &str) -> bool {
    let segment = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    let is_sign = |word: &str| {
        matches!(word, "wte" | "wpe" | "emb" | "embs" | "embd" | "pos")
            || word.starts_with("embed")
            || word.starts_with("position")
    };
    matches!(&*segment, "shared" | "relative_attention_bias") || segment.split(['_', '-']).any(is_sign)
}

/// Whether the last segments of a path are usual names of a router: a small layer that chooses among experts, and that
/// loses most by quantization.
pub(crate) fn looks_like_router(path: &str) -> bool {
    let mut segments = path.rsplit('.').map(str::to_ascii_lowercase);
    let last = segments.next().unwrap_or_default();
    let parent = segments.next().unwrap_or_default();
    matches!(&*last, "gate" | "router" | "shared_expert_gate" | "shared_experts_gate" | "wg" | "gating_network")
        || matches!(&*parent, "router" | "gate" | "moe_gate")
        || last.ends_with("_router")
        || last.starts_with("router_")
}

/// Compares two paths, with numeric segments as numbers: `layers.2` comes before `layers.10`.
pub(crate) fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    let key = |segment: &str| (segment.parse::<u64>().unwrap_or(u64::MAX), segment.to_owned());
    a.split('.').map(key).cmp(b.split('.').map(key)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::{looks_like_embedding, looks_like_router, natural_order};

    #[test]
    fn routers_are_told_by_the_last_segments() {
        for path in [
            "model.layers.0.mlp.gate",
            "model.layers.0.block_sparse_moe.gate",
            "model.layers.0.mlp.shared_expert_gate",
            "language_model.layers.0.feed_forward.router",
            "transformer.blocks.0.ffn.router.layer",
            "encoder.block.0.mlp.router.classifier",
            "model.layers.0.mlp.gate.wg",
        ] {
            assert!(looks_like_router(path), "{path}");
        }
        for path in ["model.layers.0.mlp.gate_proj", "mlp.gate_up_proj", "attn.gate_attn", "aggregate", "lm_head", ""] {
            assert!(!looks_like_router(path), "{path}");
        }
    }

    #[test]
    fn numbers_order_as_numbers() {
        let mut paths = ["h.10.a", "h.2.b", "h.2.a", "a", "h", "h.x", "h.2"];
        paths.sort_by(|a, b| natural_order(a, b));
        assert_eq!(paths, ["a", "h", "h.2", "h.2.a", "h.2.b", "h.10.a", "h.x"]);
    }

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
