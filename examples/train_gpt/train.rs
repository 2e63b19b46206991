//! One run: train, evaluate, freeze.

use std::time::Instant;

use altgrad::nn::loss;
use altgrad::optim::{self, AdamW, AdamWConfig};
use altgrad::report::QuantReport;
use altgrad::{QuantConfig, Quantizable};
use anyhow::{Context, Result, bail, ensure};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Optimizer, VarBuilder, VarMap};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::args::Args;
use crate::model::{Config, Model, VOCABULARY};
use crate::progress::Progress;
use crate::results::RunResult;
use crate::run::Run;
use crate::text::Text;
use crate::weights;

/// A model with its initial weights, quantized if the run asks for it.
pub(crate) struct Untrained {
    run: Run,
    model: Model,
    variables: VarMap,
    /// The report of quantizing it.
    pub(crate) report: Option<QuantReport>,
}

/// What came of it.
pub(crate) struct Trained {
    /// Frozen if it was quantized.
    pub(crate) model: Model,
    pub(crate) result: RunResult,
}

impl Untrained {
    pub(crate) fn new(run: &Run, config: &Config, seed: u64) -> Result<Self> {
        let variables = VarMap::new();
        let mut model = Model::new(config, &VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
        weights::initialize(&variables, config, seed)?;
        let report = match &run.config {
            None => None,
            Some(config) => Some(quantize(&mut model, config).with_context(|| format!("quantizing {}", run.manner))?),
        };
        Ok(Self { run: run.clone(), model, variables, report })
    }

    pub(crate) fn train(self, args: &Args, text: &Text) -> Result<Trained> {
        let start = Instant::now();
        let Self { run, mut model, variables, .. } = self;
        let (train_losses, tokens_per_second) = optimize(&model, &variables, &run.name, args, text)?;
        model.eval()?;
        let validation_loss = evaluate(&model, args, text)?;
        let frozen = if run.is_full() { None } else { Some(model.freeze()?) };
        let result = RunResult {
            run,
            validation_loss,
            perplexity: validation_loss.exp(),
            difference_to_full_precision: None,
            relative_difference: None,
            tokens_per_second,
            linear_weight_bytes: linear_weight_bytes(&model)?,
            mean_sqnr_db: frozen.as_ref().and_then(QuantReport::mean_sqnr_db),
            seconds: start.elapsed().as_secs_f64(),
            train_losses,
        };
        Ok(Trained { model, result })
    }
}

/// Quantizes the model; fails if that leaves every layer in full precision.
fn quantize(model: &mut Model, config: &QuantConfig) -> Result<QuantReport> {
    let report = model.quantize(config.clone())?;
    ensure!(report.quantized() > 0, "it leaves every layer in full precision:\n{report}");
    Ok(report)
}

/// Runs all steps; returns the loss of each, and tokens per second.
fn optimize(model: &Model, variables: &VarMap, name: &str, args: &Args, text: &Text) -> Result<(Vec<f32>, f64)> {
    let config = AdamWConfig::new(args.learning_rate).betas(0.9, 0.99);
    let mut optimizer = AdamW::named(optim::variables(variables), config)?;
    let mut batches = StdRng::seed_from_u64(args.seed);
    let mut losses = Vec::with_capacity(args.steps);
    let mut grads = GradStore::default();
    let progress = Progress::new(name, args.steps, args.batch * args.context);
    for step in 0..args.steps {
        let (bytes, targets) = text.training_batch(args.batch, &mut batches)?;
        let loss = cross_entropy(model, &bytes, &targets)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            bail!("the loss of step {} is {value}; try a smaller --learning-rate", step + 1);
        }
        altgrad::backward_into(&loss, &mut grads)?;
        if step == 0 {
            for (name, variable) in optim::variables(variables) {
                ensure!(
                    grads.get(&variable).is_some(),
                    "no gradient reaches {name}: an operation has no backward pass"
                );
            }
        }
        optimizer.set_learning_rate(learning_rate(step, args));
        optimizer.step(&grads)?;
        losses.push(value);
        progress.step(value);
    }
    Ok((losses, progress.finish()))
}

/// Linear warm-up over the first twentieth of the steps, then cosine decay from the peak to a tenth of it.
fn learning_rate(step: usize, args: &Args) -> f64 {
    let warm_up = (args.steps / 20).max(1);
    if step < warm_up {
        return args.learning_rate * (step + 1) as f64 / warm_up as f64;
    }
    let done = (step - warm_up) as f64 / (args.steps - warm_up) as f64;
    args.learning_rate * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}

/// Mean loss over the held-out windows, in nats per byte.
pub(crate) fn evaluate(model: &Model, args: &Args, text: &Text) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for batch in text.validation_batches(args.batch) {
        let (bytes, targets) = batch?;
        let windows = bytes.dim(0)?;
        sum += windows as f64 * f64::from(cross_entropy(model, &bytes, &targets)?.to_scalar::<f32>()?);
        count += windows;
    }
    let loss = sum / f64::from(u32::try_from(count)?);
    ensure!(loss.is_finite(), "the validation loss is {loss}; try a smaller --learning-rate");
    Ok(loss)
}

fn cross_entropy(model: &Model, bytes: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let logits = model.forward(bytes)?.reshape(((), VOCABULARY))?;
    Ok(loss::cross_entropy(&logits, &targets.flatten_all()?)?)
}

/// Bytes of the current linear weights, without the head, which is the embedding.
fn linear_weight_bytes(model: &Model) -> Result<usize> {
    let layers = model.layers()?;
    Ok(layers.iter().filter(|(path, _)| path != "lm_head").map(|(_, layer)| layer.weight_bytes()).sum())
}
