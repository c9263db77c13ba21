//! Programs that tests need and `tests/lab/install` provides. A missing one fails the test: nothing is skipped.

use std::path::PathBuf;

/// A program of the lab's installation (a path below its home), else the one of that name on the PATH.
///
/// # Panics
/// When there is neither, with what to do.
pub(crate) fn program(relative: &str, name: &str) -> PathBuf {
    let home = std::env::var_os("DARAJI_LAB_HOME").map_or_else(|| PathBuf::from("/opt/daraji-lab"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = std::iter::once(home.join(relative)).chain(on_path).find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("there is no {name}: run tests/lab/install, which the tests need"))
}
