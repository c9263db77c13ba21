//! The loop of alerting: evaluate rules, route alerts, render notifications, commit, hand over to the outbox.
//!
//! [`Alerting::tick`] does one round, about once a second, on a thread that may block. Everything that one round
//! decides is one transaction. If it cannot be committed (a full disk), it is kept and committed with the next round;
//! nothing is sent before that.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::alert::dispatch::{NFLOG, NotifiedChange};
use crate::alert::posted::{POSTED_ALERTS, PostedAlert, PostedAlerts};
use crate::alert::silence::SILENCES;
use crate::alert::{AlertStatus, Dispatcher, GroupStatus, NotificationDraft, Silence, SilenceError, Silences};
use crate::model::alert::IncidentNotice;
use crate::model::{Alert, Timestamp};
use crate::rules::evaluate::{ALERT_STATES, GroupState, StateChange};
use crate::rules::{RuleData, RuleGroup, RuleSet};
use crate::store::state::{StateError, StateStore};

use super::config::{Compiled, Receivers};
use super::outbox::{Message, Outbox};
use super::{mail, webhook};

/// Old silences, posted alerts and finished messages are cleared this often.
const HOUSEKEEPING_EVERY: Duration = Duration::from_mins(10);

/// Changes kept while the store refuses to commit; beyond it a round is refused.
const UNCOMMITTED_MAX: usize = 50_000;

/// What alerting starts with.
#[derive(Debug, Default)]
pub struct AlertingOptions {
    /// Where people find the UI; the base of every link.
    pub external_url: String,
    pub external_labels: crate::model::Labels,
    pub rules: Vec<RuleGroup>,
    pub config: Compiled,
}

/// What one round did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tick {
    pub groups_evaluated: usize,
    pub notifications: usize,
    /// Rules that failed, as `file: group: rule: error`.
    pub errors: Vec<String>,
}

#[derive(Debug, Default)]
struct Desk {
    dispatcher: Dispatcher,
    silences: Silences,
    posted: PostedAlerts,
    resolve_timeout: Duration,
    tidied_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Uncommitted {
    rules: Vec<StateChange>,
    notified: Vec<NotifiedChange>,
    messages: Vec<Message>,
    silences_gone: Vec<String>,
    posted_gone: Vec<String>,
}

impl Uncommitted {
    fn len(&self) -> usize {
        self.rules.len() + self.notified.len() + self.messages.len() + self.silences_gone.len() + self.posted_gone.len()
    }
}

/// Everything between query results and the outbox, shared by the loops and the APIs.
///
/// Lock order: rules, uncommitted, changing, desk. The desk is never locked during I/O.
#[derive(Debug)]
pub struct Alerting {
    store: Arc<StateStore>,
    external_url: String,
    external_labels: crate::model::Labels,
    rules: Mutex<RuleSet>,
    /// The rules' state as of the last evaluation, for the API.
    rules_view: ArcSwap<Vec<GroupState>>,
    /// Alerts of the rules as of the last evaluation. Changed with `uncommitted` locked.
    rule_alerts: ArcSwap<Vec<Alert>>,
    desk: Mutex<Desk>,
    /// Held while a change of silences or posted alerts is made durable; the desk is not, since handlers look at it.
    changing: Mutex<()>,
    uncommitted: Mutex<Uncommitted>,
    receivers: Arc<ArcSwap<Receivers>>,
    original_config: ArcSwap<String>,
    outbox: Arc<Outbox>,
}

impl Alerting {
    /// Restores everything from the state store.
    pub fn open(store: Arc<StateStore>, options: AlertingOptions) -> Result<Self, StateError> {
        let view = store.read()?;
        let rule_options = crate::rules::evaluate::RuleOptions {
            external_url: options.external_url.clone(),
            external_labels: options.external_labels.clone(),
        };
        let mut rules = RuleSet::new(options.rules, rule_options);
        let orphans = rules.restore(view.scan(&ALERT_STATES, "", usize::MAX)?);
        let desk = Desk {
            dispatcher: Dispatcher::new(options.config.routing, view.scan(&NFLOG, "", usize::MAX)?),
            silences: Silences::restore(view.scan(&SILENCES, "", usize::MAX)?.into_iter().map(|(_, row)| row)),
            posted: PostedAlerts::restore(view.scan(&POSTED_ALERTS, "", usize::MAX)?.into_iter().map(|(_, row)| row)),
            resolve_timeout: options.config.resolve_timeout,
            tidied_at: None,
        };
        drop(view);
        Ok(Self {
            outbox: Arc::new(Outbox::open(Arc::clone(&store))?),
            store,
            external_url: options.external_url,
            external_labels: options.external_labels,
            rules_view: ArcSwap::from_pointee(rules.groups.clone()),
            rule_alerts: ArcSwap::from_pointee(rules.alerts()),
            rules: Mutex::new(rules),
            desk: Mutex::new(desk),
            changing: Mutex::new(()),
            uncommitted: Mutex::new(Uncommitted { rules: orphans, ..Uncommitted::default() }),
            receivers: Arc::new(ArcSwap::from_pointee(options.config.receivers)),
            original_config: ArcSwap::from_pointee(options.config.original),
        })
    }

