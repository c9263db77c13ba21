//! What to watch, as it stands in the configuration file.
//!
//! Invariant: holds no secret itself, only where to read it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::collect::known::KnownClusters;
use crate::platform::units::{deserialize_duration, deserialize_optional_duration};

/// Everything the collectors of a server or an agent are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CollectConfig {
    pub clusters: Vec<ClusterConfig>,
    pub discover: Vec<DiscoverConfig>,
    pub scrape_configs: Vec<ScrapeConfig>,
    /// What was known before a restart: also members that no Patroni names any more.
    pub known: KnownClusters,
}

/// One Patroni cluster: an entry of `clusters:`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Name in labels and pages; Patroni's scope when left out.
    pub name: Option<String>,
    /// REST API of any member; the others are found.
    pub patroni: Vec<HttpUrl>,
    /// How the members' REST APIs are proven where they speak HTTPS.
    pub patroni_tls: TlsConfig,
    pub postgres: PostgresConfig,
    pub dcs: Option<DcsConfig>,
    /// Metrics pages of the HAProxy instances in front.
    pub haproxy: Vec<HttpUrl>,
    /// Admin consoles of the PgBouncer instances in front: `postgres://stats@host:6432/pgbouncer`.
    pub pgbouncer: Vec<String>,
    /// Where clients write, such as the proxy's port for the primary: a tiny transaction is committed there each second.
    /// Nothing is written unless this is set.
    pub write_probe: Vec<Address>,
}

/// Where a PostgreSQL, or a proxy in front of one, listens. Written as `host:port`, with brackets around IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let bare = |host: &str| match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').map(str::to_owned),
            None => Some(host.to_owned()).filter(|host| !host.contains([':', '/', '@'])),
        };
        parts
            .and_then(|(host, port)| Some(Self { host: bare(host).filter(|host| !host.is_empty())?, port }))
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not host:port, like 10.0.0.31:5000")))
    }
}

/// How to log in to the members' PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// Without it: `PGUSER`, else the operating system's user.
    pub user: Option<String>,
    /// Without it: `PGPASSWORD`, else the password file of libpq.
    pub password_file: Option<PathBuf>,
    /// Without it: `PGDATABASE`, else `postgres`.
    pub database: Option<String>,
    /// Without it: `PGSSLMODE`, else `prefer`.
    pub sslmode: Option<SslMode>,
    /// Certificates to trust; the system's when left out.
    pub sslrootcert: Option<PathBuf>,
}

/// libpq's words for how much encryption and proof is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where the cluster keeps its keys.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DcsConfig {
    /// Client URLs of any etcd members; the others are found.
    pub etcd: Vec<HttpUrl>,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// User of an etcd with authentication; it needs to read below the namespace only.
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Certificates to trust; the system's when left out.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Certificate that proves us to the etcd, with its key.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// An entry of `discover:`: every scope found below the namespace becomes a cluster.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoverConfig {
    pub etcd: Vec<HttpUrl>,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// User of an etcd with authentication; it needs to read below the namespace only.
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Certificates to trust; the system's when left out.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Certificate that proves us to the etcd, with its key.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    #[serde(default)]
    pub postgres: PostgresConfig,
}

impl DcsConfig {
    /// What one key says without the other that it needs.
    pub fn problem(&self) -> Option<&'static str> {
        if self.username.is_some() != self.password_file.is_some() {
            return Some("'username' and 'password_file' of an etcd belong together");
        }
        (self.cert_file.is_some() != self.key_file.is_some())
            .then_some("'cert_file' and 'key_file' of an etcd belong together")
    }
}

impl DiscoverConfig {
    /// The DCS that is searched.
    pub fn dcs(&self) -> DcsConfig {
        DcsConfig {
            etcd: self.etcd.clone(),
            namespace: self.namespace.clone(),
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
        }
    }
}

fn default_namespace() -> String {
    "/service".to_owned()
}

/// An entry of `scrape_configs:`, with Prometheus' keys.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrapeConfig {
    pub job_name: String,
    #[serde(default = "default_scrape_interval", deserialize_with = "deserialize_duration")]
    pub scrape_interval: Duration,
    /// Absent: ten seconds, or the interval where that is shorter, as in Prometheus.
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    pub scrape_timeout: Option<Duration>,
    #[serde(default = "default_metrics_path")]
    pub metrics_path: String,
    #[serde(default)]
    pub scheme: Scheme,
    #[serde(default)]
    pub static_configs: Vec<StaticConfig>,
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    #[serde(default)]
    pub authorization: Option<Authorization>,
    #[serde(default)]
    pub tls_config: TlsConfig,
}

/// Protocol of a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// Targets written down, and labels for all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaticConfig {
    /// `host:port`.
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    pub username: String,
    pub password_file: PathBuf,
}

/// An `Authorization` header, `Bearer` by default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    #[serde(default = "default_authorization_type", rename = "type")]
    pub kind: String,
    pub credentials_file: PathBuf,
}

/// How an HTTPS server is proven.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    pub ca_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

fn default_scrape_interval() -> Duration {
    Duration::from_secs(15)
}

fn default_metrics_path() -> String {
    "/metrics".to_owned()
}

fn default_authorization_type() -> String {
    "Bearer".to_owned()
}

/// An `http://` or `https://` URL without a trailing slash.
///
/// A user name and password in it go to the server with each request, and are shown nowhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    shown: String,
    /// `user:password@`, encoded as in a URL; mostly empty.
    login: String,
}

