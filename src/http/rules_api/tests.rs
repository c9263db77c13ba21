use serde_json::json;

use crate::http::alertmanager_api::tests::serve;

#[tokio::test]
async fn rules_and_alerts_have_prometheus_shape() {
    let server = serve().await;
    let (status, answer) = server.get("/api/v1/rules").await;
    assert_eq!((status, &answer["status"]), (200, &json!("success")));
    let group = &answer["data"]["groups"][0];
    assert_eq!((&group["name"], &group["file"], &group["interval"]), (&json!("g"), &json!("r.yml"), &json!(1.0)));
    let rules = group["rules"].as_array().unwrap();
    assert_eq!(rules[0]["type"], "recording");
    let down = &rules[1];
    assert_eq!((&down["state"], &down["health"], &down["type"]), (&json!("firing"), &json!("ok"), &json!("alerting")));
    assert_eq!(down["alerts"][0]["value"], "1.5e+01");
    assert_eq!(down["alerts"][0]["state"], "firing");
    assert!(down.get("lastError").is_none());
    assert_eq!((&rules[2]["health"], &rules[2]["lastError"]), (&json!("err"), &json!("no such thing")));

    for (query, names) in [
        ("?type=alert", vec!["Down", "Broken"]),
        ("?type=record", vec!["a:b"]),
        ("?rule_name[]=Down&rule_name%5B%5D=Broken", vec!["Down", "Broken"]),
        ("?rule_group[]=other", vec![]),
        ("?file[]=r.yml&rule_name=Down", vec!["Down"]),
    ] {
        let (_, answer) = server.get(&format!("/api/v1/rules{query}")).await;
        let groups = answer["data"]["groups"].as_array().unwrap();
        let found: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
        assert_eq!(found.iter().map(|rule| rule["name"].as_str().unwrap()).collect::<Vec<_>>(), names, "{query}");
    }
    let (status, answer) = server.get("/api/v1/rules?type=x").await;
    assert_eq!((status, &answer["errorType"]), (400, &json!("bad_data")));

    let (_, answer) = server.get("/api/v1/alerts").await;
    assert_eq!(answer["data"]["alerts"][0]["labels"]["alertname"], "Down");
    let (_, answer) = server.get("/prometheus/api/v1/rules").await;
    assert_eq!(answer, json!({"status": "success", "data": {"groups": []}}));
    server.stop().await;
}
