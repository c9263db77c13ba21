//! Receivers as Alertmanager's configuration writes them, and their check.
//!
//! Not built: other integrations, templates of one's own, proxies, time intervals. They are errors, never ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::alert::posted::RESOLVE_TIMEOUT_DEFAULT;
use crate::alert::route::no_time_intervals;
use crate::alert::{InhibitRule, Integration, Route, RouteConfig, Routing};
use crate::platform::secret::{Secret, SecretFileError};
use crate::platform::units::deserialize_optional_duration;
use crate::platform::yaml::{Node, Problem};

/// One exchange with a mail server, from connecting to its last answer.
const MAIL_TIMEOUT: Duration = Duration::from_secs(30);

/// The parts of the configuration that alerting reads.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertingConfig {
    pub global: GlobalConfig,
    pub route: Option<RouteConfig>,
    pub receivers: Vec<ReceiverConfig>,
    pub inhibit_rules: Vec<InhibitRule>,
    #[serde(deserialize_with = "no_time_intervals")]
    pub time_intervals: (),
    #[serde(deserialize_with = "no_time_intervals")]
    pub mute_time_intervals: (),
    #[serde(deserialize_with = "no_templates")]
    pub templates: (),
}

/// `global`: defaults of all receivers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GlobalConfig {
    #[serde(deserialize_with = "deserialize_optional_duration")]
    pub resolve_timeout: Option<Duration>,
    pub http_config: Option<HttpConfig>,
    pub smtp_from: Option<String>,
    /// `host:port`; port 465 is TLS from the start, any other STARTTLS.
    pub smtp_smarthost: Option<String>,
    pub smtp_hello: Option<String>,
    pub smtp_auth_username: Option<String>,
    pub smtp_auth_password: Option<Secret>,
    pub smtp_auth_password_file: Option<PathBuf>,
    pub smtp_require_tls: Option<bool>,
    pub smtp_tls_config: Option<TlsConfig>,
}

impl GlobalConfig {
    pub fn resolve_timeout(&self) -> Duration {
        self.resolve_timeout.unwrap_or(RESOLVE_TIMEOUT_DEFAULT)
    }
}

/// One entry of `receivers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    pub name: String,
    #[serde(default)]
    pub webhook_configs: Vec<WebhookConfig>,
    #[serde(default)]
    pub email_configs: Vec<EmailConfig>,
}

/// One entry of `webhook_configs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    pub url: Option<Secret>,
    /// Read at each use.
    pub url_file: Option<PathBuf>,
    #[serde(default = "yes")]
    pub send_resolved: bool,
    pub http_config: Option<HttpConfig>,
    /// Alerts in one message; 0 is no limit.
    #[serde(default)]
    pub max_alerts: usize,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    pub timeout: Option<Duration>,
}

/// One entry of `email_configs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// Addresses, separated by commas.
    pub to: String,
    /// Unlike in Alertmanager on by default: an opening without a closing is half a message.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    pub from: Option<String>,
    pub smarthost: Option<String>,
    pub hello: Option<String>,
    pub auth_username: Option<String>,
    pub auth_password: Option<Secret>,
    pub auth_password_file: Option<PathBuf>,
    pub require_tls: Option<bool>,
    pub tls_config: Option<TlsConfig>,
    /// Further header lines, plain text.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "no_templates")]
    pub html: (),
    #[serde(default, deserialize_with = "no_templates")]
    pub text: (),
}

/// How to speak HTTP to a receiver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub basic_auth: Option<BasicAuth>,
    pub authorization: Option<Authorization>,
    pub bearer_token: Option<Secret>,
    pub bearer_token_file: Option<PathBuf>,
    pub tls_config: Option<TlsConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    pub username: String,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    #[serde(rename = "type", default = "bearer")]
    pub kind: String,
    pub credentials: Option<Secret>,
    pub credentials_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates to trust besides the well-known ones.
    pub ca_file: Option<PathBuf>,
}

const fn yes() -> bool {
    true
}

