//! The etcds in use: one client and one set of health checks each, however many clusters keep their keys there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use crate::collect::config::{DcsConfig, HttpUrl};
use crate::collect::etcd::health::{self, EtcdMemberCollector};
use crate::collect::etcd::{EtcdClient, parse};
use crate::collect::poll::{Audience, Context, PollSpec, poll, target_labels};
use crate::collect::targets::TargetKey;
use crate::model::observation::Source;
use crate::platform::http_client::HttpError;
use crate::platform::tasks::TaskGroup;

/// How often etcd is asked for its members.
const MEMBERS_EVERY: Duration = Duration::from_secs(30);

/// All etcds. Cheap to clone; clones are one pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct EtcdPool(Arc<Mutex<BTreeMap<String, Etcd>>>);

/// One etcd.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    pub(crate) client: Arc<EtcdClient>,
    pub(crate) audience: Audience,
}

impl EtcdPool {
    /// The etcd of this configuration; its health checks start with its first user. `label` is the `cluster` label of
    /// its series: empty where several clusters share it.
    pub(crate) fn get(
        &self,
        config: &DcsConfig,
        label: &str,
        context: &Context,
        group: &TaskGroup,
    ) -> Result<Etcd, HttpError> {
        let mut urls: Vec<&str> = config.etcd.iter().map(HttpUrl::as_str).collect();
        urls.sort_unstable();
        let mut pool = self.0.lock();
        if let Some(etcd) = pool.get(&urls.join(" ")) {
            return Ok(etcd.clone());
        }
        let etcd = Etcd { client: Arc::new(EtcdClient::new(config)?), audience: Audience::default() };
        pool.insert(urls.join(" "), etcd.clone());
        let checks = Checks {
            etcd: etcd.clone(),
            configured: config.etcd.clone(),
            label: label.to_owned(),
            context: context.clone(),
            group: group.clone(),
            ids: BTreeMap::new(),
        };
        group.spawn_until_stop("etcd members", checks.run());
        Ok(etcd)
    }
}

/// Finds the members of one etcd and starts a health check for each.
struct Checks {
    etcd: Etcd,
    configured: Vec<HttpUrl>,
    label: String,
    context: Context,
    group: TaskGroup,
    /// Members that are checked: their URL, and their id as far as it is known.
    ids: BTreeMap<HttpUrl, Option<String>>,
}

impl Checks {
    async fn run(mut self) {
        for url in self.configured.clone() {
            self.start(url, None);
        }
        loop {
            self.learn_ids().await;
            self.find_members().await;
            tokio::time::sleep(MEMBERS_EVERY).await;
        }
    }

    /// A configured URL and an advertised one may be the same member.
    async fn learn_ids(&mut self) {
        for (url, id) in &mut self.ids {
            if id.is_some() {
                continue;
            }
            if let Ok(word) = self.etcd.client.ask_member(url).await {
                *id = word.member_id();
            }
        }
    }

    async fn find_members(&mut self) {
        // Without ids of the configured ones, found ones could be the same.
        if self.ids.values().any(Option::is_none) && self.ids.values().all(Option::is_none) {
            return;
        }
        let Ok(answer) = self.etcd.client.call("/v3/cluster/member/list", &json!({})).await else { return };
        let unknown = self.ids.values().filter(|id| id.is_none()).count();
        let found: Vec<_> = parse::members(&answer)
            .into_iter()
            .filter(|member| !self.ids.values().any(|id| id.as_deref() == Some(member.id.as_str())))
            .collect();
        // As many unknown as silent: most likely the silent ones, which will tell once they are back.
        if found.len() <= unknown {
            return;
        }
        for member in found {
            let usable =
                member.client_urls.iter().filter_map(|url| HttpUrl::parse(url).ok()).find(|url| self.usable(url));
            if let Some(url) = usable {
                self.etcd.client.add_endpoint(url.clone());
                self.start(url, Some(member.id));
            }
        }
    }

    /// An etcd that advertises its loopback address is meant for its own host.
    fn usable(&self, url: &HttpUrl) -> bool {
        let local = |url: &HttpUrl| {
            ["//127.", "//localhost", "//[::1]", "//0.0.0.0", "//[::]"].iter().any(|host| url.as_str().contains(host))
        };
        !self.ids.contains_key(url) && (!local(url) || self.configured.iter().any(local))
    }

    fn start(&mut self, url: HttpUrl, id: Option<String>) {
        let instance = url.instance();
        let labels = target_labels(&self.label, "", &instance, "etcd");
        let spec = PollSpec {
            target: TargetKey::new(&self.label, "", "etcd", url.as_str()),
            labels: labels.clone(),
            interval: health::INTERVAL,
            deadline: health::DEADLINE,
            source: Some(Source::DcsMember { url: url.to_string() }),
            audience: Some(self.etcd.audience.clone()),
            fast: None,
        };
        let collector = EtcdMemberCollector::new(Arc::clone(&self.etcd.client), url.clone(), labels);
        self.ids.insert(url, id);
        self.group.spawn_until_stop("etcd member", poll(spec, collector, self.context.clone()));
    }
}
