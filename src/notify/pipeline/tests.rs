use super::*;
use crate::model::Labels;
use crate::notify::AlertingConfig;
use crate::notify::outbox::{Delivery, MessageKind};
use crate::notify::retry::Outcome;
use crate::platform::yaml;
use crate::rules::load;

const CONFIG: &str = "
global: {smtp_smarthost: '127.0.0.1:2525', smtp_from: 'Daraji <daraji@example.org>'}
route: {receiver: ops, group_wait: 10s}
receivers:
  - name: ops
    webhook_configs: [{url: 'http://hook.example.org/SECRET'}]
    email_configs: [{to: 'a@example.org, b@example.org'}]
";

const RULES: &str = "
groups:
  - name: g
    interval: 1s
    rules:
      - {alert: PostgresDown, expr: down, labels: {severity: critical}, annotations: {incident: part, summary: '{{ $labels.member }} is down'}}
";

fn config(text: &str) -> Compiled {
    let root = yaml::parse("c.yml", text).unwrap();
    let config: AlertingConfig = yaml::from_node("c.yml", &root).unwrap();
    config.compile("c.yml", &root).unwrap()
}

fn open(dir: &std::path::Path) -> Alerting {
    let store = Arc::new(StateStore::open(dir, at(0)).unwrap());
    let options = AlertingOptions {
        external_url: "http://daraji.example.org".to_owned(),
        external_labels: Labels::default(),
        rules: load("r.yml", RULES, Duration::from_mins(1), &|_| Ok(())).unwrap(),
        config: config(CONFIG),
    };
    Alerting::open(store, options).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + seconds)
}

/// Members that are down.
struct Down(Vec<&'static str>);

impl RuleData for Down {
    fn query(&self, _: &str, _: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        Ok(self.0.iter().map(|member| (Labels::from_pairs([("cluster", "demo"), ("member", member)]), 1.0)).collect())
    }

    fn append(&mut self, _: Vec<crate::model::Sample>) {}
}

fn failover(settled: Option<i64>) -> IncidentNotice {
    IncidentNotice {
        id: "demo-7".into(),
        cluster: "demo".into(),
        title: "Failover from n1".into(),
        severity: "critical".into(),
        opened_at: at(2),
        settled_at: settled.map(at),
        ..IncidentNotice::default()
    }
}

#[test]
fn a_failover_queues_one_opening_and_one_closing_for_each_target_also_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut alerting = open(dir.path());
    for second in 0..120 {
        if second % 7 == 0 {
            drop(alerting);
            alerting = open(dir.path());
        }
        let mut data = Down(if second < 40 { vec!["n1"] } else { Vec::new() });
        let mut incidents = if second < 2 { Vec::new() } else { vec![failover((second >= 60).then_some(60))] };
        if let (true, Some(notice)) = (second > 20, incidents.first_mut()) {
            // What is known grows, the subject of the thread stays.
            notice.title = "n1 lost its host, n2 took over".to_owned();
            notice.cause = Some("host_lost".to_owned());
        }
        alerting.tick(at(second), &mut data, &incidents).unwrap();
    }
    let mut seen: Vec<String> = Vec::new();
    for row in alerting.outbox().list(100).unwrap() {
        assert_eq!((row.state, row.cluster.as_deref()), (Delivery::Queued, Some("demo")));
        assert_eq!(row.subject, "[demo] Failover from n1");
        assert!(!row.target.contains("SECRET"));
        seen.push(format!("{} {} {}", row.integration, row.target, row.created_at.millis() / 1000 - 1_700_000_000));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "email a@example.org 60",
            "email a@example.org 7",
            "email b@example.org 60",
            "email b@example.org 7",
            "webhook http://hook.example.org/… 60",
            "webhook http://hook.example.org/… 7",
        ]
    );
}

#[test]
fn an_incident_that_opens_again_keeps_its_subject_and_its_thread() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    for second in 2..300 {
        let mut notice = failover((60..200).contains(&second).then_some(60));
        if second >= 200 {
            (notice.reopened_at, notice.title) = (Some(at(200)), "n2 lost its host too".to_owned());
        }
        alerting.route(at(second), &[notice]).unwrap();
    }
    let rows = alerting.outbox().of_incident("demo-7").unwrap();
    assert_eq!(alerting.outbox().of_incident("demo-8").unwrap(), []);
    let mails: Vec<_> = rows.iter().filter(|row| row.target == "a@example.org").collect();
    let told: Vec<_> = mails.iter().map(|row| (row.kind, row.reason.as_str(), row.subject.as_str())).collect();
    assert_eq!(
        told,
        [
            (MessageKind::Opening, "first notification", "[demo] Failover from n1"),
            (MessageKind::Closing, "all alerts resolved", "[demo] Failover from n1"),
            (MessageKind::Opening, "the incident is open again", "[demo] Failover from n1"),
        ]
    );
    let mut bodies = Vec::new();
    for second in [300, 301, 302] {
        for message in alerting.outbox().take_due(at(second), 10) {
            if message.notification.target == "a@example.org" {
                bodies.push(message.body.clone());
            }
            alerting.outbox().finish(message, &Outcome::Delivered, at(second)).unwrap();
        }
    }
    let header = |body: &String, name: &str| body.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let root = header(&bodies[0], "Message-ID: ").unwrap();
    for body in &bodies[1..] {
        assert_eq!(header(body, "References: ").as_ref(), Some(&root));
        assert_eq!(header(body, "In-Reply-To: ").as_ref(), Some(&root));
    }
    assert!(bodies[2].contains("OPEN AGAIN") && bodies[1].contains("whether WAL was lost is unknown"), "{bodies:?}");
}