fn bearer() -> String {
    "Bearer".to_owned()
}

fn no_templates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Err(serde::de::Error::custom("templates of one's own are not supported yet; remove this to get the built-in text"))
}

/// A secret that stands in the configuration or in a file that is read now.
pub fn secret_of(inline: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<Secret>, SecretFileError> {
    match (inline, file) {
        (_, Some(path)) => Secret::read_file(path).map(Some),
        (inline, None) => Ok(inline.cloned()),
    }
}

/// The mail settings of one entry with the global ones filled in.
#[derive(Clone, Debug)]
pub struct EmailTarget {
    pub recipients: Vec<String>,
    pub from: String,
    pub host: String,
    pub port: u16,
    pub hello: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub require_tls: bool,
    pub ca_file: Option<PathBuf>,
    pub headers: BTreeMap<String, String>,
    /// For one whole exchange.
    pub timeout: Duration,
}

/// The ways out of one receiver.
#[derive(Clone, Debug, Default)]
pub struct Receiver {
    pub webhooks: Vec<WebhookConfig>,
    pub emails: Vec<EmailTarget>,
}

/// Receivers by name.
pub type Receivers = Arc<BTreeMap<String, Receiver>>;

/// A configuration that can be used.
#[derive(Debug, Default)]
pub struct Compiled {
    pub routing: Routing,
    pub receivers: Receivers,
    pub resolve_timeout: Duration,
    /// The configuration as Alertmanager's own loader accepts it, without secrets.
    pub original: String,
}

impl AlertingConfig {
    /// Checks what the shape alone does not say. `root` is the tree that the configuration was read from.
    pub fn compile(&self, file: &str, root: &Node) -> Result<Compiled, Vec<Problem>> {
        let mut checker = Checker { file, root, problems: Vec::new() };
        let mut names = BTreeSet::new();
        let mut receivers = BTreeMap::new();
        for (i, receiver) in self.receivers.iter().enumerate() {
            let path = format!("receivers[{i}]");
            if receiver.name.is_empty() || !names.insert(receiver.name.clone()) {
                checker.problem(&format!("{path}.name"), "a receiver needs a name of its own");
            }
            receivers.insert(receiver.name.clone(), self.receiver(receiver, &path, &mut checker));
        }
        let names: Vec<String> = names.into_iter().collect();
        let route = match self.route.as_ref().map(|route| Route::build(route, &names)) {
            Some(Ok(route)) => Some(route),
            Some(Err(problems)) => {
                for (path, message) in problems {
                    checker.problem(&path, message);
                }
                None
            }
            None => {
                if !self.receivers.is_empty() {
                    checker
                        .problem("receivers", "receivers without a 'route' hear nothing: add route: {receiver: NAME}");
                }
                None
            }
        };
        if !checker.problems.is_empty() {
            checker.problems.sort_by_key(|problem| (problem.line, problem.column));
            return Err(checker.problems);
        }
        let integrations = self.receivers.iter().map(|receiver| (receiver.name.clone(), receiver.integrations()));
        Ok(Compiled {
            routing: Routing {
                route,
                receivers: integrations.collect(),
                inhibit_rules: self.inhibit_rules.iter().cloned().map(InhibitRule::compiled).collect(),
            },
            receivers: Arc::new(receivers),
            resolve_timeout: self.global.resolve_timeout(),
            original: super::projection::alertmanager_yaml(self),
        })
    }

    fn receiver(&self, config: &ReceiverConfig, path: &str, checker: &mut Checker<'_>) -> Receiver {
        let mut receiver = Receiver::default();
        for (i, webhook) in config.webhook_configs.iter().enumerate() {
            let path = format!("{path}.webhook_configs[{i}]");
            match (&webhook.url, &webhook.url_file) {
                (Some(url), None) => {
                    let plain = url.expose();
                    if !(plain.starts_with("http://") || plain.starts_with("https://")) {
                        checker.problem(&format!("{path}.url"), "a webhook's url starts with http:// or https://");
                    }
                }
                (None, Some(_)) => {}
                _ => checker.problem(&path, "exactly one of 'url' and 'url_file' must be set"),
            }
            let mut webhook = webhook.clone();
            webhook.http_config = webhook.http_config.or_else(|| self.global.http_config.clone());
            receiver.webhooks.push(webhook);
        }
        for (i, email) in config.email_configs.iter().enumerate() {
            receiver.emails.extend(self.email(email, &format!("{path}.email_configs[{i}]"), checker));
        }
        receiver
    }

    fn email(&self, config: &EmailConfig, path: &str, checker: &mut Checker<'_>) -> Option<EmailTarget> {
        let before = checker.problems.len();
        let global = &self.global;
        let recipients: Vec<String> = match config.to.parse::<lettre::message::Mailboxes>() {
            Ok(mailboxes) => mailboxes.iter().map(ToString::to_string).collect(),
            Err(_) => Vec::new(),
        };
        if recipients.is_empty() {
            checker.problem(&format!("{path}.to"), format!("{:?} is not a list of mail addresses", config.to));
        }
        let from = config.from.clone().or_else(|| global.smtp_from.clone()).unwrap_or_default();
        if from.is_empty() {
            checker.problem(path, "no sender: set 'from' here or global.smtp_from");
        } else {
            checker.check_address(&from, &format!("{path}.from"));
        }
        let smarthost = config.smarthost.clone().or_else(|| global.smtp_smarthost.clone()).unwrap_or_default();
        let (host, port) = smarthost.rsplit_once(':').unwrap_or((smarthost.as_str(), ""));
        let port: u16 = port.parse().unwrap_or(0);
        if host.is_empty() || port == 0 {
            checker.problem(path, "no mail server: set 'smarthost: HOST:PORT' here or global.smtp_smarthost");
        }
        let username = config.auth_username.clone().or_else(|| global.smtp_auth_username.clone());
        let own_password = config.auth_password.is_some() || config.auth_password_file.is_some();
        let (password, password_file) = if own_password {
            (config.auth_password.clone(), config.auth_password_file.clone())
        } else {
            (global.smtp_auth_password.clone(), global.smtp_auth_password_file.clone())
        };
        let require_tls = config.require_tls.or(global.smtp_require_tls).unwrap_or(true);
        let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if username.is_some() && password.is_none() && password_file.is_none() {
            checker.problem(path, "a user name without a password: set 'auth_password_file'");
        }
        if username.is_some() && !require_tls && port != 465 && !local {
            checker.problem(path, "a password is not sent without TLS: set 'require_tls: true'");
        }
        for name in config.headers.keys().filter(|name| !is_header_name(name)) {
            checker.problem(
                &format!("{path}.headers"),
                format!("{name:?} cannot be a header's name, or is set by daraji"),
            );
        }
        let tls = config.tls_config.as_ref().or(global.smtp_tls_config.as_ref());
        (checker.problems.len() == before).then(|| EmailTarget {
            recipients,
            from,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            hello: config.hello.clone().or_else(|| global.smtp_hello.clone()),
            username,
            password,
            password_file,
            require_tls,
            ca_file: tls.and_then(|tls| tls.ca_file.clone()),
            headers: config.headers.clone(),
            timeout: MAIL_TIMEOUT,
        })
    }
}

impl ReceiverConfig {
    fn integrations(&self) -> Vec<Integration> {
        let emails = self.email_configs.iter().enumerate();
        let webhooks = self.webhook_configs.iter().enumerate();
        emails
            .map(|(index, config)| Integration { kind: "email", index, send_resolved: config.send_resolved })
            .chain(webhooks.map(|(index, config)| Integration {
                kind: "webhook",
                index,
                send_resolved: config.send_resolved,
            }))
            .collect()
    }
}

/// Header names that a configuration may add.
fn is_header_name(name: &str) -> bool {
    const OURS: [&str; 9] = [
        "from",
        "to",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "content-type",
        "mime-version",
        "auto-submitted",
    ];
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !OURS.contains(&name.to_ascii_lowercase().as_str())
}

struct Checker<'a> {
    file: &'a str,
    root: &'a Node,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        let node = node_at(self.root, path);
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: node.line,
            column: node.column,
            message: message.into(),
        });
    }

    fn check_address(&mut self, address: &str, path: &str) {
        if address.parse::<lettre::message::Mailbox>().is_err() {
            self.problem(path, format!("{address:?} is not a mail address"));
        }
    }
}

