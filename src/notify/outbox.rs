//! The durable outbox: messages that are committed and not yet accepted by their receivers.
//!
//! A row is written in the transaction that changes the state it tells of, and leaves when the receiver accepted it or
//! it is given up. After a crash whatever was in flight is sent again under the same key. Messages of one lane (one
//! target, one incident or group) are sent one after the other, in order; lanes do not wait for each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::alert::NotificationDraft;
use crate::alert::dispatch::reason;
use crate::model::Timestamp;
use crate::platform::random::hex;
use crate::store::state::{StateError, StateStore, Table, WriteTx};

use super::retry::{self, Next, Outcome};

/// Messages that are still to be delivered.
const OUTBOX: Table<Message> = Table::new("outbox");

/// Messages that were delivered or given up, without their bodies.
const NOTIFICATIONS: Table<Notification> = Table::new("notifications");

/// Finished messages that are kept for show.
const HISTORY_MAX: usize = 5000;

/// Wait before a message is sent again whose outcome could not be written (a full disk).
const UNRECORDED_RETRY: Duration = Duration::from_mins(1);

/// Messages at one target in flight at once; a slow mail server must not take every slot.
const IN_FLIGHT_PER_TARGET: usize = 2;

/// Where a message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    Queued,
    Inflight,
    Done,
    /// Given up: refused, or too old.
    Dead,
    /// A newer message of the same lane says it all.
    Superseded,
}

/// Which part of a thread a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    Opening,
    #[default]
    Update,
    Closing,
}

impl MessageKind {
    fn of_reason(reason: &str) -> Self {
        match reason {
            reason::FIRST | reason::OPEN_AGAIN => Self::Opening,
            reason::ALL_RESOLVED => Self::Closing,
            _ => Self::Update,
        }
    }
}

/// A message as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub id: String,
    pub created_at: Timestamp,
    pub receiver: String,
    pub integration: String,
    /// The address or URL, without secrets.
    pub target: String,
    pub subject: String,
    pub cluster: Option<String>,
    /// The incident that it tells of.
    #[serde(default)]
    pub incident: Option<String>,
    #[serde(default)]
    pub kind: MessageKind,
    /// Why it is sent, in the dispatcher's words.
    #[serde(default)]
    pub reason: String,
    pub state: Delivery,
    pub attempts: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub last_error: Option<String>,
}

/// A rendered message with all that delivering it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub notification: Notification,
    /// Place of the integration in its receiver.
    pub index: usize,
    /// The same for every attempt, different for every message: receivers may drop repeats by it.
    pub key: String,
    /// Messages of one lane keep their order.
    pub lane: String,
    /// A later message of the lane makes this one superfluous.
    pub is_update: bool,
    pub body: String,
}

