//! Tests of causes: recorded logs in, the expected verdict out.
//!
//! ```yaml
//! cause_files: [../host.yml]            # absent: the shipped catalogue
//! tests:
//!   - recording: ../faults/host-loss    # a folder of logs, relative to this file
//!     expect: {cause: host_lost, member: n1, confidence: high}
//!   - recording: ../faults/quiet
//!     expect: none
//! ```

use serde::{Deserialize, Deserializer};

use crate::model::incident::{Cause, Confidence, Verdict};
use crate::model::{LogRecord, Timestamp};
use crate::platform::error::chain;
use crate::platform::yaml::{self, Problem};

use super::{Case, Catalogue, shipped};

/// A folder of logs, read.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    pub cluster: String,
    /// In order of time.
    pub records: Vec<LogRecord>,
}

/// Reads a recording or a file that is named relative to the test file.
pub struct TestFiles<'a> {
    pub recording: &'a dyn Fn(&str) -> Result<Recording, String>,
    pub text: &'a dyn Fn(&str) -> Result<String, String>,
}

impl std::fmt::Debug for TestFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestFiles")
    }
}

/// How the tests of a file went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CauseReport {
    pub tests: usize,
    /// What was not as expected, one text for each test.
    pub failures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    cause_files: Option<Vec<String>>,
    tests: Vec<TestCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestCase {
    recording: String,
    /// Only records of this time, RFC 3339.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    expect: Expected,
}

/// What the verdict must be.
#[derive(Debug)]
enum Expected {
    /// No cause is surer than low.
    Nothing,
    Cause(ExpectedCause),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedCause {
    cause: String,
    member: Option<String>,
    confidence: Option<Confidence>,
    /// From 1; the first place when absent.
    rank: Option<usize>,
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Word(String),
            Cause(ExpectedCause),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Cause(cause) => Ok(Self::Cause(cause)),
            Raw::Word(word) if word == "none" => Ok(Self::Nothing),
            Raw::Word(word) => Err(serde::de::Error::custom(format!("{word:?} is neither a cause nor `none`"))),
        }
    }
}

/// Runs the tests of a file. `Err`: the file, a cause file or a recording cannot be read.
pub fn run(file: &str, text: &str, files: &TestFiles<'_>) -> Result<CauseReport, Vec<Problem>> {
    let root = yaml::parse(file, text)?;
    let tests: TestFile = yaml::from_node(file, &root)?;
    let place = |key: &str| root.get(key).map_or((1, 1), |node| (node.line, node.column));
    let problem = |key: &str, message: String| {
        let (line, column) = place(key);
        vec![Problem { file: file.to_owned(), line, column, message }]
    };
    let catalogue = match &tests.cause_files {
        None => shipped::catalogue()?,
        Some(paths) => {
            let read: Result<Vec<_>, _> = paths.iter().map(|path| Ok((path.as_str(), (files.text)(path)?))).collect();
            let named = read.map_err(|error: String| problem("cause_files", error))?;
            Catalogue::load(named.iter().map(|(path, text)| (*path, text.as_str())))?
        }
    };
    let mut report = CauseReport::default();
    for test in &tests.tests {
        report.tests += 1;
        let mut recording = (files.recording)(&test.recording).map_err(|error| problem("tests", error))?;
        let inside = |record: &LogRecord| {
            test.from.is_none_or(|from| record.at >= from) && test.to.is_none_or(|to| record.at < to)
        };
        recording.records.retain(inside);
        let failure = match explain(&catalogue, &recording) {
            Ok(verdict) => test.expect.failure(&verdict),
            Err(error) => Some(error),
        };
        report.failures.extend(failure.map(|failure| format!("{}: {failure}", test.recording)));
    }
    Ok(report)
}

/// The verdict on a recording, as if nobody had watched.
pub fn explain(catalogue: &Catalogue, recording: &Recording) -> Result<Verdict, String> {
    let records = recording.records.as_slice();
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(Verdict::default()) };
    let case = Case {
        cluster: &recording.cluster,
        opened_at: None,
        start: first.at,
        end: Timestamp(last.at.0 + 1),
        began_at: None,
        calm_since: None,
        events: &[],
        alerts: &[],
    };
    catalogue.explain(&case, records, None).map_err(|error| chain(&error))
}

impl Expected {
    /// What is wrong with a verdict.
    fn failure(&self, verdict: &Verdict) -> Option<String> {
        match self {
            Self::Nothing => {
                let sure = verdict.causes.iter().any(|cause| cause.confidence > Confidence::Low);
                sure.then(|| format!("no cause was expected, found {}", show(&verdict.causes)))
            }
            Self::Cause(expected) => {
                let rank = expected.rank.unwrap_or(1);
                let fits = verdict.causes.get(rank.saturating_sub(1)).is_some_and(|cause| expected.fits(cause));
                (!fits)
                    .then(|| format!("expected {} as number {rank}, found {}", expected.show(), show(&verdict.causes)))
            }
        }
    }
}

impl ExpectedCause {
    fn fits(&self, cause: &Cause) -> bool {
        cause.name == self.cause
            && self.member.as_ref().is_none_or(|member| cause.member.as_ref() == Some(member))
            && self.confidence.is_none_or(|confidence| cause.confidence == confidence)
    }

    fn show(&self) -> String {
        let mut text = self.cause.clone();
        if let Some(member) = &self.member {
            text = format!("{text} of {member}");
        }
        match self.confidence {
            Some(confidence) => format!("{text} ({confidence:?})"),
            None => text,
        }
    }
}

fn show(causes: &[Cause]) -> String {
    if causes.is_empty() {
        return "none".to_owned();
    }
    let one = |cause: &Cause| {
        let member = cause.member.as_ref().map_or_else(String::new, |member| format!(" of {member}"));
        format!("{}{member} ({:?}, {})", cause.name, cause.confidence, cause.score)
    };
    causes.iter().map(one).collect::<Vec<_>>().join(", ")
}
