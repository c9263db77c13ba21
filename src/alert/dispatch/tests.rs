use super::*;
use crate::alert::matchers::ApiMatcher;
use crate::alert::route::RouteConfig;
use crate::alert::silence::Silence;
use crate::model::alert::{Annotations, INCIDENT_ANNOTATION};
use crate::platform::yaml::from_yaml;

const ROUTE: &str = "
receiver: ops
group_by: [cluster]
group_wait: 10s
group_interval: 60s
repeat_interval: 10m
routes:
  - {matchers: [severity=critical], receiver: page}
";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + seconds)
}

fn routing(inhibit: &str) -> Routing {
    let config: RouteConfig = from_yaml("c.yml", ROUTE).unwrap();
    let hook = |index, send_resolved| Integration { kind: "webhook", index, send_resolved };
    let inhibit_rules: Vec<InhibitRule> = from_yaml("c.yml", inhibit).unwrap();
    Routing {
        route: Some(Route::build(&config, &["ops".to_owned(), "page".to_owned()]).unwrap()),
        receivers: BTreeMap::from([
            ("ops".to_owned(), vec![hook(0, true)]),
            ("page".to_owned(), vec![hook(0, true), hook(1, false)]),
        ]),
        inhibit_rules,
    }
}

/// An alert `name@cluster[!severity]` that lives from `from` to `to` (0: still).
fn alert(text: &str, from: i64, to: i64) -> Alert {
    let (text, severity) = text.split_once('!').unwrap_or((text, "warning"));
    let (name, cluster) = text.split_once('@').unwrap();
    let labels = Labels::from_pairs([(ALERT_NAME, name), ("cluster", cluster), ("severity", severity)]);
    // Part of trouble in the HA cluster unless a test takes the mark away.
    let annotations = Annotations::from([(INCIDENT_ANNOTATION.to_owned(), "part".to_owned())]);
    let mut alert = Alert::firing(labels, annotations, at(from));
    alert.ends_at = (to != 0).then(|| at(to));
    alert
}

fn incident(id: &str, cluster: &str, from: i64, to: i64) -> Alert {
    let notice = IncidentNotice {
        id: id.into(),
        cluster: cluster.into(),
        title: "failover".into(),
        severity: "critical".into(),
        opened_at: at(from),
        settled_at: (to != 0).then(|| at(to)),
        ..IncidentNotice::default()
    };
    Alert::of_incident(notice, "http://d")
}

struct Run {
    dispatcher: Dispatcher,
    silences: Silences,
    stored: BTreeMap<String, Notified>,
    log: Vec<String>,
}

impl Run {
    fn new(inhibit: &str) -> Self {
        let dispatcher = Dispatcher::new(routing(inhibit), Vec::new());
        Self { dispatcher, silences: Silences::default(), stored: BTreeMap::new(), log: Vec::new() }
    }

    /// Steps through the seconds with the alerts that have begun by then.
    fn run(&mut self, seconds: std::ops::Range<i64>, alerts: &[Alert]) -> &mut Self {
        for second in seconds {
            let now = at(second);
            let known: Vec<Alert> = alerts
                .iter()
                .filter(|alert| alert.starts_at <= now)
                .map(|alert| match alert.ends_at {
                    // Nobody knows the future.
                    Some(end) if end > now => {
                        let mut alert = alert.clone();
                        alert.ends_at = None;
                        if let Some(notice) = &mut alert.incident {
                            notice.settled_at = None;
                        }
                        alert
                    }
                    _ => alert.clone(),
                })
                .collect();
            let step = self.dispatcher.step(now, &known, &self.silences);
            for (key, change) in step.changes {
                match change {
                    Some(entry) => drop(self.stored.insert(key, entry)),
                    None => drop(self.stored.remove(&key)),
                }
            }
            for draft in step.drafts {
                let names = |alerts: &[Alert]| alerts.iter().map(Alert::name).collect::<Vec<_>>().join("+");
                self.log.push(format!(
                    "{second} {}/{} {} [{}] [{}]",
                    draft.receiver,
                    draft.integration.index,
                    draft.reason,
                    names(&draft.firing),
                    names(&draft.resolved)
                ));
            }
        }
        self
    }

