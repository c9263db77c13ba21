//! The same samples and queries in a real Prometheus and in ours: the answers must agree.
//!
//! Compared are the status, the error's type, results (numbers up to 1e-9 of their size, the order where the expression
//! gives one), warnings and infos. Error texts are counted, and shown with `--texts`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::corpus::END_SECS;
use crate::dice::Dice;
use crate::generate::Generator;
use crate::servers::{Daraji, Prometheus, ask, write};

/// Values may differ by this share.
const TOLERANCE: f64 = 1e-9;
/// How often Prometheus is asked again where it may answer one way or the other.
const ASKED_AGAIN: usize = 6;

/// What to run.
pub(crate) struct Options {
    pub(crate) count: usize,
    pub(crate) seed: u64,
    /// Disagreements to print.
    pub(crate) shown: usize,
    /// Whether other words in errors are printed, too.
    pub(crate) texts: bool,
    /// One request instead of generated ones: `path?query`.
    pub(crate) request: Option<String>,
}

/// Expressions that always run: one for each part of the language.
const FIXED: &str = include_str!("fixed.txt");

type Form = Vec<(&'static str, String)>;

struct Request {
    path: &'static str,
    form: Form,
    ordered: bool,
}

impl Request {
    fn query(&self) -> &str {
        self.form.iter().find(|(name, _)| *name == "query").map_or("", |(_, value)| value)
    }

    fn text(&self) -> String {
        let pairs = self.form.iter().map(|(name, value)| (*name, value.as_str()));
        let url = reqwest::Url::parse_with_params("http://x/", pairs).unwrap();
        format!("{}?{}", self.path, url.query().unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let url = reqwest::Url::parse(&format!("http://x/{text}")).unwrap();
        let paths = ["query_range", "query", "parse_query", "format_query"];
        let path = paths.into_iter().find(|path| url.path() == format!("/{path}")).unwrap_or("query");
        let names = ["query", "time", "start", "end", "step", "lookback_delta", "limit", "timeout"];
        let form: Form = url
            .query_pairs()
            .filter_map(|(name, value)| Some((*names.iter().find(|known| **known == name)?, value.into_owned())))
            .collect();
        let mut request = Self { path, form, ordered: false };
        request.ordered = path == "query" && is_ordered(request.query());
        request
    }
}

fn is_ordered(query: &str) -> bool {
    ["sort(", "sort_desc(", "sort_by_label", "topk(", "bottomk("].iter().any(|start| query.starts_with(start))
        && query.ends_with(')')
}

fn instant(query: &str, time: String) -> Request {
    Request { path: "query", form: vec![("query", query.to_owned()), ("time", time)], ordered: is_ordered(query) }
}

fn range(query: &str, start: String, end: String, step: String) -> Request {
    let form = vec![("query", query.to_owned()), ("start", start), ("end", end), ("step", step)];
    Request { path: "query_range", form, ordered: false }
}

fn generated(dice: &mut Dice) -> Request {
    let query = Generator { dice }.query();
    if dice.chance(4) {
        let path = if dice.chance(50) { "parse_query" } else { "format_query" };
        return Request { path, form: vec![("query", query)], ordered: false };
    }
    let mut request = if dice.chance(50) {
        let offsets = [0, 1, 37, 600, 3600, 7100, 7199, 7200, 7500, -200, -299, -300, -400];
        let offset = offsets[dice.below(offsets.len())];
        let fraction = dice.pick(&["", "", ".5", ".123"]);
        instant(&query, format!("{}{fraction}", END_SECS - offset))
    } else {
        let start = END_SECS - 7300 + i64::try_from(dice.below(7000)).unwrap();
        let step = [15, 30, 37, 60, 300, 7][dice.below(6)];
        let steps = i64::try_from(1 + dice.below(40)).unwrap();
        let end = start + step * steps + i64::try_from(dice.below(7)).unwrap();
        range(&query, start.to_string(), end.to_string(), step.to_string())
    };
    if dice.chance(3) {
        // NaN and infinity are times in Prometheus; here they are mistakes.
        let odd =
            ["x", "-1", "0", "1.0015", "2023-11-14T22:00:00Z", "2023-11-14T22:00:00.5+01:00", "5m", "1h30m", "0x10"];
        let at = dice.below(request.form.len());
        if request.form[at].0 != "query" {
            dice.pick(&odd).clone_into(&mut request.form[at].1);
        }
        if dice.chance(30) {
            let name = if dice.chance(50) { "limit" } else { "timeout" };
            request.form.push((name, dice.pick(&["1", "2", "-1", "x", "1.5", "10s", "1000"]).to_owned()));
        }
    }
    if dice.chance(8) {
        request.form.push(("lookback_delta", dice.pick(&["30s", "1m", "10m", "90", "1h"]).to_owned()));
    }
    request
}

fn close(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return a == b };
    // Infinities have no distance.
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1e-6)
}

