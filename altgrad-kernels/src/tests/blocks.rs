//! Blocks of every shape: each element is converted under the scale of its own block.

use half::bf16;

use super::*;

/// Rows, columns, and rows and columns of a block.
const SHAPES: [[usize; 4]; 21] = [
    [1, 1, 1, 1],
    [3, 7, 1, 7],
    [5, 64, 1, 32],
    [5, 33, 1, 32],
    [4, 31, 1, 32],
    [130, 150, 128, 128],
    [130, 150, 1, 128],
    [2, 2100, 1, 2100],
    [3, 2100, 2, 1500],
    // Chunks of one block, then one of several, then the first block again.
    [2, 2600, 2, 2500],
    [6, 5, 4, 2],
    [7, 3, 100, 100],
    // Narrow and high blocks, which are converted tile by tile.
    [70, 40, 32, 1],
    [65, 2100, 32, 1],
    [40, 3, 40, 1],
    [5, 2, 3, 1],
    [64, 70, 32, 31],
    [0, 5, 32, 1],
    [0, 5, 1, 32],
    [5, 0, 1, 32],
    [5, 0, 1, 0],
];

/// The number of an element's block, by division.
fn block_of([_, cols, block_rows, block_cols]: [usize; 4], row: usize, col: usize) -> usize {
    let across = cols.div_ceil(block_cols.max(1)).max(1);
    row / block_rows * across + col / block_cols.max(1)
}

fn check_shapes<T: Sample>() {
    let oracle = Oracle::new(NAMED[4]);
    let format = format_of(oracle.spec);
    for shape @ [rows, cols, block_rows, block_cols] in SHAPES {
        let blocks = Blocks::new(rows, cols, block_rows, block_cols);
        let count = rows.div_ceil(block_rows) * cols.div_ceil(block_cols.max(1)).max(1);
        assert_eq!(blocks.count(), count, "{shape:?}");
        let values: Vec<T> = (0..rows * cols)
            .map(|i| T::near(((i * 7919 + 13) % 1009) as f64 * if i % 3 == 0 { -0.37 } else { 1.9 }))
            .collect();
        let scales: Vec<f32> = (0..count).map(|block| 0.25 + 0.83 * block as f32).collect();
        let conversion = Conversion {
            blocks,
            scales: scales.iter().map(|scale| Scale::new(*scale)).collect(),
            ..whole(values.len(), format, 1.0)
        };
        let (mut fake, mut codes) = (vec![T::default(); values.len()], vec![0; values.len()]);
        let mut decoded = fake.clone();
        convert(&values, &mut fake, &conversion);
        assert!(convert_to_codes(&values, &mut codes, &conversion));
        on_every_level(|level| elementwise::decode(level, &codes, &mut decoded, format, blocks, &scales));
        let amaxes = on_every_level(|level| elementwise::amax(level, &values, blocks));
        let mut expected_amaxes = vec![0f64; count];
        for (position, value) in values.iter().enumerate() {
            let block = block_of(shape, position / cols, position % cols);
            let context = || format!("{shape:?} at {position}");
            let code = oracle.saturated(value.quotient(scales[block])).unwrap();
            assert_eq!(codes[position], code, "{}", context());
            let product = T::product_bits(oracle.decode(code), scales[block]);
            assert_bits(fake[position], product, false, &context);
            assert_bits(decoded[position], product, false, &context);
            expected_amaxes[block] = expected_amaxes[block].max(value.exact().abs());
        }
        assert_eq!(amaxes, expected_amaxes, "{shape:?}");
    }
}

#[test]
fn every_element_has_the_scale_of_its_block() {
    check_shapes::<f32>();
    check_shapes::<f64>();
    check_shapes::<bf16>();
}

#[test]
fn nan_shows_in_the_amax_of_its_block_only() {
    let mut values = vec![1f32; 4 * 70];
    values[70 + 40] = f32::NAN;
    let amaxes = on_every_level(|level| {
        let amaxes = elementwise::amax(level, &values, Blocks::new(4, 70, 1, 32));
        amaxes.into_iter().map(f64::to_bits).collect::<Vec<_>>()
    });
    for (block, amax) in amaxes.into_iter().map(f64::from_bits).enumerate() {
        assert_eq!(amax.is_nan(), block == 3 + 1, "{block}");
    }
}
