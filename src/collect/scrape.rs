//! Anybody's metrics page, as Prometheus scrapes it.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::config::{Scheme, ScrapeConfig};
use crate::collect::exposition::{self, Page};
use crate::collect::poll::{CollectError, Collector, Context, Found, PollSpec, poll};
use crate::collect::targets::TargetKey;
use crate::model::observation::FailureKind;
use crate::model::{Labels, Timestamp};
use crate::platform::error::chain;
use crate::platform::http_client::{HttpClient, HttpError, redact};
use crate::platform::secret::Secret;
use crate::platform::tasks::TaskGroup;

/// Largest page that is read.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.9";

/// How to log in; secrets are read at each scrape, so that a rotated one needs no restart.
#[derive(Clone, Debug)]
enum Login {
    None,
    Basic { username: String, password_file: PathBuf },
    Header { kind: String, credentials_file: PathBuf },
}

/// Scrapes one page.
pub(crate) struct ScrapeCollector {
    http: HttpClient,
    /// May hold a login.
    url: String,
    login: Login,
    labels: Labels,
}

impl ScrapeCollector {
    /// A page without login.
    pub(crate) fn plain(http: HttpClient, url: String, labels: Labels) -> Self {
        Self { http, url, login: Login::None, labels }
    }

    async fn page(&self, at: Timestamp) -> Result<Page, CollectError> {
        let mut request = self.http.request(reqwest::Method::GET, &self.url).header("accept", ACCEPT);
        match &self.login {
            Login::None => {}
            Login::Basic { username, password_file } => {
                let password = read_secret(password_file)?;
                request = request.basic_auth(username, Some(password.expose()));
            }
            Login::Header { kind, credentials_file } => {
                let credentials = read_secret(credentials_file)?;
                request = request.header("authorization", format!("{kind} {}", credentials.expose()));
            }
        }
        let answer = self.http.send(request, &self.url).await?;
        match answer.status {
            200 => exposition::read(&answer, &self.labels, at),
            401 | 403 => Err(CollectError::new(
                FailureKind::Denied,
                format!("{} answered HTTP {}", redact(&self.url), answer.status),
            )
            .with_hint("check basic_auth or authorization of this scrape job")),
            status => {
                Err(CollectError::new(FailureKind::Other, format!("{} answered HTTP {status}", redact(&self.url)))
                    .with_hint("check metrics_path and the port: this is not a metrics page"))
            }
        }
    }
}

pub(crate) fn read_secret(path: &std::path::Path) -> Result<Secret, CollectError> {
    Secret::read_file(path).map_err(|error| {
        CollectError::new(FailureKind::Denied, chain(&error))
            .with_hint("the file must be readable by the user that daraji runs as")
    })
}

impl Collector for ScrapeCollector {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        let mut found = Found::default();
        found.take_page("page", self.page(at).await?);
        Ok(found)
    }
}

/// Starts all targets of a job.
pub(crate) fn start(config: &ScrapeConfig, context: &Context, group: &TaskGroup) -> Result<(), HttpError> {
    let interval = config.scrape_interval.max(Duration::from_secs(1));
    let timeout = config.scrape_timeout.unwrap_or(TIMEOUT_DEFAULT).min(interval);
    let tls = &config.tls_config;
    let http = if tls.insecure_skip_verify {
        HttpClient::without_verification(timeout, BODY_BYTES_MAX)?
    } else {
        HttpClient::new(timeout, BODY_BYTES_MAX, tls.ca_file.as_deref())?
    };
    let login = match (&config.basic_auth, &config.authorization) {
        (Some(basic), _) => {
            Login::Basic { username: basic.username.clone(), password_file: basic.password_file.clone() }
        }
        (None, Some(header)) => {
            Login::Header { kind: header.kind.clone(), credentials_file: header.credentials_file.clone() }
        }
        (None, None) => Login::None,
    };
    let scheme = match config.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    for static_config in &config.static_configs {
        for target in &static_config.targets {
            let mut labels = Labels::default().to_builder();
            // A login in front is sent and not shown.
            let instance = target.rsplit_once('@').map_or(target.as_str(), |(_, host)| host);
            labels.set("instance", instance).set("job", config.job_name.as_str());
            for (name, value) in &static_config.labels {
                labels.set(name.as_str(), value.as_str());
            }
            let labels = labels.build();
            let url = format!("{scheme}://{target}{}", config.metrics_path);
            let label = |name: &str| labels.get(name).unwrap_or("").to_owned();
            let spec = PollSpec {
                target: TargetKey::new(&label("cluster"), &label("member"), "scrape", &url),
                labels: labels.clone(),
                interval,
                deadline: timeout,
                source: None,
                audience: None,
                fast: None,
            };
            let collector = ScrapeCollector { http: http.clone(), url, login: login.clone(), labels };
            group.spawn_until_stop(format!("scrape {}", config.job_name), poll(spec, collector, context.clone()));
        }
    }
    Ok(())
}
