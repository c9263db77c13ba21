//! Mail: rendered once when it is queued, sent as these bytes, whatever the number of attempts.
//!
//! One message for each recipient, so that a rejected address holds up nobody else. All mails of an incident have one
//! subject and refer to the first, so that mail programs show them as one thread. The Message-ID is a function of the
//! message, not of the attempt.

mod view;

use std::time::{Duration, SystemTime};

use lettre::address::{Address, Envelope};
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use sha2::{Digest as _, Sha256};

use crate::alert::NotificationDraft;
use crate::model::Timestamp;
use crate::platform::error::chain;
use crate::platform::random::hex;

use super::config::{EmailTarget, secret_of};
use super::outbox::Message;
use super::retry::Outcome;

/// Characters of a header line's text; what is longer is cut.
const SUBJECT_CHARS_MAX: usize = 200;

/// The subject: the same for all messages of an incident.
pub fn subject(draft: &NotificationDraft) -> String {
    let (cluster, title) = if let Some(notice) = &draft.incident {
        (notice.cluster.as_str(), draft.thread_title.clone().unwrap_or_else(|| notice.title.clone()))
    } else {
        let cluster = draft.alerts().map(|alert| alert.label("cluster")).find(|cluster| !cluster.is_empty());
        let mut names: Vec<&str> = draft.alerts().map(crate::model::Alert::name).collect();
        names.dedup();
        let more = match names.len() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        (cluster.unwrap_or(""), format!("{}{more}", names.first().unwrap_or(&"alert")))
    };
    let prefix = if cluster.is_empty() { String::new() } else { format!("[{cluster}] ") };
    one_line(&format!("{prefix}{title}"))
}

/// Text that cannot start another header.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().chars().take(SUBJECT_CHARS_MAX).collect()
}

/// The message for one recipient, ready to be sent.
pub fn message(draft: &NotificationDraft, target: &EmailTarget, recipient: &str, external_url: &str) -> Message {
    let subject = subject(draft);
    let mut message = Message::new(draft, recipient, recipient, &subject);
    match build(draft, target, &message, &subject, external_url) {
        Ok(body) => message.body = body,
        Err(error) => {
            // Cannot happen with checked addresses; delivering will say it, and the row shows it.
            message.notification.last_error = Some(error);
        }
    }
    message
}

fn build(
    draft: &NotificationDraft,
    target: &EmailTarget,
    message: &Message,
    subject: &str,
    external_url: &str,
) -> Result<String, String> {
    let from: Mailbox = target.from.parse().map_err(|error| format!("sender {:?}: {error}", target.from))?;
    let to = &message.notification.target;
    let to: Mailbox = to.parse().map_err(|error| format!("recipient {to:?}: {error}"))?;
    let domain = from.email.domain().to_owned();
    let root = thread_id(message, draft.opened_at, &domain);
    let is_first = draft.at == draft.opened_at;
    let own_key = message.key.get(..32).unwrap_or("");
    let own = if is_first { root.clone() } else { format!("<daraji.{own_key}@{domain}>") };
    let severity = draft.incident.as_ref().map_or_else(
        || draft.alerts().next().map_or("", |alert| alert.label("severity")).to_owned(),
        |notice| notice.severity.clone(),
    );
    let mut builder = lettre::Message::builder()
        .from(from)
        .to(to)
        .subject(subject)
        .date(system_time(draft.at))
        .message_id(Some(own))
        .header(AutoSubmitted("auto-generated".to_owned()))
        .raw_header(raw("X-Auto-Response-Suppress", "All"))
        .raw_header(raw("X-Daraji-State", draft.status()));
    if !is_first {
        builder = builder.in_reply_to(root.clone()).references(root);
    }
    if let Some(notice) = &draft.incident {
        builder = builder.raw_header(raw("X-Daraji-Incident", &one_line(&notice.id)));
    }
    if severity == "critical" && draft.status() == "firing" {
        builder = builder.raw_header(raw("Importance", "high"));
    }
    for (name, value) in &target.headers {
        if let Ok(name) = HeaderName::new_from_ascii(name.clone()) {
            builder = builder.raw_header(HeaderValue::new(name, one_line(value)));
        }
    }
    let (text, html) = view::render(draft, external_url);
    let mail = builder
        .multipart(MultiPart::alternative_plain_html(text, html))
        .map_err(|error| format!("build the mail: {}", chain(&error)))?;
    // The boundary is random; the bytes are stored, so that every attempt sends the same.
    String::from_utf8(mail.formatted()).map_err(|_| "the mail is not text".to_owned())
}

