//! Recorded faults, gathered without help and with names, zones and clocks changed.

use std::fs;

use chrono::{NaiveDateTime, TimeDelta};
use regex::Regex;
use tempfile::TempDir;

use super::*;

fn faults() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/faults");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn fault(name: &str) -> PathBuf {
    faults().into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name)).unwrap()
}

fn survey(path: &Path, options: &GatherOptions) -> Survey {
    Survey::of(&[path.to_owned()], options, &|_| {}).unwrap()
}

/// The name of a recorded file says what it is: `n1.postgresql.csv`.
fn promised(path: &Path) -> Option<(String, String)> {
    let name = path.file_name()?.to_str()?;
    let mut words = name.split('.');
    Some((words.next()?.to_owned(), words.next().filter(|word| *word != "json")?.to_owned()))
}

#[test]
fn every_recording_is_understood_without_help() {
    let folders = faults();
    assert!(folders.len() >= 20, "{}", folders.len());
    for folder in folders {
        let gathered = gather(std::slice::from_ref(&folder), &GatherOptions::default()).unwrap();
        let survey = &gathered.survey;
        let files: BTreeSet<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let logs: Vec<_> = files.iter().filter_map(|path| Some((path, promised(path)?))).collect();
        for (path, (member, source)) in &logs {
            if fs::metadata(path).unwrap().len() == 0 {
                continue;
            }
            let part = survey.parts.iter().find(|part| part.path == **path);
            let part = part.unwrap_or_else(|| panic!("{} was not taken: {:?}", path.display(), survey.notes));
            assert_eq!((&part.member.value, &part.source), (member, source), "{}: {part:?}", path.display());
            assert!(part.not_understood * 10 <= part.records, "{}: {part:?}", path.display());
            let is_zone_less = part.format == "patroni";
            assert_eq!(part.zone.as_ref().map(|zone| zone.value), is_zone_less.then_some(0), "{}", path.display());
        }
        assert_eq!(survey.parts.len(), logs.iter().filter(|(path, _)| fs::metadata(path).unwrap().len() > 0).count());
        for clock in &survey.clocks {
            assert!(!clock.corrected, "{}: {clock:?}", folder.display());
        }
        let in_order = gathered.records.windows(2).all(|pair| pair[0].at <= pair[1].at);
        assert!(in_order && gathered.records.len() > 20, "{}", folder.display());
        let inject = gathered.records[0].at;
        let last = gathered.records.last().unwrap().at;
        assert!(last.since(inject).as_secs() < 3600, "{}: {inject} to {last}", folder.display());
    }
}

/// A name and a text in, others or nothing out.
type Change<'a> = &'a dyn Fn(&str, String) -> Option<(String, String)>;

/// A copy of a recording in which each text is changed.
fn changed(folder: &Path, change: Change<'_>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if let Some((name, text)) = change(&name, String::from_utf8(fs::read(entry.path()).unwrap()).unwrap()) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    dir
}

/// Moves every time in a text.
fn moved(text: &str, seconds: i64) -> String {
    let regex = Regex::new(r"(2026-11-2\d)([ T])(\d\d:\d\d:\d\d)").unwrap();
    let replaced = regex.replace_all(text, |found: &regex::Captures<'_>| {
        let at = NaiveDateTime::parse_from_str(&format!("{} {}", &found[1], &found[3]), "%Y-%m-%d %H:%M:%S").unwrap();
        let at = at + TimeDelta::seconds(seconds);
        format!("{}{}{}", at.format("%Y-%m-%d"), &found[2], at.format("%H:%M:%S"))
    });
    replaced.into_owned()
}

#[test]
fn names_of_files_do_not_matter_where_the_contents_tell() {
    for name in ["01", "04-leader-host-loss-run2", "10-switchover-rest", "05"] {
        let folder = fault(name);
        let dir = changed(&folder, &|name, text| {
            let (member, source) = promised(Path::new(name))?;
            let number = ["n1", "n2", "n3"].iter().position(|known| **known == *member)?;
            (source != "etcd").then(|| (format!("host{number}/{source}/current.log"), text))
        });
        let survey = survey(dir.path(), &GatherOptions::default());
        for part in &survey.parts {
            let number = part.path.iter().find_map(|word| word.to_str()?.strip_prefix("host")).unwrap();
            let expected = format!("n{}", number.parse::<u32>().unwrap() + 1);
            assert_eq!(part.member.value, expected, "{name} {}: {:?}", part.path.display(), part.member);
        }
    }
}

