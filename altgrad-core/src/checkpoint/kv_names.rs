//! The names of the scales of keys and values in a key-value cache.

/// What a tensor is the scale of.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Keys,
    Values,
    Both,
}

/// The endings of the names of such scales, after the path of the attention layer: vLLM and compressed-tensors, Quark
/// and llm-compressor, ModelOpt, AutoFP8 and older vLLM, TensorRT-LLM.
const ENDINGS: [(&str, Of); 10] = [
    ("k_proj.k_scale", Of::Keys),
    ("v_proj.v_scale", Of::Values),
    ("k_proj.output_scale", Of::Keys),
    ("v_proj.output_scale", Of::Values),
    ("qkv_proj.k_scale", Of::Keys),
    ("qkv_proj.v_scale", Of::Values),
    ("k_scale", Of::Keys),
    ("v_scale", Of::Values),
    ("kv_scale", Of::Both),
    ("kv_cache_scaling_factor", Of::Both),
];

/// The attention layer that a tensor belongs to, and what it is the scale of.
pub(super) fn layer_of(name: &str) -> Option<(&str, Of)> {
    ENDINGS.into_iter().find_map(|(ending, of)| Some((name.strip_suffix(ending)?.strip_suffix('.')?, of)))
}

/// Whether a tensor is a scale of keys or values.
pub(super) fn is_scale(name: &str) -> bool {
    layer_of(name).is_some()
}