/// The node at a path like `route.routes[0].receiver`, or the deepest one on the way that exists.
fn node_at<'a>(root: &'a Node, path: &str) -> &'a Node {
    let mut node = root;
    for part in path.split(['.', '[']) {
        let next = match part.strip_suffix(']') {
            Some(index) => index.parse::<usize>().ok().and_then(|index| node.items().get(index)),
            None => node.get(part),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::yaml;

    fn compile(text: &str) -> Result<Compiled, Vec<String>> {
        let texts = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let root = yaml::parse("c.yml", text).map_err(texts)?;
        let config: AlertingConfig = yaml::from_node("c.yml", &root).map_err(texts)?;
        config.compile("c.yml", &root).map_err(texts)
    }

    #[test]
    fn a_good_configuration() {
        let compiled = compile(
            "
global: {smtp_smarthost: 'mail.example.org:587', smtp_from: 'Daraji <d@example.org>', smtp_auth_username: d, smtp_auth_password_file: /p}
route: {receiver: ops}
receivers:
  - name: ops
    email_configs: [{to: 'a@example.org, \"Doe, John\" <b@example.org>'}]
    webhook_configs: [{url: 'http://x/', send_resolved: false, http_config: {basic_auth: {username: u, password_file: /q}}}]
",
        )
        .unwrap();
        let email = &compiled.receivers["ops"].emails[0];
        assert_eq!((email.recipients.len(), email.host.as_str(), email.port), (2, "mail.example.org", 587));
        assert!(email.require_tls && email.username.is_some() && email.password_file.is_some());
        let kinds: Vec<_> = compiled.routing.receivers["ops"].iter().map(|one| (one.kind, one.send_resolved)).collect();
        assert_eq!(kinds, [("email", true), ("webhook", false)]);
        assert_eq!(email.recipients[1], "\"Doe, John\" <b@example.org>");
        assert!(compile("").unwrap().routing.route.is_none());
    }

    #[test]
    fn every_mistake_with_its_place() {
        let problems = compile(
            "
route:
  receiver: opss
receivers:
  - name: ops
    email_configs:
      - to: nobody
        from: d@example.org
        smarthost: mail
      - {to: a@b.c, from: d@e.f, smarthost: 'h:25', auth_username: u, require_tls: false, headers: {From: x}}
    webhook_configs:
      - {url: 'ftp://x'}
      - {}
  - name: ops
",
        )
        .unwrap_err();
        assert_eq!(
            problems,
            [
                "c.yml:3:13: there is no receiver \"opss\"; did you mean \"ops\"?",
                "c.yml:7:9: no mail server: set 'smarthost: HOST:PORT' here or global.smtp_smarthost",
                "c.yml:7:13: \"nobody\" is not a list of mail addresses",
                "c.yml:10:9: a user name without a password: set 'auth_password_file'",
                "c.yml:10:9: a password is not sent without TLS: set 'require_tls: true'",
                "c.yml:10:100: \"From\" cannot be a header's name, or is set by daraji",
                "c.yml:12:15: a webhook's url starts with http:// or https://",
                "c.yml:13:9: exactly one of 'url' and 'url_file' must be set",
                "c.yml:14:11: a receiver needs a name of its own",
            ]
        );
        let problems = compile("receivers: [{name: a, slack_configs: []}]\ntemplates: [x]\n").unwrap_err();
        assert!(problems[0].contains("unknown key \"slack_configs\""), "{problems:?}");
        assert!(problems[1].contains("not supported yet"), "{problems:?}");
        assert!(compile("receivers: [{name: a}]").unwrap_err()[0].contains("add route"));
    }
}
