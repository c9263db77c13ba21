//! A module may use only modules on lower layers, and no sibling unless it is listed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each module of `src/`.
const LAYERS: &[(u8, &[&str])] = &[
    (7, &["main", "cli", "serve", "agent", "config", "postmortem"]),
    (6, &["http"]),
    (5, &["notify", "operate"]),
    (4, &["collect", "cluster", "rules", "alert", "incident"]),
    (3, &["intake", "query"]),
    (2, &["store"]),
    (1, &["platform", "wire"]),
    (0, &["model"]),
];

/// Uses between modules of one layer that are meant.
const SIBLINGS: &[(&str, &str)] = &[
    ("incident", "alert"),
    ("main", "cli"),
    ("cli", "serve"),
    ("cli", "agent"),
    ("cli", "config"),
    ("cli", "postmortem"),
    ("serve", "config"),
    ("agent", "config"),
];

const FILE_LINES_MAX: usize = 800;

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

fn source_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    files
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Names after `crate::` in a line of code, comments aside. A list of modules gives an empty name.
fn used_modules(line: &str) -> Vec<&str> {
    let trimmed = line.trim_start();
    // Inside a string these may be a URL: only what begins a line or follows a space is a comment.
    let code = if trimmed.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or("") };
    code.match_indices("crate::")
        .filter_map(|(at, word)| {
            let rest = &code[at + word.len()..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (end > 0 || rest.starts_with('{')).then_some(&rest[..end])
        })
        .collect()
}

#[test]
fn no_way_of_naming_a_module_is_overlooked() {
    for (line, used) in [
        ("use crate::model::Labels;", vec!["model"]),
        ("use crate::{collect, serve};", vec![""]),
        ("    let url = \"http://x\".len() + crate::http::N;", vec!["http"]),
        ("/// See [`crate::http`].", vec![]),
        ("let a = 1; // crate::http", vec![]),
    ] {
        assert_eq!(used_modules(line), used, "{line}");
    }
}

#[test]
fn modules_use_only_lower_layers() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let module = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let Some(layer) = layer_of(&module) else {
            broken.push(format!("src/{}: module {module} stands in no layer", path.display()));
            continue;
        };
        for (number, line) in (1..).zip(text.lines()) {
            for used in used_modules(line) {
                if used.is_empty() {
                    broken.push(format!("src/{}:{number}: name each module on a line of its own", path.display()));
                    continue;
                }
                let allowed = used == module
                    || layer_of(used).is_none_or(|lower| lower < layer)
                    || SIBLINGS.contains(&(module.as_str(), used));
                if !allowed {
                    broken.push(format!("src/{}:{number}: {module} may not use {used}", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines: {long:?}");
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !text.starts_with("//!") && !path.ends_with("tests.rs"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "without a first line `//!`: {silent:?}");
}