#[test]
fn the_zone_of_patroni_is_found_from_its_postgresql() {
    for (name, hours) in [("01", 2), ("10-switchover-rest", -5), ("11", 1), ("27", 2), ("04-leader-host-loss-run2", 3)]
    {
        let dir = changed(&fault(name), &|name, text| {
            let text = if name.contains(".patroni.") { moved(&text, hours * 3600) } else { text };
            Some((name.to_owned(), text))
        });
        let survey = survey(dir.path(), &GatherOptions::default());
        for part in survey.parts.iter().filter(|part| part.source == "patroni") {
            let zone = part.zone.as_ref().unwrap();
            assert_eq!(i64::from(zone.value), hours * 3600, "{name} {}: {zone:?}", part.path.display());
            assert!(zone.certainty >= Certainty::Likely, "{zone:?}");
        }
    }
}

#[test]
fn a_zone_that_is_given_counts() {
    let options = GatherOptions { timezone: Some(7200), ..GatherOptions::default() };
    let folder = fault("01");
    let given = survey(&folder, &options);
    let part = given.parts.iter().find(|part| part.source == "patroni").unwrap();
    assert_eq!(part.zone.as_ref().unwrap().certainty, Certainty::Given);
    let usual = survey(&folder, &GatherOptions::default());
    let same = usual.parts.iter().find(|other| other.path == part.path).unwrap();
    assert_eq!(same.first_at.since(part.first_at).as_secs(), 7200);
}

#[test]
fn a_clock_that_is_off_is_found_and_corrected() {
    for (name, member, seconds, is_found) in [
        ("04-leader-host-loss-run2", "n1", 7, true),
        ("10-switchover-rest", "n3", -12, true),
        // Only one happening tells: nothing is corrected, and the error says how much it may be.
        ("05", "n2", 5, false),
    ] {
        let folder = fault(name);
        let dir = changed(&folder, &|name, text| {
            let text = if name.starts_with(member) { moved(&text, i64::from(seconds)) } else { text };
            Some((name.to_owned(), text))
        });
        let survey = survey(dir.path(), &GatherOptions::default());
        let clock = |name: &str| survey.clocks.iter().find(|clock| clock.member == name).unwrap();
        let others = ["n1", "n2", "n3"].into_iter().find(|other| *other != member).unwrap();
        let ahead = clock(member).ahead_seconds - clock(others).ahead_seconds;
        assert_eq!((ahead - f64::from(seconds)).abs() < 1.0, is_found, "{name}: {:#?}", survey.clocks);
        let error = clock(member).error_seconds.unwrap() + clock(others).error_seconds.unwrap();
        assert!((ahead - f64::from(seconds)).abs() <= error + 0.001, "{name}: {ahead} {error}");
    }
}

#[test]
fn a_skew_that_is_given_counts() {
    let skews = BTreeMap::from([("n2".to_owned(), 3.5)]);
    let folder = fault("01");
    let gathered = gather(std::slice::from_ref(&folder), &GatherOptions { skews, ..GatherOptions::default() }).unwrap();
    let record = gathered.records.iter().find(|record| record.stream.get("member") == Some("n2")).unwrap();
    let original = Timestamp::parse_rfc3339(record.field("original_time").unwrap()).unwrap();
    assert_eq!(original.since(record.at).as_millis(), 3500);
    let skews = BTreeMap::from([("n9".to_owned(), 3.5)]);
    let error = gather(&[folder], &GatherOptions { skews, ..GatherOptions::default() }).unwrap_err();
    assert!(error.to_string().contains("n9"), "{error}");
}

