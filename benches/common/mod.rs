//! What all benchmarks share: comparing medians that criterion measured in the same run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::SystemTime;

use criterion::Criterion;
use serde_json::Value;

/// When this run began: estimates that are older are of another run.
static START: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// Criterion's settings for all benchmarks.
pub(crate) fn criterion() -> Criterion {
    LazyLock::force(&START);
    Criterion::default().sample_size(30).configure_from_args()
}

/// What a benchmark compares, under its name.
pub(crate) type Contestant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Measures the first contestant against the others, and prints how many times faster it was than each; an iteration is
/// of so many `units`.
pub(crate) fn compare(
    criterion: &mut Criterion,
    group: &str,
    (count, units): (usize, &str),
    mut contestants: Vec<Contestant<'_>>,
) {
    let mut benchmarks = criterion.benchmark_group(group);
    for (name, run) in &mut contestants {
        benchmarks.bench_function(*name, |bencher| bencher.iter(&mut *run));
    }
    benchmarks.finish();
    let medians = contestants.iter().map(|(name, _)| Some((*name, median_ns(group, name)?)));
    // None if they were listed, tested or filtered out, but not measured.
    let Some(medians) = medians.collect::<Option<Vec<_>>>() else { return };
    let Some(&(_, ours)) = medians.first() else { return };
    for (name, median) in medians {
        let (milliseconds, rate) = (median / 1e6, count as f64 / median);
        println!("{group}: {name} {milliseconds:.3} ms, {rate:.2} G {units}/s, ratio {:.2}×", median / ours);
    }
    println!();
}

fn median_ns(group: &str, function: &str) -> Option<f64> {
    // Criterion names a folder after a group, with this in place of what no name of a file may have.
    let group = group.replace('/', "_");
    let file = target_folder().join("criterion").join(group).join(function).join("new/estimates.json");
    if fs::metadata(&file).ok()?.modified().ok()? < *START {
        return None;
    }
    let estimates: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}
