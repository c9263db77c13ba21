//! The cause catalogue on recorded faults.

mod recording;

use std::path::{Path, PathBuf};

use daraji::incident::causes::test_runner::{self, Recording, TestFiles};

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