#[test]
fn messages_of_a_lane_keep_their_order_and_survive_until_they_are_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    for (second, settled) in [(7, None), (60, Some(60))] {
        alerting.tick(at(second), &mut Down(Vec::new()), &[failover(settled)]).unwrap();
    }
    let due = alerting.outbox().take_due(at(60), 100);
    assert_eq!(due.len(), 3, "the closing waits for the opening");
    assert!(alerting.outbox().take_due(at(60), 100).is_empty());
    let keys: Vec<String> = due.iter().map(|message| message.key.clone()).collect();
    let bodies: Vec<String> = due.iter().map(|message| message.body.clone()).collect();
    for message in due {
        let outcome = Outcome::Retry { error: "connection refused".to_owned(), after: None };
        alerting.outbox().finish(message, &outcome, at(60)).unwrap();
    }
    drop(alerting);
    let alerting = open(dir.path());
    let again = alerting.outbox().take_due(at(70), 100);
    assert_eq!(again.iter().map(|message| message.key.clone()).collect::<Vec<_>>(), keys, "the same keys");
    assert_eq!(again.iter().map(|message| message.body.clone()).collect::<Vec<_>>(), bodies, "the same bytes");
    for message in again {
        assert_eq!(message.notification.attempts, 1);
        alerting.outbox().finish(message, &Outcome::Delivered, at(70)).unwrap();
    }
    for message in alerting.outbox().take_due(at(70), 100) {
        let dead = Outcome::Dead { error: "no such user".to_owned() };
        alerting.outbox().finish(message, &dead, at(70)).unwrap();
    }
    assert_eq!(alerting.outbox().next_due_at(), None, "nothing waits");
    let rows = alerting.outbox().list(100).unwrap();
    assert_eq!(rows.iter().filter(|row| row.state == Delivery::Done).count(), 3);
    let dead: Vec<_> = rows.iter().filter(|row| row.state == Delivery::Dead).collect();
    assert_eq!((dead.len(), dead[0].last_error.as_deref()), (3, Some("no such user")));
    drop(alerting);
    assert_eq!(open(dir.path()).outbox().list(100).unwrap().len(), 6, "the history is durable");
}

/// Hangs until it is told to go on.
struct Slow<'a>(&'a std::sync::Barrier);

impl RuleData for Slow<'_> {
    fn query(&self, _: &str, _: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        self.0.wait();
        self.0.wait();
        Ok(Vec::new())
    }

    fn append(&mut self, _: Vec<crate::model::Sample>) {}
}

#[test]
fn a_slow_rule_holds_up_no_incident() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    let hung = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let evaluation = scope.spawn(|| alerting.evaluate(at(0), &mut Slow(&hung)));
        hung.wait();
        let mut messages = 0;
        for second in 2..20 {
            messages += alerting.route(at(second), &[failover(None)]).unwrap();
        }
        // Before anything that may panic: the other thread must end.
        hung.wait();
        assert_eq!(messages, 3, "the opening, for each target");
        assert_eq!(evaluation.join().unwrap().unwrap().groups_evaluated, 1);
    });
}

#[test]
fn alerts_of_a_rule_that_a_reload_removed_do_not_come_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    alerting.tick(at(0), &mut Down(vec!["n1"]), &[]).unwrap();
    let stored = || alerting.store.read().unwrap().scan(&ALERT_STATES, "", usize::MAX).unwrap().len();
    assert_eq!(stored(), 1);
    alerting.reload(Vec::new(), config(CONFIG));
    alerting.tick(at(1), &mut Down(Vec::new()), &[]).unwrap();
    assert_eq!(stored(), 0);
    drop(alerting);
    let alerting = open(dir.path());
    assert!(alerting.rule_groups().iter().all(|group| group.rules.iter().all(|rule| rule.alerts.is_empty())));
}

