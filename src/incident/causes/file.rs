//! Reading cause files. All problems of a file are reported at once, each with its place.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::incident::Confidence;
use crate::platform::units::parse_duration;
use crate::platform::yaml::{self, Node, Problem};
use crate::query::{logql, promql};

use super::effects::{EFFECTS, is_explainable};
use super::variables::{self, Variable};

/// A window may begin this long before the opening at most: the logs of every incident are read from there.
pub const LOOK_BACK_MAX: Duration = Duration::from_mins(15);
const LOOK_BACK_DEFAULT: Duration = Duration::from_mins(3);
const LOOK_AHEAD_DEFAULT: Duration = Duration::from_mins(30);
const WEIGHT_DEFAULT: f64 = 1.0;
const WEIGHT_MAX: f64 = 10.0;

/// A cause: what it explains, what shows it, what speaks against it.
#[derive(Clone, Debug)]
pub struct CauseRule {
    pub name: String,
    /// One sentence with variables.
    pub title: String,
    pub about: About,
    /// Effects and alerts that it can be the root of.
    pub explains: Vec<String>,
    pub signs: Vec<Sign>,
    pub against: Vec<Sign>,
    /// Ids of signs in the order in which they must come.
    pub order: Vec<String>,
    /// Causes that say the same less precisely, and are left out beside this one.
    pub supersedes: Vec<String>,
    /// Causes that bring this one about.
    pub symptom_of: Vec<String>,
    /// How sure it can be at most.
    pub at_most: Confidence,
    pub advice: String,
    /// Whether what follows within minutes is the same incident.
    pub reopens: bool,
}

/// Whose fault it is: which member `$member` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The member that led when the trouble began.
    Leader,
    /// Each other member.
    Replica,
    /// Each member.
    Member,
    /// No single member.
    Cluster,
}

/// One thing that can be looked up.
#[derive(Clone, Debug)]
pub struct Sign {
    pub id: String,
    /// What it says, in words, with variables.
    pub says: String,
    pub look: Look,
    pub around: Around,
    /// Its window, relative to that, in nanoseconds.
    pub from_ns: i64,
    pub to_ns: i64,
    pub weight: f64,
    /// Without it the cause is not it.
    pub required: bool,
    /// In `against`: the cause cannot be surer than low.
    pub strong: bool,
}

/// What a sign's window is relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Around {
    /// When the incident opened.
    #[default]
    Opening,
    /// When the new leader took over; the opening when nobody did.
    Takeover,
}

