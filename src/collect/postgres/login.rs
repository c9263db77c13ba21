//! Who logs in, and how: from the configuration, else from libpq's own environment.
//!
//! Passwords are read at each connect, so that a rotated one needs no restart.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_postgres_rustls::MakeRustlsConnect;

use crate::collect::config::{PostgresConfig, SslMode};
use crate::collect::poll::CollectError;
use crate::collect::postgres::passfile;
use crate::collect::postgres::tls;
use crate::model::observation::FailureKind;
use crate::platform::error::chain;
use crate::platform::secret::Secret;

/// How to find an environment variable; a test passes its own.
pub(crate) type Environment = fn(&str) -> Option<String>;

/// The process' environment; empty values count as unset.
pub(crate) fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A resolved login, shared by all members of a cluster.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) sslmode: SslMode,
    pub(crate) tls: Arc<MakeRustlsConnect>,
    password: PasswordSource,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("database", &self.database).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum PasswordSource {
    File(PathBuf),
    Given(Secret),
    /// libpq's password file, if there is one.
    PassFile(Option<PathBuf>),
}

impl Login {
    /// Fills in what the configuration leaves out.
    pub(crate) fn resolve(config: &PostgresConfig, environment: Environment) -> Result<Self, CollectError> {
        let user = config.user.clone().or_else(|| environment("PGUSER")).or_else(|| environment("USER"));
        let user = user.or_else(|| environment("LOGNAME")).unwrap_or_else(|| "postgres".to_owned());
        let database = config.database.clone().or_else(|| environment("PGDATABASE"));
        let sslmode = config.sslmode.or_else(|| environment("PGSSLMODE").and_then(|mode| sslmode_word(&mode)));
        let sslmode = sslmode.unwrap_or(SslMode::Prefer);
        let roots = config.sslrootcert.clone().or_else(|| environment("PGSSLROOTCERT").map(PathBuf::from));
        let tls = tls::connector(sslmode, roots.as_deref()).map_err(|error| {
            CollectError::new(FailureKind::Denied, chain(&error))
                .with_hint("check postgres.sslmode and postgres.sslrootcert")
        })?;
        let password = match (&config.password_file, environment("PGPASSWORD")) {
            (Some(path), _) => PasswordSource::File(path.clone()),
            (None, Some(password)) => PasswordSource::Given(Secret::new(password)),
            (None, None) => PasswordSource::PassFile(
                environment("PGPASSFILE")
                    .or_else(|| environment("HOME").map(|home| format!("{home}/.pgpass")))
                    .map(PathBuf::from),
            ),
        };
        let database = database.unwrap_or_else(|| "postgres".to_owned());
        Ok(Self { user, database, sslmode, tls: Arc::new(tls), password })
    }

    /// The password for one server; `None` lets the server decide whether it needs one.
    pub(crate) fn password(&self, host: &str, port: u16) -> Result<Option<Secret>, CollectError> {
        match &self.password {
            PasswordSource::File(path) => Secret::read_file(path).map(Some).map_err(|error| {
                CollectError::new(FailureKind::Denied, chain(&error))
                    .with_hint("postgres.password_file must be readable by the user that daraji runs as")
            }),
            PasswordSource::Given(secret) => Ok(Some(secret.clone())),
            PasswordSource::PassFile(None) => Ok(None),
            PasswordSource::PassFile(Some(path)) => Ok(std::fs::read_to_string(path)
                .ok()
                .and_then(|text| passfile::find(&text, host, port, &self.database, &self.user))
                .map(Secret::new)),
        }
    }
}

fn sslmode_word(word: &str) -> Option<SslMode> {
    match word {
        "disable" => Some(SslMode::Disable),
        "allow" | "prefer" => Some(SslMode::Prefer),
        "require" => Some(SslMode::Require),
        "verify-ca" => Some(SslMode::VerifyCa),
        "verify-full" => Some(SslMode::VerifyFull),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "PGUSER" => "watcher",
            "PGPASSWORD" => "from-environment",
            "PGDATABASE" => "app",
            "PGSSLMODE" => "require",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn password(login: &Login) -> Option<String> {
        login.password("h", 5432).unwrap().map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn the_configuration_wins_over_the_environment() {
        crate::platform::tls::install();
        let login = Login::resolve(&PostgresConfig::default(), environment).unwrap();
        assert_eq!((login.user.as_str(), login.database.as_str(), login.sslmode), ("watcher", "app", SslMode::Require));
        assert_eq!(password(&login).as_deref(), Some("from-environment"));

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pass");
        std::fs::write(&file, "from-file\n").unwrap();
        let config = PostgresConfig {
            user: Some("daraji".into()),
            password_file: Some(file.clone()),
            ..PostgresConfig::default()
        };
        let login = Login::resolve(&config, environment).unwrap();
        assert_eq!(login.user, "daraji");
        assert_eq!(password(&login).as_deref(), Some("from-file"));
        std::fs::write(&file, "rotated\n").unwrap();
        assert_eq!(password(&login).as_deref(), Some("rotated"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(login.password("h", 1).unwrap_err().kind, FailureKind::Denied);
    }

    #[test]
    fn modes_that_cannot_prove_anything_are_refused() {
        crate::platform::tls::install();
        let config = PostgresConfig { sslmode: Some(SslMode::VerifyCa), ..PostgresConfig::default() };
        let error = Login::resolve(&config, |_| None).unwrap_err();
        assert!(error.error.contains("sslrootcert"), "{error}");
    }
}
