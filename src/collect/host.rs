//! Statistics of the host under node_exporter's names, from procfs and sysfs.
//!
//! Invariant: never asks a file system that may hang (network, FUSE, autofs); a file that is missing costs its own
//! numbers only, since kernels and containers differ.

mod filesystem;
mod parse;

use std::path::{Path, PathBuf};

use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Sample, Timestamp};

/// Bytes read of one file of procfs.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the host's statistics. Reading takes a few milliseconds of blocking calls.
#[derive(Clone, Debug)]
pub struct HostCollector {
    proc_root: PathBuf,
    sys_root: PathBuf,
    labels: Labels,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    name: String,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Reading {
    fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), labels: Vec::new(), value }
    }

    fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

impl HostCollector {
    /// `proc_root` is usually `/proc`, `sys_root` `/sys`; `labels` go on every sample (cluster, member, instance, job).
    pub fn new(proc_root: impl Into<PathBuf>, sys_root: impl Into<PathBuf>, labels: Labels) -> Self {
        Self { proc_root: proc_root.into(), sys_root: sys_root.into(), labels }
    }

    /// All numbers of now.
    pub fn collect(&self, now: Timestamp) -> Vec<Sample> {
        let mut readings = vec![Reading::new("node_time_seconds", now.secs_f64())];
        for (file, parser) in FILES {
            if let Some(text) = read(&self.proc_root.join(file)) {
                parser(&text, &mut readings);
            }
        }
        self.pressure(&mut readings);
        self.uname(&mut readings);
        self.interfaces(&mut readings);
        if let Some(text) = read(&self.proc_root.join("self/mounts")) {
            filesystem::read(&text, &mut readings);
        }
        readings.into_iter().map(|reading| self.sample(reading, now)).collect()
    }

    fn sample(&self, reading: Reading, now: Timestamp) -> Sample {
        let mut labels = self.labels.to_builder();
        labels.set(METRIC_NAME, reading.name);
        for (name, value) in reading.labels {
            labels.set(name, value);
        }
        Sample::new(labels.build(), now, reading.value)
    }

    fn pressure(&self, out: &mut Vec<Reading>) {
        for resource in ["cpu", "io", "memory"] {
            if let Some(text) = read(&self.proc_root.join("pressure").join(resource)) {
                parse::pressure(resource, &text, out);
            }
        }
    }

    fn uname(&self, out: &mut Vec<Reading>) {
        let kernel = |file: &str| {
            let text = read(&self.proc_root.join("sys/kernel").join(file)).unwrap_or_default();
            text.trim().to_owned()
        };
        out.push(
            Reading::new("node_uname_info", 1.0)
                .with("sysname", kernel("ostype"))
                .with("release", kernel("osrelease"))
                .with("version", kernel("version"))
                .with("nodename", kernel("hostname"))
                .with("domainname", kernel("domainname"))
                .with("machine", std::env::consts::ARCH),
        );
    }

    fn interfaces(&self, out: &mut Vec<Reading>) {
        let Ok(entries) = std::fs::read_dir(self.sys_root.join("class/net")) else { return };
        for entry in entries.flatten().take(256) {
            let device = entry.file_name().to_string_lossy().into_owned();
            let word = |file: &str| read(&entry.path().join(file)).map(|text| text.trim().to_owned());
            let mut put = |name: &str, value: f64| out.push(Reading::new(name, value).with("device", device.clone()));
            if let Some(state) = word("operstate") {
                put("node_network_up", f64::from(u8::from(state == "up")));
            }
            if let Some(carrier) = word("carrier").and_then(|text| text.parse().ok()) {
                put("node_network_carrier", carrier);
            }
            // -1 where the driver does not know.
            if let Some(speed) = word("speed").and_then(|text| text.parse::<f64>().ok()).filter(|speed| *speed >= 0.0) {
                put("node_network_speed_bytes", speed * 1_000_000.0 / 8.0);
            }
        }
    }
}

type Parser = fn(&str, &mut Vec<Reading>);

/// Files of procfs and who reads them.
const FILES: &[(&str, Parser)] = &[
    ("stat", parse::stat),
    ("loadavg", parse::loadavg),
    ("meminfo", parse::meminfo),
    ("diskstats", parse::diskstats),
    ("net/dev", parse::net_dev),
    ("net/snmp", parse::net_counters),
    ("net/netstat", parse::net_counters),
    ("vmstat", parse::vmstat),
    ("sys/fs/file-nr", parse::file_nr),
    ("sys/net/netfilter/nf_conntrack_count", |text, out| parse::single("node_nf_conntrack_entries", text, out)),
    ("sys/net/netfilter/nf_conntrack_max", |text, out| parse::single("node_nf_conntrack_entries_limit", text, out)),
];

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_the_names_that_dashboards_ask_for() {
        let labels = Labels::from_pairs([("job", "node"), ("instance", "here:0")]);
        let samples = HostCollector::new("/proc", "/sys", labels).collect(Timestamp::from_secs(7));
        for name in [
            "node_cpu_seconds_total",
            "node_load1",
            "node_memory_MemAvailable_bytes",
            "node_memory_Committed_AS_bytes",
            "node_network_receive_bytes_total",
            "node_netstat_Tcp_CurrEstab",
            "node_vmstat_pgmajfault",
            "node_filefd_maximum",
            "node_boot_time_seconds",
            "node_time_seconds",
            "node_uname_info",
            "node_procs_running",
        ] {
            let found = samples.iter().find(|sample| sample.labels.metric_name() == name);
            let sample = found.unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(sample.labels.get("job"), Some("node"));
            assert!(sample.value.is_finite(), "{name}");
        }
    }

    #[test]
    fn an_empty_root_gives_only_what_needs_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let samples = HostCollector::new(dir.path(), dir.path(), Labels::default()).collect(Timestamp::default());
        let names: Vec<&str> = samples.iter().map(|sample| sample.labels.metric_name()).collect();
        assert_eq!(names, ["node_time_seconds", "node_uname_info"]);
    }
}