/// Equal up to rounding of numbers in strings.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => close(a, b),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// A result sorted by its labels.
fn sorted(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(result) = data.get_mut("result").and_then(Value::as_array_mut) {
        result.sort_by_cached_key(|series| series["metric"].to_string());
    }
    data
}

fn values(data: &Value) -> Vec<Value> {
    data["result"]
        .as_array()
        .map(|result| result.iter().map(|series| series["value"].clone()).collect())
        .unwrap_or_default()
}

fn notes(body: &Value, kind: &str) -> BTreeSet<String> {
    let notes = body[kind].as_array().map(Vec::as_slice).unwrap_or_default();
    notes.iter().filter_map(Value::as_str).map(without_metric_name).collect()
}

/// Prometheus 3.5 forgets the name of a histogram after a query's first step; later ones do not name it when it is "".
fn without_metric_name(note: &str) -> String {
    let (Some(start), Some(end)) = (note.find(" for metric name \""), note.rfind(" (")) else { return note.to_owned() };
    format!("{}{}", &note[..start], &note[end..])
}

/// Whether the difference is known: the language grew after 3.5; 3.5 takes any letter in brackets for a colon, and
/// stumbles over constants in parentheses.
fn is_known(query: &str, wanted: &Value, got: &Value) -> bool {
    let newer = |name: &str| query.match_indices(name).any(|(at, _)| !query[..at].trim_end().ends_with('@'));
    let is_newer = newer("start()") || newer("end()") || newer(">/") || newer("</");
    let text = |body: &Value| body["error"].as_str().unwrap_or_default().to_owned();
    let (wanted_text, got_text) = (text(wanted), text(got));
    // What 3.5 prints here has lost its grouping.
    let is_lost = query.contains("ignoring()") && wanted["data"].is_string();
    // It knows no fraction of the lowest bucket.
    let is_lowest = query.contains("histogram_fraction(") && wanted.to_string().contains("NaN");
    is_lost
        || is_lowest
        || (wanted["errorType"] == "bad_data" && is_newer)
        || (got_text.contains("unexpected character") && got_text.contains(", expected ':'"))
        || wanted_text.starts_with("unexpected result in StepInvariantExpr")
        || wanted_text.starts_with("unexpected number of samples")
}

/// What two answers disagree in; `None` where they agree.
fn difference(wanted: &(u16, Value), got: &(u16, Value), ordered: bool) -> Option<&'static str> {
    let ((wanted_status, wanted), (got_status, got)) = (wanted, got);
    if wanted_status != got_status || wanted["errorType"] != got["errorType"] {
        return Some("status or error type");
    }
    if wanted["status"] == "error" {
        return None;
    }
    if wanted["data"]["resultType"] != got["data"]["resultType"] {
        return Some("type");
    }
    if !same(&sorted(&wanted["data"]), &sorted(&got["data"])) {
        return Some("result");
    }
    if ordered && !same(&Value::from(values(&wanted["data"])), &Value::from(values(&got["data"]))) {
        return Some("order");
    }
    // Of more than ten notes Prometheus shows any ten.
    ["warnings", "infos"].into_iter().find(|kind| {
        let (wanted, got) = (notes(wanted, kind), notes(got, kind));
        if wanted.len() > 10 { got.len() != wanted.len() } else { wanted != got }
    })
}

