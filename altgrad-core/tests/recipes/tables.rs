//! The tables in `tests/golden/recipes`; `tests/golden/make_recipe_tables.py` describes their form.

use std::collections::HashMap;
use std::path::Path;

use altgrad_core::{Fp8, Granularity};
use altgrad_testing::golden::Golden;
use altgrad_testing::{BF16, Oracle};
use candle_core::{DType, Tensor};

/// What a reference implementation makes of one tensor.
pub(crate) struct Table {
    pub(crate) recipe: String,
    pub(crate) roles: Vec<String>,
    pub(crate) format: Fp8,
    pub(crate) granularity: Granularity,
    pub(crate) input: String,
    pub(crate) transposed: bool,
    pub(crate) scale_dims: (usize, usize),
    pub(crate) scales: Vec<f32>,
    pub(crate) dims: (usize, usize),
    pub(crate) codes: Vec<u8>,
}

/// Steps of one history: amax, multiplier and scale.
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) format: Fp8,
    pub(crate) len: usize,
    pub(crate) margin: i32,
    pub(crate) steps: Vec<[f32; 3]>,
}

fn read(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/recipes");
    std::fs::read_to_string(directory.join(format!("{name}.txt"))).unwrap()
}

/// The sections of a file: words of the header and the lines below it.
fn sections(text: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let mut sections: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(header) => sections.push((header.split(' ').collect(), Vec::new())),
            None => sections.last_mut().unwrap().1.push(line),
        }
    }
    sections
}

fn floats(line: &str) -> impl Iterator<Item = f32> {
    line.split(' ').map(|word| f32::from_bits(u32::from_str_radix(word, 16).unwrap()))
}

fn format(name: &str) -> Fp8 {
    Fp8::NAMED.into_iter().find(|(known, _)| *known == name).unwrap().1
}

fn granularity(word: &str) -> Granularity {
    match word {
        "tensor" => Granularity::PerTensor,
        "row" => Granularity::PerRow,
        block => {
            let (rows, cols) = block.split_once('x').unwrap();
            Granularity::PerBlock { rows: rows.parse().unwrap(), cols: cols.parse().unwrap() }
        }
    }
}

/// The tables of a file.
pub(crate) fn tables(file: &str) -> Vec<Table> {
    let text = read(file);
    let table = |(header, lines): (Vec<&str>, Vec<&str>)| {
        let [recipe, roles, format_name, granularity_name, input, direction, rows, cols] = header[..] else {
            panic!("{header:?}")
        };
        let scale_dims: (usize, usize) = (rows.parse().unwrap(), cols.parse().unwrap());
        let (scales, codes) = lines.split_at(scale_dims.0);
        let scales: Vec<_> = scales.iter().flat_map(|line| floats(line)).collect();
        assert_eq!(scales.len(), scale_dims.0 * scale_dims.1, "{header:?}");
        let cols = codes[0].len() / 2;
        let byte = |line: &str, i: usize| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap();
        let dims = (codes.len(), cols);
        let codes = codes.iter().flat_map(|line| (0..cols).map(move |i| byte(line, i))).collect();
        assert!(["direct", "transposed"].contains(&direction), "{header:?}");
        Table {
            recipe: recipe.to_owned(),
            roles: roles.split(',').map(str::to_owned).collect(),
            format: format(format_name),
            granularity: granularity(granularity_name),
            input: input.to_owned(),
            transposed: direction == "transposed",
            scale_dims,
            scales,
            dims,
            codes,
        }
    };
    sections(&text).into_iter().map(table).collect()
}

/// The histories of delayed scaling.
pub(crate) fn histories() -> Vec<History> {
    let text = read("hybrid_histories");
    let history = |(header, lines): (Vec<&str>, Vec<&str>)| {
        let [name, format_name, len, margin, count] = header[..] else { panic!("{header:?}") };
        let step = |line: &&str| floats(line).collect::<Vec<_>>().try_into().unwrap();
        let steps: Vec<[f32; 3]> = lines.iter().map(step).collect();
        assert_eq!(steps.len(), count.parse::<usize>().unwrap(), "{header:?}");
        let (len, margin) = (len.parse().unwrap(), margin.parse().unwrap());
        History { name: name.to_owned(), format: format(format_name), len, margin, steps }
    };
    sections(&text).into_iter().map(history).collect()
}

