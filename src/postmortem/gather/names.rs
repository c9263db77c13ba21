//! Which member a log belongs to, and what the cluster is called.
//!
//! In this order: what the user said; what the program calls itself; an address that other logs give to a member; a
//! member's name in the names of file or folder; the envelope's host or what is left of the names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use crate::collect::logs::glob;

use super::files::LogFile;
use super::part::Facts;
use super::{Certainty, Finding, GatherOptions, Note};

/// Words in names of files and folders that name no host.
const COMMON_WORDS: &[&str] = &[
    "log",
    "logs",
    "var",
    "tmp",
    "postgresql",
    "postgres",
    "pg",
    "pg_log",
    "pglog",
    "pgdata",
    "data",
    "main",
    "patroni",
    "etcd",
    "haproxy",
    "pgbouncer",
    "repmgr",
    "repmgrd",
    "syslog",
    "messages",
    "journal",
    "kern",
    "kernel",
    "dmesg",
    "daemon",
    "system",
    "csv",
    "json",
    "txt",
    "out",
    "gz",
    "old",
    "current",
    "start",
    "server",
    "stderr",
];

/// The member of each part.
pub(super) fn members(
    files: &[LogFile],
    surveyed: &[(usize, Facts)],
    options: &GatherOptions,
    notes: &mut Vec<Note>,
) -> Vec<Finding<String>> {
    let known = Known::of(files, surveyed);
    let mut found: Vec<Finding<String>> = surveyed
        .iter()
        .map(|(index, facts)| match files.get(*index) {
            Some(file) => known.member(file, facts, options, notes),
            None => finding("unknown", Certainty::Assumed, "nothing tells"),
        })
        .collect();
    // What is certain about one log of a host or folder holds for its other logs.
    let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let place = |index: usize, facts: &Facts| files.get(index).and_then(|file| known.place(file, facts));
    for ((index, facts), member) in surveyed.iter().zip(&found) {
        if member.certainty >= Certainty::Certain
            && let Some(place) = place(*index, facts)
        {
            aliases.entry(place).or_default().insert(member.value.clone());
        }
    }
    for ((index, facts), member) in surveyed.iter().zip(&mut found) {
        let Some(place) = place(*index, facts).filter(|_| member.certainty < Certainty::Likely) else { continue };
        if let Some(names) = aliases.get(&place).filter(|names| names.len() == 1) {
            let name = names.iter().next().cloned().unwrap_or_default();
            *member = finding(&name, Certainty::Likely, &format!("another log of {place} is of {name}"));
        }
    }
    found
}

fn finding(value: &str, certainty: Certainty, why: &str) -> Finding<String> {
    Finding { value: value.to_owned(), certainty, why: why.to_owned() }
}

/// What all logs together know.
struct Known {
    /// Several paths were given: their own names tell hosts apart.
    has_roots: bool,
    members: BTreeSet<String>,
    addresses: BTreeMap<IpAddr, String>,
    etcd_ids: BTreeMap<String, String>,
}

impl Known {
    fn of(files: &[LogFile], surveyed: &[(usize, Facts)]) -> Self {
        let all = || surveyed.iter().map(|(_, facts)| &facts.names);
        let mut members: BTreeSet<String> =
            all().flat_map(|names| names.members.iter().chain(most(&names.own))).cloned().collect();
        let mut votes: BTreeMap<IpAddr, BTreeMap<String, u32>> = BTreeMap::new();
        for ((name, address), count) in all().flat_map(|names| &names.addresses) {
            if members.contains(name) || members.is_empty() {
                *votes.entry(*address).or_default().entry(name.clone()).or_default() += count;
            }
        }
        let addresses: BTreeMap<IpAddr, String> =
            votes.iter().filter_map(|(address, names)| Some((*address, most(names)?.clone()))).collect();
        members.extend(addresses.values().cloned());
        let mut etcd_ids = BTreeMap::new();
        for names in all() {
            for (id, address) in names.etcd_addresses.keys() {
                if let Some(name) = addresses.get(address) {
                    etcd_ids.insert(id.clone(), name.clone());
                }
            }
        }
        for names in all() {
            if let (Some(id), Some(name)) = (most(&names.own_etcd_ids), most(&names.own)) {
                etcd_ids.insert(id.clone(), name.clone());
            }
        }
        let roots: BTreeSet<&Path> = files.iter().map(|file| file.root.as_path()).collect();
        Self { has_roots: roots.len() > 1, members, addresses, etcd_ids }
    }

