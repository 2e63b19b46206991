//! Checkpoints as people met them, each kind in a small file with the values that must come out. Codes are 1.0 unless
//! said otherwise, so a value is the scale that was applied.

use std::fs;

use altgrad_core::checkpoint::{Checkpoint, Dialect, KvScales, var_builder};
use altgrad_core::{Granularity, Linear, Scaling, linear_no_bias};
use candle_core::{DType, Device};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor to be written.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Codes of 1.0.
pub(crate) fn ones(name: &str, shape: &[usize]) -> Stored {
    let bytes = vec![0x38; shape.iter().product()];
    Stored { name: name.to_owned(), dtype: Dtype::F8_E4M3, shape: shape.to_vec(), bytes }
}

pub(crate) fn f32s(name: &str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Stored { name: name.to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

pub(crate) fn bf16s(name: &str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
    Stored { name: name.to_owned(), dtype: Dtype::BF16, shape: shape.to_vec(), bytes }
}

pub(crate) fn text(name: &str, text: &str) -> Stored {
    let (shape, bytes) = (vec![text.len()], text.as_bytes().to_vec());
    Stored { name: name.to_owned(), dtype: Dtype::U8, shape, bytes }
}

fn write_file(folder: &TempDir, file: &str, tensors: &[Stored]) {
    let views = tensors.iter().map(|tensor| {
        (tensor.name.clone(), TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
    });
    serialize_to_file(views, None, &folder.path().join(file)).unwrap();
}

pub(crate) fn write(tensors: &[Stored], config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_file(&folder, "model.safetensors", tensors);
    if !config.is_empty() {
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    folder
}

fn open(tensors: &[Stored], quantization: &Value) -> Checkpoint {
    let config =
        if quantization.is_null() { String::new() } else { json!({ "quantization_config": quantization }).to_string() };
    Checkpoint::open(&[write(tensors, &config).path()]).unwrap_or_else(|error| panic!("{error}"))
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.tensor(name, DType::F32, &Device::Cpu).unwrap_or_else(|error| panic!("{error}"));
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn error(checkpoint: &Checkpoint, name: &str) -> String {
    checkpoint.tensor(name, DType::F32, &Device::Cpu).unwrap_err().to_string()
}

/// The scale of each element of matrices of `rows` × `cols` under blocks of a square, the last ones cut off.
fn blocks(scales: &[f32], matrices: usize, rows: usize, cols: usize, side: usize) -> Vec<f32> {
    let (above, beside) = (rows.div_ceil(side), cols.div_ceil(side));
    let of_matrix = |matrix: usize| {
        (0..rows * cols).map(move |at| scales[(matrix * above + at / cols / side) * beside + at % cols / side])
    };
    (0..matrices).flat_map(of_matrix).collect()
}

fn fp8() -> Value {
    json!({ "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128] })
}

const GATE: &str = "model.layers.0.mlp.experts.gate_up_proj";

#[test]
fn the_declared_size_of_blocks_counts_and_the_last_may_be_smaller() {
    let compressed = json!({ "quant_method": "compressed-tensors", "config_groups": { "group_0": {
        "targets": ["Linear"],
        "weights": { "num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128] },
    } } });
    let modelopt = json!({ "quant_method": "modelopt", "quant_algo": "FP8_PB", "group_size": 128 });
    for (config, suffix) in [(fp8(), "_scale_inv"), (compressed, "_scale"), (modelopt, "_scale")] {
        for (rows, scales) in [
            (192, &[1.0, 2.0, 4.0, 8.0][..]),
            (320, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]),
            (256, &[1.0, 2.0, 4.0, 8.0]),
            (100, &[4.0, 2.0]),
        ] {
            let shape = [2, scales.len() / 2, 1];
            let tensors = [ones(GATE, &[2, rows, 128]), f32s(&format!("{GATE}{suffix}"), &shape, scales)];
            let checkpoint = open(&tensors, &config);
            assert_eq!(values(&checkpoint, GATE), blocks(scales, 2, rows, 128, 128), "{suffix} {rows}");
            let declared = &checkpoint.quantized().unwrap()[0];
            assert_eq!(declared.granularity, Granularity::PerBlock { rows: 128, cols: 128 });
        }
        // A grid that the declared size does not give.
        let tensors = [ones(GATE, &[2, 192, 128]), f32s(&format!("{GATE}{suffix}"), &[2, 3, 1], &[1.0; 6])];
        let message = error(&open(&tensors, &config), GATE);
        for part in [GATE, "[2, 3, 1]", "[2, 192, 128]", "128×128"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_size_that_nothing_declares_is_guessed_only_if_it_can_be_no_other() {
    let config = json!({ "quant_method": "fp8", "weight_block_size": null });
    let open = |rows: usize, scales: usize| {
        let scale = f32s("experts.down_proj_scale_inv", &[2, scales, 1], &vec![1.0; 2 * scales]);
        open(&[ones("experts.down_proj", &[2, rows, 128]), scale], &config)
    };
    let message = error(&open(192, 2), "experts.down_proj");
    assert!(message.contains("blocks of 96 to 191 rows and 128 columns"), "{message}");
    // Five of nine rows can only be in twos.
    assert_eq!(values(&open(9, 5), "experts.down_proj").len(), 2 * 9 * 128);
}

#[test]
fn tensorrt_llm() {
    let name = "transformer.layers.0.mlp.fc";
    let tensors = [
        ones(&format!("{name}.weight"), &[2, 2]),
        f32s(&format!("{name}.weights_scaling_factor"), &[1], &[0.5]),
        f32s(&format!("{name}.activation_scaling_factor"), &[1], &[0.25]),
        f32s("transformer.layers.0.attention.kv_cache_scaling_factor", &[1], &[0.125]),
    ];
    let folder = write(&tensors, r#"{"quantization": {"quant_algo": "FP8"}}"#);
    let checkpoint = Checkpoint::open(&[folder.path()]).unwrap();
    assert_eq!(checkpoint.dialect(), Dialect::TensorRtLlm);
    assert_eq!(values(&checkpoint, &format!("{name}.weight")), [0.5; 4]);
    let scaling = checkpoint.quantized().unwrap()[0].activations.as_ref().unwrap().scaling;
    assert_eq!(scaling, Scaling::Static(0.25));
    assert_eq!(checkpoint.quantized().unwrap().len(), 1);
    let kv = checkpoint.kv_scales().unwrap();
    assert_eq!(
        (&kv["transformer.layers.0.attention"].keys, &kv["transformer.layers.0.attention"].values),
        (&vec![0.125], &vec![0.125])
    );
}

#[test]
fn mistral() {
    let tensors =
        [ones("a.weight", &[2, 2]), bf16s("a.qscale_weight", &[], &[0.5]), bf16s("a.qscale_act", &[], &[0.25])];
    let checkpoint = open(&tensors, &Value::Null);
    assert_eq!((checkpoint.dialect(), values(&checkpoint, "a.weight")), (Dialect::Mistral, vec![0.5; 4]));
    assert_eq!(checkpoint.quantized().unwrap()[0].activations.as_ref().unwrap().scaling, Scaling::Static(0.25));
}

#[test]
fn deepseek_v4_and_autofp8() {
    let exponents =
        Stored { name: "a.scale".to_owned(), dtype: Dtype::F8_E8M0, shape: vec![2, 1], bytes: vec![126, 129] };
    let tensors = [ones("a.weight", &[130, 2]), exponents];
    for config in [Value::Null, fp8()] {
        let checkpoint = open(&tensors, &config);
        assert_eq!(checkpoint.dialect(), Dialect::Transformers);
        assert_eq!(values(&checkpoint, "a.weight"), blocks(&[0.5, 4.0], 1, 130, 2, 128));
    }
    let tensors = [ones("a.weight", &[2, 2]), f32s("a.weight_scale", &[], &[0.5]), f32s("a.act_scale", &[], &[0.25])];
    let config = json!({ "quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null });
    let checkpoint = open(&tensors, &config);
    assert_eq!(values(&checkpoint, "a.weight"), [0.5; 4]);
    assert_eq!(checkpoint.quantized().unwrap()[0].activations.as_ref().unwrap().scaling, Scaling::Static(0.25));
}

#[test]
fn a_parameter_that_is_called_scale_is_none() {
    let names = [
        "double_blocks.0.img_attn.norm.key_norm.scale",
        "double_blocks.0.img_attn.qkv.weight",
        "double_blocks.0.img_attn.qkv.bias",
    ];
    let shapes: [&[usize]; 3] = [&[4], &[12, 4], &[12]];
    let tensors: Vec<_> = names.iter().zip(shapes).map(|(name, shape)| ones(name, shape)).collect();
    let checkpoint = open(&tensors, &Value::Null);
    assert_eq!(checkpoint.dialect(), Dialect::Plain);
    for (name, shape) in names.iter().zip(shapes) {
        assert_eq!(values(&checkpoint, name), vec![1.0; shape.iter().product()], "{name}");
    }
}

#[test]
fn comfyui_by_its_old_mark() {
    // Two elements say that inputs are left as they are, none or one that they are not.
    for (elements, is_left) in [(2, true), (0, false), (1, false)] {
        let tensors = [
            ones("scaled_fp8", &[elements]),
            ones("q.weight", &[2, 2]),
            f32s("q.scale_weight", &[1], &[0.5]),
            f32s("q.scale_input", &[1], &[0.25]),
            ones("k.weight", &[2, 2]),
        ];
        let checkpoint = open(&tensors, &Value::Null);
        assert_eq!(checkpoint.dialect(), Dialect::ComfyUi);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["k.weight", "q.weight"]);
        assert_eq!((values(&checkpoint, "q.weight"), values(&checkpoint, "k.weight")), (vec![0.5; 4], vec![1.0; 4]));
        let activations = &checkpoint.quantized().unwrap()[1].activations;
        assert_eq!(
            activations.as_ref().map(|quantizer| quantizer.scaling),
            (!is_left).then_some(Scaling::Static(0.25))
        );
    }
}

#[test]
fn comfyui_by_a_mark_for_each_layer() {
    let tensors = [
        ones("q.weight", &[2, 2]),
        f32s("q.weight_scale", &[], &[0.5]),
        f32s("q.input_scale", &[], &[0.25]),
        text("q.comfy_quant", r#"{"format": "float8_e4m3fn"}"#),
        ones("raw.weight", &[2, 2]),
        ones("four.weight", &[2, 2]),
        f32s("four.weight_scale", &[], &[0.5]),
        text("four.comfy_quant", r#"{"format": "nvfp4"}"#),
        ones("torn.weight", &[2, 2]),
        f32s("torn.weight_scale", &[], &[0.5]),
        text("torn.comfy_quant", r#"{"format": "#),
    ];
    let checkpoint = open(&tensors, &Value::Null);
    assert_eq!((values(&checkpoint, "q.weight"), values(&checkpoint, "raw.weight")), (vec![0.5; 4], vec![1.0; 4]));
    assert!(error(&checkpoint, "four.weight").contains("`nvfp4`"));
    assert!(error(&checkpoint, "torn.weight").contains("`torn.comfy_quant`"));
}

#[test]
fn an_error_of_one_tensor_is_that_of_its_layer_and_of_no_other() {
    let config = json!({ "quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null });
    let mut tensors = Vec::new();
    let inputs: [(&str, &[usize], &[f32]); 4] =
        [("zero", &[], &[0.0]), ("nan", &[], &[f32::NAN]), ("three", &[3], &[0.1; 3]), ("fine", &[], &[0.25])];
    for (name, shape, input) in inputs {
        tensors.push(ones(&format!("m.{name}.weight"), &[4, 4]));
        tensors.push(f32s(&format!("m.{name}.weight_scale"), &[], &[0.5]));
        tensors.push(f32s(&format!("m.{name}.input_scale"), shape, input));
    }
    let folder = write(&tensors, &json!({ "quantization_config": config }).to_string());
    let vb = var_builder(&[folder.path()], DType::F32, &Device::Cpu).unwrap();
    for name in ["zero", "nan", "three"] {
        let message = linear_no_bias(4, 4, vb.pp("m").pp(name)).unwrap_err().to_string();
        for part in [format!("layer `m.{name}`"), format!("`m.{name}.input_scale`")] {
            assert!(message.contains(&part), "{message}");
        }
    }
    assert!(matches!(linear_no_bias(4, 4, vb.pp("m.fine")).unwrap(), Linear::Frozen(_)));
    let contents = Checkpoint::open(&[folder.path()]).unwrap().inspect().unwrap();
    let unreadable: Vec<_> =
        contents.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.unreadable.is_some())).collect();
    let expected =
        [("m.fine.weight", false), ("m.nan.weight", true), ("m.three.weight", true), ("m.zero.weight", true)];
    assert_eq!(unreadable, expected);
    let table = contents.to_string();
    assert!(table.contains("m.zero.weight is unreadable: `m.zero.input_scale` has scale 0"), "{table}");
}

#[test]
fn a_scale_of_zero_over_zeros_is_zero() {
    let mut codes = ones("m.weight", &[256, 2]);
    // Of both signs.
    codes.bytes[256..].fill(0);
    codes.bytes[300] = 0x80;
    let tensors = [codes, f32s("m.weight_scale_inv", &[2, 1], &[0.5, 0.0])];
    let checkpoint = open(&tensors, &fp8());
    assert_eq!(values(&checkpoint, "m.weight"), [[0.5; 256], [0.0; 256]].concat());
    let mut tensors = tensors;
    tensors[0].bytes[511] = 1;
    let message = error(&open(&tensors, &fp8()), "m.weight");
    assert!(message.contains("`m.weight_scale_inv`") && message.contains("not all zeros"), "{message}");
}

#[test]
fn configurations_as_python_writes_them() {
    let tensors = [ones("m.weight", &[2, 2]), f32s("m.weight_scale", &[], &[0.5])];
    let config = r#"{"time_step_limit": [0.0, Infinity, -Infinity, NaN],
                     "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}"#;
    let folder = write(&tensors, config);
    assert_eq!(values(&Checkpoint::open(&[folder.path()]).unwrap(), "m.weight"), [0.5; 4]);
    // Nested where language models nest it.
    let inner = r#""quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}"#;
    for outer in ["text_config", "llm_config", "language_config"] {
        let folder = write(&tensors, &format!(r#"{{"{outer}": {{{inner}}}}}"#));
        assert_eq!(Checkpoint::open(&[folder.path()]).unwrap().dialect(), Dialect::ModelOpt, "{outer}");
    }
    let folder = write(&tensors, &format!(r#"{{"thinker_config": {{"text_config": {{{inner}}}}}}}"#));
    assert_eq!(Checkpoint::open(&[folder.path()]).unwrap().dialect(), Dialect::ModelOpt);
}

#[test]
fn modelopt_in_blocks_by_other_names() {
    let key = "model.layers.0.self_attn.q_proj";
    let tensors = |suffix: &str| {
        [
            ones(&format!("{key}.weight"), &[130, 2]),
            bf16s(&format!("{key}.weight_scale{suffix}"), &[2, 1], &[0.5, 0.25]),
        ]
    };
    let expected = blocks(&[0.5, 0.25], 1, 130, 2, 128);
    for algorithm in ["FP8_PB", "FP8_BLOCK_SCALES", "FP8_PB_WO", "FP8_PB_REAL"] {
        let layer = json!({ key: { "quant_algo": algorithm, "group_size": 128 } });
        for layers in [layer.clone(), json!({ "quantized_layers": layer })] {
            let config =
                json!({ "quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers });
            for suffix in ["", "_inv"] {
                let checkpoint = open(&tensors(suffix), &config);
                assert_eq!(values(&checkpoint, &format!("{key}.weight")), expected, "{algorithm} {suffix}");
            }
        }
    }
}

#[test]
fn of_two_configurations_the_richer_counts() {
    let tensors = [ones("a.weight", &[2, 2]), f32s("a.weight_scale", &[2], &[0.5, 2.0])];
    let layers = json!({ "a": { "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN" } });
    let rich = json!({ "quant_algo": "MIXED_PRECISION", "quantized_layers": layers });
    let poor = json!({ "quant_algo": "MIXED_PRECISION" });
    for (in_config, in_hf) in [(&rich, &poor), (&poor, &rich)] {
        let mut section = in_config.clone();
        section["quant_method"] = "modelopt".into();
        let folder = write(&tensors, &json!({ "quantization_config": section }).to_string());
        let hf = json!({ "quantization": in_hf }).to_string();
        fs::write(folder.path().join("hf_quant_config.json"), hf).unwrap();
        assert_eq!(values(&Checkpoint::open(&[folder.path()]).unwrap(), "a.weight"), [0.5, 0.5, 2.0, 2.0]);
    }
}

#[test]
fn a_scale_one_level_up_is_that_of_all_parts() {
    let above = "model.layers.1.ple.ngram_embedding";
    let tensors = [
        ones(&format!("{above}.shard_0.weight"), &[4, 2]),
        ones(&format!("{above}.shard_1.weight"), &[4, 2]),
        bf16s(&format!("{above}.weight_scale"), &[1], &[0.5]),
        ones("m.weight", &[2, 2]),
        bf16s("m.weight_scale_inv", &[1, 1], &[0.25]),
    ];
    let checkpoint = open(&tensors, &fp8());
    for (name, scale) in [
        (format!("{above}.shard_0.weight"), 0.5),
        (format!("{above}.shard_1.weight"), 0.5),
        ("m.weight".to_owned(), 0.25),
    ] {
        assert!(values(&checkpoint, &name).iter().all(|value| *value == scale), "{name}");
    }
    assert_eq!(checkpoint.names().count(), 3, "the scale is no tensor of its own");
}

#[test]
fn experts_of_llama_4_have_a_scale_for_each_column() {
    let name = "language_model.layers.0.feed_forward.experts.gate_up_proj";
    let scale = f32s(&format!("{name}_scale"), &[2, 1, 3], &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
    let rows = [
        ones("a.weight", &[2, 3]),
        f32s("a.weight_scale", &[2, 1], &[0.5, 2.0]),
        f32s("a.input_scale_ub", &[1], &[1200.0]),
    ];
    let tensors: Vec<Stored> = [ones(name, &[2, 2, 3]), scale].into_iter().chain(rows).collect();
    let checkpoint = open(&tensors, &json!({ "quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0 }));
    let expected: Vec<f32> = [[1.0, 2.0, 4.0]; 2].into_iter().chain([[8.0, 16.0, 32.0]; 2]).flatten().collect();
    assert_eq!(values(&checkpoint, name), expected);
    assert_eq!(values(&checkpoint, "a.weight"), [0.5, 0.5, 0.5, 2.0, 2.0, 2.0]);
    let quantized = checkpoint.quantized().unwrap();
    let inputs = quantized[0].activations.as_ref().unwrap();
    assert_eq!((inputs.granularity, inputs.amax_bound), (Granularity::PerRow, Some(1200.0)));
    assert_eq!(checkpoint.names().count(), 2);
}

#[test]
fn quark_says_it_in_words_of_its_own() {
    let tensors = [
        ones("a.weight", &[2, 2]),
        f32s("a.weight_scale", &[2], &[0.5, 2.0]),
        ones("b.weight", &[2, 2]),
        f32s("b.weight_scale", &[], &[0.5]),
        f32s("b.input_scale", &[], &[0.25]),
        ones("lm_head.weight", &[2, 2]),
    ];
    let spec = |scheme: &str, dynamic: bool| json!({ "dtype": "fp8_e4m3", "qscheme": scheme, "is_dynamic": dynamic });
    let checkpoint = open(
        &tensors,
        &json!({
            "quant_method": "quark",
            "global_quant_config": { "weight": spec("per_channel", false), "input_tensors": spec("per_token", true) },
            "layer_quant_config": {
                "b*": { "weight": spec("per_tensor", false), "input_tensors": spec("per_tensor", false) }
            },
            "exclude": ["lm_head"],
        }),
    );
    assert_eq!(values(&checkpoint, "a.weight"), [0.5, 0.5, 2.0, 2.0]);
    assert_eq!(values(&checkpoint, "b.weight"), [0.5; 4]);
    assert_eq!(values(&checkpoint, "lm_head.weight"), [1.0; 4]);
    let quantized = checkpoint.quantized().unwrap();
    assert_eq!(quantized[0].activations.as_ref().unwrap().granularity, Granularity::PerRow);
    assert_eq!(quantized[1].activations.as_ref().unwrap().scaling, Scaling::Static(0.25));
}

#[test]
fn what_was_saved_uncompressed_is_in_full_precision() {
    let tensors = [bf16s("a.weight", &[2, 2], &[1.5, -2.0, 0.25, 3.0]), f32s("a.weight_scale", &[], &[0.5])];
    for state in [json!({ "quantization_status": "frozen" }), json!({ "format": "dense" })] {
        let mut config = state;
        config["quant_method"] = "compressed-tensors".into();
        let checkpoint = open(&tensors, &config);
        assert_eq!(values(&checkpoint, "a.weight"), [1.5, -2.0, 0.25, 3.0]);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.weight"]);
    }
    let config = json!({ "quant_method": "compressed-tensors", "quantization_status": "compressed" });
    assert!(error(&open(&tensors, &config), "a.weight").contains("`a.weight_scale`"));
}

#[test]
fn a_header_with_null_for_its_own_text_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &2f32.to_le_bytes()].concat();
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    assert_eq!(values(&Checkpoint::open(&[folder.path()]).unwrap(), "a"), [2.0]);
}

#[test]
fn where_a_tensor_is_in_two_shards_the_index_decides() {
    let folder = tempfile::tempdir().unwrap();
    write_file(&folder, "one.safetensors", &[f32s("a", &[1], &[1.0]), f32s("b", &[1], &[1.0])]);
    write_file(&folder, "two.safetensors", &[f32s("a", &[1], &[2.0])]);
    let index =
        json!({ "metadata": { "total_size": 12 }, "weight_map": { "a": "two.safetensors", "b": "one.safetensors" } });
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&[folder.path()]).unwrap();
    assert_eq!((values(&checkpoint, "a"), values(&checkpoint, "b")), (vec![2.0], vec![1.0]));
    // Without an index, nothing does.
    fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    assert!(Checkpoint::open(&[folder.path()]).unwrap_err().to_string().contains("is also in"));
}

#[test]
fn scales_of_keys_and_values_in_all_spellings() {
    let layer = "model.layers.0.self_attn";
    let one = |keys: f32, values: f32| KvScales::new(vec![keys], vec![values]);
    for (keys, values_name, expected) in [
        ("k_scale", "v_scale", one(0.5, 0.25)),
        ("k_proj.k_scale", "v_proj.v_scale", one(0.5, 0.25)),
        ("k_proj.output_scale", "v_proj.output_scale", one(0.5, 0.25)),
        ("qkv_proj.k_scale", "qkv_proj.v_scale", one(0.5, 0.25)),
    ] {
        let tensors = [
            ones(&format!("{layer}.q_proj.weight"), &[2, 2]),
            f32s(&format!("{layer}.q_proj.weight_scale"), &[], &[2.0]),
            f32s(&format!("{layer}.{keys}"), &[1], &[0.5]),
            bf16s(&format!("{layer}.{values_name}"), &[], &[0.25]),
        ];
        let checkpoint = open(&tensors, &json!({ "quant_method": "modelopt", "quant_algo": "FP8" }));
        assert_eq!(checkpoint.kv_scales().unwrap()[layer], expected, "{keys}");
        // Models have parameters of these names that scale something else, so they stay tensors.
        assert_eq!(checkpoint.names().count(), 3);
        assert_eq!(checkpoint.tensor(&format!("{layer}.{keys}"), DType::F32, &Device::Cpu).unwrap().dims(), [1]);
    }
    // One for both, and one for each head.
    let checkpoint = open(&[f32s(&format!("{layer}.kv_scale"), &[], &[0.5])], &Value::Null);
    assert_eq!(checkpoint.kv_scales().unwrap()[layer], one(0.5, 0.5));
    let heads = [
        f32s(&format!("{layer}.k_scale"), &[2, 1, 1], &[0.5, 1.0]),
        f32s(&format!("{layer}.v_scale"), &[], &[f32::NAN]),
    ];
    let checkpoint = open(&heads[..1], &Value::Null);
    assert_eq!(checkpoint.kv_scales().unwrap()[layer], KvScales::new(vec![0.5, 1.0], vec![]));
    let message = open(&heads, &Value::Null).kv_scales().unwrap_err().to_string();
    assert!(message.contains(&format!("`{layer}.v_scale`")), "{message}");
}

#[test]
fn a_file_that_several_dialects_explain_names_them() {
    let tensors = [ones("a.weight", &[2, 2]), f32s("a.weight_scale", &[2, 1], &[0.5, 2.0])];
    let message = Checkpoint::open(&[write(&tensors, "").path()]).unwrap_err().to_string();
    for part in ["`a.weight_scale`", "compressed-tensors", "modelopt", "fbgemm", "quark", "--from"] {
        assert!(message.contains(part), "{message}");
    }
    for dialect in
        [Dialect::CompressedTensors, Dialect::Fbgemm, Dialect::Quark, Dialect::Transformers, Dialect::ComfyUi]
    {
        let checkpoint = Checkpoint::open_as(&[write(&tensors, "").path()], dialect).unwrap();
        assert_eq!(values(&checkpoint, "a.weight"), [0.5, 0.5, 2.0, 2.0], "{dialect}");
    }
}