    /// Where people find the UI.
    pub fn external_url(&self) -> &str {
        &self.external_url
    }

    /// One round: [`Alerting::evaluate`], then [`Alerting::route`].
    pub fn tick(
        &self,
        now: Timestamp,
        data: &mut dyn RuleData,
        incidents: &[IncidentNotice],
    ) -> Result<Tick, StateError> {
        let evaluation = self.evaluate(now, data)?;
        Ok(Tick { notifications: self.route(now, incidents)?, ..evaluation })
    }

    /// Evaluates the rules that are due. However long this takes, routing goes on with the alerts of the last time.
    pub fn evaluate(&self, now: Timestamp, data: &mut dyn RuleData) -> Result<Tick, StateError> {
        {
            let mut uncommitted = self.uncommitted.lock();
            if uncommitted.len() > UNCOMMITTED_MAX {
                self.commit(&mut uncommitted)?;
            }
        }
        let mut rules = self.rules.lock();
        let evaluation = rules.evaluate(now, data);
        if evaluation.groups_evaluated > 0 {
            self.rules_view.store(Arc::new(rules.groups.clone()));
        }
        // Together, so that rows of alerts are committed with the messages that they cause.
        let mut uncommitted = self.uncommitted.lock();
        uncommitted.rules.extend(evaluation.changes);
        self.rule_alerts.store(Arc::new(rules.alerts()));
        Ok(Tick { groups_evaluated: evaluation.groups_evaluated, notifications: 0, errors: evaluation.errors })
    }

    /// Routes what fires now, and commits it; returns the number of new messages. `incidents` are all that are open or
    /// settled within the last quarter of an hour.
    pub fn route(&self, now: Timestamp, incidents: &[IncidentNotice]) -> Result<usize, StateError> {
        let mut uncommitted = self.uncommitted.lock();
        if uncommitted.len() > UNCOMMITTED_MAX {
            self.commit(&mut uncommitted)?;
        }
        let mut alerts = self.rule_alerts.load().to_vec();
        alerts.extend(incidents.iter().map(|notice| Alert::of_incident(notice.clone(), &self.external_url)));
        let (step, tidied) = {
            let mut desk = self.desk.lock();
            let tidied = Self::tidy(&mut desk, now, &mut uncommitted);
            alerts.extend(desk.posted.iter().cloned());
            let Desk { dispatcher, silences, .. } = &mut *desk;
            (dispatcher.step(now, &alerts, silences), tidied)
        };
        if tidied && let Err(error) = self.outbox.forget_old() {
            tracing::warn!(error = crate::platform::error::chain(&error), "old notifications were not cleared");
        }
        let receivers = self.receivers.load();
        let messages: Vec<Message> =
            step.drafts.iter().flat_map(|draft| render(draft, &receivers, &self.external_url)).collect();
        let count = messages.len();
        uncommitted.notified.extend(step.changes);
        uncommitted.messages.extend(messages);
        self.commit(&mut uncommitted)?;
        Ok(count)
    }

    fn commit(&self, uncommitted: &mut Uncommitted) -> Result<(), StateError> {
        if uncommitted.len() == 0 {
            return Ok(());
        }
        self.store.write(|tx| {
            for (key, change) in &uncommitted.rules {
                match change {
                    Some(alert) => tx.put(&ALERT_STATES, key, alert)?,
                    None => drop(tx.delete(&ALERT_STATES, key)?),
                }
            }
            for (key, change) in &uncommitted.notified {
                match change {
                    Some(entry) => tx.put(&NFLOG, key, entry)?,
                    None => drop(tx.delete(&NFLOG, key)?),
                }
            }
            uncommitted.silences_gone.iter().try_for_each(|id| tx.delete(&SILENCES, id).map(drop))?;
            uncommitted.posted_gone.iter().try_for_each(|key| tx.delete(&POSTED_ALERTS, key).map(drop))?;
            Outbox::write(tx, &uncommitted.messages)
        })?;
        let done = std::mem::take(uncommitted);
        self.outbox.admit(done.messages);
        Ok(())
    }

    /// True when it was time to tidy.
    fn tidy(desk: &mut Desk, now: Timestamp, uncommitted: &mut Uncommitted) -> bool {
        if desk.tidied_at.is_some_and(|at| now.since(at) < HOUSEKEEPING_EVERY) {
            return false;
        }
        desk.tidied_at = Some(now);
        uncommitted.silences_gone.extend(desk.silences.forget_old(now));
        uncommitted.posted_gone.extend(desk.posted.forget_old(now));
        true
    }

