//! The golden tables; `golden/make_tables.py` describes their form.

use std::path::Path;

/// What encoding an input gives: under overflow to specials, and under saturation. `None` if there is no code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    pub special: Option<u8>,
    pub saturated: Option<u8>,
}

/// The tables of one format.
pub struct Golden {
    /// The `f32` bits of every code's value in the order of the codes, `None` for NaN.
    pub decode: Vec<Option<u32>>,
    pub f32: Vec<(u32, Codes)>,
    pub f64: Vec<(u64, Codes)>,
    /// One element for each of the 65,536 inputs.
    pub f16: Vec<Codes>,
    pub bf16: Vec<Codes>,
}

impl Golden {
    /// Reads the tables of the format with this name.
    #[allow(clippy::unwrap_used, reason = "a golden file that cannot be read fails the test, as it should")]
    pub fn read(name: &str) -> Self {
        let words: Vec<_> = name.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).collect();
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(words.join("_") + ".txt");
        let text = std::fs::read_to_string(file).unwrap();

        let mut golden = Self { decode: vec![], f32: vec![], f64: vec![], f16: vec![], bf16: vec![] };
        let (mut f16_runs, mut bf16_runs) = (vec![], vec![]);
        let mut section = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            if section == "[decode]" {
                golden.decode.extend(line.split(' ').map(|word| u32::from_str_radix(word, 16).ok()));
                continue;
            }
            let (bits, codes) = line.split_once(' ').unwrap();
            let bits = u64::from_str_radix(bits, 16).unwrap();
            let mut codes = codes.split(' ').map(|word| match word {
                ".." => None,
                code => Some(u8::from_str_radix(code, 16).unwrap()),
            });
            let special = codes.next().unwrap();
            let codes = Codes { special, saturated: codes.next().unwrap_or(special) };
            match section {
                "[f32]" => golden.f32.push((bits as u32, codes)),
                "[f64]" => golden.f64.push((bits, codes)),
                "[f16]" => f16_runs.push((bits as usize, codes)),
                "[bf16]" => bf16_runs.push((bits as usize, codes)),
                _ => unreachable!("no section {section}"),
            }
        }
        golden.f16 = expand(&f16_runs);
        golden.bf16 = expand(&bf16_runs);
        assert!(matches!(golden.decode.len(), 256 | 64 | 16));
        golden
    }
}

/// One element an input from runs of equal ones.
fn expand(runs: &[(usize, Codes)]) -> Vec<Codes> {
    let ends = runs.iter().skip(1).map(|(first, _)| *first).chain([0x1_0000]);
    runs.iter().zip(ends).flat_map(|((first, codes), end)| vec![*codes; end - first]).collect()
}