/// Message-ID of the first mail of a thread.
fn thread_id(message: &Message, opened_at: Timestamp, domain: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(message.lane.as_bytes());
    hash.update(opened_at.nanos().to_be_bytes());
    format!("<daraji.{}@{domain}>", hex(hash.finalize().get(..16).unwrap_or(&[])))
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.millis() / 1000).unwrap_or(0))
}

fn raw(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

/// RFC 3834: keeps vacation notices from answering.
#[derive(Clone, Debug)]
struct AutoSubmitted(String);

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), self.0.clone())
    }
}

/// Sends one message on a connection of its own.
pub async fn deliver(target: &EmailTarget, message: &Message) -> Outcome {
    if message.body.is_empty() {
        let error = message.notification.last_error.clone().unwrap_or_else(|| "the mail is empty".to_owned());
        return Outcome::Dead { error };
    }
    let transport = match transport(target) {
        Ok(transport) => transport,
        Err(error) => return Outcome::Misconfigured { error },
    };
    let envelope = match envelope(target, message) {
        Ok(envelope) => envelope,
        Err(error) => return Outcome::Dead { error },
    };
    let exchange = transport.send_raw(&envelope, message.body.as_bytes());
    // lettre's own timeout covers only the TCP connection.
    match tokio::time::timeout(target.timeout, exchange).await {
        Ok(Ok(_)) => Outcome::Delivered,
        Ok(Err(error)) => classify(&error),
        Err(_elapsed) => {
            let error =
                format!("{}:{} did not finish within {} ms", target.host, target.port, target.timeout.as_millis());
            Outcome::Retry { error, after: None }
        }
    }
}

fn envelope(target: &EmailTarget, message: &Message) -> Result<Envelope, String> {
    let address = |text: &str| -> Result<Address, String> {
        text.parse::<Mailbox>().map(|mailbox| mailbox.email).map_err(|error| format!("{text:?}: {error}"))
    };
    let from = address(&target.from)?;
    Envelope::new(Some(from), vec![address(&message.notification.target)?]).map_err(|error| error.to_string())
}

fn transport(target: &EmailTarget) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let mut tls = TlsParameters::builder(target.host.clone());
    if let Some(path) = &target.ca_file {
        for certificate in crate::platform::tls::certificates(path).map_err(|error| chain(&error))? {
            let certificate = Certificate::from_der(certificate.to_vec()).map_err(|error| chain(&error))?;
            tls = tls.add_root_certificate(certificate);
        }
    }
    let tls = tls.build().map_err(|error| chain(&error))?;
    let tls = match (target.port, target.require_tls) {
        (465, _) => Tls::Wrapper(tls),
        (_, true) => Tls::Required(tls),
        (_, false) => Tls::Opportunistic(tls),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(target.host.clone())
        .port(target.port)
        .tls(tls)
        .timeout(Some(target.timeout));
    if let Some(name) = target.hello.clone().or_else(host_name) {
        builder = builder.hello_name(ClientId::Domain(name));
    }
    if let Some(username) = &target.username {
        let password = secret_of(target.password.as_ref(), target.password_file.as_ref());
        let password = password.map_err(|error| chain(&error))?.ok_or("a user name without a password")?;
        builder = builder
            .credentials(Credentials::new(username.clone(), password.expose().to_owned()))
            .authentication(vec![Mechanism::Plain, Mechanism::Login]);
    }
    Ok(builder.build())
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'))
        .then(|| name.to_owned())
}

fn classify(error: &lettre::transport::smtp::Error) -> Outcome {
    let text = chain(error);
    let code: u16 = error.status().and_then(|code| code.to_string().parse().ok()).unwrap_or(0);
    match code {
        530 | 534 | 535 | 538 => Outcome::Misconfigured { error: text },
        550 | 551 | 553 => Outcome::Dead { error: text },
        500..=599 => Outcome::Refused { error: text },
        _ if error.is_client() => Outcome::Misconfigured { error: text },
        _ => Outcome::Retry { error: text, after: None },
    }
}