/// The text is not an HTTP URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a URL like http://10.0.0.11:8008")]
pub struct ParseUrlError {
    text: String,
}

impl HttpUrl {
    pub fn parse(text: &str) -> Result<Self, ParseUrlError> {
        // What stands before an `@` may be a password, however wrong the rest is.
        let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("***@{host}"));
        let error = || ParseUrlError { text: shown.clone() };
        let url = reqwest::Url::parse(text).map_err(|_| error())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(error());
        }
        let text = text.trim_end_matches('/');
        if url.username().is_empty() && url.password().is_none() {
            return Ok(Self { shown: text.to_owned(), login: String::new() });
        }
        let login = url.password().map_or_else(String::new, |password| format!(":{password}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let start = authority.rfind('@').map_or(0, |at| at + 1);
        let shown = format!("{scheme}://{}", rest.get(start..).unwrap_or_default());
        Ok(Self { shown, login: format!("{}{login}@", url.username()) })
    }

    /// Without user name and password.
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// What to request: the URL with a path appended, which starts with a slash or is empty. With user name and password,
    /// which the HTTP client makes into a header; never to be shown.
    pub fn join(&self, path: &str) -> String {
        match self.shown.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}{rest}{path}", self.login),
            None => format!("{}{path}", self.shown),
        }
    }

    /// `host:port`, the conventional `instance` label.
    pub fn instance(&self) -> String {
        let parsed = reqwest::Url::parse(&self.shown).ok();
        parsed
            .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)))
            .unwrap_or_else(|| self.shown.clone())
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::yaml::from_yaml;

    #[test]
    fn the_documented_shapes_are_read() {
        let cluster: ClusterConfig = from_yaml(
            "f.yml",
            "patroni: [http://10.0.0.11:8008/]\npostgres: {user: daraji, password_file: /p, sslmode: verify-full}\n\
             dcs: {etcd: [http://10.0.0.21:2379]}\nhaproxy: [http://10.0.0.31:7000/metrics]\n\
             pgbouncer: [postgres://stats@10.0.0.31:6432/pgbouncer]\nwrite_probe: ['10.0.0.31:5000', '[fd00::31]:5000']\n",
        )
        .unwrap();
        let probed: Vec<_> = cluster.write_probe.iter().map(ToString::to_string).collect();
        assert_eq!(probed, ["10.0.0.31:5000", "[fd00::31]:5000"]);
        assert_eq!(cluster.write_probe[1].host, "fd00::31");
        assert_eq!(cluster.patroni[0].as_str(), "http://10.0.0.11:8008");
        assert_eq!(cluster.patroni[0].instance(), "10.0.0.11:8008");
        assert_eq!(cluster.postgres.sslmode, Some(SslMode::VerifyFull));
        assert_eq!(cluster.dcs.unwrap().namespace, "/service");

        let scrape: ScrapeConfig = from_yaml(
            "f.yml",
            "job_name: node\nscrape_interval: 5s\nstatic_configs:\n  - targets: ['h:9100']\n    labels: {env: prod}\n",
        )
        .unwrap();
        assert_eq!(scrape.scrape_interval, Duration::from_secs(5));
        assert_eq!(scrape.metrics_path, "/metrics");
        assert_eq!(scrape.static_configs[0].labels["env"], "prod");
    }

    #[test]
    fn a_login_in_a_url_is_sent_and_not_shown() {
        let url = HttpUrl::parse("http://stats:sec%40ret@10.0.0.31:7000/").unwrap();
        assert_eq!(url.join("/metrics"), "http://stats:sec%40ret@10.0.0.31:7000/metrics");
        assert_eq!(url.instance(), "10.0.0.31:7000");
        let raw = HttpUrl::parse("https://u:a@b@host/x@y").unwrap();
        assert_eq!(reqwest::Url::parse(&raw.join("/z")).unwrap().as_str(), "https://u:a%40b@host/x@y/z");
        let wrong = HttpUrl::parse("http://stats:sec/ret@host:99999").unwrap_err();
        for text in [url.to_string(), url.as_str().to_owned(), format!("{url:?}"), wrong.to_string(), raw.to_string()] {
            assert!(!text.contains("sec") && !text.contains("a@b") && !text.contains("stats"), "{text}");
        }
    }

    #[test]
    fn wrong_values_say_what_is_right() {
        for (text, message) in [
            ("write_probe: [10.0.0.31]", "f.yml:1:15: \"10.0.0.31\" is not host:port, like 10.0.0.31:5000"),
            ("write_probe: ['fd00::31:5000']", "f.yml:1:15: \"fd00::31:5000\" is not host:port, like 10.0.0.31:5000"),
            ("patroni: [10.0.0.11]", "f.yml:1:11: \"10.0.0.11\" is not a URL like http://10.0.0.11:8008"),
            ("patrony: []", "f.yml:1:1: unknown key \"patrony\"; did you mean \"patroni\"?"),
            (
                "postgres: {sslmode: full}",
                "f.yml:1:21: unknown variant `full`, expected one of `disable`, `prefer`, `require`, `verify-ca`, \
                 `verify-full`",
            ),
        ] {
            let problems = from_yaml::<ClusterConfig>("f.yml", text).unwrap_err();
            assert_eq!(problems[0].to_string(), message);
        }
    }
}