    fn restart(&mut self, inhibit: &str) {
        let rows = self.stored.clone().into_iter().collect();
        self.dispatcher = Dispatcher::new(routing(inhibit), rows);
    }
}

#[test]
fn a_group_waits_gathers_repeats_and_closes() {
    let mut run = Run::new("[]");
    run.run(0..800, &[alert("A@x", 0, 700), alert("B@x", 5, 100), alert("C@x", 15, 0), alert("D@y", 0, 4)]);
    assert_eq!(
        run.log,
        [
            "10 ops/0 first notification [A+B] []",
            "70 ops/0 new alerts added [A+B+C] []",
            "130 ops/0 some alerts resolved [A+C] [B]",
            "730 ops/0 some alerts resolved [C] [A]",
        ]
    );
    let mut run = Run::new("[]");
    run.run(0..1300, &[alert("A@x", 0, 0)]);
    assert_eq!(
        run.log,
        [
            "10 ops/0 first notification [A] []",
            "610 ops/0 repeat interval elapsed [A] []",
            "1210 ops/0 repeat interval elapsed [A] []"
        ]
    );
}

#[test]
fn a_receiver_that_wants_no_closing_gets_none_but_is_told_of_the_next_time() {
    let mut run = Run::new("[]");
    run.run(0..200, &[alert("A@x!critical", 0, 50)]).run(200..300, &[alert("A@x!critical", 200, 0)]);
    assert_eq!(
        run.log,
        [
            "10 page/0 first notification [A] []",
            "10 page/1 first notification [A] []",
            "70 page/0 all alerts resolved [] [A]",
            "210 page/0 first notification [A] []",
            "210 page/1 first notification [A] []",
        ]
    );
}

#[test]
fn a_failover_is_one_opening_and_one_closing_for_each_receiver() {
    let mut run = Run::new("[]");
    // An alert fires before the incident opens, others during it; one ends a moment after it.
    run.run(
        0..600,
        &[
            alert("PostgresDown@x!critical", 0, 60),
            incident("7", "x", 3, 100),
            alert("NoLeader@x!critical", 6, 40),
            alert("ReplicaBroken@x", 20, 110),
            alert("DiskSpaceLow@y", 20, 0),
        ],
    );
    assert_eq!(
        run.log,
        [
            "8 page/0 first notification [Incident] []",
            "8 page/1 first notification [Incident] []",
            "30 ops/0 first notification [DiskSpaceLow] []",
            "100 page/0 all alerts resolved [] [Incident]",
        ]
    );
}

#[test]
fn an_alert_that_outlives_the_incident_is_announced_later() {
    let mut run = Run::new("[]");
    run.run(0..300, &[incident("7", "x", 0, 50), alert("ReplicaBroken@x", 5, 0)]);
    assert_eq!(run.log.last().unwrap(), "135 ops/0 first notification [ReplicaBroken] []");
    assert_eq!(run.log.len(), 4);
}

#[test]
fn what_was_opened_is_closed_even_if_muted_rerouted_or_gone() {
    // Inhibited by an incident that came later.
    let mut run = Run::new("[]");
    run.run(0..300, &[alert("A@x", 0, 100), incident("7", "x", 50, 200)]);
    assert!(run.log.contains(&"130 ops/0 all alerts resolved [] [A]".to_owned()), "{:?}", run.log);

    // Silenced after its opening.
    let mut run = Run::new("[]");
    run.run(0..20, &[alert("A@x", 0, 0)]);
    let silence = Silence {
        id: String::new(),
        matchers: vec![ApiMatcher { name: "cluster".into(), value: "x".into(), is_regex: false, is_equal: true }],
        starts_at: at(20),
        ends_at: at(10_000),
        updated_at: at(20),
        created_by: String::new(),
        comment: String::new(),
        annotations: BTreeMap::new(),
    };
    run.silences.set(silence, at(20)).unwrap();
    run.run(20..400, &[alert("A@x", 0, 350), alert("B@x", 30, 0)]);
    assert_eq!(run.log, ["10 ops/0 first notification [A] []", "370 ops/0 all alerts resolved [] [A]"]);

    // Not reported any more.
    let mut run = Run::new("[]");
    run.run(0..20, &[alert("A@x", 0, 0)]).run(20..300, &[]);
    assert_eq!(run.log, ["10 ops/0 first notification [A] []", "130 ops/0 all alerts resolved [] [A]"]);

    // An incident whose severity, and with it the route, changed.
    let mut run = Run::new("[]");
    let mut milder = incident("7", "x", 0, 50);
    milder.labels = milder.labels.with("severity", "warning");
    run.run(0..10, &[milder]).run(10..60, &[incident("7", "x", 0, 50)]);
    assert_eq!(
        run.log,
        [
            "5 ops/0 first notification [Incident] []",
            "10 page/0 first notification [Incident] []",
            "10 page/1 first notification [Incident] []",
            "50 page/0 all alerts resolved [] [Incident]",
            "50 ops/0 all alerts resolved [] [Incident]",
        ]
    );
}

