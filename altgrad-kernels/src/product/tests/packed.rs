//! Codes that are kept in panels.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What a packed matrix of these codes gives back.
fn check_round_trip(codes: &[u8], format: Fp8, (rows, cols): (usize, usize), block: (usize, usize)) {
    let blocks = Blocks::new(rows, cols, block.0, block.1);
    let scales: Vec<f32> = (0..blocks.count()).map(|number| number as f32 + 0.5).collect();
    let packed = PackedCodes::new(codes, format, blocks, scales.clone());
    assert_eq!(packed.codes(), codes, "{rows} × {cols}");
    assert_eq!((packed.format(), packed.blocks(), packed.scales()), (format, blocks, &scales[..]));
    // A row of odd length takes one byte more, a scale four.
    assert_eq!(packed.bytes(), rows * (cols + cols % 2) + 4 * scales.len(), "{rows} × {cols}");
}

#[test]
fn shapes_beside_panels_and_pairs() {
    for rows in [0, 1, 2, 63, 64, 65, 127, 128, 129, 200] {
        for cols in [0, 1, 2, 3, 31, 32, 33, 64, 65] {
            let random = &mut Random::new(rows * cols);
            let codes: Vec<u8> = (0..rows * cols).map(|_| random.next() as u8).collect();
            check_round_trip(&codes, Fp8::E5M2, (rows, cols), (1, 32));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn codes_come_back(
        (rows, cols) in (0usize..300, 0usize..70),
        block in (1usize..310, 1usize..80),
        format in select(Fp8::NAMED.map(|(_, format)| format).to_vec()),
        seed in 0usize..1 << 30,
    ) {
        let random = &mut Random::new(seed);
        let codes: Vec<u8> = (0..rows * cols).map(|_| random.next() as u8).collect();
        check_round_trip(&codes, format, (rows, cols), block);
    }
}
