//! Metrics pages of others: from their text to samples with our labels.

use crate::collect::poll::CollectError;
use crate::model::observation::FailureKind;
use crate::model::{Families, Labels, Sample, Timestamp};
use crate::platform::http_client::HttpAnswer;
use crate::wire::exposition::{self, ExposedSample};

/// Samples taken from one page; a page with more is refused as a whole, as Prometheus does.
pub(crate) const SAMPLES_MAX: usize = 200_000;

/// What a page holds.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) samples: Vec<Sample>,
    pub(crate) families: Families,
}

/// Reads a page. A label of ours that the page also has wins, and the page's is kept as `exported_NAME`. Where the page
/// gives a time of its own, that is the sample's.
pub(crate) fn read(answer: &HttpAnswer, labels: &Labels, at: Timestamp) -> Result<Page, CollectError> {
    let page = exposition::parse(&answer.body, &answer.content_type)
        .map_err(|error| CollectError::new(FailureKind::Other, format!("the metrics page cannot be read: {error}")))?;
    if page.samples.len() > SAMPLES_MAX {
        return Err(CollectError::new(
            FailureKind::Other,
            format!("the metrics page has more than {SAMPLES_MAX} samples"),
        ));
    }
    let sample = |exposed: ExposedSample| {
        let at = exposed.timestamp_ms.map_or(at, Timestamp::from_millis);
        Sample::new(with_target(&exposed.labels, labels), at, exposed.value)
    };
    Ok(Page { samples: page.samples.into_iter().map(sample).collect(), families: page.metadata })
}

fn with_target(exposed: &Labels, target: &Labels) -> Labels {
    let mut own = exposed.to_builder();
    for (name, value) in target.iter() {
        if let Some(exposed) = exposed.get(name).filter(|exposed| *exposed != value) {
            own.set(format!("exported_{name}"), exposed);
        }
        own.set(name, value);
    }
    own.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(body: &str) -> Result<Vec<String>, CollectError> {
        let answer =
            HttpAnswer { status: 200, content_type: String::new(), body: body.to_owned().into(), retry_after: None };
        let labels = Labels::from_pairs([("cluster", "main"), ("instance", "h:1")]);
        let page = read(&answer, &labels, Timestamp::default())?;
        Ok(page.samples.iter().map(|sample| format!("{} {}", sample.labels, sample.value)).collect())
    }

    #[test]
    fn pages_get_the_labels_of_their_target() {
        let page = "# HELP a b\n# TYPE a counter\na 1\nb{x=\"y\\\"z\", cluster=\"own\"} NaN\nc{} +Inf 1700000000000\n";
        assert_eq!(
            lines(page).unwrap(),
            [
                r#"a{cluster="main", instance="h:1"} 1"#,
                r#"b{cluster="main", exported_cluster="own", instance="h:1", x="y\"z"} NaN"#,
                r#"c{cluster="main", instance="h:1"} inf"#,
            ]
        );
    }

    #[test]
    fn garbage_names_its_line() {
        for (page, error) in [("a 1\n<html>", "line 2"), ("a{b=\"c} 1", "line 1"), ("a x", "line 1")] {
            let read = lines(page).unwrap_err().error;
            assert!(read.starts_with("the metrics page cannot be read: ") && read.contains(error), "{read}");
        }
    }
}
