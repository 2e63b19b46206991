//! Matrix products over codes: `c[i, j] = Σ a[i, p] · b[j, p]`, with the operands' scales.
//!
//! The right operand is decoded a panel of [`NR`] columns and a run of the sum's index at a time, into a buffer that
//! stays in the cache while tiles of [`MR`] rows of the left operand pass by. All values of all formats are exact in
//! bf16, so where the processor multiplies pairs of bf16 ([`Dot::Pairs`]) codes are decoded to those; elsewhere, and
//! for operands that are not codes, to f32 ([`Dot::Singles`]). Either way products are summed in f32, in an order
//! that depends on the shapes alone. Where the elements of a run share a scale, it is the run's sum that is scaled
//! and not each element, unless there are more such sums than elements, or runs are short. Pairs are scaled only by
//! powers of two, which keep them exact.
//!
//! The result differs from the exact one by at most `2·k·2⁻²⁴·Σ|a||b|` for a sum of `k` products.

pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod interleave;
mod lhs;
mod matrix;
mod microkernel;
mod output_tile;
mod packed;
mod pair_row;
mod panels;
#[cfg(test)]
mod peak;
mod plan;
mod rhs;
mod table;
#[cfg(test)]
mod tests;
mod tile;
mod widening;

use interleave::NearColumn;
pub use lhs::Lhs;
pub use matrix::{CodeMatrix, FloatMatrix};
pub use packed::PackedCodes;
pub use panels::{Role, TokenPanels};
pub use rhs::Rhs;

use std::borrow::Cow;
use std::ops::Range;

use super::level::Level;
use super::memory::Aligned;
use super::threads;
use lhs::PackedLhs;
use microkernel::Epilogue;
use output_tile::OutputTile;
use pair_row::PairRow;
use plan::KC;
use table::Table;
use tile::Columns;
use widening::Widening;

/// Columns of the result that are computed at a time.
const NR: usize = 64;

/// Rows of a tile of the result, whose sums are in registers: 6 × 64 take 24 of the 32 vector registers of AVX-512.
const MR: usize = 6;

/// What a dword of an operand holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dot {
    /// One `f32`.
    Singles,
    /// Two values of bf16, that of the lower index in the lower half.
    Pairs,
}

impl Dot {
    /// Elements of a dword.
    fn elements(self) -> usize {
        match self {
            Self::Singles => 1,
            Self::Pairs => 2,
        }
    }
}

/// How a run's sums become part of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunScaling {
    /// Nothing to do: they are in units of the result.
    Done,
    /// By multiplication in f32.
    Single,
    /// In f64: intermediate results may be out of the range of f32.
    Double,
}

/// A product with all choices made.
struct Product<'a> {
    level: Level,
    dot: Dot,
    rhs: &'a Rhs<'a>,
    outline: CodeMatrix<'a>,
    table: Cow<'a, Table>,
    lhs: PackedLhs,
    /// The left operand's scales, if it has any.
    lhs_scales: Option<CodeMatrix<'a>>,
    runs: Vec<Range<usize>>,
    scaling: RunScaling,
    factor: f64,
    /// Whether tiles read codes.
    is_direct: bool,
    /// How tiles decode codes that they read, if they do it by widening.
    widening: Option<Widening>,
}

/// Buffers of a thread, as large as was needed so far.
#[derive(Default)]
struct Scratch {
    near: Vec<NearColumn>,
    pairs: Vec<PairRow>,
    decoded: Aligned<[u32; NR]>,
    row_scales: Vec<f32>,
}

