//! Secrets: never printed, read from files or the environment.

use std::fmt;
use std::path::Path;

use serde::Deserialize;

/// A secret text. `Debug` prints `***`; there is no `Display`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// A file that should hold a secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read the secret in {path}")]
pub struct SecretFileError {
    path: String,
    #[source]
    source: std::io::Error,
}

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The content of a file without the trailing line end. Read it at each use, so that rotation needs no restart.
    pub fn read_file(path: &Path) -> Result<Self, SecretFileError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(source) => Err(SecretFileError { path: path.display().to_string(), source }),
        }
    }

    /// The secret itself. Name the use where you call this; never format the result.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
