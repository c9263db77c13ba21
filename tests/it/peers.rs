//! Debian's own `promtool` and `amtool` against our files and our server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use daraji::http::alertmanager_api::{AlertmanagerApi, router};
use daraji::platform::clock::Clock;
use daraji::platform::tasks::{TaskGroup, blocking};

use crate::alerting::{NoData, failover, open};
use crate::programs::program;

fn rule_files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    files
}

#[test]
fn promtool_accepts_the_shipped_rules_and_their_tests_pass() {
    let names = |dir: &str| rule_files(dir).iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("alerts"), names("alerts/tests"), "every rule file has a test");
    let promtool = program("bin/promtool", "promtool");
    for (command, dir) in [("check", "alerts"), ("test", "alerts/tests")] {
        let output = Command::new(&promtool).args([command, "rules"]).args(rule_files(dir)).output().unwrap();
        assert!(output.status.success(), "promtool {command} rules: {output:?}");
    }
}

#[tokio::test]
async fn amtool_works_on_our_api() {
    let amtool = program("bin/amtool", "amtool");
    let dir = tempfile::tempdir().unwrap();
    let text = "
global: {smtp_smarthost: 'mail.example.org:587', smtp_from: daraji@example.org}
route: {receiver: ops, routes: [{matchers: [severity=critical], receiver: page}]}
receivers:
  - {name: ops, webhook_configs: [{url: 'http://x/'}]}
  - {name: page, email_configs: [{to: a@example.org}]}
";
    let alerting = Arc::new(open(dir.path(), text));
    let clock = Clock::system();
    alerting.tick(clock.now(), &mut NoData, &[failover(clock.now(), None)]).unwrap();
    let api = AlertmanagerApi {
        alerting: Arc::clone(&alerting),
        started_at: clock.now(),
        clock: clock.clone(),
        revision: "",
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let group = TaskGroup::new("server");
    group.spawn_until_stop("api", async move { axum::serve(listener, router(api)).await.unwrap() });
    let run = |words: &'static str| {
        let (amtool, url) = (amtool.clone(), url.clone());
        async move {
            let output = blocking(move || {
                Command::new(amtool).arg(format!("--alertmanager.url={url}")).args(words.split(' ')).output().unwrap()
            })
            .await;
            assert!(output.status.success(), "amtool {words}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }
    };
    assert!(run("alert query").await.contains("Incident"));
    run("alert add alertname=Manual cluster=demo severity=critical").await;
    alerting.tick(clock.now(), &mut NoData, &[]).unwrap();
    assert!(run("alert query -o extended alertname=Manual").await.contains("Manual"));
    let id = run("silence add --author=me --comment=test --duration=1h alertname=Manual").await;
    assert!(run("silence query").await.contains(id.trim()));
    assert!(run("silence query -o json").await.contains("\"active\""));
    alerting.tick(clock.now(), &mut NoData, &[]).unwrap();
    assert!(!run("alert query alertname=Manual").await.contains("Manual"), "silenced alerts are hidden");
    let (expire, url_again) = (amtool.clone(), url.clone());
    let id = id.trim().to_owned();
    let output = blocking(move || {
        Command::new(expire)
            .arg(format!("--alertmanager.url={url_again}"))
            .args(["silence", "expire", &id])
            .output()
            .unwrap()
    })
    .await;
    assert!(output.status.success(), "{output:?}");
    assert!(run("config routes test severity=critical").await.contains("page"));
    assert!(run("config routes show").await.contains("severity"));
    assert!(run("cluster show").await.contains("disabled"));
    group.stop(Duration::from_secs(5)).await;
}