/// The matrices that the tables are of, by name.
pub(crate) struct Inputs(HashMap<String, Tensor>);

impl Inputs {
    pub(crate) fn read() -> Self {
        let text = read("inputs");
        let input = |(header, lines): (Vec<&str>, Vec<&str>)| {
            let ["input", name, rows, cols] = header[..] else { panic!("{header:?}") };
            let values = lines.iter().flat_map(|line| floats(line)).collect();
            (name.to_owned(), crate::cpu(values, (rows.parse::<usize>().unwrap(), cols.parse::<usize>().unwrap())))
        };
        Self(sections(&text).into_iter().map(input).collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// The input of a table in this dtype, transposed by its strides alone where the table says so.
    pub(crate) fn of(&self, table: &Table, dtype: DType) -> Tensor {
        let x = self.0[&table.input].to_dtype(dtype).unwrap();
        let x = if table.transposed { x.t().unwrap() } else { x };
        assert_eq!(x.dims2().unwrap(), table.dims, "{}", table.input);
        x
    }
}

/// The dtypes that hold an input exactly.
pub(crate) fn dtypes(input: &str) -> &'static [DType] {
    if input.starts_with("bf16") { &[DType::F32, DType::BF16] } else { &[DType::F32] }
}

/// The values of all codes of some formats, from the golden tables of those formats.
#[derive(Default)]
pub(crate) struct Decoder(HashMap<String, Vec<f32>>);

impl Decoder {
    /// `decode(code) × scale` of every element of a table, rounded to `f32` and then to this dtype.
    pub(crate) fn values(&mut self, table: &Table, dtype: DType) -> Vec<f64> {
        let name = table.format.to_string();
        let read =
            || Golden::read(&name).decode.into_iter().map(|bits| bits.map_or(f32::NAN, f32::from_bits)).collect();
        let decoded = self.0.entry(name.clone()).or_insert_with(read);
        let value = |(i, code): (usize, &u8)| {
            let product = f64::from(decoded[usize::from(*code)] * table.scales[table.block(i)]);
            if dtype == DType::BF16 { BF16.nearest(product) } else { product }
        };
        table.codes.iter().enumerate().map(value).collect()
    }
}

impl Table {
    /// Rows and columns of a block that is not at an edge.
    fn block_dims(&self) -> (usize, usize) {
        match self.granularity {
            Granularity::PerTensor => self.dims,
            Granularity::PerRow => (1, self.dims.1),
            Granularity::PerBlock { rows, cols } => (rows, cols),
            other => panic!("{other:?}"),
        }
    }

    /// The number of the scale for an element.
    pub(crate) fn block(&self, element: usize) -> usize {
        let (rows, cols) = self.block_dims();
        let grid = (self.dims.0.div_ceil(rows), self.dims.1.div_ceil(cols));
        assert_eq!(grid, self.scale_dims, "{} {}", self.recipe, self.input);
        element / self.dims.1 / rows * grid.1 + element % self.dims.1 / cols
    }
}

/// How much was compared, of how many tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) tables: usize,
    pub(crate) scales: usize,
    pub(crate) codes: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, table: &Table) {
        self.tables += 1;
        self.scales += table.scales.len();
        self.codes += table.codes.len();
    }

    /// What a file holds, counted in its text: lines with a bracket, eight digits a scale, two digits a code.
    pub(crate) fn of_file(file: &str) -> Self {
        let mut tally = Self::default();
        let mut scale_lines = 0;
        for line in read(file).lines().filter(|line| !line.starts_with('#')) {
            if let Some(header) = line.strip_prefix('[') {
                tally.tables += 1;
                scale_lines = header.split(' ').nth(6).unwrap().parse().unwrap();
            } else if scale_lines > 0 {
                scale_lines -= 1;
                tally.scales += line.split(' ').filter(|word| word.len() == 8).count();
            } else {
                tally.codes += line.len() / 2;
            }
        }
        tally
    }
}

/// An oracle for a format, which must be a named one.
pub(crate) fn oracle(format: Fp8) -> Oracle {
    let name = format.to_string();
    Oracle::new(altgrad_testing::NAMED.into_iter().find(|spec| spec.name == name).unwrap())
}
