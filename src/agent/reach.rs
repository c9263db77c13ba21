//! Which ports of the cluster's members this host can reach, as told by the server at each push.
//!
//! Every five seconds each port is connected to and closed again; nothing is sent. What the server asked for is
//! forgotten when it has not answered for a while: nobody would hear of the result in time.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::model::observation::{Claim, FailureKind, PortProbe, Source};
use crate::model::{Batch, Observation, Timestamp};
use crate::platform::clock::Clock;
use crate::wire::agent::{PROBE_TARGETS_MAX, ProbeTarget};

const EVERY: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Three heartbeats.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// What to try; told by the server.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeTargets(Arc<Mutex<Option<Told>>>);

/// When it was told, and what.
type Told = (Timestamp, Vec<ProbeTarget>);

impl ProbeTargets {
    pub(super) fn told(&self, targets: Vec<ProbeTarget>, now: Timestamp) {
        *self.0.lock() = Some((now, targets));
    }

    fn current(&self, now: Timestamp) -> Vec<ProbeTarget> {
        let told = self.0.lock().clone();
        let current = told.filter(|(at, _)| now.since(*at) <= FORGET_AFTER && now >= *at);
        current.map_or_else(Vec::new, |(_, targets)| targets)
    }
}

/// Whose agent this is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) cluster: String,
    pub(super) member: String,
}

/// Probes until the reader of the batches is gone.
pub(super) async fn run(place: Place, targets: ProbeTargets, batches: mpsc::Sender<Batch>, clock: Clock) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let current = targets.current(clock.now());
        if current.is_empty() {
            continue;
        }
        let observation = probe(&place, &current, &clock).await;
        if batches.send(Batch { observations: vec![observation], ..Batch::default() }).await.is_err() {
            return;
        }
    }
}

/// One round over all ports at once.
async fn probe(place: &Place, targets: &[ProbeTarget], clock: &Clock) -> Observation {
    let sent = clock.now();
    let probes = targets.iter().take(PROBE_TARGETS_MAX).map(|target| async {
        let failure = connect(&target.address).await;
        PortProbe { target: target.member.clone(), port: target.port, failure }
    });
    let ports = join_all(probes).await;
    let source = Source::Agent { member: place.member.clone() };
    Observation { cluster: place.cluster.clone(), source, sent, received: clock.now(), claim: Claim::Reach(ports) }
}

/// How a connection to `host:port` fails; `None` when it is accepted.
async fn connect(address: &str) -> Option<FailureKind> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(match error.kind() {
            ErrorKind::ConnectionRefused => FailureKind::Refused,
            ErrorKind::TimedOut => FailureKind::Timeout,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => FailureKind::Reset,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NotFound => {
                FailureKind::Unreachable
            }
            _ => FailureKind::Other,
        }),
        Err(_elapsed) => Some(FailureKind::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observation::Port;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn open_and_closed_ports_are_told_apart() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = |member: &str, port, listener: &TcpListener| ProbeTarget {
            member: member.to_owned(),
            port,
            address: listener.local_addr().unwrap().to_string(),
        };
        let targets = [target("n1", Port::Postgres, &open), target("n2", Port::Rest, &closed)];
        drop(closed);
        let place = Place { cluster: "demo".to_owned(), member: "n3".to_owned() };
        let observation = probe(&place, &targets, &Clock::system()).await;
        let expected = vec![
            PortProbe { target: "n1".to_owned(), port: Port::Postgres, failure: None },
            PortProbe { target: "n2".to_owned(), port: Port::Rest, failure: Some(FailureKind::Refused) },
        ];
        assert_eq!(observation.claim, Claim::Reach(expected));
        assert_eq!(observation.source, Source::Agent { member: "n3".to_owned() });
    }

    #[test]
    fn what_a_silent_server_asked_for_is_forgotten() {
        let targets = ProbeTargets::default();
        let at = Timestamp::from_secs(1_000);
        assert!(targets.current(at).is_empty());
        let target = ProbeTarget { member: "n1".into(), port: Port::Rest, address: "127.0.0.1:1".into() };
        targets.told(vec![target], at);
        assert_eq!(targets.current(at + Duration::from_secs(29)).len(), 1);
        assert!(targets.current(at + Duration::from_secs(31)).is_empty());
    }
}
