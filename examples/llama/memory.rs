//! What the program takes of memory.

use std::fs;

/// Bytes in millions.
pub(crate) fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The most memory that the program has had so far, on systems that say it.
pub(crate) fn peak() -> String {
    let peak = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()
    });
    peak.map_or("peak memory unknown".to_owned(), |kib| format!("peak memory {}", megabytes(kib * 1024)))
}
