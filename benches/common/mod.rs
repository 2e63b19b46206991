//! What all benchmarks share: comparing two medians that criterion measured in the same run.

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

/// Prints how many times faster `ours` was than `peer` in group `group`, and the elements a second of both.
pub(crate) fn print_ratio(group: &str, ours: &str, peer: &str, elements: usize) {
    let (Some(ours_ns), Some(peer_ns)) = (median_ns(group, ours), median_ns(group, peer)) else {
        return; // Listed, tested or filtered out, but not measured.
    };
    let rate = |ns: f64| elements as f64 / ns;
    println!(
        "{group}: {ours} {:.2} G elements/s, {peer} {:.2} G elements/s, ratio {:.1}×\n",
        rate(ours_ns),
        rate(peer_ns),
        peer_ns / ours_ns,
    );
}

/// What a benchmark compares, under its name.
pub(crate) type Contestant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Measures the first contestant against the others, and prints how many times faster it was than each; an iteration is
/// of `operations` floating-point operations.
pub(crate) fn compare(criterion: &mut Criterion, group: &str, operations: usize, mut contestants: Vec<Contestant<'_>>) {
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
        let (milliseconds, rate) = (median / 1e6, operations as f64 / median);
        println!("{group}: {name} {milliseconds:.3} ms, {rate:.0} GFLOP/s, ratio {:.2}×", median / ours);
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
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
}
