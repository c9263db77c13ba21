//! Reading YAML so that every problem is reported at once, each with its place and the nearest right word.
//!
//! The text is parsed into a tree that knows lines and columns; deserialising it is repeated with the offending part
//! left out until nothing new is found.

mod de;
mod tree;

use std::fmt;

use serde::de::DeserializeOwned;

pub use tree::{Node, NodeValue};

/// Problems reported per file at most; a file with more is not YAML of ours.
const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// Reads a document into `T`. On failure all problems, in order of their place.
pub fn from_yaml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Vec<Problem>> {
    let root = parse(file, text)?;
    from_node(file, &root)
}

/// Parses a document into a tree with places. An empty document is an empty map.
pub fn parse(file: &str, text: &str) -> Result<Node, Vec<Problem>> {
    tree::parse(text).map_err(|(line, column, message)| vec![Problem { file: file.to_owned(), line, column, message }])
}

/// Reads a part of a tree into `T`. On failure all problems, in order of their place.
pub fn from_node<T: DeserializeOwned>(file: &str, root: &Node) -> Result<T, Vec<Problem>> {
    let mut skipped: Vec<(u64, u64)> = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let attempt = de::Attempt::new(&skipped);
        let result = T::deserialize(attempt.deserializer(root));
        for (line, column, message) in attempt.into_unknown_keys() {
            let problem = Problem { file: file.to_owned(), line, column, message };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        match result {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(error) => {
                let (line, column) = error.place.unwrap_or((root.line, root.column));
                // A field that is missing only because it was left out has been reported already.
                let node = root.find((line, column)).unwrap_or(root);
                let consequence = error.missing_field && skipped.iter().any(|place| node.contains(*place));
                if !consequence || problems.is_empty() {
                    problems.push(Problem { file: file.to_owned(), line, column, message: error.message });
                }
                if skipped.contains(&(line, column)) || (line, column) == (root.line, root.column) {
                    break;
                }
                skipped.push((line, column));
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems.dedup();
    Err(problems)
}

/// The candidate nearest to a mistyped word, if one is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance over characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cb, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = *cell;
            *cell = substitute.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        listen: String,
        targets: Vec<Target>,
        labels: BTreeMap<String, String>,
        #[serde(deserialize_with = "crate::platform::units::deserialize_optional_duration")]
        every: Option<Duration>,
        ratio: Option<f64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Target {
        url: String,
        #[serde(default)]
        port: u16,
        mode: Option<Mode>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Slow,
    }

    fn problems(text: &str) -> Vec<String> {
        from_yaml::<Settings>("f.yml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_text() {
        let text =
            "listen: a\ntargets:\n  - {url: x, port: 5, mode: slow}\nlabels: {n: 1, yes: no}\nevery: 5s\nratio: 1\n";
        let settings: Settings = from_yaml("f.yml", text).unwrap();
        assert_eq!(settings.targets, [Target { url: "x".into(), port: 5, mode: Some(Mode::Slow) }]);
        assert_eq!(settings.labels, BTreeMap::from([("n".into(), "1".into()), ("yes".into(), "no".into())]));
        assert_eq!(settings.every, Some(Duration::from_secs(5)));
        assert_eq!(from_yaml::<Settings>("f.yml", "").unwrap(), Settings::default());
        assert_eq!(from_yaml::<Settings>("f.yml", "# nothing\n").unwrap(), Settings::default());
    }

    #[test]
    fn every_problem_is_reported_with_its_place() {
        let text =
            "lisen: a\ntargets:\n  - {url: x, port: 99999}\n  - {port: 5}\n  - url: y\n    mode: fats\nevery: soon\n";
        assert_eq!(
            problems(text),
            [
                "f.yml:1:1: unknown key \"lisen\"; did you mean \"listen\"?",
                "f.yml:3:20: invalid value: integer `99999`, expected u16",
                "f.yml:4:5: missing field `url`",
                "f.yml:6:11: unknown variant `fats`, expected `fast` or `slow`",
                "f.yml:7:8: \"soon\" is not a duration like 15s, 1h30m or 100ms",
            ]
        );
    }

    #[test]
    fn broken_syntax_and_wrong_shapes() {
        assert_eq!(problems("a: [1\nb: 2").len(), 1);
        assert_eq!(problems("listen: {a: 1}"), ["f.yml:1:9: invalid type: map, expected a string"]);
        assert_eq!(problems("targets: 5"), ["f.yml:1:10: invalid type: integer `5`, expected a sequence"]);
        assert_eq!(problems("listen: a\nlisten: b").len(), 1, "a key twice");
        assert_eq!(problems("- a").len(), 1);
        assert_eq!(problems("\t").len(), 1);
    }
}
