//! The public kernels on slices: what they refuse, and which instruction set they run on.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "tests fail by panicking, and one is read by another")]

use std::env::current_exe;
use std::process::Command;

use altgrad_kernels::{self as kernels, Blocks, Conversion, Level, Scale};
use altgrad_kernels::{FormatError, Fp8, Result};

fn conversion(blocks: Blocks) -> Conversion {
    Conversion::new(Fp8::E3M4, blocks, vec![0.5; blocks.count()]).unwrap()
}

#[track_caller]
fn assert_length(result: Result<()>, slice: &str, expected: usize, actual: usize) {
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), format!("{slice} has {actual} elements, expected {expected}"));
    assert!(matches!(error, FormatError::LengthMismatch { .. }));
}

#[test]
fn other_lengths_are_errors() {
    let to_codes = conversion(Blocks::per_block((2, 5), (1, 2)));
    for (from, to) in [(9, 10), (11, 10), (0, 10), (10, 9), (10, 11), (10, 0)] {
        let (values, mut codes) = (vec![1f32; from], vec![0x30; to]);
        let (wrong, actual) = if from == 10 { ("for", to) } else { ("of", from) };
        let slice = |of: &str, to: &str| format!("the slice {wrong} {}", if wrong == "of" { of } else { to });
        assert_length(kernels::encode(&values, &mut codes, &to_codes), &slice("values", "codes"), 10, actual);
        let mut fake = vec![0f32; to];
        assert_length(kernels::fake_quantize(&values, &mut fake, &to_codes), &slice("values", "results"), 10, actual);
        let codes = vec![0x30; from];
        assert_length(kernels::decode(&codes, &mut fake, &to_codes), &slice("codes", "values"), 10, actual);
        let few = kernels::amax(&values, Blocks::per_tensor(3, 4)).map(drop);
        assert_length(few, "the slice of values", 12, from);
    }
    let huge = Blocks::per_tensor(usize::MAX, 2);
    assert_length(kernels::amax(&[1f32], huge).map(drop), "the slice of values", usize::MAX, 1);
}

#[test]
fn scales_that_are_none_are_errors() {
    let blocks = Blocks::per_row(2, 3);
    let of = |scales: [Scale; 2]| Conversion::new(Fp8::E4M3, blocks, scales);
    for bad in [0.0, -1.0, f32::INFINITY, f32::NAN] {
        assert!(matches!(of([1.0.into(), bad.into()]), Err(FormatError::InvalidScale { .. })), "{bad}");
        let multiplied = Scale::with_multiplier(1.0, bad);
        assert!(matches!(of([multiplied; 2]), Err(FormatError::InvalidScale { .. })), "{bad}");
    }
    let mixed = of([Scale::new(1.0), Scale::with_multiplier(1.0, 1.0)]);
    assert!(matches!(mixed, Err(FormatError::MixedScales)));
    assert!(matches!(Conversion::new(Fp8::E4M3, blocks, [1.0; 3]), Err(FormatError::LengthMismatch { .. })));
}

#[test]
fn nan_in_a_format_without_it_is_an_error() {
    let one = conversion(Blocks::per_tensor(1, 3));
    let nan = kernels::encode(&[0f32, f32::NAN, 1.0], &mut [0; 3], &one);
    assert!(matches!(nan, Err(FormatError::NanNotRepresentable { format }) if format == "E3M4"));
}

#[test]
fn nothing_is_as_good_as_something() {
    for blocks in [Blocks::per_tensor(0, 7), Blocks::per_row(7, 0), Blocks::per_block((0, 0), (0, 0))] {
        let to_codes = conversion(blocks);
        kernels::encode::<f64>(&[], &mut [], &to_codes).unwrap();
        kernels::decode::<f64>(&[], &mut [], &to_codes).unwrap();
        kernels::fake_quantize::<f64>(&[], &mut [], &to_codes).unwrap();
        assert_eq!(kernels::amax::<f64>(&[], blocks).unwrap(), vec![0.0; blocks.count()]);
    }
}

/// Prints the level of this process.
#[test]
#[ignore = "run by the test below"]
fn print_level() {
    println!("level {};", Level::detect());
}

#[test]
fn the_variable_sets_the_level_of_a_process() {
    let strongest = Level::available().last().unwrap().to_string();
    let mut expected: Vec<_> = Level::available().map(|level| (level.to_string(), level.to_string())).collect();
    expected.push(("no such level".to_owned(), strongest));
    for (value, level) in expected {
        let output = Command::new(current_exe().unwrap())
            .args(["print_level", "--exact", "--ignored", "--nocapture"])
            .env("ALTGRAD_SIMD", &value)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(&format!("level {level};")), "{value}: {printed}");
    }
}
