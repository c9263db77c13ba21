//! Texts of procfs, as numbers under node_exporter's names.
//!
//! Invariant: total. Lines of another shape than expected are skipped.

use super::Reading;

/// The kernel counts CPU time for user space in these; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const SECTOR_BYTES: f64 = 512.0;

const CPU_MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// `/proc/stat`.
pub(super) fn stat(text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        let single = match key {
            "btime" => "node_boot_time_seconds",
            "ctxt" => "node_context_switches_total",
            "intr" => "node_intr_total",
            "processes" => "node_forks_total",
            "procs_running" => "node_procs_running",
            "procs_blocked" => "node_procs_blocked",
            _ => "",
        };
        if !single.is_empty() {
            out.extend(words.next().and_then(|word| word.parse().ok()).map(|value| Reading::new(single, value)));
            continue;
        }
        let Some(cpu) = key.strip_prefix("cpu").filter(|cpu| !cpu.is_empty()) else { continue };
        for (mode, word) in CPU_MODES.iter().zip(words) {
            let Ok(ticks) = word.parse::<f64>() else { continue };
            out.push(
                Reading::new("node_cpu_seconds_total", ticks / TICKS_PER_SECOND).with("cpu", cpu).with("mode", *mode),
            );
        }
    }
}

/// `/proc/loadavg`.
pub(super) fn loadavg(text: &str, out: &mut Vec<Reading>) {
    let names = ["node_load1", "node_load5", "node_load15"];
    for (name, word) in names.iter().zip(text.split_ascii_whitespace()) {
        out.extend(word.parse().ok().map(|value| Reading::new(*name, value)));
    }
}

/// `/proc/meminfo`: kilobytes, but for counts of huge pages.
pub(super) fn meminfo(text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        let key = key.replace('(', "_").replace(')', "");
        let mut words = rest.split_ascii_whitespace();
        let Some(value) = words.next().and_then(|word| word.parse::<f64>().ok()) else { continue };
        out.push(match words.next() {
            Some("kB") => Reading::new(format!("node_memory_{key}_bytes"), value * 1024.0),
            _ => Reading::new(format!("node_memory_{key}"), value),
        });
    }
}

/// `/proc/diskstats`: whole disks only.
pub(super) fn diskstats(text: &str, out: &mut Vec<Reading>) {
    const COLUMNS: [(usize, &str, f64); 11] = [
        (3, "node_disk_reads_completed_total", 1.0),
        (4, "node_disk_reads_merged_total", 1.0),
        (5, "node_disk_read_bytes_total", SECTOR_BYTES),
        (6, "node_disk_read_time_seconds_total", 0.001),
        (7, "node_disk_writes_completed_total", 1.0),
        (8, "node_disk_writes_merged_total", 1.0),
        (9, "node_disk_written_bytes_total", SECTOR_BYTES),
        (10, "node_disk_write_time_seconds_total", 0.001),
        (11, "node_disk_io_now", 1.0),
        (12, "node_disk_io_time_seconds_total", 0.001),
        (13, "node_disk_io_time_weighted_seconds_total", 0.001),
    ];
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(device) = words.get(2).filter(|device| is_whole_disk(device)) else { continue };
        for (column, name, unit) in COLUMNS {
            if let Some(value) = words.get(column).and_then(|word| word.parse::<f64>().ok()) {
                out.push(Reading::new(name, value * unit).with("device", *device));
            }
        }
    }
}

/// Neither a partition nor a RAM, loop or floppy device.
fn is_whole_disk(device: &str) -> bool {
    let name = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if name.len() == device.len() {
        return true;
    }
    let scsi_partition = ["hd", "sd", "vd", "xvd"].iter().any(|kind| {
        name.strip_prefix(kind)
            .is_some_and(|letter| letter.len() == 1 && letter.chars().all(|c| c.is_ascii_lowercase()))
    });
    let nvme_partition = name.starts_with("nvme") && name.ends_with('p');
    !(scsi_partition || nvme_partition || ["ram", "zram", "loop", "fd"].contains(&name))
}