/// Counts of a run.
#[derive(Default)]
struct Score {
    agreed: usize,
    failed_the_same: usize,
    empty: usize,
    unstable: usize,
    known: usize,
    other_words: usize,
    problems: Vec<String>,
}

fn requests(options: &Options) -> Vec<Request> {
    if let Some(request) = &options.request {
        return vec![Request::parse(request)];
    }
    let mut requests = Vec::new();
    for query in FIXED.lines().filter(|line| !line.is_empty()) {
        for offset in [0, 601, -250] {
            requests.push(instant(query, (END_SECS - offset).to_string()));
        }
        requests.push(range(query, (END_SECS - 1700).to_string(), (END_SECS + 200).to_string(), "37".to_owned()));
    }
    let mut dice = Dice::new(options.seed);
    requests.extend((0..options.count).map(|_| generated(&mut dice)));
    requests
}

/// Runs all; true when every answer agreed.
pub(crate) async fn run(options: &Options) -> bool {
    let prometheus = Prometheus::start().await;
    let daraji = Daraji::start().await;
    for batch in crate::corpus::batches() {
        write(&prometheus.base, &batch).await;
        write(&daraji.base, &batch).await;
    }
    let requests = requests(options);
    let mut score = Score::default();
    for request in &requests {
        compare(request, &prometheus, &daraji, options, &mut score).await;
    }
    daraji.stop().await;
    let total = requests.len();
    println!(
        "{total} requests, seed {}: {} agree ({} of them failures with the same status and type, {} of those in other \
         words; {} of them empty), {} known differences, {} unstable in Prometheus itself, {} disagree",
        options.seed,
        score.agreed,
        score.failed_the_same,
        score.other_words,
        score.empty,
        score.known,
        score.unstable,
        score.problems.len()
    );
    for problem in score.problems.iter().take(options.shown) {
        println!("{problem}");
    }
    score.problems.is_empty()
}

async fn compare(request: &Request, prometheus: &Prometheus, daraji: &Daraji, options: &Options, score: &mut Score) {
    let wanted = ask(&prometheus.base, request.path, &request.form).await;
    let got = ask(&daraji.base, request.path, &request.form).await;
    let Some(what) = difference(&wanted, &got, request.ordered) else {
        score.agreed += 1;
        score.empty += usize::from(wanted.1["data"]["result"].as_array().is_some_and(Vec::is_empty));
        if wanted.1["status"] == "error" {
            score.failed_the_same += 1;
            if wanted.1["error"] != got.1["error"] {
                score.other_words += 1;
                if options.texts {
                    println!(
                        "{:?}\n  prometheus {}\n  daraji     {}",
                        request.query(),
                        wanted.1["error"],
                        got.1["error"]
                    );
                }
            }
        }
        return;
    };
    if is_known(request.query(), &wanted.1, &got.1) {
        score.known += 1;
        return;
    }
    // Where Go's maps decide, Prometheus contradicts itself: any of its answers will do.
    let mut unstable = false;
    for _ in 0..ASKED_AGAIN {
        let again = ask(&prometheus.base, request.path, &request.form).await;
        if difference(&again, &got, request.ordered).is_none() {
            score.agreed += 1;
            return;
        }
        unstable |= difference(&again, &wanted, request.ordered).is_some();
    }
    if unstable && options.request.is_none() {
        score.unstable += 1;
        return;
    }
    score.problems.push(problem(request, what, &wanted.1, &got.1));
}

fn problem(request: &Request, what: &str, wanted: &Value, got: &Value) -> String {
    let mut text = format!("\n{what} differ: {}\n", request.query());
    for (who, body) in [("prometheus", wanted), ("daraji    ", got)] {
        let mut body = body.clone();
        if body["status"] == "success" {
            body["data"] = sorted(&body["data"]);
        }
        let mut shown = body.to_string();
        if let Some((end, _)) = shown.char_indices().nth(1500) {
            shown.truncate(end);
            shown.push('…');
        }
        writeln!(text, "  {who} {shown}").unwrap();
    }
    writeln!(
        text,
        "  again: cargo test --test promql -- differential --request '{}'",
        request.text().replace('\'', "%27")
    )
    .unwrap();
    text
}