#[test]
fn after_an_outage_updates_that_say_nothing_new_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    let rows = |state: Delivery| {
        let mut rows = alerting.outbox().list(100).unwrap();
        rows.retain(|row| row.integration == "webhook" && row.state == state);
        rows.iter().rev().map(|row| row.created_at.millis() / 1000 - 1_700_000_000).collect::<Vec<_>>()
    };
    for second in 0..1500 {
        let down = match second {
            0..300 => vec!["n1"],
            300..600 => vec!["n1", "n2"],
            600..900 => vec!["n1", "n2", "n3"],
            _ => Vec::new(),
        };
        alerting.tick(at(second), &mut Down(down), &[]).unwrap();
    }
    assert_eq!(rows(Delivery::Queued), [10, 310, 610, 910], "opening, two updates, closing");
    let deliver = |outcome: &Outcome| {
        let due = alerting.outbox().take_due(at(2000), 100);
        let count = due.len();
        for message in due {
            alerting.outbox().finish(message, outcome, at(2000)).unwrap();
        }
        count
    };
    while deliver(&Outcome::Delivered) > 0 {}
    assert_eq!(rows(Delivery::Done), [10, 910]);
    assert_eq!(rows(Delivery::Superseded), [310, 610]);
    assert_eq!(alerting.outbox().next_due_at(), None, "nothing waits");
}

#[test]
fn a_mail_has_text_html_and_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    let mut mails = Vec::new();
    for (second, settled) in [(7, None), (60, Some(60))] {
        alerting.tick(at(second), &mut Down(vec!["n1"]), &[failover(settled)]).unwrap();
        for message in alerting.outbox().take_due(at(second), 100) {
            if message.notification.target == "a@example.org" {
                mails.push(message.body.clone());
            }
            alerting.outbox().finish(message, &Outcome::Delivered, at(second)).unwrap();
        }
    }
    let header = |mail: &str, name: &str| {
        let line = mail.lines().find(|line| line.starts_with(&format!("{name}: ")));
        line.map(|line| line.split_once(": ").unwrap().1.to_owned())
    };
    let root = header(&mails[0], "Message-ID").unwrap();
    assert!(root.ends_with("@example.org>"), "{root}");
    assert_eq!(header(&mails[1], "In-Reply-To"), Some(root.clone()));
    assert_eq!(header(&mails[1], "References"), Some(root.clone()));
    assert_ne!(header(&mails[1], "Message-ID"), Some(root));
    assert_eq!(header(&mails[0], "In-Reply-To"), None);
    assert_eq!(header(&mails[0], "Subject"), header(&mails[1], "Subject"));
    assert_eq!(header(&mails[0], "Auto-Submitted").as_deref(), Some("auto-generated"));
    assert_eq!(header(&mails[0], "Date").as_deref(), Some("Tue, 14 Nov 2023 22:13:27 +0000"));
    for (mail, state) in [(&mails[0], "OPEN"), (&mails[1], "SETTLED")] {
        assert!(mail.contains("multipart/alternative") && mail.contains("text/plain") && mail.contains("text/html"));
        assert!(mail.contains(state), "{mail}");
        assert!(mail.contains("PostgresDown (n1)"), "it lists what it left out: {mail}");
    }
}

#[test]
fn what_one_round_could_not_commit_the_next_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    alerting.uncommitted.lock().rules.push(("gone/1".to_owned(), None));
    let tick = alerting.tick(at(0), &mut Down(vec!["n1"]), &[]).unwrap();
    assert_eq!((tick.groups_evaluated, tick.notifications), (1, 0));
    assert_eq!(alerting.uncommitted.lock().len(), 0);
}

#[test]
fn silences_and_posted_alerts_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let alerting = open(dir.path());
    let silence = Silence {
        id: String::new(),
        matchers: vec![crate::alert::matchers::ApiMatcher {
            name: "cluster".into(),
            value: "demo".into(),
            is_regex: false,
            is_equal: true,
        }],
        starts_at: at(0),
        ends_at: at(600),
        updated_at: at(0),
        created_by: "me".into(),
        comment: String::new(),
        annotations: std::collections::BTreeMap::new(),
    };
    let id = alerting.set_silence(silence, at(0)).unwrap();
    let alert =
        |name: &str| PostedAlert { labels: Labels::from_pairs([("alertname", name)]), ..PostedAlert::default() };
    let refused = alerting.post_alerts(vec![alert("A"), PostedAlert::default()], at(0)).unwrap();
    assert_eq!(refused.len(), 1);
    drop(alerting);
    let alerting = open(dir.path());
    assert_eq!(alerting.silence(&id).unwrap().state(at(1)), "active");
    alerting.tick(at(1), &mut Down(vec!["n1"]), &[]).unwrap();
    let statuses = alerting.alert_statuses();
    assert_eq!(statuses.len(), 2);
    assert!(statuses.iter().any(|status| status.silenced_by == [id.clone()]));
    alerting.expire_silence(&id, at(2)).unwrap();
    alerting.tick(at(3), &mut Down(vec!["n1"]), &[]).unwrap();
    assert!(alerting.alert_statuses().iter().all(|status| !status.is_muted()));
}