/// How a sign is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Lines that pass any of the expressions: so many of each of so many members.
    Lines { any_of: Vec<String>, at_least: usize, members: usize, absent: bool },
    /// A stream that wrote regularly and then nothing for at least this long, while others wrote on.
    Silence { selector: String, at_least: Duration },
    /// An expression over metrics with a result at any time of the window.
    Samples { expr: String, absent: bool },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    causes: Vec<RawCause>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCause {
    name: String,
    title: String,
    about: About,
    explains: Vec<String>,
    signs: Vec<RawSign>,
    #[serde(default)]
    against: Vec<RawSign>,
    #[serde(default)]
    order: Vec<String>,
    #[serde(default)]
    supersedes: Vec<String>,
    #[serde(default)]
    symptom_of: Vec<String>,
    at_most: Option<Confidence>,
    advice: String,
    #[serde(default = "yes")]
    reopens: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSign {
    id: String,
    says: String,
    logql: Option<OneOrMany>,
    promql: Option<String>,
    silent: Option<String>,
    #[serde(rename = "for", default, deserialize_with = "crate::platform::units::deserialize_optional_duration")]
    lasts: Option<Duration>,
    at_least: Option<usize>,
    members: Option<usize>,
    #[serde(default)]
    absent: bool,
    #[serde(default)]
    around: Around,
    #[serde(default, deserialize_with = "optional_offset")]
    from: Option<i64>,
    #[serde(default, deserialize_with = "optional_offset")]
    to: Option<i64>,
    weight: Option<f64>,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    strong: bool,
}

/// One text, or several of which any will do.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A duration with a sign: `-2m` is before the opening, `90s` after it.
fn optional_offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let (sign, rest) = text.strip_prefix('-').map_or((1, text.as_str()), |rest| (-1, rest));
    let duration = parse_duration(rest).map_err(serde::de::Error::custom)?;
    Ok(Some(sign * nanos(duration)))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads the text of a cause file.
pub fn load(file: &str, text: &str) -> Result<Vec<CauseRule>, Vec<Problem>> {
    let root = yaml::parse(file, text)?;
    let nodes = root.get("causes").map_or(&[][..], Node::items);
    let mut loader = Loader { file, problems: Vec::new() };
    let raw: RawFile = match yaml::from_node(file, &root) {
        Ok(raw) => raw,
        Err(problems) => {
            loader.problems = problems;
            // What can be read is checked too, so that its problems are not found only once the others are mended.
            for node in nodes {
                if let Ok(raw) = yaml::from_node::<RawCause>(file, node) {
                    loader.cause(raw, node);
                }
            }
            return Err(loader.into_problems());
        }
    };
    let mut names = BTreeSet::new();
    let mut causes = Vec::new();
    for (raw, node) in raw.causes.into_iter().zip(nodes) {
        if !names.insert(raw.name.clone()) {
            loader.problem(node.get("name").unwrap_or(node), format!("cause {:?} stands twice", raw.name));
        }
        causes.push(loader.cause(raw, node));
    }
    if loader.problems.is_empty() { Ok(causes) } else { Err(loader.into_problems()) }
}

/// References between causes that lead nowhere; for a whole set of files.
pub(super) fn dangling(causes: &[CauseRule]) -> Vec<String> {
    let known: BTreeSet<&str> = causes.iter().map(|cause| cause.name.as_str()).collect();
    let references = |cause: &CauseRule| cause.supersedes.iter().chain(&cause.symptom_of).cloned().collect::<Vec<_>>();
    let mut problems = Vec::new();
    for cause in causes {
        for name in references(cause).into_iter().filter(|name| !known.contains(name.as_str())) {
            let hint = yaml::nearest(&name, known.iter().copied())
                .map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            problems.push(format!("cause {:?} names the cause {name:?}, which is not known{hint}", cause.name));
        }
    }
    problems
}

struct Loader<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn problem(&mut self, node: &Node, message: impl Into<String>) {
        let (line, column) = (node.line, node.column);
        self.problems.push(Problem { file: self.file.to_owned(), line, column, message: message.into() });
    }

    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems.dedup();
        self.problems
    }

    fn cause(&mut self, raw: RawCause, node: &Node) -> CauseRule {
        let at = |key: &str| node.get(key).unwrap_or(node);
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if raw.name.is_empty() || !raw.name.chars().all(is_word) {
            self.problem(at("name"), "a cause's name has lower-case letters, digits and underscores only");
        }
        self.variables(at("title"), &raw.title, raw.about);
        self.variables(at("advice"), &raw.advice, raw.about);
        if raw.explains.is_empty() {
            self.problem(at("explains"), "a cause must explain something");
        }
        for (word, place) in raw.explains.iter().zip(at("explains").items()) {
            if !is_explainable(word) {
                let near = yaml::nearest(word, EFFECTS.iter().map(|(name, _)| *name));
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
                self.problem(place, format!("{word:?} is neither an effect nor an alert{hint}"));
            }
        }
        if !raw.signs.iter().any(|sign| sign.required) {
            self.problem(at("signs"), "at least one sign must be required, or anything would prove the cause");
        }
        let mut ids = BTreeSet::new();
        let signs = self.signs(raw.signs, at("signs"), (raw.about, &mut ids));
        let against = self.signs(raw.against, at("against"), (raw.about, &mut ids));
        for (id, place) in raw.order.iter().zip(at("order").items()) {
            if !signs.iter().any(|sign| sign.id == *id) {
                self.problem(place, format!("{id:?} is no sign of this cause"));
            }
        }
        CauseRule {
            name: raw.name,
            title: raw.title,
            about: raw.about,
            explains: raw.explains,
            signs,
            against,
            order: raw.order,
            supersedes: raw.supersedes,
            symptom_of: raw.symptom_of,
            at_most: raw.at_most.unwrap_or(Confidence::High),
            advice: raw.advice,
            reopens: raw.reopens,
        }
    }

    fn signs(&mut self, raw: Vec<RawSign>, node: &Node, (about, ids): (About, &mut BTreeSet<String>)) -> Vec<Sign> {
        let mut signs = Vec::new();
        for (sign, place) in raw.into_iter().zip(node.items()) {
            if !ids.insert(sign.id.clone()) {
                self.problem(place.get("id").unwrap_or(place), format!("sign {:?} stands twice", sign.id));
            }
            signs.extend(self.sign(sign, place, about));
        }
        signs
    }

    fn sign(&mut self, raw: RawSign, node: &Node, about: About) -> Option<Sign> {
        let at = |key: &str| node.get(key).unwrap_or(node);
        self.variables(at("says"), &raw.says, about);
        let from_ns = raw.from.unwrap_or(-nanos(LOOK_BACK_DEFAULT));
        let to_ns = raw.to.unwrap_or(nanos(LOOK_AHEAD_DEFAULT));
        if from_ns >= to_ns {
            self.problem(at("from"), "the window is empty: `from` must lie before `to`");
        }
        if from_ns < -nanos(LOOK_BACK_MAX) {
            self.problem(at("from"), "a window begins 15m before the opening at most");
        }
        let weight = raw.weight.unwrap_or(WEIGHT_DEFAULT);
        if !(weight > 0.0 && weight <= WEIGHT_MAX) {
            self.problem(at("weight"), "a weight is above 0 and at most 10");
        }
        let look = self.look(&raw, node, about)?;
        let RawSign { id, says, around, required, strong, .. } = raw;
        Some(Sign { id, says, look, around, from_ns, to_ns, weight, required, strong })
    }

    fn look(&mut self, raw: &RawSign, node: &Node, about: About) -> Option<Look> {
        let at = |key: &str| node.get(key).unwrap_or(node);
        let fits: &[(&str, &[&str])] =
            &[("logql", &["at_least", "members", "absent"]), ("promql", &["absent"]), ("silent", &["for"])];
        let ways: Vec<_> = fits.iter().filter(|(key, _)| node.get(key).is_some()).collect();
        let [(way, keys)] = ways[..] else {
            self.problem(node, "exactly one of `logql`, `promql` and `silent` says how a sign is looked up");
            return None;
        };
        for key in ["at_least", "members", "absent", "for"] {
            if node.get(key).is_some() && !keys.contains(&key) {
                self.problem(at(key), format!("`{key}` has no meaning beside `{way}`"));
            }
        }
        match (&raw.logql, &raw.promql, &raw.silent) {
            (Some(OneOrMany::One(text)), ..) => self.lines(raw, std::slice::from_ref(text), at("logql"), about),
            (Some(OneOrMany::Many(texts)), ..) => self.lines(raw, texts, at("logql"), about),
            (_, Some(expr), _) => {
                self.variables(at("promql"), expr, about);
                if let Err(error) = promql::parse(&variables::with_examples(expr)) {
                    self.problem(at("promql"), format!("could not parse expression: {error}"));
                }
                Some(Look::Samples { expr: expr.clone(), absent: raw.absent })
            }
            (_, _, Some(selector)) => {
                self.variables(at("silent"), selector, about);
                if let Err(error) = logql::parse_selector(&variables::with_examples(selector)) {
                    self.problem(at("silent"), format!("could not parse selector: {error}"));
                }
                let Some(at_least) = raw.lasts.filter(|lasts| !lasts.is_zero()) else {
                    self.problem(node, "`silent` needs `for`: how long nothing was written");
                    return None;
                };
                Some(Look::Silence { selector: selector.clone(), at_least })
            }
            _ => None,
        }
    }

    fn lines(&mut self, raw: &RawSign, texts: &[String], node: &Node, about: About) -> Option<Look> {
        for (index, text) in texts.iter().enumerate() {
            let place = node.items().get(index).unwrap_or(node);
            self.variables(place, text, about);
            match logql::parse(&variables::with_examples(text)) {
                Ok(logql::Expr::Log(_)) => {}
                Ok(logql::Expr::Metric(_)) => {
                    self.problem(place, "a sign needs lines, not numbers; `at_least` says how many");
                }
                Err(error) => self.problem(place, format!("could not parse expression: {error}")),
            }
        }
        let (at_least, members) = (raw.at_least.unwrap_or(1), raw.members.unwrap_or(1));
        if texts.is_empty() || at_least == 0 || members == 0 {
            self.problem(node, "`logql`, `at_least` and `members` cannot be empty or zero");
            return None;
        }
        Some(Look::Lines { any_of: texts.to_vec(), at_least, members, absent: raw.absent })
    }

    /// Checks that the text uses variables that exist and have a value.
    fn variables(&mut self, node: &Node, text: &str, about: About) {
        for word in variables::words(text) {
            match Variable::named(word) {
                None => {
                    let near = yaml::nearest(word, Variable::ALL.iter().map(|(_, name)| *name));
                    let hint = near.map_or_else(String::new, |near| format!("; did you mean \"${near}\"?"));
                    self.problem(node, format!("\"${word}\" is no variable{hint}"));
                }
                Some(Variable::Member) if about == About::Cluster => {
                    self.problem(node, "a cause about the cluster has no $member");
                }
                Some(_) => {}
            }
        }
    }
}
