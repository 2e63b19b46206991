//! A report with similar layers in one row.

use std::fmt;

use super::report::{LayerReport, QuantReport, bytes_text};
use super::table::{Column, shape_text, write_table};

/// A [`QuantReport`] in which the same layer of each block is one row: `model.layers.*.mlp.down_proj ×30`, with the
/// lowest and the mean signal-to-quantization-noise ratio and the bytes of all. Layers whose ratio is more than 3 dB
/// below the mean of their group have rows of their own beneath it.
///
/// `Display` prints a table of at most 100 characters per line, or of the width given in the format string:
/// `{grouped:160}`.
#[derive(Clone, Debug)]
pub struct GroupedReport<'r> {
    report: &'r QuantReport,
    groups: Vec<Group<'r>>,
}

/// Layers that are alike: in name, shape and what was done.
#[derive(Clone, Debug)]
struct Group<'r> {
    pattern: String,
    layers: Vec<&'r LayerReport>,
}

/// A layer that is further than this below the mean of its group has a row of its own; in decibels.
const OUTLIER_DB: f64 = 3.0;

impl QuantReport {
    /// The same report with similar layers of different blocks in one row, for people to read: [`GroupedReport`].
    #[must_use]
    pub fn grouped(&self) -> GroupedReport<'_> {
        GroupedReport::new(self)
    }
}

impl<'r> GroupedReport<'r> {
    pub(super) fn new(report: &'r QuantReport) -> Self {
        let mut groups: Vec<Group<'r>> = Vec::new();
        for layer in &report.layers {
            let pattern = pattern_of(&layer.path);
            let is_alike = |group: &&mut Group<'_>| {
                group.pattern == pattern
                    && group.layers.first().is_some_and(|first| {
                        (&first.shape, &first.action, first.formats_text())
                            == (&layer.shape, &layer.action, layer.formats_text())
                    })
            };
            match groups.iter_mut().find(is_alike) {
                Some(group) => group.layers.push(layer),
                None => groups.push(Group { pattern, layers: vec![layer] }),
            }
        }
        Self { report, groups }
    }
}

/// The path with `*` in place of each number.
fn pattern_of(path: &str) -> String {
    let star = |segment| if str::parse::<u64>(segment).is_ok() { "*" } else { segment };
    path.split('.').map(star).collect::<Vec<_>>().join(".")
}

impl Group<'_> {
    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.layers.iter().filter_map(|layer| Some(layer.distortion?.sqnr_db))
    }

    fn mean(&self) -> Option<f64> {
        let count = self.ratios().count();
        (count > 0).then(|| self.ratios().sum::<f64>() / count as f64)
    }

    /// The row of the group, and those of its outliers.
    fn rows(&self) -> Vec<Vec<String>> {
        let [first, ..] = self.layers[..] else { return Vec::new() };
        let (name, is_one) = match self.layers.len() {
            1 => (first.path.clone(), true),
            count => (format!("{} ×{count}", self.pattern), false),
        };
        let decibels = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.1}")).unwrap_or_default();
        let sum = |bytes: fn(&LayerReport) -> usize| self.layers.iter().map(|layer| bytes(layer)).sum();
        let row = |name: String, layer: &LayerReport, least: Option<f64>, mean: Option<f64>, bytes: String| {
            let shape = shape_text(&layer.shape);
            vec![name, layer.action.to_string(), shape, layer.formats_text(), decibels(least), decibels(mean), bytes]
        };
        let bytes = bytes_text(sum(|layer| layer.bytes_before), sum(|layer| layer.bytes_after));
        let mut rows = vec![row(name, first, self.ratios().reduce(f64::min), self.mean(), bytes)];
        let Some(mean) = self.mean().filter(|mean| !is_one && mean.is_finite()) else { return rows };
        for layer in &self.layers {
            if let Some(ratio) = layer.distortion.map(|it| it.sqnr_db).filter(|ratio| *ratio < mean - OUTLIER_DB) {
                let bytes = bytes_text(layer.bytes_before, layer.bytes_after);
                rows.push(row(format!("  {}", layer.path), layer, Some(ratio), None, bytes));
            }
        }
        rows
    }
}

const COLUMNS: [Column; 7] = [
    Column::text("layer"),
    Column::text("action"),
    Column::text("shape").dispensable(1),
    Column::text("format"),
    Column::number("least SQNR dB"),
    Column::number("mean").dispensable(0),
    Column::number("bytes"),
];

impl fmt::Display for GroupedReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.groups.iter().flat_map(Group::rows).collect();
        write_table(f, &COLUMNS, &rows)?;
        self.report.write_summary(f)
    }
}

#[cfg(test)]
mod tests {
    use super::pattern_of;

    #[test]
    fn numbers_are_what_blocks_differ_in() {
        assert_eq!(pattern_of("model.layers.10.mlp.experts.3.up_proj"), "model.layers.*.mlp.experts.*.up_proj");
        assert_eq!(pattern_of("lm_head"), "lm_head");
        assert_eq!(pattern_of(""), "");
    }
}
