//! Sends what the outbox holds, a bounded number at once, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::platform::clock::Clock;
use crate::platform::error::chain;

use super::config::Receivers;
use super::outbox::{Message, Outbox};
use super::retry::Outcome;
use super::{mail, webhook};

/// Messages in flight at once.
const IN_FLIGHT_MAX: usize = 16;

/// The longest sleep: a clock that jumps must not delay a message for long.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// How long messages in flight may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Runs until `stop`. What is in flight then gets a moment to end; what does not is sent again after the next start.
pub async fn run(outbox: Arc<Outbox>, receivers: Arc<ArcSwap<Receivers>>, clock: Clock, stop: CancellationToken) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        for message in outbox.take_due(clock.now(), IN_FLIGHT_MAX - in_flight.len()) {
            let receivers = Receivers::clone(&receivers.load());
            in_flight.push(async move {
                let outcome = deliver(&receivers, &message).await;
                (message, outcome)
            });
        }
        let wait = outbox.next_due_at().map_or(SLEEP_MAX, |at| at.since(clock.now()).min(SLEEP_MAX));
        let full = in_flight.len() >= IN_FLIGHT_MAX;
        tokio::select! {
            () = stop.cancelled() => break,
            Some((message, outcome)) = in_flight.next() => finish(&outbox, message, &outcome, &clock).await,
            () = outbox.woken() => {}
            // A target whose slots are taken has messages that are due: do not spin on them.
            () = tokio::time::sleep(wait.max(Duration::from_millis(100))), if !full => {}
        }
    }
    let drain = async {
        while let Some((message, outcome)) = in_flight.next().await {
            finish(&outbox, message, &outcome, &clock).await;
        }
    };
    if tokio::time::timeout(STOP_GRACE, drain).await.is_err() {
        warn!("messages in flight did not end in time; they will be sent again");
    }
}

async fn finish(outbox: &Arc<Outbox>, message: Message, outcome: &Outcome, clock: &Clock) {
    let (id, receiver) = (message.notification.id.clone(), message.notification.receiver.clone());
    match outcome {
        Outcome::Delivered => info!(id, receiver, "notification delivered"),
        Outcome::Retry { error, .. }
        | Outcome::Refused { error }
        | Outcome::Misconfigured { error }
        | Outcome::Dead { error } => warn!(id, receiver, error, "notification not delivered"),
    }
    let (outbox, outcome, now) = (Arc::clone(outbox), outcome.clone(), clock.now());
    if let Err(error) = crate::platform::tasks::blocking(move || outbox.finish(message, &outcome, now)).await {
        warn!(id, error = chain(&error), "the outcome of a notification is not recorded; it may be sent again");
    }
}

/// Sends one message by the integration it is for.
pub async fn deliver(receivers: &Receivers, message: &Message) -> Outcome {
    let notification = &message.notification;
    let gone = || Outcome::Dead { error: format!("receiver {:?} is not configured any more", notification.receiver) };
    let Some(receiver) = receivers.get(&notification.receiver) else { return gone() };
    match notification.integration.as_str() {
        "webhook" => match receiver.webhooks.get(message.index) {
            Some(config) => webhook::deliver(config, message).await,
            None => gone(),
        },
        "email" => match receiver.emails.get(message.index) {
            Some(target) => mail::deliver(target, message).await,
            None => gone(),
        },
        other => Outcome::Dead { error: format!("there is no integration {other:?}") },
    }
}
