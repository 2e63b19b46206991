//! Sums over a row in independent lanes, which do not wait for one another and vectorize.

/// Number of lanes.
pub(super) const LANES: usize = 32;

/// `Σ term(x[i], y[i])` for rows of the same length.
#[inline(always)]
pub(super) fn sum(x: &[f32], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += term(*x, *y);
        }
    }
    for ((sum, x), y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
        *sum += term(*x, *y);
    }
    total(sums)
}

/// The sum of all lanes, in a tree.
#[inline(always)]
pub(super) fn total(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        let (first, second) = sums.split_at_mut(width);
        for (first, second) in first.iter_mut().zip(second) {
            *first += *second;
        }
        width /= 2;
    }
    sums[0]
}
