//! The members of one cluster: who is expected, and where.
//!
//! Invariant: a member is never dropped because a source is silent or lies. One that is named no more stays, marked as
//! not present, at its last known address, until nobody has named it for [`FORGET_AFTER`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::collect::patroni::parse::base_url;
use crate::model::observation::{ClusterView, MemberAddress};

/// How long a member that nobody names any more is watched.
pub(crate) const FORGET_AFTER: Duration = Duration::from_hours(24);
/// Views of single Patronis differ for a loop or so; absent is who is in none of them for this long.
const ABSENT_AFTER: Duration = Duration::from_secs(7);
/// How often the cluster as a whole is asked for `/cluster`.
const VIEW_EVERY: Duration = Duration::from_millis(1900);
/// After this, a member may take two turns in a row: the others do not answer.
const VIEW_OVERDUE: Duration = Duration::from_millis(2900);
/// Members of one cluster; a longer list is cut, since it is no cluster of Patroni's.
const MEMBERS_MAX: usize = 1000;

/// What all collectors of one cluster know together.
#[derive(Debug)]
pub(crate) struct Directory {
    scope: String,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    members: BTreeMap<String, Known>,
    /// Names of the member keys, while the DCS can be read.
    in_dcs: Option<BTreeSet<String>>,
    view_at: Option<Instant>,
    view_by: String,
}

#[derive(Debug)]
struct Known {
    address: MemberAddress,
    named_at: Instant,
}

impl Directory {
    pub(crate) fn new(scope: &str) -> Self {
        Self { scope: scope.to_owned(), inner: Mutex::default(), changed: Notify::new() }
    }

    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// Takes in who was known before a restart, unless somebody names them at another address. A primary whose Patroni
    /// is dead is in no list any more, and must still be asked.
    pub(crate) fn remember(&self, members: &[MemberAddress]) {
        let mut inner = self.inner.lock();
        let mut changed = false;
        for address in members {
            if !inner.members.contains_key(&address.member) {
                changed |= inner.name(address.clone());
                let known = inner.members.get_mut(&address.member).filter(|_| !address.present);
                if let Some((known, long_ago)) = known.zip(Instant::now().checked_sub(ABSENT_AFTER)) {
                    known.named_at = long_ago;
                }
            }
        }
        drop(inner);
        self.tell(changed);
    }

    /// Takes in what one Patroni's `/cluster` names.
    pub(crate) fn learn_from_view(&self, view: &ClusterView) {
        let mut inner = self.inner.lock();
        let mut changed = false;
        for member in &view.members {
            let rest_url = member.api_url.as_deref().and_then(base_url);
            let (host, port) = (member.host.clone(), member.port);
            changed |= inner.name(MemberAddress { member: member.name.clone(), host, port, rest_url, present: true });
        }
        drop(inner);
        self.tell(changed);
    }

    /// Takes in all member keys of the DCS.
    pub(crate) fn learn_from_dcs(&self, members: Vec<MemberAddress>) {
        let mut inner = self.inner.lock();
        let names: BTreeSet<String> = members.iter().map(|address| address.member.clone()).collect();
        let mut changed = inner.in_dcs.as_ref() != Some(&names);
        inner.in_dcs = Some(names);
        for address in members {
            changed |= inner.name(address);
        }
        drop(inner);
        self.tell(changed);
    }

    /// The DCS cannot be read: its last word on who is present counts no more.
    pub(crate) fn dcs_unreadable(&self) {
        self.inner.lock().in_dcs = None;
    }

    /// Whether this member is the one to ask for `/cluster` now: in turns, among those that answer.
    pub(crate) fn take_view_turn(&self, member: &str) -> bool {
        let mut inner = self.inner.lock();
        let age = inner.view_at.map(|at| at.elapsed());
        let turn = age.is_none_or(|age| age >= VIEW_OVERDUE || (age >= VIEW_EVERY && inner.view_by != member));
        if turn {
            inner.view_at = Some(Instant::now());
            member.clone_into(&mut inner.view_by);
        }
        turn
    }

    /// All members with their presence as of now; those that are gone for good are dropped first.
    pub(crate) fn members(&self) -> Vec<MemberAddress> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let Inner { members, in_dcs, .. } = &mut *inner;
        // Without any fresh naming nobody knows who left: then presence stays as it was.
        let newest = members.values().map(|known| known.named_at).max();
        for (name, known) in members.iter_mut() {
            match (&in_dcs, newest) {
                (Some(names), _) => known.address.present = names.contains(name),
                (None, Some(newest)) => {
                    known.address.present = newest.saturating_duration_since(known.named_at) < ABSENT_AFTER;
                }
                (None, None) => {}
            }
        }
        members.retain(|_, known| known.address.present || now.duration_since(known.named_at) < FORGET_AFTER);
        members.values().map(|known| known.address.clone()).collect()
    }

    /// Completes when someone new was named, or someone at another address.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.changed.notify_one();
        }
    }
}

impl Inner {
    /// Makes room where members come under ever new names. Whether there is room now.
    fn forget_longest_gone(&mut self) -> bool {
        let gone = self.members.iter().filter(|(_, known)| !known.address.present);
        let longest = gone.min_by_key(|(_, known)| known.named_at).map(|(name, _)| name.clone());
        longest.is_some_and(|name| self.members.remove(&name).is_some())
    }

