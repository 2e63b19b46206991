//! A layer in plain loops over `f64`, from the formulas in the documentation: how each tensor is quantized, and what
//! the three products of a layer are.

use altgrad_testing::{Kind, NAMED, Oracle, Spec};

/// Rows one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    pub(crate) fn new(rows: usize, cols: usize, values: &[f32]) -> Self {
        assert_eq!(values.len(), rows * cols);
        Self { rows, cols, values: values.iter().map(|value| f64::from(*value)).collect() }
    }

    pub(crate) fn t(&self) -> Self {
        let values = (0..self.cols).flat_map(|col| (0..self.rows).map(move |row| self.values[row * self.cols + col]));
        Self { rows: self.cols, cols: self.rows, values: values.collect() }
    }

    pub(crate) fn amax(&self) -> f64 {
        self.values.iter().fold(0.0, |amax, value| amax.max(value.abs()))
    }
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Group {
    Tensor,
    Row,
    Block(usize, usize),
}

/// How a scale follows from the largest magnitude.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// `amax / largest`; values are divided by it.
    Quotient,
    /// Values are multiplied by `largest / max(amax, epsilon)`.
    Multiplier { epsilon: f64 },
    /// The least power of two with `largest × scale ≥ max(amax, epsilon)`.
    Power { epsilon: f64 },
    /// `2^(⌊log2 amax⌋ - ⌊log2 largest⌋)`.
    Floor,
    /// This one.
    Fixed(f32),
}

/// How one tensor is quantized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    pub(crate) format: &'static str,
    pub(crate) group: Group,
    pub(crate) rule: Rule,
    pub(crate) history: Option<Remembered>,
}

/// Which steps the largest magnitude is taken from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Remembered {
    /// The last `len`, this one included.
    Window(usize),
    /// The `len` before this one.
    Delayed(usize),
}

/// A quantized matrix, and which of its elements were beyond the range.
pub(crate) struct Quantized {
    pub(crate) values: Matrix,
    pub(crate) clipped: Vec<bool>,
}

impl Reference {
    pub(crate) fn new(format: &'static str, group: Group, rule: Rule) -> Self {
        Self { format, group, rule, history: None }
    }

    fn spec(&self) -> Spec {
        NAMED.into_iter().find(|spec| spec.name == self.format).unwrap()
    }

    /// The scale, and the multiplier if there is one.
    fn scale(&self, amax: f64, largest: f64) -> (f32, Option<f32>) {
        assert!(amax > 0.0 && amax.is_finite());
        match self.rule {
            Rule::Quotient => (amax as f32 / largest as f32, None),
            Rule::Multiplier { epsilon } => {
                let multiplier = (largest / amax.max(epsilon)) as f32;
                (1.0 / multiplier, Some(multiplier))
            }
            Rule::Power { epsilon } => {
                let least = (-127..128).map(|exponent| 2f64.powi(exponent));
                (least.into_iter().find(|scale| largest * scale >= amax.max(epsilon)).unwrap() as f32, None)
            }
            Rule::Floor => (2f64.powi(floor_log2(amax) - floor_log2(largest)) as f32, None),
            Rule::Fixed(scale) => (scale, None),
        }
    }

    /// Quantizes a matrix after these largest magnitudes of the steps before.
    pub(crate) fn quantize(&self, x: &Matrix, before: &[f64]) -> Quantized {
        let oracle = Oracle::new(self.spec());
        let (block_rows, block_cols) = match self.group {
            Group::Tensor => (x.rows, x.cols),
            Group::Row => (1, x.cols),
            Group::Block(rows, cols) => (rows, cols),
        };
        let across = x.cols.div_ceil(block_cols);
        let block = |i: usize| i / x.cols / block_rows * across + i % x.cols / block_cols;
        let mut amaxes = vec![0f64; x.rows.div_ceil(block_rows) * across];
        for (i, value) in x.values.iter().enumerate() {
            amaxes[block(i)] = amaxes[block(i)].max(value.abs());
        }
        let last = |len: usize| &before[before.len().saturating_sub(len)..];
        let scales: Vec<_> = amaxes
            .into_iter()
            .map(|amax| match self.history {
                None => self.scale(amax, oracle.largest()),
                Some(Remembered::Window(len)) => {
                    self.scale(last(len - 1).iter().copied().fold(amax, f64::max), oracle.largest())
                }
                Some(Remembered::Delayed(_)) if before.is_empty() => (1.0, None),
                Some(Remembered::Delayed(len)) => {
                    self.scale(last(len).iter().copied().fold(0.0, f64::max), oracle.largest())
                }
            })
            .collect();
        let quantized = x.values.iter().enumerate().map(|(i, value)| {
            let (scale, multiplier) = scales[block(i)];
            let quotient = match multiplier {
                Some(multiplier) => *value as f32 * multiplier,
                None => *value as f32 / scale,
            };
            let code = oracle.saturated(quotient.into()).unwrap();
            let value = f64::from(oracle.decode(code) as f32 * scale);
            (value, is_beyond(&oracle, quotient))
        });
        let (values, clipped) = quantized.unzip();
        Quantized { values: Matrix { values, ..*x }, clipped }
    }
}