impl Message {
    /// A message for one target of a draft's integration.
    pub fn new(draft: &NotificationDraft, target: &str, shown_target: &str, subject: &str) -> Self {
        let group = draft.incident.as_ref().map_or(draft.group_key.as_str(), |incident| incident.id.as_str());
        let lane =
            format!("{}|{}|{}|{target}|{group}", draft.receiver, draft.integration.kind, draft.integration.index);
        let mut hash = Sha256::new();
        hash.update(lane.as_bytes());
        hash.update(draft.reason.as_bytes());
        hash.update(draft.at.nanos().to_be_bytes());
        let key = hex(&hash.finalize());
        let cluster = draft.alerts().map(|alert| alert.label("cluster")).find(|cluster| !cluster.is_empty());
        Self {
            notification: Notification {
                // Sorts by time; the key makes it unique.
                id: format!("{:013}-{}", draft.at.millis().max(0), key.get(..12).unwrap_or("")),
                created_at: draft.at,
                receiver: draft.receiver.clone(),
                integration: draft.integration.kind.to_owned(),
                target: shown_target.to_owned(),
                subject: subject.to_owned(),
                cluster: cluster.map(str::to_owned),
                incident: draft.incident.as_ref().map(|incident| incident.id.clone()),
                kind: MessageKind::of_reason(draft.reason),
                reason: draft.reason.to_owned(),
                state: Delivery::Queued,
                attempts: 0,
                next_attempt_at: Some(draft.at),
                delivered_at: None,
                last_error: None,
            },
            index: draft.integration.index,
            key,
            lane,
            is_update: matches!(draft.reason, reason::NEW_ALERTS | reason::SOME_RESOLVED | reason::REPEATED),
            body: String::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    lanes: BTreeMap<String, VecDeque<Message>>,
    in_flight: BTreeSet<String>,
}

/// The outbox. Rows enter by [`Outbox::write`] inside a transaction and [`Outbox::admit`] after its commit.
#[derive(Debug)]
pub struct Outbox {
    store: Arc<StateStore>,
    queue: Mutex<Queue>,
    wake: tokio::sync::Notify,
}

impl Outbox {
    /// Takes up what was not delivered before.
    pub fn open(store: Arc<StateStore>) -> Result<Self, StateError> {
        let mut queue = Queue::default();
        for (_, message) in store.read()?.scan(&OUTBOX, "", usize::MAX)? {
            queue.lanes.entry(message.lane.clone()).or_default().push_back(message);
        }
        Ok(Self { store, queue: Mutex::new(queue), wake: tokio::sync::Notify::new() })
    }

    /// Writes rows in a transaction of the caller.
    pub fn write(tx: &WriteTx, messages: &[Message]) -> Result<(), StateError> {
        messages.iter().try_for_each(|message| tx.put(&OUTBOX, &message.notification.id, message))
    }

    /// Queues rows that are committed.
    pub fn admit(&self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        for message in messages {
            queue.lanes.entry(message.lane.clone()).or_default().push_back(message);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Resolves when something was queued since the last call.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes the messages that are due, at most `limit`; each must come back by [`Outbox::finish`].
    pub fn take_due(&self, now: Timestamp, limit: usize) -> Vec<Message> {
        let mut queue = self.queue.lock();
        let Queue { lanes, in_flight } = &mut *queue;
        let mut per_target: BTreeMap<String, usize> = BTreeMap::new();
        for lane in in_flight.iter() {
            *per_target.entry(target_of(lane)).or_default() += 1;
        }
        let mut due = Vec::new();
        for (lane, messages) in lanes.iter_mut() {
            if due.len() >= limit || in_flight.contains(lane) {
                continue;
            }
            let Some(first) = messages.front_mut() else { continue };
            if first.notification.next_attempt_at.is_some_and(|at| at > now) {
                continue;
            }
            let busy = per_target.entry(target_of(lane)).or_default();
            if *busy >= IN_FLIGHT_PER_TARGET {
                continue;
            }
            *busy += 1;
            first.notification.state = Delivery::Inflight;
            in_flight.insert(lane.clone());
            due.push(first.clone());
        }
        due
    }

    /// When the next waiting message is due.
    pub fn next_due_at(&self) -> Option<Timestamp> {
        let queue = self.queue.lock();
        let waiting = queue.lanes.iter().filter(|(lane, _)| !queue.in_flight.contains(*lane));
        waiting.filter_map(|(_, messages)| messages.front()?.notification.next_attempt_at).min()
    }

    /// Records how an attempt ended. On an error the row stays as it was and is tried again: twice is better than never.
    pub fn finish(&self, mut message: Message, outcome: &Outcome, now: Timestamp) -> Result<(), StateError> {
        let jitter = f64::from(message.key.bytes().fold(0_u8, u8::wrapping_add)) / 255.0;
        let notification = &mut message.notification;
        notification.attempts += 1;
        match outcome {
            Outcome::Delivered => {
                notification.state = Delivery::Done;
                notification.delivered_at = Some(now);
                notification.next_attempt_at = None;
                notification.last_error = None;
            }
            Outcome::Retry { error, .. }
            | Outcome::Refused { error }
            | Outcome::Misconfigured { error }
            | Outcome::Dead { error } => {
                let next = retry::after_failure(outcome, notification.attempts, notification.created_at, now, jitter);
                let expires = notification.created_at + retry::lifetime(&notification.integration);
                notification.last_error = Some(error.clone());
                match next {
                    Next::TryAt(at) if at < expires => {
                        notification.state = Delivery::Queued;
                        notification.next_attempt_at = Some(at);
                    }
                    _ => {
                        notification.state = Delivery::Dead;
                        notification.next_attempt_at = None;
                    }
                }
            }
        }
        // One transaction: after a restart an update must not come after the end that made it superfluous.
        let superseded = self.superseded(&message);
        let written =
            self.store.write(|tx| std::iter::once(&message).chain(&superseded).try_for_each(|one| record(tx, one)));
        if let Err(error) = written {
            let mut queue = self.queue.lock();
            queue.in_flight.remove(&message.lane);
            if let Some(first) = queue.lanes.get_mut(&message.lane).and_then(VecDeque::front_mut) {
                first.notification.state = Delivery::Queued;
                first.notification.next_attempt_at = Some(now + UNRECORDED_RETRY);
            }
            return Err(error);
        }
        self.settle(&message, superseded.len(), now);
        self.wake.notify_one();
        Ok(())
    }

    /// What becomes superfluous by an ended attempt: after a long outage only the newest state matters, updates before it
    /// are left out.
    fn superseded(&self, message: &Message) -> Vec<Message> {
        let queue = self.queue.lock();
        let Some(waiting) = queue.lanes.get(&message.lane) else { return Vec::new() };
        let again = (message.notification.state == Delivery::Queued).then_some(message);
        let left: Vec<&Message> = again.into_iter().chain(waiting.iter().skip(1)).collect();
        let updates = left.iter().take(left.len().saturating_sub(1)).take_while(|message| message.is_update);
        let mark = |message: &&Message| {
            let mut update = Message::clone(message);
            update.notification.state = Delivery::Superseded;
            update.notification.next_attempt_at = None;
            update
        };
        updates.map(mark).collect()
    }

    /// Brings the queue in line with an ended attempt, and with the number of messages that became superfluous by it.
    fn settle(&self, message: &Message, superseded: usize, now: Timestamp) {
        let mut queue = self.queue.lock();
        queue.in_flight.remove(&message.lane);
        let Some(waiting) = queue.lanes.get_mut(&message.lane) else { return };
        let ended = message.notification.state != Delivery::Queued;
        if let Some(first) = waiting.front_mut() {
            *first = message.clone();
        }
        if ended {
            waiting.pop_front();
        }
        // New messages come at the end only, so that these are the same that were found superfluous.
        waiting.drain(..superseded.min(waiting.len()));
        if let Some(first) = waiting.front_mut()
            && ended
        {
            first.notification.next_attempt_at = Some(now);
        }
        if waiting.is_empty() {
            queue.lanes.remove(&message.lane);
        }
    }

    /// The newest messages first, whatever became of them.
    pub fn list(&self, limit: usize) -> Result<Vec<Notification>, StateError> {
        // A message that just ended may be in both; the finished one comes first and stays.
        let queued: Vec<Notification> = {
            let queue = self.queue.lock();
            queue.lanes.values().flatten().map(|message| message.notification.clone()).collect()
        };
        let finished = self.store.read()?.scan_last(&NOTIFICATIONS, limit)?;
        let mut found: Vec<Notification> = finished.into_iter().map(|(_, row)| row).chain(queued).collect();
        found.sort_by(|a, b| b.id.cmp(&a.id));
        found.dedup_by(|a, b| a.id == b.id);
        found.truncate(limit);
        Ok(found)
    }

    /// The messages that told of an incident, oldest first, as far as they are kept.
    pub fn of_incident(&self, id: &str) -> Result<Vec<Notification>, StateError> {
        let mut found = self.list(HISTORY_MAX)?;
        found.retain(|notification| notification.incident.as_deref() == Some(id));
        found.reverse();
        Ok(found)
    }

    /// Forgets the oldest finished messages beyond a bound. Call it now and then.
    pub fn forget_old(&self) -> Result<(), StateError> {
        let rows = self.store.read()?.scan(&NOTIFICATIONS, "", usize::MAX)?;
        let surplus = rows.len().saturating_sub(HISTORY_MAX);
        if surplus == 0 {
            return Ok(());
        }
        self.store
            .write(|tx| rows.iter().take(surplus).try_for_each(|(key, _)| tx.delete(&NOTIFICATIONS, key).map(drop)))
    }
}

/// Writes where a message is now: back to the outbox, or to the history.
fn record(tx: &WriteTx, message: &Message) -> Result<(), StateError> {
    let notification = &message.notification;
    if notification.state == Delivery::Queued {
        return tx.put(&OUTBOX, &notification.id, message);
    }
    tx.delete(&OUTBOX, &notification.id)?;
    tx.put(&NOTIFICATIONS, &notification.id, notification)
}

/// Receiver, kind, index and target of a lane.
fn target_of(lane: &str) -> String {
    lane.splitn(5, '|').take(4).collect::<Vec<_>>().join("|")
}
