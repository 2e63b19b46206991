//! Transposition of matrices.

use super::threads;

/// Rows and columns of a tile, whose rows take a cache line or less.
const TILE: usize = 16;

/// Writes the transpose of `from`, which has rows of `cols` elements, to `to`, which has the same length.
///
/// Tile by tile through a buffer, so that each cache line of either matrix is touched once: lines a power of two apart
/// displace one another.
pub fn transpose<T: Copy + Default + Send + Sync>(from: &[T], to: &mut [T], cols: usize) {
    debug_assert_eq!(from.len(), to.len(), "as many elements");
    let Some(rows) = from.len().checked_div(cols).filter(|rows| *rows > 0) else { return };
    let bands: Vec<_> = to.chunks_mut(TILE * rows).enumerate().collect();
    threads::for_each(bands, from.len(), |(number, band)| {
        let first = number * TILE;
        let width = band.len() / rows;
        let mut tile = [[T::default(); TILE]; TILE];
        for start in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - start);
            for (row, place) in (start..start + height).zip(0..) {
                for (line, value) in tile.iter_mut().zip(&from[row * cols + first..][..width]) {
                    line[place] = *value;
                }
            }
            for (to, line) in band.chunks_exact_mut(rows).zip(&tile) {
                to[start..start + height].copy_from_slice(&line[..height]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::transpose;

    #[test]
    fn every_element_changes_places_with_its_mirror_image() {
        for (rows, cols) in [(0, 0), (0, 3), (3, 0), (1, 1), (1, 40), (40, 1), (16, 16), (17, 15), (33, 48), (300, 301)]
        {
            let from: Vec<u32> = (0..(rows * cols) as u32).collect();
            let mut to = vec![0; from.len()];
            transpose(&from, &mut to, cols);
            for row in 0..rows {
                for col in 0..cols {
                    assert_eq!(to[col * rows + row], from[row * cols + col], "{rows} × {cols}");
                }
            }
        }
    }
}