/// Whether a number rounds to one beyond the range, in a format that has something beyond it.
fn is_beyond(oracle: &Oracle, quotient: f32) -> bool {
    match oracle.spec.kind {
        Kind::None => panic!("nothing is beyond the range of {}", oracle.spec.name),
        _ => oracle.special(quotient.into()).is_none_or(|code| code & 0x7F > oracle.largest_code),
    }
}

fn floor_log2(x: f64) -> i32 {
    (-200..200).rev().find(|exponent| 2f64.powi(*exponent) <= x).unwrap()
}

/// A sum of products, and the sum of their magnitudes.
pub(crate) type Sums = Vec<(f64, f64)>;

/// `a · bᵀ`.
fn product(a: &Matrix, b: &Matrix) -> Sums {
    assert_eq!(a.cols, b.cols);
    let mut sums = Vec::with_capacity(a.rows * b.rows);
    for row in a.values.chunks(a.cols) {
        for col in b.values.chunks(b.cols) {
            let products = row.iter().zip(col).map(|(a, b)| a * b);
            sums.push(products.fold((0.0, 0.0), |(sum, magnitude), x| (sum + x, magnitude + f64::abs(x))));
        }
    }
    sums
}

/// How a layer is quantized; see [`altgrad_core::Recipe`].
#[derive(Clone, Copy)]
pub(crate) struct LayerReference {
    pub(crate) weights: Reference,
    pub(crate) activations: Option<Reference>,
    pub(crate) gradients: Option<Reference>,
    /// Whether gradients stop where a value was clipped.
    pub(crate) clipped: bool,
}

/// The largest magnitudes of the steps so far.
#[derive(Default)]
pub(crate) struct Memory {
    weights: Vec<f64>,
    activations: Vec<f64>,
    gradients: Vec<f64>,
}

/// What a step computes.
pub(crate) struct Expected {
    pub(crate) y: Sums,
    pub(crate) dx: Sums,
    pub(crate) dw: Sums,
    pub(crate) dbias: Sums,
    /// How many elements of the input and of the weight let no gradient pass.
    pub(crate) stopped: [usize; 2],
}

impl LayerReference {
    /// One step of training.
    pub(crate) fn step(&self, x: &Matrix, w: &Matrix, bias: &[f32], dy: &Matrix, memory: &mut Memory) -> Expected {
        let quantize = |reference: Option<Reference>, matrix: &Matrix, before: &[f64]| match reference {
            Some(reference) => reference.quantize(matrix, before),
            None => Quantized { values: matrix.clone(), clipped: vec![false; matrix.values.len()] },
        };
        let forward_w = quantize(Some(self.weights), w, &memory.weights);
        let forward_x = quantize(self.activations, x, &memory.activations);
        let mut y = product(&forward_x.values, &forward_w.values);
        for (i, y) in y.iter_mut().enumerate() {
            let bias = f64::from(bias[i % w.rows]);
            *y = (y.0 + bias, y.1 + bias.abs());
        }
        // With quantized gradients each operand is quantized along the dimension that its product sums over.
        let (mut dx, mut dw) = if let Some(gradients) = self.gradients {
            let rows = gradients.quantize(dy, &memory.gradients).values;
            let columns = gradients.quantize(&dy.t(), &memory.gradients).values;
            let weight = quantize(Some(self.weights), &w.t(), &memory.weights).values;
            let input = quantize(self.activations, &x.t(), &memory.activations).values;
            (product(&rows, &weight), product(&columns, &input))
        } else {
            (product(dy, &forward_w.values.t()), product(&dy.t(), &forward_x.values.t()))
        };
        let mut stopped = [0, 0];
        if self.clipped {
            for ((sums, clipped), stopped) in
                [(&mut dx, forward_x.clipped), (&mut dw, forward_w.clipped)].into_iter().zip(&mut stopped)
            {
                for (sum, _) in sums.iter_mut().zip(clipped).filter(|(_, clipped)| *clipped) {
                    *sum = (0.0, 0.0);
                    *stopped += 1;
                }
            }
        }
        let one = Matrix { rows: 1, cols: dy.rows, values: vec![1.0; dy.rows] };
        let dbias = product(&one, &dy.t());
        memory.weights.push(w.amax());
        memory.activations.push(x.amax());
        memory.gradients.push(dy.amax());
        Expected { y, dx, dw, dbias, stopped }
    }
}