    fn member(&self, file: &LogFile, facts: &Facts, options: &GatherOptions, notes: &mut Vec<Note>) -> Finding<String> {
        if let Some((pattern, name)) = options.members.iter().find(|(pattern, _)| is_meant(pattern, file, facts)) {
            return finding(name, Certainty::Given, &format!("--member {pattern}={name}"));
        }
        let by_contents = self.by_contents(facts);
        let by_name = self.by_name(file, facts);
        if let (Some(contents), Some(name)) = (&by_contents, &by_name)
            && contents.value != *name
        {
            let text = format!("{}, although its name says {name}; --member {name}=… settles it", contents.why);
            notes.push(Note::file(&file.path, text));
        }
        by_contents
            .or_else(|| by_name.map(|name| finding(&name, Certainty::Likely, "the name of the file or its folder")))
            .unwrap_or_else(|| match self.place(file, facts) {
                Some(place) if facts.key.host.is_empty() => {
                    finding(&place, Certainty::Assumed, "the name of the file or its folder; no log says who this is")
                }
                Some(place) => {
                    finding(&place, Certainty::Assumed, "the host in the lines; no log says which member it is")
                }
                None => {
                    finding("unknown", Certainty::Assumed, "nothing tells whose log this is; --member GLOB=NAME does")
                }
            })
    }

    fn by_contents(&self, facts: &Facts) -> Option<Finding<String>> {
        let names = &facts.names;
        if let Some(name) = most(&names.own) {
            let why = format!("{} calls itself {name}", facts.key.source);
            return Some(finding(name, Certainty::Certain, &why));
        }
        if let Some(id) = most(&names.own_etcd_ids)
            && let Some(name) = self.etcd_ids.get(id)
        {
            return Some(finding(name, Certainty::Certain, &format!("etcd's member {id} is {name}")));
        }
        let votes = names
            .own_addresses
            .iter()
            .filter_map(|(address, count)| Some((self.addresses.get(address)?, *count, *address)));
        let (name, _, address) = votes.max_by_key(|(_, count, _)| *count)?;
        let why = format!("Patroni reaches it as {address}, which is {name}'s address");
        Some(finding(name, Certainty::Certain, &why))
    }

