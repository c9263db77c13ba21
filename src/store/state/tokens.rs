//! Access tokens: 256 random bits shown once, stored only as a SHA-256 hash.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::Timestamp;
use crate::platform::random::{self, hex};
use crate::platform::secret::Secret;
use crate::store::state::{StateError, StateStore, Table};

/// Prefix that lets people and secret scanners recognise a token.
const PREFIX: &str = "daraji_";

/// Rows by hash of the token.
const TOKENS: Table<Token> = Table::new("tokens");

/// A fleet has a handful of users and one token per agent.
const TOKENS_MAX: usize = 100_000;

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read everything but secrets.
    Viewer,
    /// Also silence alerts and act on clusters.
    Operator,
    /// Also manage tokens and reload the configuration.
    Admin,
    /// Only push what an agent collects.
    Agent,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Agent => "agent",
        }
    }

    /// Reads a role; `None` for any other word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin, Self::Agent].into_iter().find(|role| role.as_str() == word)
    }
}

/// A token without its secret part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Unique among the tokens that exist.
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
}

impl StateStore {
    /// Makes a token. The result is the only copy of the secret.
    pub fn create_token(&self, name: &str, role: Role, now: Timestamp) -> Result<Secret, StateError> {
        let secret = format!("{PREFIX}{}", hex(&random::bytes::<32>().map_err(StateError::Random)?));
        let token = Token { name: name.to_owned(), role, created_at: now };
        self.write(|tx| {
            if tx.scan(&TOKENS, "", TOKENS_MAX)?.iter().any(|(_, known)| known.name == name) {
                return Err(StateError::TokenExists(name.to_owned()));
            }
            tx.put(&TOKENS, &hash(&secret), &token)
        })?;
        Ok(Secret::new(secret))
    }

    /// The token with this secret. Looked up by its hash: the time it takes says nothing about the secret.
    pub fn verify_token(&self, secret: &str) -> Result<Option<Token>, StateError> {
        self.read()?.get(&TOKENS, &hash(secret))
    }

    /// Ends a token's life at once; says whether there was one of this name.
    pub fn revoke_token(&self, name: &str) -> Result<bool, StateError> {
        self.write(|tx| {
            if let Some((key, _)) = tx.scan(&TOKENS, "", TOKENS_MAX)?.iter().find(|(_, token)| token.name == name) {
                tx.delete(&TOKENS, key)?;
                return Ok(true);
            }
            Ok(false)
        })
    }

    /// All tokens by name.
    pub fn list_tokens(&self) -> Result<Vec<Token>, StateError> {
        let mut tokens: Vec<Token> =
            self.read()?.scan(&TOKENS, "", TOKENS_MAX)?.into_iter().map(|(_, token)| token).collect();
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tokens)
    }
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}
