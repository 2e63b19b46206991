//! The order in which codes of a right operand are decoded.

use super::NR;

/// The codes of two successive indices of the sum for each column of a panel.
pub(super) type PairRow = [u8; 2 * NR];

/// Where in a [`PairRow`] the codes of a column are: the first of two bytes.
///
/// Interleaving the lower, then the upper halves of the four 16-byte lanes of 64 such bytes with as many others gives
/// the columns in order, 16 to a vector. That is what a decoder on AVX-512 does with the upper and lower bytes of
/// values.
pub(super) const fn position(col: usize) -> usize {
    let (half, quarter, lane, place) = (col / 32, col / 16 % 2, col / 4 % 4, col % 4);
    64 * half + 16 * lane + 8 * quarter + 2 * place
}

/// Brings the pair rows of a narrow panel, of `width`, into the order of whole ones.
pub(super) fn widened(panel: &[u8], width: usize, to: &mut [PairRow]) {
    for (to, from) in to.iter_mut().zip(panel.chunks_exact(2 * width)) {
        *to = [0; 2 * NR];
        for (col, pair) in from.chunks_exact(2).enumerate() {
            to[position(col)..][..2].copy_from_slice(pair);
        }
    }
}

/// Where in the pair rows of a panel of `width` the codes of a row are.
pub(super) fn place(row: usize, width: usize) -> usize {
    if width == NR { position(row % NR) } else { 2 * (row % NR) }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn every_column_has_two_bytes_of_its_own() {
        let mut places: Vec<usize> = (0..64).map(position).collect();
        places.sort_unstable();
        assert_eq!(places, (0..128).step_by(2).collect::<Vec<_>>());
    }
}
