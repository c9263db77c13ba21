//! Templates of labels and annotations: any text parses or fails with a line, and what parses renders or fails, in
//! bounded time and memory.

#![no_main]

use daraji::model::Labels;
use daraji::rules::template::{Template, TemplateContext, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(template) = Template::parse(text, &["labels", "value"]) else { return };
    let query = |text: &str| {
        let labels = Labels::metric("up", &[("job", "x")]);
        if text.is_empty() {
            Err("empty query".to_owned())
        } else {
            Ok(vec![(labels, 1.5), (Labels::default(), f64::NAN)])
        }
    };
    let labels = Value::strings([("cluster", "c"), ("member", "m")]);
    let context = TemplateContext {
        dot: labels.clone(),
        variables: vec![("labels", labels), ("value", Value::Float(1234.5))],
        external_url: "http://daraji.example",
        query: Some(&query),
        now_seconds: 1_790_000_000.0,
    };
    drop(template.render(&context));
});
