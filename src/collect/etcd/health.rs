//! One etcd member about itself: health, who leads, size, and its metrics page.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::collect::config::HttpUrl;
use crate::collect::etcd::{EtcdClient, MemberWord, parse};
use crate::collect::exposition::{self, Page};
use crate::collect::patroni::due;
use crate::collect::poll::{CollectError, Collector, Found};
use crate::model::observation::{Claim, DcsHealth, FailureKind};
use crate::model::{Labels, Timestamp};

/// Interval of the questions.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// `/health` needs the quorum, and takes its time to say that there is none.
pub(crate) const DEADLINE: Duration = Duration::from_millis(6500);
const METRICS_EVERY: Duration = Duration::from_secs(10);
const NAME_EVERY: Duration = Duration::from_mins(1);

/// Asks one etcd member.
#[derive(Debug)]
pub(crate) struct EtcdMemberCollector {
    client: Arc<EtcdClient>,
    url: HttpUrl,
    labels: Labels,
    name: Option<String>,
    name_at: Option<Instant>,
    metrics_at: Option<Instant>,
}

impl EtcdMemberCollector {
    pub(crate) fn new(client: Arc<EtcdClient>, url: HttpUrl, labels: Labels) -> Self {
        Self { client, url, labels, name: None, name_at: None, metrics_at: None }
    }

    async fn health(&self) -> Result<(DcsHealth, Option<String>), CollectError> {
        // The status is the member's own view and comes without quorum; its failure is the member's.
        let word = self.client.ask_member(&self.url).await?;
        let mut health = match &word {
            MemberWord::Status(status) => from_status(status),
            MemberWord::List(list) => from_list(list),
        };
        let member_id = word.member_id();
        match self.client.http.get(&self.url.join("/health")).await {
            Ok(answer) => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
                health.healthy = answer.status == 200
                    && body.get("health").is_some_and(|word| word == "true" || *word == Value::Bool(true));
                if !health.healthy {
                    let reason = parse::text(&body, "reason").filter(|reason| !reason.is_empty());
                    health.reason = reason.or_else(|| Some(format!("/health answered HTTP {}", answer.status)));
                }
            }
            Err(error) => {
                health.healthy = false;
                health.reason = Some(CollectError::from(error).error);
            }
        }
        Ok((health, member_id))
    }

    /// The member's name stands in the member list only.
    async fn learn_name(&mut self, member_id: Option<String>) {
        if !due(&mut self.name_at, NAME_EVERY) {
            return;
        }
        let answer = self.client.call_at(&self.url, "/v3/cluster/member/list", &json!({})).await;
        // Without quorum the list is refused; the old name stays.
        if let (Ok(answer), Some(id)) = (answer, member_id) {
            let me = parse::members(&answer).into_iter().find(|member| member.id == id);
            self.name = me.map(|member| member.name).filter(|name| !name.is_empty()).or(self.name.take());
        }
    }

    async fn metrics(&self, at: Timestamp) -> Result<Page, CollectError> {
        let answer = self.client.http.get(&self.url.join("/metrics")).await?;
        if answer.status != 200 {
            let error = format!("{}/metrics answered HTTP {}", self.url, answer.status);
            return Err(CollectError::new(FailureKind::Other, error));
        }
        exposition::read(&answer, &self.labels, at)
    }
}

fn from_list(list: &Value) -> DcsHealth {
    let header = list.get("header").cloned().unwrap_or(Value::Null);
    DcsHealth {
        raft_term: u64::try_from(parse::integer(&header, "raft_term")).ok().filter(|term| *term > 0),
        cluster_id: parse::text(&header, "cluster_id"),
        ..DcsHealth::default()
    }
}

fn from_status(status: &Value) -> DcsHealth {
    let header = status.get("header").cloned().unwrap_or(Value::Null);
    let member_id = parse::text(&header, "member_id");
    let leader_id = parse::text(status, "leader").filter(|id| id != "0");
    let alarms = status.get("errors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    DcsHealth {
        name: None,
        healthy: false,
        reason: None,
        is_leader: Some(leader_id.is_some() && leader_id == member_id),
        has_leader: Some(leader_id.is_some()),
        leader_id,
        raft_term: u64::try_from(parse::integer(status, "raftTerm")).ok().filter(|term| *term > 0),
        version: parse::text(status, "version"),
        database_bytes: u64::try_from(parse::integer(status, "dbSize")).ok(),
        cluster_id: parse::text(&header, "cluster_id"),
        alarms: alarms.iter().take(16).filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

impl Collector for EtcdMemberCollector {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        let mut found = Found::default();
        let (mut health, member_id) = self.health().await?;
        self.learn_name(member_id).await;
        health.name.clone_from(&self.name);
        if !health.healthy {
            let reason = health.reason.clone().unwrap_or_default();
            found.problem = Some(CollectError::new(FailureKind::Rejecting, reason));
        }
        found.claims.push(Claim::DcsHealth(health).into());
        if due(&mut self.metrics_at, METRICS_EVERY) {
            match self.metrics(at).await {
                Ok(page) => found.take_page("metrics", page),
                Err(error) => found.problem = Some(error),
            }
        }
        Ok(found)
    }
}
