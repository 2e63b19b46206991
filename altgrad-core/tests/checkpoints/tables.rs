//! Random tables of codes and scales in the spelling of each dialect, against arithmetic in the test.

use altgrad_core::checkpoint::{Checkpoint, Dialect};
use candle_core::{DType, Device};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};

/// Which codes share a scale.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Tensor,
    Rows,
    /// Rows and columns.
    Blocks(usize, usize),
}

/// A tensor of matrices, and how its scales are stored.
#[derive(Clone, Debug)]
struct Table {
    /// Before the rows and columns.
    matrices: Option<usize>,
    rows: usize,
    cols: usize,
    cut: Cut,
    scale_dtype: Dtype,
    /// What codes and scales are made from.
    seed: u64,
}

fn tables() -> impl Strategy<Value = Table> {
    let cut = prop_oneof![
        Just(Cut::Tensor),
        Just(Cut::Rows),
        (1usize..40, 1usize..40).prop_map(|(rows, cols)| Cut::Blocks(rows, cols)),
        Just(Cut::Blocks(16, 16)),
    ];
    let dtype =
        prop_oneof![Just(Dtype::F32), Just(Dtype::BF16), Just(Dtype::F16), Just(Dtype::F8_E8M0), Just(Dtype::U8)];
    (proptest::option::of(1usize..4), 1usize..50, 1usize..50, cut, dtype, any::<u64>()).prop_map(
        |(matrices, rows, cols, cut, scale_dtype, seed)| Table { matrices, rows, cols, cut, scale_dtype, seed },
    )
}

/// Of the bits of a code, from the definition of E4M3.
fn e4m3(code: u8) -> f64 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let magnitude = if exponent == 0 { fraction * 2f64.powi(-9) } else { (8.0 + fraction) * 2f64.powi(exponent - 10) };
    if code >= 128 { -magnitude } else { magnitude }
}

impl Table {
    fn random(&self, index: usize, what: u64) -> u64 {
        let mut state = self.seed ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ what.rotate_left(32);
        state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^ state >> 31
    }

    fn dims(&self) -> Vec<usize> {
        self.matrices.into_iter().chain([self.rows, self.cols]).collect()
    }

    fn codes(&self) -> Vec<u8> {
        let count = self.dims().iter().product();
        let code = |index| match self.random(index, 1) as u8 {
            // The two that are NaN.
            0x7F => 0x7E,
            0xFF => 0xFE,
            code => code,
        };
        (0..count).map(code).collect()
    }

    /// Dimensions of the scales of one matrix.
    fn grid(&self) -> (usize, usize) {
        match self.cut {
            Cut::Tensor => (1, 1),
            Cut::Rows => (self.rows, 1),
            Cut::Blocks(rows, cols) => (self.rows.div_ceil(rows), self.cols.div_ceil(cols)),
        }
    }

    fn scale_dims(&self) -> Vec<usize> {
        let (above, beside) = self.grid();
        match self.cut {
            Cut::Tensor => Vec::new(),
            Cut::Rows => self.matrices.into_iter().chain([self.rows, 1]).collect(),
            Cut::Blocks(..) => self.matrices.into_iter().chain([above, beside]).collect(),
        }
    }

    /// The scales as numbers and as they are stored.
    fn scales(&self) -> (Vec<f32>, Vec<u8>) {
        let count: usize = self.scale_dims().iter().product();
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for index in 0..count {
            let random = self.random(index, 2);
            let number = f32::from_bits(0x3C00_0000 + (random as u32 & 0x07FF_FFFF));
            let number = match self.scale_dtype {
                Dtype::F32 => {
                    bytes.extend(number.to_le_bytes());
                    number
                }
                Dtype::BF16 => {
                    bytes.extend(bf16::from_f32(number).to_le_bytes());
                    bf16::from_f32(number).to_f32()
                }
                Dtype::F16 => {
                    bytes.extend(f16::from_f32(number).to_le_bytes());
                    f16::from_f32(number).to_f32()
                }
                _ => {
                    let exponent = 100 + (random % 50) as u8;
                    bytes.push(exponent);
                    2f64.powi(i32::from(exponent) - 127) as f32
                }
            };
            numbers.push(number);
        }
        (numbers, bytes)
    }

