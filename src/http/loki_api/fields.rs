//! Fields of lines: what Grafana offers to filter and to group by.
//!
//! Found by looking at the newest lines of a query: their structured metadata, what the query's own stages made, and
//! what `json` or else `logfmt` make of the line.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::params::Params;
use super::{Answer, ApiError, LokiApi, log_expr};
use crate::query::logql::{Engine, LinesQuery, LogExpr};
use crate::store::logs::{Direction, LogStore};

const LINES_DEFAULT: usize = 1000;
const FIELDS_DEFAULT: usize = 1000;
/// Values that are counted of one field; more are as good as unbounded.
const VALUES_MAX: usize = 5000;

#[derive(Default)]
struct Field {
    values: BTreeSet<String>,
    parsers: BTreeSet<&'static str>,
    json_path: Option<Vec<String>>,
}

type Fields = BTreeMap<String, Field>;

/// What to look at.
struct Look {
    text: String,
    expr: LogExpr,
    lines: LinesQuery,
    fields_max: usize,
}

impl Look {
    fn new(api: &LokiApi, params: &Params) -> Result<Self, ApiError> {
        let (start, end) = params.range(api.clock.now())?;
        let text = params.get("query").unwrap_or("").to_owned();
        let limit = params.count(&["line_limit"], LINES_DEFAULT)?;
        Ok(Self {
            expr: log_expr(&text)?,
            text,
            lines: LinesQuery { start, end, direction: Direction::Backward, limit },
            fields_max: params.count(&["limit", "field_limit"], FIELDS_DEFAULT)?,
        })
    }

    fn find(&self, store: &LogStore, engine: &Engine, stop: &CancellationToken) -> Result<Fields, ApiError> {
        let mut fields = Fields::new();
        let (lines, _) = engine.lines(store, &self.expr, &self.lines, stop)?;
        for line in &lines {
            let parsed = line.parsed.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            for (name, value) in line.metadata.iter().chain(parsed) {
                add(&mut fields, name, value, None);
            }
        }
        for (parser, stages) in [("json", "| json | __error__=\"\""), ("logfmt", "| logfmt | __error__=\"\"")] {
            let expr = log_expr(&format!("{}\n{stages}", self.text))?;
            let (lines, _) = engine.lines(store, &expr, &self.lines, stop)?;
            for line in &lines {
                let object = serde_json::from_str::<Value>(&line.line).ok().filter(Value::is_object);
                if object.is_some() != (parser == "json") {
                    continue;
                }
                for (name, value) in &line.parsed {
                    add(&mut fields, name, value, Some(parser));
                }
                if let Some(object) = object {
                    note_paths(&mut fields, &object, &mut Vec::new());
                }
            }
        }
        fields.retain(|name, _| !name.starts_with("__"));
        Ok(fields)
    }
}

fn add(fields: &mut Fields, name: &str, value: &str, parser: Option<&'static str>) {
    if !fields.contains_key(name) {
        fields.insert(name.to_owned(), Field::default());
    }
    let Some(field) = fields.get_mut(name) else { return };
    field.parsers.extend(parser);
    if field.values.len() < VALUES_MAX && !field.values.contains(value) {
        field.values.insert(value.to_owned());
    }
}

/// Remembers where in the object each field came from.
fn note_paths(fields: &mut Fields, value: &Value, path: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    for (key, value) in object {
        path.push(key.clone());
        if value.is_object() {
            note_paths(fields, value, path);
        } else {
            let name: String =
                path.join("_").chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
            if let Some(field) = fields.get_mut(&name) {
                field.json_path.get_or_insert_with(|| path.clone());
            }
        }
        path.pop();
    }
}

impl Field {
    /// The narrowest type that all values have.
    fn kind(&self) -> &'static str {
        type Fits = fn(&str) -> bool;
        const KINDS: [(&str, Fits); 5] = [
            ("int", |value| value.parse::<i64>().is_ok()),
            ("float", |value| value.parse::<f64>().is_ok()),
            ("boolean", |value| matches!(value, "true" | "false")),
            ("duration", |value| has_unit(value, &["ns", "us", "µs", "ms", "s", "m", "h"])),
            ("bytes", |value| {
                let value = value.to_ascii_lowercase();
                has_unit(&value, &["b", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib"])
            }),
        ];
        let kind = KINDS.iter().find(|(_, fits)| self.values.iter().all(|value| fits(value)));
        kind.map_or("string", |(kind, _)| kind)
    }
}

/// Whether a value is numbers, each with one of the units: `1.5s`, `2m3s`, `1.2MiB`.
fn has_unit(value: &str, units: &[&str]) -> bool {
    let mut rest = value.strip_prefix('-').unwrap_or(value);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let Some((number, after)) = rest.find(|c| !is_digit(c)).and_then(|end| rest.split_at_checked(end)) else {
            return false;
        };
        let (unit, after) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
        if number.parse::<f64>().is_err() || !units.contains(&unit) {
            return false;
        }
        rest = after;
    }
    true
}

pub(super) async fn names(State(api): State<LokiApi>, params: Params) -> Answer {
    let look = Look::new(&api, &params)?;
    let limit = look.fields_max;
    let fields = api.run(move |store, engine, stop| look.find(store, engine, stop)).await?;
    let fields: Vec<Value> = fields
        .iter()
        .take(limit)
        .map(|(name, field)| {
            let parsers = if field.parsers.is_empty() { Value::Null } else { json!(field.parsers) };
            let mut out =
                json!({"label": name, "type": field.kind(), "cardinality": field.values.len(), "parsers": parsers});
            if let (Some(path), Some(out)) = (&field.json_path, out.as_object_mut()) {
                out.insert("jsonPath".to_owned(), json!(path));
            }
            out
        })
        .collect();
    Ok(Json(json!({"fields": fields, "limit": limit})))
}

pub(super) async fn values(State(api): State<LokiApi>, Path(name): Path<String>, params: Params) -> Answer {
    let look = Look::new(&api, &params)?;
    let limit = look.fields_max;
    let mut fields = api.run(move |store, engine, stop| look.find(store, engine, stop)).await?;
    let values: Vec<String> = fields.remove(&name).unwrap_or_default().values.into_iter().take(limit).collect();
    Ok(Json(json!({"values": values, "limit": limit})))
}
