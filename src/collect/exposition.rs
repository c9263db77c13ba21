//! Metrics pages of others: from their text to samples with our labels.

use crate::collect::poll::CollectError;
use crate::model::observation::FailureKind;
use crate::model::{Labels, LabelsBuilder, Sample, Timestamp};
use crate::platform::error::chain;
use crate::platform::http_client::HttpAnswer;
use crate::wire::exposition;

/// Reads a page. A label of ours that the page also has wins, and the page's is kept as `exported_NAME`.
pub(crate) fn samples(answer: &HttpAnswer, labels: &Labels, at: Timestamp) -> Result<Vec<Sample>, CollectError> {
    let page = exposition::parse(&answer.body, &answer.content_type)
        .map_err(|error| CollectError::new(FailureKind::Other, chain(&error)))?;
    let of = |exposed: exposition::ExposedSample| {
        let at = exposed.timestamp_ms.map_or(at, Timestamp::from_millis);
        Sample::new(with_target(exposed.labels.to_builder(), labels), at, exposed.value)
    };
    Ok(page.samples.into_iter().map(of).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<String>, CollectError> {
        let answer = HttpAnswer { status: 200, content_type: String::new(), body: body.to_owned().into(), retry_after: None };
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
        let error = read("a 1\n<html>").unwrap_err().error;
        assert!(error.contains("line 2"), "{error}");
    }
}