#[test]
fn a_restart_repeats_nothing_and_loses_no_closing() {
    let mut run = Run::new("[]");
    let alerts = [alert("A@x", 0, 100), incident("7", "y", 5, 50)];
    run.run(0..30, &alerts);
    assert_eq!(run.log.len(), 3);
    run.restart("[]");
    run.run(30..40, &alerts);
    assert_eq!(run.log.len(), 3, "nothing is repeated: {:?}", run.log);
    run.restart("[]");
    // It was down while everything ended.
    run.run(200..300, &alerts);
    assert_eq!(run.log[3..], ["200 page/0 all alerts resolved [] [Incident]", "200 ops/0 all alerts resolved [] [A]"]);
    assert_eq!(run.stored.len(), 2, "the incident may open again");
    run.run(1100..1110, &[]);
    assert!(run.stored.is_empty());
    assert!(run.dispatcher.groups().is_empty());
}

#[test]
fn inhibition_rules() {
    let rules = "
- source_matchers: [severity=critical]
  target_matchers: [severity=warning]
  equal: [cluster]
- {source_match: {alertname: Both}, target_match: {alertname: Both}}
";
    let mut run = Run::new(rules);
    run.run(
        0..20,
        &[
            alert("Big@x!critical", 0, 0),
            alert("Small@x", 0, 0),
            alert("Small@y", 0, 0),
            alert("Both@v", 0, 0),
            alert("Both@w", 0, 0),
        ],
    );
    let ops: Vec<_> = run.log.iter().filter(|line| line.contains("ops")).collect();
    assert_eq!(ops.len(), 3, "{ops:?}");
    let muted: Vec<String> = run
        .dispatcher
        .statuses()
        .iter()
        .filter(|status| status.is_muted())
        .map(|status| format!("{}@{}", status.alert.name(), status.alert.label("cluster")))
        .collect();
    assert_eq!(muted, ["Small@x"]);
}

#[test]
fn only_what_is_part_of_an_incident_is_held_back_and_the_notice_lists_it() {
    let alone = Alert { annotations: Annotations::new(), ..alert("A@x", 0, 0) };
    let mut dispatcher = Dispatcher::new(routing("[]"), Vec::new());
    let alerts = [alone, alert("B@x", 0, 0), incident("7", "x", 0, 0)];
    dispatcher.step(at(0), &alerts, &Silences::default());
    let step = dispatcher.step(at(5), &alerts, &Silences::default());
    assert_eq!(step.drafts[0].held_back.iter().map(Alert::name).collect::<Vec<_>>(), ["B"]);
    assert_eq!(step.drafts[0].incident.as_ref().unwrap().id, "7");
    assert_eq!(
        step.drafts[0].group_key,
        r#"{}/{severity="critical"}:{alertname="Incident", cluster="x", incident="7"}"#
    );
    let step = dispatcher.step(at(10), &alerts, &Silences::default());
    assert_eq!(step.drafts.iter().flat_map(NotificationDraft::alerts).map(Alert::name).collect::<Vec<_>>(), ["A"]);
}

#[test]
fn an_incident_that_grows_into_a_split_brain_is_told_again() {
    let mut split = incident("7", "x", 0, 100);
    split.incident.as_mut().unwrap().split_brain = true;
    for (from, told) in [
        (4, vec!["5 page/0 first notification"]),
        (20, vec!["5 page/0 first notification", "20 page/0 the incident got worse"]),
    ] {
        let mut run = Run::new("[]");
        run.run(0..from, &[incident("7", "x", 0, 0)]).run(from..60, &[split.clone()]);
        let lines = run.log.iter().filter(|line| line.contains("page/0"));
        let lines: Vec<_> = lines.map(|line| line.trim_end_matches(" [Incident] []")).collect();
        assert_eq!(lines, told);
    }
}

