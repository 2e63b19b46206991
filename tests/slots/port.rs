//! A model that was written for candle, with its `use` changed: everything it imports for its layers is in
//! `altgrad::nn`.

// The import that was `candle_nn::{…}`.
use altgrad::Quantizable;
use altgrad::nn::{
    Activation, Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Dropout, Embedding, LayerNorm, Linear, Module, RmsNorm,
    VarBuilder, VarMap, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias, embedding, layer_norm, linear, linear_b,
    linear_no_bias, ops, rms_norm,
};
use candle_core::{DType, Device, Result, Tensor};

#[derive(Clone, Debug, Quantizable)]
struct Model {
    wte: Embedding,
    conv1: Conv1d,
    conv2: Conv1d,
    patch: Conv2d,
    patch_no_bias: Conv2d,
    norm: LayerNorm,
    rms: RmsNorm,
    fc: Linear,
    proj: Linear,
    maybe: Linear,
    head: Linear,
    act: Activation,
    dropout: Dropout,
    span: tracing::Span,
}

impl Model {
    #[allow(clippy::needless_pass_by_value, reason = "as candle models do")]
    fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let wte = embedding(10, 8, vb.pp("wte"))?;
        let head = Linear::from_weights(wte.embeddings().clone(), None);
        Ok(Self {
            conv1: conv1d(8, 8, 3, Conv1dConfig { padding: 1, ..Default::default() }, vb.pp("conv1"))?,
            conv2: conv1d_no_bias(8, 8, 3, Conv1dConfig { padding: 1, ..Default::default() }, vb.pp("conv2"))?,
            patch: conv2d(1, 8, 2, Conv2dConfig { stride: 2, ..Default::default() }, vb.pp("patch"))?,
            patch_no_bias: conv2d_no_bias(1, 8, 2, Conv2dConfig::default(), vb.pp("patch_no_bias"))?,
            norm: layer_norm(8, 1e-5, vb.pp("norm"))?,
            rms: rms_norm(8, 1e-5, vb.pp("rms"))?,
            fc: linear(8, 16, vb.pp("fc"))?,
            proj: linear_no_bias(16, 8, vb.pp("proj"))?,
            maybe: linear_b(8, 8, true, vb.pp("maybe"))?,
            head,
            act: Activation::Gelu,
            dropout: Dropout::new(0.1),
            span: tracing::span!(tracing::Level::TRACE, "model"),
            wte,
        })
    }

    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let _enter = self.span.enter();
        let x = self.wte.forward(ids)?;
        let x = self.conv2.forward(&self.conv1.forward(&x.transpose(1, 2)?)?)?.transpose(1, 2)?;
        let x = self.norm.forward(&x.contiguous()?)?;
        let y = self.proj.forward(&self.act.forward(&self.fc.forward(&x)?)?)?;
        let y = self.maybe.forward(&self.rms.forward(&y)?)?;
        let y = self.dropout.forward(&y, false)?;
        ops::softmax_last_dim(&self.head.forward(&y)?)
    }
}

#[test]
fn a_ported_model_is_quantized_whole() {
    let variables = VarMap::new();
    let mut model = Model::new(VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let ids = Tensor::new(&[[1u32, 2, 3]], &Device::Cpu).unwrap();
    assert_eq!(model.forward(&ids).unwrap().dims(), [1, 3, 10]);
    let report = model.quantize(altgrad::Fp8::E4M3).unwrap();
    assert_eq!(report.layers.len(), 9);
    assert_eq!(report.quantized(), 7, "all but the embedding and the head that is tied to it");
    model.freeze().unwrap();
    assert_eq!(model.forward(&ids).unwrap().dims(), [1, 3, 10]);
}

/// What else models hold that has no layers needs no attribute.
#[test]
fn values_of_all_sorts_are_not_in_the_way() {
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

    #[derive(Quantizable)]
    struct Holder<'a> {
        span: tracing::Span,
        stop: HashSet<u32>,
        order: BTreeSet<String>,
        range: std::ops::Range<usize>,
        masks: HashMap<(usize, usize), Tensor>,
        experts: BTreeMap<u8, Linear>,
        vb: VarBuilder<'a>,
    }

    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut model = Holder {
        span: tracing::Span::none(),
        stop: HashSet::from([1]),
        order: BTreeSet::new(),
        range: 0..2,
        masks: HashMap::from([((1, 2), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())]),
        experts: (0..12).map(|number| (number, linear(2, 2, vb.pp(number)).unwrap())).collect(),
        vb,
    };
    let report = model.quantize(altgrad::Fp8::E4M3).unwrap();
    let paths: Vec<_> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths[..3], ["experts.0", "experts.1", "experts.2"], "in the order of the numbers");
    assert_eq!(paths[11], "experts.11");
    assert!(model.masks.contains_key(&(1, 2)));
}

/// What models of candle-transformers import from `with_tracing`.
mod with_tracing {
    use altgrad::nn::with_tracing::{
        Conv2d, Embedding, LayerNorm, Linear, RmsNorm, conv2d, layer_norm, linear, linear_b, linear_no_bias,
    };
    use candle_core::Module as _;

    use super::*;

    #[derive(Clone, Debug, Quantizable)]
    struct Traced {
        wte: Embedding,
        conv: Conv2d,
        norm: LayerNorm,
        rms: RmsNorm,
        a: Linear,
        b: Linear,
        c: Linear,
        head: Linear,
    }

    #[test]
    fn the_names_of_with_tracing() {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let wte = Embedding::new(10, 8, vb.pp("wte")).unwrap();
        let mut model = Traced {
            conv: conv2d(1, 8, 2, Conv2dConfig::default(), vb.pp("conv")).unwrap(),
            norm: layer_norm(8, 1e-5, vb.pp("norm")).unwrap(),
            rms: RmsNorm::new(8, 1e-5, vb.pp("rms")).unwrap(),
            a: linear(8, 8, vb.pp("a")).unwrap(),
            b: linear_no_bias(8, 8, vb.pp("b")).unwrap(),
            c: linear_b(8, 8, false, vb.pp("c")).unwrap(),
            head: Linear::from_weights(wte.embeddings().clone(), None),
            wte,
        };
        let report = model.quantize(altgrad::Fp8::E4M3).unwrap();
        assert_eq!((report.layers.len(), report.quantized()), (6, 4), "the embedding and its head are tied");
        let paths: Vec<_> = report.layers.iter().map(|layer| layer.path.as_str()).collect();
        assert_eq!(paths, ["wte", "conv", "a", "b", "c", "head"], "newtypes add no segment");
        let x = model.wte.forward(&Tensor::new(&[1u32, 2], &Device::Cpu).unwrap()).unwrap();
        let x = model.rms.forward_diff(&model.norm.forward(&x).unwrap()).unwrap();
        assert_eq!(model.head.forward(&model.a.forward(&x).unwrap()).unwrap().dims(), [2, 10]);
        let of_weights = Embedding::from_weights(Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(of_weights.slot().hidden_size(), 2);
    }
}