/// `/proc/net/dev`.
pub(super) fn net_dev(text: &str, out: &mut Vec<Reading>) {
    const COLUMNS: [&str; 16] = [
        "receive_bytes",
        "receive_packets",
        "receive_errs",
        "receive_drop",
        "receive_fifo",
        "receive_frame",
        "receive_compressed",
        "receive_multicast",
        "transmit_bytes",
        "transmit_packets",
        "transmit_errs",
        "transmit_drop",
        "transmit_fifo",
        "transmit_colls",
        "transmit_carrier",
        "transmit_compressed",
    ];
    for line in text.lines() {
        let Some((device, counters)) = line.split_once(':') else { continue };
        for (column, word) in COLUMNS.iter().zip(counters.split_ascii_whitespace()) {
            if let Ok(value) = word.parse() {
                out.push(Reading::new(format!("node_network_{column}_total"), value).with("device", device.trim()));
            }
        }
    }
}

/// `/proc/net/snmp` and `/proc/net/netstat`: a line of names, then a line of numbers, per protocol.
pub(super) fn net_counters(text: &str, out: &mut Vec<Reading>) {
    const WANTED: [(&str, &[&str]); 3] = [
        ("Tcp", &["ActiveOpens", "PassiveOpens", "CurrEstab", "InErrs", "InSegs", "OutRsts", "OutSegs", "RetransSegs"]),
        ("TcpExt", &["ListenDrops", "ListenOverflows", "TCPSynRetrans", "TCPTimeouts"]),
        ("Udp", &["InDatagrams", "InErrors", "NoPorts", "OutDatagrams"]),
    ];
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let [names, numbers] = pair else { continue };
        let (Some((protocol, names)), Some((_, numbers))) = (names.split_once(':'), numbers.split_once(':')) else {
            continue;
        };
        let Some((_, wanted)) = WANTED.iter().find(|(name, _)| *name == protocol) else { continue };
        for (name, number) in names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace()) {
            if let Some(value) = number.parse().ok().filter(|_: &f64| wanted.contains(&name)) {
                out.push(Reading::new(format!("node_netstat_{protocol}_{name}"), value));
            }
        }
    }
}

/// `/proc/vmstat`.
pub(super) fn vmstat(text: &str, out: &mut Vec<Reading>) {
    const WANTED: [&str; 7] = ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"];
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ')
            && WANTED.contains(&key)
            && let Ok(value) = value.trim().parse()
        {
            out.push(Reading::new(format!("node_vmstat_{key}"), value));
        }
    }
}

/// `/proc/pressure/*`: microseconds that some, or all, tasks waited.
pub(super) fn pressure(resource: &str, text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let word = match line.split_ascii_whitespace().next() {
            Some("some") => "waiting",
            // A CPU is never fully stalled; the kernel prints it all the same.
            Some("full") if resource != "cpu" => "stalled",
            _ => continue,
        };
        let total = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="));
        if let Some(micros) = total.and_then(|total| total.parse::<f64>().ok()) {
            out.push(Reading::new(format!("node_pressure_{resource}_{word}_seconds_total"), micros / 1e6));
        }
    }
}

/// `/proc/sys/fs/file-nr`.
pub(super) fn file_nr(text: &str, out: &mut Vec<Reading>) {
    let words: Vec<f64> = text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    if let [allocated, _free, maximum] = words[..] {
        out.push(Reading::new("node_filefd_allocated", allocated));
        out.push(Reading::new("node_filefd_maximum", maximum));
    }
}