#[test]
fn one_log_in_three_formats_and_packed_copies_count_once() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/logs");
    let dir = tempfile::tempdir().unwrap();
    for name in ["conflict.csv", "conflict.json", "conflict.log"] {
        fs::copy(data.join(name), dir.path().join(name)).unwrap();
    }
    let mut packed = flate2::write::GzEncoder::new(
        fs::File::create(dir.path().join("conflict.csv.1.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    io::copy(&mut fs::File::open(data.join("conflict.csv")).unwrap(), &mut packed).unwrap();
    packed.finish().unwrap();
    let gathered = gather(&[dir.path().to_owned()], &GatherOptions::default()).unwrap();
    let taken: Vec<_> = gathered.survey.parts.iter().filter(|part| part.left_out.is_none()).collect();
    assert_eq!(taken.len(), 1, "{:#?}", gathered.survey.parts);
    assert_eq!(taken[0].format, "csvlog");
    assert_eq!(gathered.records.len(), 10);
}

#[test]
fn the_window_and_the_given_member_hold() {
    let folder = fault("01");
    let all = gather(std::slice::from_ref(&folder), &GatherOptions::default()).unwrap().records;
    let middle = all[all.len() / 2].at;
    let options = GatherOptions {
        from: Some(middle),
        members: vec![("n1.*".to_owned(), "first".to_owned())],
        cluster: Some("mine".to_owned()),
        ..GatherOptions::default()
    };
    let some = gather(&[folder], &options).unwrap().records;
    assert_eq!(some.len(), all.iter().filter(|record| record.at >= middle).count());
    let labels: BTreeSet<_> = some
        .iter()
        .map(|record| (record.stream.get("cluster").unwrap(), record.stream.get("member").unwrap_or("")))
        .collect();
    assert!(labels.contains(&("mine", "first")) && !labels.contains(&("mine", "n1")), "{labels:?}");
}

#[test]
fn what_is_no_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.conf"), "name: x\n").unwrap();
    let error = gather(&[dir.path().to_owned()], &GatherOptions::default()).unwrap_err();
    assert!(error.to_string().contains("a.conf: is not a log"), "{error}");
    let error = gather(&[dir.path().join("nothing")], &GatherOptions::default()).unwrap_err();
    assert!(matches!(error, GatherError::Path { .. }), "{error}");
    fs::write(dir.path().join("b.zst"), b"\x28\xb5\x2f\xfdxxxx").unwrap();
    fs::write(dir.path().join("c.log"), "2026-11-23 05:46:38,252 INFO: no action. I am (n1)\nnonsense\n").unwrap();
    let gathered = gather(&[dir.path().to_owned()], &GatherOptions::default()).unwrap();
    let notes: Vec<String> = gathered.survey.notes.iter().map(Note::to_string).collect();
    assert!(notes.iter().any(|note| note.ends_with("b.zst: is zstd: unpack it first")), "{notes:?}");
}

/// A journal of one host holds everything: its Patroni says who it is, and times have a zone.
#[test]
fn syslog_of_a_whole_host() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\
Nov 23 07:47:01 db1 patroni[7]: 2026-11-23 07:47:01,001 INFO: no action. I am (pg1), the leader with the lock
Nov 23 07:47:02 db1 kernel: [12.3] Out of memory: Killed process 5 (postgres) total-vm:1kB, anon-rss:7kB
Nov 23 07:47:02 db1 postgres[9]: 2026-11-23 05:47:02.100 UTC [9] LOG:  server process (PID 5) was terminated by signal 9: Killed
Nov 23 07:47:03 db1 cron[7]: hello
";
    fs::write(dir.path().join("messages"), text).unwrap();
    let gathered = gather(&[dir.path().to_owned()], &GatherOptions::default()).unwrap();
    let found: Vec<_> = gathered
        .records
        .iter()
        .map(|record| {
            let label = |name| record.stream.get(name).unwrap_or("");
            (record.at.to_string(), label("member"), label("source"), record.field("event").unwrap_or(""))
        })
        .collect();
    assert_eq!(
        found,
        [
            ("2026-11-23T05:47:01.001Z".to_owned(), "pg1", "patroni", "hb_leader"),
            ("2026-11-23T05:47:02.000Z".to_owned(), "pg1", "kernel", "oom_kill"),
            ("2026-11-23T05:47:02.100Z".to_owned(), "pg1", "postgresql", "pg_child_signal"),
            ("2026-11-23T05:47:03.000Z".to_owned(), "pg1", "system", ""),
        ]
    );
}

/// Lines without an end do not fill the memory, and what stands around them is read.
#[test]
fn very_long_lines() {
    let dir = tempfile::tempdir().unwrap();
    let line = "2026-11-23 05:46:38,252 INFO: no action. I am (n1), the leader with the lock\n";
    let long = format!("{line}2026-11-23 05:46:39,252 INFO: {}\n{line}", "x".repeat(20 << 20));
    fs::write(dir.path().join("a.log"), long).unwrap();
    let records = gather(&[dir.path().to_owned()], &GatherOptions::default()).unwrap().records;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.line.len() <= 300 << 10));
}
