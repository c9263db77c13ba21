//! The rule files that Daraji brings along, loaded unless the configuration names others.
//!
//! A new file is one more line here, and a test of the same name in `alerts/tests/`.

/// Name and text of each shipped rule file.
pub const FILES: &[(&str, &str)] = &[
    ("cluster.yml", include_str!("../../alerts/cluster.yml")),
    ("postgres.yml", include_str!("../../alerts/postgres.yml")),
    ("host.yml", include_str!("../../alerts/host.yml")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::rules::load;

    #[test]
    fn shipped_rules_load_and_say_what_to_do() {
        let mut names = BTreeSet::new();
        for (file, text) in FILES {
            let groups = load(file, text, Duration::from_mins(1), &|_| Ok(())).unwrap();
            for rule in groups.iter().flat_map(|group| &group.rules) {
                assert!(names.insert(rule.name.clone()), "{} stands twice", rule.name);
                let severity = rule.labels["severity"].as_str();
                assert!(["critical", "warning", "info"].contains(&severity), "{}: {severity}", rule.name);
                for annotation in ["summary", "description"] {
                    assert!(!rule.annotations[annotation].is_empty(), "{}: {annotation}", rule.name);
                }
            }
        }
        for wanted in
            ["NoLeader", "SplitBrain", "ReplicaBroken", "ReplicationLagHigh", "DcsQuorumLost", "TargetMissing"]
        {
            assert!(names.contains(wanted), "{wanted}");
        }
    }
}