/// A file with one number.
pub(super) fn single(name: &'static str, text: &str, out: &mut Vec<Reading>) {
    out.extend(text.trim().parse().ok().map(|value| Reading::new(name, value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(parser: impl Fn(&str, &mut Vec<Reading>), text: &str) -> Vec<String> {
        let mut readings = Vec::new();
        parser(text, &mut readings);
        let labels = |reading: &Reading| {
            reading.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        };
        readings.iter().map(|reading| format!("{}{{{}}} {}", reading.name, labels(reading), reading.value)).collect()
    }

    #[test]
    fn cpu_and_scheduler() {
        let text =
            "cpu  1 2 3\ncpu0 100 0 50 1000 7 0 1 2 0 0\nintr 99 1 2\nctxt 5\nbtime 1700000000\nprocs_running x\n";
        let readings = texts(stat, text);
        assert_eq!(readings[0], "node_cpu_seconds_total{cpu=0,mode=user} 1");
        assert_eq!(readings[7], "node_cpu_seconds_total{cpu=0,mode=steal} 0.02");
        assert_eq!(
            readings[8..],
            ["node_intr_total{} 99", "node_context_switches_total{} 5", "node_boot_time_seconds{} 1700000000"]
        );
        assert_eq!(
            texts(loadavg, "0.10 0.20 0.30 1/2 3\n"),
            ["node_load1{} 0.1", "node_load5{} 0.2", "node_load15{} 0.3"]
        );
    }

    #[test]
    fn memory_and_paging() {
        assert_eq!(
            texts(meminfo, "MemTotal:  2 kB\nActive(anon): 1 kB\nHugePages_Total:   3\nbroken\n"),
            [
                "node_memory_MemTotal_bytes{} 2048",
                "node_memory_Active_anon_bytes{} 1024",
                "node_memory_HugePages_Total{} 3"
            ]
        );
        assert_eq!(
            texts(vmstat, "nr_free 1\noom_kill 2\npgpgin 3\n"),
            ["node_vmstat_oom_kill{} 2", "node_vmstat_pgpgin{} 3"]
        );
        assert_eq!(
            texts(
                |text, out| pressure("io", text, out),
                "some avg10=0.00 total=1500000\nfull avg10=0.00 total=500000\n"
            ),
            ["node_pressure_io_waiting_seconds_total{} 1.5", "node_pressure_io_stalled_seconds_total{} 0.5"]
        );
        assert_eq!(texts(|text, out| pressure("cpu", text, out), "full total=1\n"), [""; 0]);
        assert_eq!(texts(file_nr, "10\t0\t99\n"), ["node_filefd_allocated{} 10", "node_filefd_maximum{} 99"]);
    }

    #[test]
    fn disks() {
        let line = |device: &str| format!("   8  0 {device} 1 2 4 2000 5 6 8 4000 9 1000 3000\n");
        let text: String = ["sda", "sda1", "nvme0n1", "nvme0n1p2", "loop0", "dm-0", "ram1"].map(line).concat();
        let readings = texts(diskstats, &text);
        assert_eq!(readings.len(), 3 * 11);
        assert_eq!(readings[2], "node_disk_read_bytes_total{device=sda} 2048");
        assert_eq!(readings[3], "node_disk_read_time_seconds_total{device=sda} 2");
        assert!(readings[11].ends_with("{device=nvme0n1} 1") && readings[22].ends_with("{device=dm-0} 1"));
    }

    #[test]
    fn networks() {
        let text = "Inter-|   Receive\n face |bytes\n  eth0: 10 2 0 0 0 0 0 0 20 3 0 0 0 0 0 0\n";
        let readings = texts(net_dev, text);
        assert_eq!(readings.len(), 16);
        assert_eq!(readings[0], "node_network_receive_bytes_total{device=eth0} 10");
        assert_eq!(readings[8], "node_network_transmit_bytes_total{device=eth0} 20");
        let text = "Tcp: RtoAlgorithm CurrEstab RetransSegs\nTcp: 1 2 3\nIcmp: InMsgs\nIcmp: 1\n";
        assert_eq!(texts(net_counters, text), ["node_netstat_Tcp_CurrEstab{} 2", "node_netstat_Tcp_RetransSegs{} 3"]);
    }

    #[test]
    fn garbage_gives_nothing() {
        for parser in [stat, loadavg, meminfo, diskstats, net_dev, net_counters, vmstat, file_nr] {
            for text in ["", "\n\n", "a", ":::", "x: y z", "\u{fffd} \u{fffd}", "1 2 three 4"] {
                drop(texts(parser, text));
            }
        }
    }
}