/// `c[i, j] = Σ a[i, p] · b[j, p]` for `a` and `b` with rows of the same length; `c` has one row for each row of `a`.
pub(crate) fn multiply(level: Level, a: &Lhs<'_>, b: &Rhs<'_>, c: &mut [f32]) {
    let outline = b.outline();
    let ((rows, length), (cols, _)) = (a.shape(), outline.shape());
    debug_assert_eq!(length, outline.shape().1, "both operands have rows of the same length");
    debug_assert_eq!(c.len(), rows * cols, "one element for each pair of rows");
    if length == 0 || c.is_empty() {
        c.fill(0.0);
        return;
    }
    if let Lhs::Codes(codes) = a
        && plan::runs(length, [*codes, outline].into_iter(), KC).is_none()
    {
        let values = codes.decoded(level);
        return multiply(level, &Lhs::Floats(codes.with_values(&values)), b, c);
    }
    // To bring a code into a register takes as long as to multiply it by several rows. Two threads are faster than one
    // from about 32 K codes on: products of a model follow one another, so the other thread is awake.
    let work = (rows.max(64) * cols).saturating_mul(length) / 32;
    let product = Product::new(level, a, b);
    // If there are too few panels for all threads, rows are divided as well; each part then decodes the panel again.
    let tiles = product.lhs.cuts();
    let threads = threads::count(work);
    let wanted = if threads > 1 { 2 * threads } else { 1 };
    let parts = wanted.div_ceil(cols.div_ceil(NR)).clamp(1, tiles.len() - 1);
    let cuts: Vec<usize> = (0..=parts).map(|part| tiles[part * (tiles.len() - 1) / parts]).collect();
    let tiles = OutputTile::divide(c, cols, &cuts, NR);
    threads::for_each_with(tiles, work, Scratch::default, |scratch, output_tile| product.compute(scratch, output_tile));
}

impl<'a> Product<'a> {
    fn new(level: Level, a: &Lhs<'a>, rhs: &'a Rhs<'a>) -> Self {
        let outline = rhs.outline();
        let (rows, length) = a.shape();
        let is_direct = rows <= tile::decodes_on_the_way(level);
        let lhs_scales = if let Lhs::Codes(codes) = a { Some(*codes) } else { None };
        let operands = || [Some(outline), lhs_scales].into_iter().flatten();
        let by_run = a.exponent_range(level, outline.format(), length).and_then(|exponent_range| {
            let (fold, is_normal) = exponent_range.fold();
            let dot =
                if is_normal && level.has_pairs() && !matches!(a, Lhs::Floats(_)) { Dot::Pairs } else { Dot::Singles };
            let is_in_range =
                (fold, is_normal) == (0, true) && operands().all(|codes| exponent_range.can_be_scaled_by(codes));
            let scaling = match (is_in_range, lhs_scales) {
                (true, _) => RunScaling::Single,
                (false, Some(_)) => RunScaling::Double,
                (false, None) => return None,
            };
            // Codes that are decoded on the way into the sums need no buffer.
            let depth = if is_direct && matches!(rhs, Rhs::Packed(_)) { length } else { KC * dot.elements() };
            let may_widen = is_direct && fold == 0 && tile::widens(level);
            let widening = may_widen.then(|| Widening::new(outline.format(), rhs.census(), exponent_range)).flatten();
            Some((dot, fold, plan::runs(length, operands(), depth)?, scaling, widening))
        });
        let dot_of_scaled = by_run.as_ref().filter(|(dot, _, _, scaling, _)| {
            *scaling == RunScaling::Single && !is_direct && scales_elements(a, outline, lhs_scales, *dot)
        });
        let dot_of_scaled = dot_of_scaled.map(|(dot, ..)| *dot);
        let (dot, fold, runs, scaling, widening) = match (by_run, dot_of_scaled) {
            (Some(by_run), None) => by_run,
            (_, dot) => {
                let dot = dot.unwrap_or(Dot::Singles);
                let runs = plan::runs(length, [].into_iter(), KC * dot.elements()).unwrap_or_default();
                (dot, 0, runs, RunScaling::Done, None)
            }
        };
        Self {
            level,
            dot,
            rhs,
            outline,
            table: rhs.table(),
            lhs: PackedLhs::new(level, a, fold, dot, scaling == RunScaling::Done),
            lhs_scales,
            runs,
            scaling,
            factor: f64::from(fold).exp2(),
            is_direct: is_direct && scaling != RunScaling::Done,
            widening,
        }
    }

