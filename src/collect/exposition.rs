//! Metrics pages of others: from their text to samples with our labels.

use crate::collect::poll::CollectError;
use crate::model::labels::METRIC_NAME;
use crate::model::observation::FailureKind;
use crate::model::{Labels, LabelsBuilder, Sample, Timestamp};
use crate::platform::http_client::HttpAnswer;

/// Samples taken from one page; a page with more is refused as a whole, as Prometheus does.
pub(crate) const SAMPLES_MAX: usize = 200_000;

/// Reads a page. A label of ours that the page also has wins, and the page's is kept as `exported_NAME`.
pub(crate) fn samples(answer: &HttpAnswer, labels: &Labels, at: Timestamp) -> Result<Vec<Sample>, CollectError> {
    let exposed = parse(&answer.body).map_err(|error| CollectError::new(FailureKind::Other, error))?;
    Ok(exposed.into_iter().map(|(own, value)| Sample::new(with_target(own, labels), at, value)).collect())
}

fn with_target(mut own: LabelsBuilder, target: &Labels) -> Labels {
    for (name, value) in target.iter() {
        if let Some(exposed) = own.get(name).filter(|exposed| *exposed != value).map(str::to_owned) {
            own.set(format!("exported_{name}"), exposed);
        }
        own.set(name, value);
    }
    own.build()
}

/// Stand-in for `wire::exposition::parse`: the plain text format without timestamps and exemplars.
fn parse(body: &[u8]) -> Result<Vec<(LabelsBuilder, f64)>, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("the metrics page is not UTF-8: {error}"))?;
    let mut samples = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if samples.len() >= SAMPLES_MAX {
            return Err(format!("the metrics page has more than {SAMPLES_MAX} samples"));
        }
        let sample = parse_line(line).ok_or_else(|| format!("line {number} of the metrics page is no sample"))?;
        samples.push(sample);
    }
    Ok(samples)
}

fn parse_line(line: &str) -> Option<(LabelsBuilder, f64)> {
    let mut labels = LabelsBuilder::default();
    let name_end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at_checked(name_end)?;
    labels.set(METRIC_NAME, name);
    if let Some(after) = rest.strip_prefix('{') {
        rest = parse_labels(after, &mut labels)?;
    }
    let value = rest.split_ascii_whitespace().next()?;
    Some((labels, value.parse().ok()?))
}

/// Reads `a="b",…}` and returns what follows.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut LabelsBuilder) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, after) = rest.split_once('=')?;
        let mut chars = after.trim_start().strip_prefix('"')?.chars();
        let mut value = String::new();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(match chars.next()? {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.set(name.trim(), value);
        rest = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<String>, CollectError> {
        let answer = HttpAnswer { status: 200, content_type: String::new(), body: body.to_owned().into() };
        let labels = Labels::from_pairs([("cluster", "main"), ("instance", "h:1")]);
        let samples = samples(&answer, &labels, Timestamp::default())?;
        Ok(samples.iter().map(|sample| format!("{} {}", sample.labels, sample.value)).collect())
    }

    #[test]
    fn pages_get_the_labels_of_their_target() {
        let page = "# HELP a b\n# TYPE a counter\na 1\nb{x=\"y\\\"z\", cluster=\"own\"} NaN\nc{} +Inf 1700000000000\n";
        assert_eq!(
            read(page).unwrap(),
            [
                r#"a{cluster="main", instance="h:1"} 1"#,
                r#"b{cluster="main", exported_cluster="own", instance="h:1", x="y\"z"} NaN"#,
                r#"c{cluster="main", instance="h:1"} inf"#,
            ]
        );
    }

    #[test]
    fn garbage_names_its_line() {
        for (page, error) in [
            ("a 1\n<html>", "line 2 of the metrics page is no sample"),
            ("a{b=\"c} 1", "line 1 of the metrics page is no sample"),
            ("a x", "line 1 of the metrics page is no sample"),
        ] {
            assert_eq!(read(page).unwrap_err().error, error);
        }
    }
}
