//! How many connections there may be, so that no stranger takes all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections at one time on one address of ours.
const CONNECTIONS_MAX: usize = 1024;
/// Of these, from one client: much for a proxy with many people and agents behind it, and not all.
const CONNECTIONS_PER_CLIENT_MAX: usize = 512;

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Counts connections. Clones are one count.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    counts: Arc<Mutex<Counts>>,
    client: IpAddr,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there are {CONNECTIONS_MAX} connections already")]
    Full,
    #[error("this client has {CONNECTIONS_PER_CLIENT_MAX} connections already")]
    ClientFull,
}

impl Admission {
    pub(super) fn admit(&self, address: IpAddr) -> Result<Admitted, Refusal> {
        let client = client(address);
        let mut counts = self.0.lock();
        if counts.total >= CONNECTIONS_MAX {
            return Err(Refusal::Full);
        }
        let of_client = counts.by_client.entry(client).or_default();
        // Whoever is on this host can do worse; and a proxy here speaks for everybody.
        if *of_client >= CONNECTIONS_PER_CLIENT_MAX && !client.is_loopback() {
            return Err(Refusal::ClientFull);
        }
        *of_client += 1;
        counts.total += 1;
        Ok(Admitted { counts: Arc::clone(&self.0), client })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_client) = counts.by_client.get_mut(&self.client) {
            *of_client = of_client.saturating_sub(1);
            if *of_client == 0 {
                counts.by_client.remove(&self.client);
            }
        }
    }
}

/// One client has a whole /64 of IPv6 addresses to come from.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_all_connections() {
        let admission = Admission::default();
        let take = |address: &str, count: usize| -> Vec<Admitted> {
            (0..count).map_while(|_| admission.admit(address.parse().unwrap()).ok()).collect()
        };
        let first = take("10.0.0.1", 2000);
        assert_eq!(first.len(), CONNECTIONS_PER_CLIENT_MAX);
        let mut second = take("2001:db8::1", 300);
        second.extend(take("2001:db8::2", 2000));
        assert_eq!(second.len(), CONNECTIONS_PER_CLIENT_MAX, "addresses of one /64 are one client");
        assert_eq!(admission.admit("127.0.0.1".parse().unwrap()).unwrap_err(), Refusal::Full);
        drop(first);
        assert_eq!(take("::ffff:127.0.0.1", 2000).len(), CONNECTIONS_MAX - CONNECTIONS_PER_CLIENT_MAX);
        assert_eq!(take("10.0.0.1", 1).len(), 1);
        drop(second);
        let counts = admission.0.lock();
        assert_eq!((counts.total, counts.by_client.len()), (0, 0));
    }
}