    /// A known member's name in the names of file, folders below the root, or the host of the envelope.
    fn by_name(&self, file: &LogFile, facts: &Facts) -> Option<String> {
        let mut names = vec![facts.key.host.clone()];
        let below = file.path.strip_prefix(&file.root).unwrap_or(&file.path);
        names.extend(below.iter().rev().map(|part| part.to_string_lossy().into_owned()));
        if below.as_os_str().is_empty() || self.has_roots {
            names.extend(file.root.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        // A longer name first: `pg1` stands in `pg1-dr`, too.
        let mut members: Vec<&String> = self.members.iter().collect();
        members.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names.iter().find_map(|name| members.iter().find(|member| has_word(name, member)).map(|name| (*name).clone()))
    }

    /// Where the file comes from, when nobody names a member: the host, or what in its names is not common.
    fn place(&self, file: &LogFile, facts: &Facts) -> Option<String> {
        if !facts.key.host.is_empty() {
            return Some(facts.key.host.clone());
        }
        let below = file.path.strip_prefix(&file.root).unwrap_or(&file.path);
        let mut names: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let own = names.pop().or_else(|| Some(file.path.file_name()?.to_string_lossy().into_owned()))?;
        let folders = names.iter().rev().map(String::as_str);
        let root = file.root.file_name().filter(|_| self.has_roots && file.root != file.path);
        let root = root.map(|name| name.to_string_lossy().into_owned());
        let telling = folders.chain(root.as_deref()).find(|name| !is_common(name)).map(str::to_owned);
        telling.or_else(|| {
            let words = own.split(['.', '_']).filter(|word| !is_common(word));
            words.map(str::to_owned).next()
        })
    }
}

/// Whether a pattern of `--member` means this log: its host, its path, or any name on its path.
fn is_meant(pattern: &str, file: &LogFile, facts: &Facts) -> bool {
    let any = file.path.iter().any(|part| part.to_str().is_some_and(|part| glob::matches(pattern, part)));
    any || glob::matches_path(Path::new(pattern), &file.path)
        || !facts.key.host.is_empty() && glob::matches(pattern, &facts.key.host)
}

/// Whether a word stands in a name, not inside of a longer one.
fn has_word(name: &str, word: &str) -> bool {
    name.match_indices(word).any(|(at, _)| {
        let before = name.get(..at).and_then(|text| text.chars().next_back());
        let after = name.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Whether a name says nothing about a host: a program, a date, a number.
fn is_common(name: &str) -> bool {
    name.split(['.', '_', '-']).all(|word| {
        word.is_empty()
            || COMMON_WORDS.contains(&word.to_ascii_lowercase().as_str())
            || word.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'T' | b't' | b'Z' | b'z' | b':'))
            // As `%a` of `log_filename` writes them.
            || ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&word)
    })
}

/// What was said most often; of equals the first.
fn most(votes: &BTreeMap<String, u32>) -> Option<&String> {
    votes.iter().rev().max_by_key(|(_, count)| **count).map(|(name, _)| name)
}

/// The cluster's name.
pub(super) fn cluster(
    files: &[LogFile],
    surveyed: &[(usize, Facts)],
    options: &GatherOptions,
    notes: &mut Vec<Note>,
) -> Finding<String> {
    if let Some(name) = &options.cluster {
        return finding(name, Certainty::Given, "--cluster");
    }
    let mut votes: BTreeMap<String, u32> = BTreeMap::new();
    for (scope, count) in surveyed.iter().flat_map(|(_, facts)| &facts.names.scopes) {
        *votes.entry(scope.clone()).or_default() += count;
    }
    if let Some(name) = most(&votes) {
        if votes.len() > 1 {
            let all = votes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let text = format!("the logs speak of several clusters ({all}); all records were given to {name}");
            notes.push(Note::about(text));
        }
        return finding(name, Certainty::Certain, "keys in the DCS");
    }
    let mut roots: Vec<&Path> = files.iter().map(|file| file.root.as_path()).collect();
    roots.dedup();
    let folder = match roots.as_slice() {
        [root] => root.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    match folder.filter(|name| !is_common(name)) {
        Some(name) => finding(&name, Certainty::Assumed, "the name of the folder; --cluster NAME gives another"),
        None => finding("cluster", Certainty::Assumed, "no log names it; --cluster NAME does"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_names() {
        for (name, word, expected) in [
            ("n1.postgresql.csv", "n1", true),
            ("n11.postgresql.csv", "n1", false),
            ("postgresql-pg-1.log", "pg-1", true),
            ("db_pg1_2026.log", "pg1", true),
            ("xpg1", "pg1", false),
        ] {
            assert_eq!(has_word(name, word), expected, "{name} {word}");
        }
        for (name, expected) in [
            ("postgresql-2026-11-23_000000.csv", true),
            ("postgresql-Mon.log", true),
            ("patroni.log.1.gz", true),
            ("pg1", false),
            ("db-3", false),
            ("mon", false),
            ("15", true),
        ] {
            assert_eq!(is_common(name), expected, "{name}");
        }
    }
}
