//! The cause catalogue on recorded faults.

mod recording;

use std::path::{Path, PathBuf};
use std::time::Duration;

use daraji::incident::causes::test_runner::{self, Recording, TestFiles};
use daraji::incident::causes::{Catalogue, shipped};
use daraji::model::incident::Confidence;
use daraji::model::{LogRecord, Timestamp};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_shipped_catalogue_names_the_injected_cause_of_each_recording() {
    let folder = root().join("alerts/causes/tests");
    let mut failures = Vec::new();
    let mut tests = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let files = TestFiles {
            recording: &|name| {
                let records = recording::read(&folder.join(name), "demo");
                Ok(Recording { cluster: "demo".to_owned(), records })
            },
            text: &|name| std::fs::read_to_string(folder.join(name)).map_err(|error| error.to_string()),
        };
        let report = test_runner::run(path.to_str().unwrap(), &text, &files).unwrap();
        tests += report.tests;
        failures.extend(report.failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tests >= 25, "{tests}");
}

/// A recording with what was done in it.
struct Fault {
    name: String,
    records: Vec<LogRecord>,
    injected_at: Timestamp,
    /// What may be said with high confidence.
    right: Vec<String>,
}

/// Other names under which the same truth may be told while less is known.
fn also_right(name: &str) -> &'static [&'static str] {
    match &name[..2] {
        // The partitioned member's PostgreSQL and Patroni were killed later.
        "23" => &["host_lost"],
        // Until the query is cancelled it only blocks.
        "31" => &["replay_blocked_by_query"],
        _ => &[],
    }
}

fn faults() -> Vec<Fault> {
    let text = std::fs::read_to_string(root().join("alerts/causes/tests/faults.yml")).unwrap();
    let tests = daraji::platform::yaml::from_yaml::<serde_json::Value>("faults.yml", &text).unwrap();
    let read = |test: &serde_json::Value| {
        let name = test["recording"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let folder = root().join("tests/data/faults").join(&name);
        let events = std::fs::read_to_string(folder.join("events.json")).unwrap();
        let events: serde_json::Value = serde_json::from_str(&events).unwrap();
        let mut times = events["events"].as_array().unwrap().iter().filter(|event| event["label"] == "inject");
        let injected_at = Timestamp::parse_rfc3339(times.next().unwrap()["time"].as_str().unwrap()).unwrap();
        let mut right = vec![test["expect"]["cause"].as_str().unwrap().to_owned()];
        right.extend(also_right(&name).iter().map(|name| (*name).to_owned()));
        Fault { records: recording::read(&folder, "demo"), name, injected_at, right }
    };
    tests["tests"].as_array().unwrap().iter().map(read).collect()
}

/// Causes that are told with high confidence although they are not it.
fn wrong(catalogue: &Catalogue, fault: &Fault, records: Vec<LogRecord>, what: &str) -> Vec<String> {
    let verdict = test_runner::explain(catalogue, &Recording { cluster: "demo".to_owned(), records }).unwrap();
    let sure = verdict.causes.iter().filter(|cause| cause.confidence == Confidence::High && cause.symptom_of.is_none());
    let wrong = sure.filter(|cause| !fault.right.contains(&cause.name));
    wrong.map(|cause| format!("{} {what}: {} of {:?}, {}", fault.name, cause.name, cause.member, cause.score)).collect()
}

#[test]
fn no_verdict_is_confident_and_wrong_while_the_logs_come_in() {
    let catalogue = shipped::catalogue().unwrap();
    let mut failures = Vec::new();
    for fault in faults() {
        for seconds in (0..150).step_by(5) {
            let end = fault.injected_at + Duration::from_secs(seconds);
            let records = fault.records.iter().filter(|record| record.at < end).cloned().collect();
            failures.extend(wrong(&catalogue, &fault, records, &format!("until {seconds} s")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_verdict_is_confident_and_wrong_when_logs_are_missing() {
    let catalogue = shipped::catalogue().unwrap();
    let mut failures = Vec::new();
    for fault in faults() {
        let of = |record: &LogRecord, label: &str| record.stream.get(label).unwrap_or("").to_owned();
        let mut streams: Vec<_> =
            fault.records.iter().map(|record| (of(record, "member"), of(record, "source"))).collect();
        streams.sort();
        streams.dedup();
        let mut without = |what: String, gone: &dyn Fn(&str, &str) -> bool| {
            let kept = fault.records.iter().filter(|record| !gone(&of(record, "member"), &of(record, "source")));
            failures.extend(wrong(&catalogue, &fault, kept.cloned().collect(), &what));
        };
        for (member, source) in &streams {
            without(format!("without {member} {source}"), &|m, s| m == member && s == source);
            without(format!("without {member}"), &|m, _| m == member);
            without(format!("without {source}"), &|_, s| s == source);
            without(format!("only {member}"), &|m, _| m != member);
            without(format!("only {source}"), &|_, s| s != source);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn quiet_stretches_need_no_cause() {
    let catalogue = shipped::catalogue().unwrap();
    for fault in faults() {
        // Faults 13 and 28 were prepared by changes of settings before the injection.
        if ["13", "28"].contains(&&fault.name[..2]) {
            continue;
        }
        let records: Vec<_> = fault.records.iter().filter(|record| record.at < fault.injected_at).cloned().collect();
        assert!(!records.is_empty());
        let verdict = test_runner::explain(&catalogue, &Recording { cluster: "demo".to_owned(), records }).unwrap();
        assert!(verdict.causes.is_empty(), "{}: {verdict:?}", fault.name);
    }
}