    /// Takes a new configuration and new rules. What is the same keeps its state.
    pub fn reload(&self, rules: Vec<RuleGroup>, config: Compiled) {
        let rule_options = crate::rules::evaluate::RuleOptions {
            external_url: self.external_url.clone(),
            external_labels: self.external_labels.clone(),
        };
        {
            let mut current = self.rules.lock();
            let mut uncommitted = self.uncommitted.lock();
            let next = RuleSet::new(rules, rule_options).inherit(&current);
            // Rows of rules that are gone must not be found when one of them comes back weeks later.
            uncommitted.rules.extend(next.left_by(&current));
            *current = next;
            self.rule_alerts.store(Arc::new(current.alerts()));
            self.rules_view.store(Arc::new(current.groups.clone()));
        }
        self.receivers.store(Arc::new(config.receivers));
        self.original_config.store(Arc::new(config.original));
        let mut desk = self.desk.lock();
        desk.resolve_timeout = config.resolve_timeout;
        desk.dispatcher.set_routing(config.routing);
    }

    /// The rules with their state.
    pub fn rule_groups(&self) -> Arc<Vec<GroupState>> {
        self.rules_view.load_full()
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// For [`super::worker::run`].
    pub fn receivers(&self) -> &Arc<ArcSwap<Receivers>> {
        &self.receivers
    }

    /// The configuration as Alertmanager's own loader accepts it, without secrets.
    pub fn original_config(&self) -> Arc<String> {
        self.original_config.load_full()
    }

    pub fn receiver_names(&self) -> Vec<String> {
        self.desk.lock().dispatcher.receivers().map(str::to_owned).collect()
    }

    /// Alerts as of the last round, with what holds them back.
    pub fn alert_statuses(&self) -> Vec<AlertStatus> {
        self.desk.lock().dispatcher.statuses().to_vec()
    }

    /// Groups as of the last round.
    pub fn alert_groups(&self) -> Vec<GroupStatus> {
        self.desk.lock().dispatcher.groups()
    }

    pub fn silences(&self) -> Vec<Silence> {
        self.desk.lock().silences.iter().cloned().collect()
    }

    pub fn silence(&self, id: &str) -> Option<Silence> {
        self.desk.lock().silences.get(id).cloned()
    }

    /// Sets a silence, durably; returns its id.
    pub fn set_silence(&self, silence: Silence, now: Timestamp) -> Result<String, SilenceError> {
        self.change_silences(|silences| silences.set(silence, now))
    }

    /// Ends a silence now, durably.
    pub fn expire_silence(&self, id: &str, now: Timestamp) -> Result<String, SilenceError> {
        self.change_silences(|silences| silences.expire(id, now).map(|row| vec![row]))
    }

    fn change_silences(
        &self,
        change: impl FnOnce(&mut Silences) -> Result<Vec<Silence>, SilenceError>,
    ) -> Result<String, SilenceError> {
        let _only_one = self.changing.lock();
        let mut changed = self.desk.lock().silences.clone();
        let rows = change(&mut changed)?;
        self.store.write(|tx| rows.iter().try_for_each(|row| tx.put(&SILENCES, &row.id, row)))?;
        self.desk.lock().silences = changed;
        Ok(rows.into_iter().next_back().map(|row| row.id).unwrap_or_default())
    }

    /// Takes posted alerts, durably. Good ones are taken even if others are refused; the texts say why those are.
    pub fn post_alerts(&self, posted: Vec<PostedAlert>, now: Timestamp) -> Result<Vec<String>, StateError> {
        let _only_one = self.changing.lock();
        let (mut changed, resolve_timeout) = {
            let desk = self.desk.lock();
            (desk.posted.clone(), desk.resolve_timeout)
        };
        let (mut rows, mut refused) = (Vec::new(), Vec::new());
        for alert in posted {
            match changed.post(alert, now, resolve_timeout) {
                Ok(row) => rows.push(row),
                Err(message) => refused.push(message),
            }
        }
        self.store
            .write(|tx| rows.iter().try_for_each(|row| tx.put(&POSTED_ALERTS, &row.fingerprint.to_string(), row)))?;
        self.desk.lock().posted = changed;
        Ok(refused)
    }
}

/// The messages of a draft: one for each target, so that one that fails holds up no other.
pub fn render(draft: &NotificationDraft, receivers: &Receivers, external_url: &str) -> Vec<Message> {
    let Some(receiver) = receivers.get(&draft.receiver) else { return Vec::new() };
    let subject = mail::subject(draft);
    if draft.integration.kind == "webhook" {
        let Some(config) = receiver.webhooks.get(draft.integration.index) else { return Vec::new() };
        let shown = match &config.url {
            Some(url) => webhook::shown_url(url.expose()),
            None => "url_file".to_owned(),
        };
        let mut message = Message::new(draft, &shown, &shown, &subject);
        message.body = webhook::body(draft, external_url, config.max_alerts);
        vec![message]
    } else {
        let Some(target) = receiver.emails.get(draft.integration.index) else { return Vec::new() };
        target.recipients.iter().map(|recipient| mail::message(draft, target, recipient, external_url)).collect()
    }
}