    /// Computes an output tile of the result.
    fn compute(&self, scratch: &mut Scratch, mut output_tile: OutputTile<'_>) {
        let Self { level, dot, ref table, .. } = *self;
        let Scratch { near, pairs, decoded, row_scales } = scratch;
        let (rows, cols) = (output_tile.rows(), output_tile.cols());
        let mut col_scales = [1.0; NR];
        for (number, run) in self.runs.iter().enumerate() {
            let pairs = self.rhs.pair_rows(cols.clone(), run.clone(), level, near, pairs);
            let rhs = if let Some(widening) = &self.widening {
                Columns::Widened(pairs, widening)
            } else if self.is_direct {
                Columns::Codes(pairs, table)
            } else {
                let depth = run.len().div_ceil(dot.elements());
                let decoded = decoded.at_least(depth);
                tile::decode(level, dot, table, pairs, decoded);
                if self.scaling == RunScaling::Done {
                    scale(level, dot, &self.outline, cols.clone(), run.clone(), decoded);
                }
                let (next_cols, next_run) = self.after(&cols, number);
                self.rhs.prefetch(next_cols, next_run);
                Columns::Decoded(decoded)
            };
            if number == 0 || run.start % self.outline.block().1 == 0 {
                self.outline.scales_of(cols.clone(), run.start, &mut col_scales[..cols.len()]);
            }
            if let Some(lhs) = &self.lhs_scales
                && (number == 0 || run.start % lhs.block().1 == 0)
            {
                row_scales.resize(rows.len(), 1.0);
                lhs.scales_of(rows.clone(), run.start, row_scales);
            }
            let dwords = run.start / dot.elements()..run.end.div_ceil(dot.elements());
            let cuts = self.lhs.cuts();
            let first_cut = cuts.partition_point(|cut| *cut < rows.start);
            for ends in cuts[first_cut..].windows(2).take_while(|ends| ends[1] <= rows.end) {
                let tile_rows = ends[0]..ends[1];
                let epilogue = Epilogue {
                    scaling: self.scaling,
                    rows: row_scales.get(ends[0] - rows.start..ends[1] - rows.start).unwrap_or_default(),
                    cols: &col_scales,
                    factor: self.factor,
                    accumulate: number > 0,
                };
                let lhs = self.lhs.tile(tile_rows.clone(), dwords.clone());
                tile::tile(level, dot, lhs, rhs, &epilogue, tile_rows, &mut output_tile);
            }
        }
    }

    /// The columns and the run that are likely to follow.
    fn after(&self, cols: &Range<usize>, number: usize) -> (Range<usize>, Range<usize>) {
        let end = self.outline.shape().0;
        match self.runs.get(number + 1) {
            Some(run) => (cols.clone(), run.clone()),
            None => (cols.end..(cols.end + NR).min(end), self.runs.first().cloned().unwrap_or_default()),
        }
    }
}

/// Whether a product has fewer elements than sums of runs under one scale, so that it is cheaper to scale the elements,
/// and nothing is lost by that.
fn scales_elements(a: &Lhs<'_>, rhs: CodeMatrix<'_>, lhs: Option<CodeMatrix<'_>>, dot: Dot) -> bool {
    let ((rows, length), (cols, _)) = (a.shape(), rhs.shape());
    let operands = || [Some(rhs), lhs].into_iter().flatten();
    let blocks = operands().map(|codes| codes.block().1).filter(|block| *block < length);
    blocks.min().is_some_and(|block| rows + cols < rows.saturating_mul(cols) / block)
        && plan::are_scaled_elements_normal(operands(), length, dot)
}

/// Multiplies the values of a run of codes' rows, which are the columns of a panel, by the scale of each.
fn scale(
    level: Level,
    dot: Dot,
    codes: &CodeMatrix<'_>,
    rows: Range<usize>,
    run: Range<usize>,
    mut values: &mut [[u32; NR]],
) {
    let mut scales = [1.0; NR];
    let block = codes.block().1;
    let mut index = run.start;
    while index < run.end {
        let end = ((index / block + 1) * block).min(run.end);
        let (of_block, rest) = values.split_at_mut((end - index).div_ceil(dot.elements()));
        codes.scales_of(rows.clone(), index, &mut scales[..rows.len()]);
        tile::scale(level, dot, &scales, of_block);
        (values, index) = (rest, end);
    }
}