    /// `decode(code) × scale`, in `f32`.
    fn values(&self) -> Vec<f32> {
        let ((scales, _), (above, beside)) = (self.scales(), self.grid());
        let scale_of = |index: usize| {
            let (matrix, row, col) = (index / self.cols / self.rows, index / self.cols % self.rows, index % self.cols);
            match self.cut {
                Cut::Tensor => scales[0],
                Cut::Rows => scales[matrix * self.rows + row],
                Cut::Blocks(rows, cols) => scales[(matrix * above + row / rows) * beside + col / cols],
            }
        };
        self.codes().iter().enumerate().map(|(index, code)| e4m3(*code) as f32 * scale_of(index)).collect()
    }

    /// How a dialect spells it: the names of codes and scales, and the configuration; nothing if it cannot.
    fn spelling(&self, dialect: Dialect) -> Option<(&'static str, &'static str, Value)> {
        let is_fused = self.matrices.is_some();
        let block = match self.cut {
            Cut::Blocks(rows, cols) => Some([rows, cols]),
            _ => None,
        };
        let codes = if is_fused { "mlp.experts.down_proj" } else { "a.weight" };
        let after = if is_fused { "mlp.experts.down_proj_scale" } else { "a.weight_scale" };
        Some(match dialect {
            Dialect::Transformers => {
                let scales = if is_fused { "mlp.experts.down_proj_scale_inv" } else { "a.weight_scale_inv" };
                (codes, scales, json!({ "quant_method": "fp8", "weight_block_size": block }))
            }
            Dialect::CompressedTensors => {
                let weights = json!({ "num_bits": 8, "type": "float", "block_structure": block });
                let groups = json!({ "group_0": { "targets": ["Linear"], "weights": weights } });
                (codes, after, json!({ "quant_method": "compressed-tensors", "config_groups": groups }))
            }
            Dialect::ModelOpt => {
                let config = match self.cut {
                    Cut::Tensor => json!({ "quant_method": "modelopt", "quant_algo": "FP8" }),
                    Cut::Rows => json!({ "quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN" }),
                    Cut::Blocks(rows, cols) if rows == cols => {
                        json!({ "quant_method": "modelopt", "quant_algo": "FP8_PB_WO", "group_size": rows })
                    }
                    Cut::Blocks(..) => return None,
                };
                let scales = if is_fused { "mlp.experts.down_proj_weight_scale" } else { "a.weight_scale" };
                (codes, scales, config)
            }
            Dialect::Quark => {
                let weight = json!({ "dtype": "fp8_e4m3", "block_size": block });
                (codes, after, json!({ "quant_method": "quark", "global_quant_config": { "weight": weight } }))
            }
            Dialect::Fbgemm if block.is_none() => (codes, after, json!({ "quant_method": "fbgemm_fp8" })),
            Dialect::TensorRtLlm if block.is_none() && !is_fused => (codes, "a.weights_scaling_factor", Value::Null),
            Dialect::Mistral if block.is_none() && !is_fused => (codes, "a.qscale_weight", Value::Null),
            Dialect::ComfyUi if block.is_none() && !is_fused => (codes, "a.scale_weight", Value::Null),
            _ => return None,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn values_are_codes_times_scales(table in tables()) {
        let mut read = 0;
        for dialect in Dialect::ALL {
            let Some((codes, scales, config)) = table.spelling(dialect) else { continue };
            let folder = tempfile::tempdir().unwrap();
            let (code_bytes, (_, scale_bytes)) = (table.codes(), table.scales());
            let views = [
                (codes, TensorView::new(Dtype::F8_E4M3, table.dims(), &code_bytes).unwrap()),
                (scales, TensorView::new(table.scale_dtype, table.scale_dims(), &scale_bytes).unwrap()),
            ];
            serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
            if !config.is_null() {
                let config = json!({ "quantization_config": config }).to_string();
                std::fs::write(folder.path().join("config.json"), config).unwrap();
            }
            let checkpoint = Checkpoint::open(&[folder.path()]).unwrap();
            prop_assert_eq!(checkpoint.dialect(), dialect);
            let tensor = checkpoint.tensor(codes, DType::F32, &Device::Cpu);
            let tensor = tensor.unwrap_or_else(|error| panic!("{dialect}: {error}"));
            prop_assert_eq!(tensor.dims(), &table.dims()[..], "{}", dialect);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let actual = bits(&tensor.flatten_all().unwrap().to_vec1().unwrap());
            let expected = bits(&table.values());
            prop_assert_eq!(actual, expected, "{}", dialect);
            read += 1;
        }
        prop_assert!(read >= 2);
    }
}
