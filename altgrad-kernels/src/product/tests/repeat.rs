//! The same bits again: from run to run, and on any number of threads.

use std::process::Command;

use rayon::ThreadPoolBuilder;

use super::*;

/// Shapes of which all but the first are divided among threads, some by rows, some by columns, some by both.
const SHAPES: [(usize, usize, usize); 7] =
    [(3, 5, 40), (13, 64, 3001), (200, 30, 400), (1, 5000, 450), (33, 130, 520), (7, 1500, 220), (1, 64, 40_000)];

fn bits(c: &[f32]) -> Vec<u32> {
    c.iter().map(|sum| sum.to_bits()).collect()
}

/// What identifies a path, and the bits that it gave.
fn products(a: &Operand, x: &[f32], b: &Operand) -> Vec<(String, Vec<u32>)> {
    let (m, k) = a.blocks.shape();
    let turned = a.turned();
    let x = FloatMatrix::new(x, m, k);
    let mut products = Vec::new();
    for (name, lhs) in [
        ("codes", Lhs::Codes(a.view())),
        ("turned", Lhs::Codes(turned.view())),
        ("floats", Lhs::Floats(x)),
        ("rounded", Lhs::RoundedFloats(x)),
    ] {
        on_every_path(&lhs, b, |c, path| products.push((format!("{name}, {path}"), bits(c))));
    }
    products
}

#[test]
fn on_any_number_of_threads() {
    for (number, (m, n, k)) in SHAPES.into_iter().enumerate() {
        let random = &mut Random::new(number);
        let block = [(ALL, ALL), (1, 128), (1, 5)][number % 3];
        let [a, b] = [m, n].map(|rows| Operand::finite(Fp8::E4M3, (rows, k), block, random));
        let x = floats(m * k, random);
        let on = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| products(&a, &x, &b))
        };
        let expected = on(1);
        for threads in [1, 2, 3] {
            for ((path, found), (_, expected)) in on(threads).iter().zip(&expected) {
                assert!(found == expected, "{m} × {n} × {k}, {path}, {threads} threads");
            }
        }
    }
}

#[test]
fn columns_have_the_same_bits_in_every_panel() {
    // Sums are added in an order that depends on the shapes alone.
    let (m, n, k) = (12, 128, 530);
    let random = &mut Random::new(9);
    let [a, b] = [m, n].map(|rows| Operand::finite(Fp8::E4M3, (rows, k), (1, 128), random));
    let mut shifted = b.clone();
    shifted.codes.rotate_left(64 * k);
    shifted.scales.rotate_left(64 * k.div_ceil(128));
    let mut results = Vec::new();
    on_every_path(&Lhs::Codes(a.view()), &b, |c, _| results.push(bits(c)));
    let mut results = results.into_iter();
    on_every_path(&Lhs::Codes(a.view()), &shifted, |c, path| {
        let mut expected = results.next().unwrap();
        expected.chunks_mut(n).for_each(|row| row.rotate_left(64));
        assert!(bits(c) == expected, "{path}");
    });
}

/// What [`the_variable_chooses_the_level`] runs in processes of its own.
#[test]
#[ignore = "says on which level it runs"]
fn detected_level() {
    println!("detected: {};", Level::detect());
}

#[test]
fn the_variable_chooses_the_level() {
    let name = "product::tests::repeat::detected_level";
    let detected = |limit: &str| {
        let program = std::env::current_exe().unwrap();
        let arguments = ["--exact", name, "--ignored", "--nocapture"];
        let output = Command::new(program).args(arguments).env("ALTGRAD_SIMD", limit).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let mut strongest = String::new();
    for level in Level::available() {
        strongest = format!("detected: {level};");
        let output = detected(&level.to_string());
        assert!(output.contains(&strongest), "{level}: {output}");
    }
    for other in ["", "none of them"] {
        assert!(detected(other).contains(&strongest), "{other}");
    }
}