fn changed(alert: &Alert, change: impl FnOnce(&mut IncidentNotice)) -> Alert {
    let mut notice = alert.incident.as_deref().cloned().unwrap();
    change(&mut notice);
    Alert::of_incident(notice, "http://d")
}

#[test]
fn an_incident_that_opens_again_goes_on_in_its_thread() {
    let first = incident("7", "x", 0, 50);
    for (gone_for, reason) in [(150, "the incident is open again"), (1000, "first notification")] {
        let back = changed(&first, |notice| {
            (notice.settled_at, notice.reopened_at) = (Some(at(gone_for + 100)), Some(at(gone_for)));
            notice.title = "it grew".to_owned();
        });
        let mut run = Run::new("[]");
        run.run(0..60, std::slice::from_ref(&first));
        run.restart("[]");
        run.run(60..gone_for, std::slice::from_ref(&first)).run(gone_for..gone_for + 4, std::slice::from_ref(&back));
        let remembered = run.stored.values().find(|entry| entry.receiver == "page").cloned();
        assert_eq!(remembered.is_some(), gone_for == 150);
        assert!(remembered.iter().all(|entry| entry.title.as_deref() == Some("failover") && entry.opened_at == at(5)));
        run.run(gone_for + 4..gone_for + 200, &[back]);
        let lines: Vec<_> = run.log.iter().filter(|line| line.contains("page/0")).map(String::as_str).collect();
        assert_eq!(
            lines,
            [
                "5 page/0 first notification [Incident] []".to_owned(),
                "50 page/0 all alerts resolved [] [Incident]".to_owned(),
                format!("{} page/0 {reason} [Incident] []", gone_for + 5),
                format!("{} page/0 all alerts resolved [] [Incident]", gone_for + 100),
            ]
        );
    }
}

#[test]
fn an_acknowledged_incident_is_not_repeated_but_its_getting_worse_and_its_end_are_told() {
    let open = incident("7", "x", 0, 5000);
    let mild = changed(&open, |notice| notice.severity = "warning".to_owned());
    let taken = |alert: &Alert| changed(alert, |notice| notice.acknowledged_by = Some("anna".to_owned()));
    let split = changed(&taken(&open), |notice| notice.split_brain = true);
    let mut run = Run::new("[]");
    run.run(0..700, std::slice::from_ref(&open))
        .run(700..3000, &[taken(&open)])
        .run(3000..3700, &[split])
        .run(3700..5100, &[open]);
    let lines: Vec<_> = run.log.iter().filter(|line| line.contains("page/0")).map(String::as_str).collect();
    assert_eq!(
        lines,
        [
            "5 page/0 first notification [Incident] []",
            "605 page/0 repeat interval elapsed [Incident] []",
            "3000 page/0 the incident got worse [Incident] []",
            // Given back.
            "3700 page/0 repeat interval elapsed [Incident] []",
            "4300 page/0 repeat interval elapsed [Incident] []",
            "4900 page/0 repeat interval elapsed [Incident] []",
            "5000 page/0 all alerts resolved [] [Incident]",
        ]
    );

    // The severity rises on one route.
    let rerouted = |mut alert: Alert| {
        alert.labels = alert.labels.with("severity", "critical");
        alert
    };
    let mut run = Run::new("[]");
    run.run(0..20, &[rerouted(taken(&mild))]).run(20..60, &[rerouted(taken(&incident("7", "x", 0, 0)))]);
    let lines: Vec<_> = run.log.iter().filter(|line| line.contains("page/0")).map(String::as_str).collect();
    assert_eq!(lines, ["5 page/0 first notification [Incident] []", "20 page/0 the incident got worse [Incident] []"]);
}

#[test]
fn without_a_route_nobody_is_told() {
    let mut dispatcher = Dispatcher::default();
    let step = dispatcher.step(at(0), &[incident("7", "x", 0, 0)], &Silences::default());
    assert_eq!(step, DispatchStep::default());
    assert_eq!(dispatcher.statuses().len(), 1);
}