    /// Whether that was news.
    fn name(&mut self, address: MemberAddress) -> bool {
        let now = Instant::now();
        if let Some(known) = self.members.get_mut(&address.member) {
            known.named_at = now;
            let old = &mut known.address;
            // A source that does not know an address does not erase it.
            let host_news =
                !address.host.is_empty() && address.port != 0 && (old.host != address.host || old.port != address.port);
            let rest_news = address.rest_url.is_some() && old.rest_url != address.rest_url;
            if host_news {
                (old.host, old.port) = (address.host, address.port);
            }
            if rest_news {
                old.rest_url = address.rest_url;
            }
            return host_news || rest_news;
        }
        if self.members.len() >= MEMBERS_MAX && !self.forget_longest_gone() {
            return false;
        }
        self.members.insert(address.member.clone(), Known { address, named_at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observation::ClusterViewMember;

    fn view(names: &[&str]) -> ClusterView {
        let member = |name: &&str| ClusterViewMember {
            name: (*name).to_owned(),
            host: format!("{name}.example"),
            port: 5432,
            api_url: Some(format!("http://{name}.example:8008/patroni")),
            ..ClusterViewMember::default()
        };
        ClusterView { members: names.iter().map(member).collect(), ..ClusterView::default() }
    }

    fn present(directory: &Directory) -> Vec<(String, bool)> {
        directory.members().into_iter().map(|address| (address.member, address.present)).collect()
    }

    fn names(list: &[(&str, bool)]) -> Vec<(String, bool)> {
        list.iter().map(|(name, present)| ((*name).to_owned(), *present)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_kept_and_forgotten_only_after_a_day() {
        let directory = Directory::new("main");
        directory.learn_from_view(&view(&["n1", "n2"]));
        directory.changed().await;
        assert_eq!(present(&directory), names(&[("n1", true), ("n2", true)]));
        assert_eq!(directory.members()[0].rest_url.as_deref(), Some("http://n1.example:8008"));

        tokio::time::advance(Duration::from_secs(3)).await;
        directory.learn_from_view(&view(&["n1"]));
        assert_eq!(present(&directory), names(&[("n1", true), ("n2", true)]), "one view is not enough");
        tokio::time::advance(Duration::from_secs(5)).await;
        directory.learn_from_view(&view(&["n1"]));
        assert_eq!(present(&directory), names(&[("n1", true), ("n2", false)]));

        tokio::time::advance(FORGET_AFTER).await;
        assert_eq!(present(&directory), names(&[("n1", true)]), "silence of all sources forgets nobody present");
    }

    #[tokio::test(start_paused = true)]
    async fn members_under_ever_new_names_are_bounded_and_hide_no_new_one() {
        let directory = Directory::new("main");
        for round in 0..MEMBERS_MAX {
            directory.learn_from_view(&view(&["n1", &format!("pod-{round:04}")]));
            tokio::time::advance(ABSENT_AFTER).await;
            assert!(directory.members().len() <= MEMBERS_MAX);
        }
        let names: Vec<String> = directory.members().into_iter().map(|address| address.member).collect();
        assert_eq!(names.len(), MEMBERS_MAX);
        assert!(names.contains(&"n1".to_owned()) && names.contains(&"pod-0999".to_owned()));
        assert!(!names.contains(&"pod-0000".to_owned()), "the longest gone one made room");
        // A list that is no cluster of Patroni's is cut.
        let many: Vec<String> = (0..2 * MEMBERS_MAX).map(|n| format!("m{n}")).collect();
        directory.learn_from_view(&view(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(directory.members().len(), MEMBERS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_left_before_a_restart_is_still_asked() {
        tokio::time::advance(Duration::from_hours(1)).await;
        let directory = Directory::new("main");
        directory.learn_from_view(&view(&["n1"]));
        let left = MemberAddress { member: "n2".into(), host: "n2.example".into(), ..MemberAddress::default() };
        let moved = MemberAddress { member: "n1".into(), host: "old.example".into(), ..MemberAddress::default() };
        directory.remember(&[moved, left]);
        assert_eq!(present(&directory), names(&[("n1", true), ("n2", false)]));
        assert_eq!(directory.members()[0].host, "n1.example");
    }

    #[tokio::test(start_paused = true)]
    async fn the_dcs_decides_who_is_present_while_it_can_be_read() {
        let directory = Directory::new("main");
        directory.learn_from_view(&view(&["n1", "n2"]));
        let address = MemberAddress { member: "n1".into(), present: true, ..MemberAddress::default() };
        directory.learn_from_dcs(vec![address]);
        assert_eq!(present(&directory), names(&[("n1", true), ("n2", false)]));
        assert_eq!(directory.members()[0].host, "n1.example", "an empty address erases nothing");
        directory.dcs_unreadable();
        assert_eq!(present(&directory), names(&[("n1", true), ("n2", true)]));
    }

    #[tokio::test(start_paused = true)]
    async fn members_take_turns_at_the_cluster_view() {
        let directory = Directory::new("main");
        assert!(directory.take_view_turn("n1"));
        assert!(!directory.take_view_turn("n2"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!directory.take_view_turn("n1"), "somebody else's turn");
        assert!(directory.take_view_turn("n2"));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(directory.take_view_turn("n2"), "nobody else answers");
    }
}
