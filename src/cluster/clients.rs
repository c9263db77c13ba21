//! What clients feel: transactions that the write probe commits where they write, mostly through a proxy.
//!
//! Invariant: an outage is told only when the last commit before it and the first after it were both seen.

use crate::cluster::draft::Draft;
use crate::cluster::member::Probe;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::observation::Claim;

/// One failure may be a connection that was closed in order; so many in a row are an outage.
const FAILURES_MIN: u32 = 2;

/// The way of the clients to one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    written: Option<Probe>,
    failing: Option<Failing>,
}

#[derive(Clone, Debug)]
struct Failing {
    first: Probe,
    last: Probe,
    failures: u32,
    error: String,
}

impl Failing {
    fn is_outage(&self) -> bool {
        self.failures >= FAILURES_MIN
    }
}

/// The probe committed a transaction, or could not.
pub(super) fn wrote(state: &mut ClusterState, address: &str, (probe, claim): (Probe, &Claim), out: &mut Drafts) {
    let clients = state.clients.entry(address.to_owned()).or_default();
    match claim {
        Claim::Written => {
            let before = clients.written.replace(probe);
            let failed = clients.failing.take().filter(Failing::is_outage);
            if let (Some(failing), Some(before)) = (failed, before) {
                out.push(resumed(address, (before, &failing, probe)));
            }
        }
        Claim::Failed(failure) => {
            let first = Failing { first: probe, last: probe, failures: 0, error: String::new() };
            let failing = clients.failing.get_or_insert(first);
            failing.last = probe;
            failing.failures = failing.failures.saturating_add(1);
            failing.error.clone_from(&failure.error);
            if failing.failures == FAILURES_MIN && clients.written.is_some() {
                let text = format!("clients cannot write through {address}: {}", failure.error);
                let draft = Draft::notice("client_writes_failed", probe.received).by("proxy").text(text);
                out.push(draft.field("address", address).keyed(address, probe.received));
            }
        }
        _ => {}
    }
}

/// The outage lasted at most from commit to commit, and at least from the first failure to the last.
fn resumed(address: &str, (before, failing, probe): (Probe, &Failing, Probe)) -> Draft {
    let longest = probe.received.since(before.received);
    let error = longest.saturating_sub(failing.last.received.since(failing.first.sent));
    let seconds = longest.as_secs_f64();
    Draft::notice("client_writes_resumed", probe.received)
        .by("proxy")
        .text(format!("clients can write through {address} again, after about {seconds:.1} s"))
        .field("address", address)
        .field("client_outage_seconds", format!("{seconds:.3}"))
        .field("client_outage_error_seconds", format!("{:.3}", error.as_secs_f64()))
        .field("since", before.received)
        .keyed(address, probe.received)
}

/// Addresses through which clients cannot write now, and why.
pub(super) fn failing(state: &ClusterState) -> impl Iterator<Item = (&str, &str)> {
    state.clients.iter().filter_map(|(address, clients)| {
        let failing = clients.failing.as_ref().filter(|failing| failing.is_outage())?;
        Some((address.as_str(), failing.error.as_str()))
    })
}
