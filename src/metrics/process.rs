//! What the kernel counts of this process and of the root's disk, read when somebody asks.

use std::path::PathBuf;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Adds them to a registry.
pub fn register(registry: &mut Registry, root: PathBuf) {
    registry.register_collector(Box::new(Kernel { root }));
}

#[derive(Debug)]
struct Kernel {
    root: PathBuf,
}

impl Collector for Kernel {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<u64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let kind = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, unit, kind)?)
        };
        let memory = resident_bytes();
        gauge("process_resident_memory", "Memory in use", Some(&Unit::Bytes), memory)?;
        gauge("process_open_fds", "Open files and sockets", None, entries("/proc/self/fd"))?;
        gauge("process_threads", "Threads", None, entries("/proc/self/task"))?;
        if let Ok(disk) = rustix::fs::statvfs(&self.root) {
            let bytes = |blocks: u64| Some(blocks.saturating_mul(disk.f_frsize));
            let unit = Some(&Unit::Bytes);
            gauge("boatyard_root_free", "Free on the root's disk", unit, bytes(disk.f_bavail))?;
            gauge("boatyard_root_size", "Size of the root's disk", unit, bytes(disk.f_blocks))?;
            gauge("boatyard_root_free_inodes", "Free inodes on it", None, Some(disk.f_favail))?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let text = fs_err::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn entries(directory: &str) -> Option<u64> {
    Some(fs_err::read_dir(directory).ok()?.count() as u64)
}
