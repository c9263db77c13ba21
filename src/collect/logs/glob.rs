//! Paths with `*` and `?`.
//!
//! Each component may hold wildcards; none crosses a `/`. A name that starts with a dot needs a dot in the pattern.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Paths that one pattern gives at most; more is a mistake in the pattern.
const PATHS_MAX: usize = 4096;

/// What a pattern matches, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Found {
    /// Sorted, regular files and links to them only.
    pub files: Vec<PathBuf>,
    /// The first directory that could not be read.
    pub error: Option<(PathBuf, io::Error)>,
}

/// Expands a pattern against the file system.
pub fn expand(pattern: &Path) -> Found {
    let mut found = Found::default();
    let mut paths = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = match component {
            Component::Normal(text) => text,
            other => {
                for path in &mut paths {
                    path.push(other);
                }
                continue;
            }
        };
        match text.to_str().filter(|text| text.contains(['*', '?'])) {
            None => {
                for path in &mut paths {
                    path.push(text);
                }
            }
            Some(part) => paths = expand_one(&paths, part, &mut found.error),
        }
    }
    paths.sort();
    paths.dedup();
    paths.retain(|path| path.is_file());
    found.files = paths;
    found
}

fn expand_one(directories: &[PathBuf], part: &str, error: &mut Option<(PathBuf, io::Error)>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for directory in directories {
        let shown = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let entries = match fs::read_dir(shown) {
            Ok(entries) => entries,
            Err(found) if matches!(found.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(found) => {
                error.get_or_insert((shown.to_owned(), found));
                continue;
            }
        };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if matches(part, &name) && paths.len() < PATHS_MAX {
                paths.push(directory.join(name));
            }
        }
    }
    paths
}

/// Whether a path could be one of those that a pattern gives.
pub fn matches_path(pattern: &Path, path: &Path) -> bool {
    let mut parts = path.components();
    let all_match = pattern.components().all(|wanted| match (wanted, parts.next()) {
        (Component::Normal(wanted), Some(Component::Normal(part))) => match (wanted.to_str(), part.to_str()) {
            (Some(wanted), Some(part)) => matches(wanted, part),
            _ => wanted == part,
        },
        (wanted, part) => Some(wanted) == part,
    });
    all_match && parts.next().is_none()
}

/// Whether a name matches a pattern of one component.
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last `*` does not match: let the star take one more character.
    let mut retry = None;
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == c => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, taken)) = retry else { return false };
                retry = Some((star, taken + 1));
                p = star + 1;
                n = taken + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (pattern, name, expected) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.1", false),
            ("*.csv", ".csv", false),
            ("postgresql-*.log", "postgresql-Mon.log", true),
            ("p*g*l", "postgresql", true),
            ("p*g*x", "postgresql", false),
            ("?.log", "é.log", true),
            ("?.log", ".log", false),
            ("*", "x", true),
            ("**", "", true),
            ("a", "ab", false),
            ("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn paths() {
        for (pattern, path, expected) in [
            ("/var/log/*/*.log", "/var/log/pg/a.log", true),
            ("/var/log/*/*.log", "/var/log/a.log", false),
            ("/var/log/*.log", "/var/log/pg/a.log", false),
            ("/var/log/*.log", "/var/log/a.log.1", false),
            ("a.log", "a.log", true),
        ] {
            assert_eq!(matches_path(Path::new(pattern), Path::new(path)), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn wildcards_in_any_component() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.log", "b/y.log", "b/z.txt", "c"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir_all(dir.path().join("b/dir.log")).unwrap();
        let found = expand(&dir.path().join("*/*.log"));
        assert_eq!(found.files, [dir.path().join("a/x.log"), dir.path().join("b/y.log")]);
        assert!(found.error.is_none());
        assert_eq!(expand(&dir.path().join("a/x.log")).files.len(), 1);
        assert_eq!(expand(&dir.path().join("nothing/*.log")).files.len(), 0);
    }
}
