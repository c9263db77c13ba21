//! What the server is told: the file, the flags, the rules; all checked before anything starts.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;

use super::ServeArgs;
use crate::collect::ClusterConfig;
use crate::collect::config::HttpUrl;
use crate::collect::logs::glob;
use crate::config::{self, AuthMode, Config, DEFAULT_LISTEN};
use crate::http::listen::TlsFiles;
use crate::incident::causes::{self, Catalogue};
use crate::notify::config::Compiled;
use crate::platform::yaml::{self, Node, Problem};
use crate::rules::{self, RuleGroup, promql_data, shipped};

/// Groups that name no interval are evaluated this often.
const RULES_EVERY: Duration = Duration::from_secs(15);

/// A checked configuration.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) rules: Vec<RuleGroup>,
    pub(super) causes: Arc<Catalogue>,
    file: String,
    root: Node,
}

impl Plan {
    /// Reads everything; on failure all problems, a line each.
    pub(super) fn load(args: &ServeArgs) -> Result<Self, Vec<String>> {
        let (file, root, mut config, mut problems) = if let Some(path) = &args.config {
            read_config(path)?
        } else {
            let root = yaml::parse("no file", "").map_err(|problems| texts(&problems))?;
            ("no file".to_owned(), root, Config::default(), Vec::new())
        };
        for url in &args.patroni {
            match HttpUrl::parse(url) {
                Ok(url) => config.clusters.push(ClusterConfig { patroni: vec![url], ..ClusterConfig::default() }),
                Err(error) => problems.push(format!("--patroni: {error}")),
            }
        }
        if let Some(data) = &args.data {
            config.storage.path.clone_from(data);
        }
        if let Some(listen) = &args.listen {
            config.listen = Some(config::OneOrMany::One(listen.clone()));
        }
        let rules = load_rules(&config, &file, &root).unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
        let causes = load_causes(&config, &file, &root).unwrap_or_else(|found| {
            problems.extend(found);
            Catalogue::default()
        });
        let plan = Self { config, rules, causes: Arc::new(causes), file, root };
        if let Err(found) = plan.config.alerting().compile(&plan.file, &plan.root) {
            problems.extend(texts(&found));
        }
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    pub(super) fn listen(&self) -> Vec<String> {
        self.config.listen.as_ref().map_or_else(|| vec![DEFAULT_LISTEN.to_owned()], config::OneOrMany::to_vec)
    }

    /// Whether an address is served without asking for a token.
    pub(super) fn is_open(&self, address: &str) -> bool {
        let loopback = address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
        loopback || address.starts_with("localhost:") || self.config.auth == Some(AuthMode::None)
    }

    pub(super) fn tls(&self) -> Option<TlsFiles> {
        self.config.tls.as_ref().map(TlsFiles::from)
    }

    pub(super) fn external_url(&self) -> String {
        let configured = self.config.external_url.clone();
        configured.unwrap_or_else(|| format!("http://{}", self.listen().first().map_or(DEFAULT_LISTEN, String::as_str)))
    }

    pub(super) fn compile_alerting(&self) -> anyhow::Result<Compiled> {
        let compiled = self.config.alerting().compile(&self.file, &self.root);
        compiled.map_err(|problems| anyhow!("{}", texts(&problems).join("\n")))
    }
}

type Read = (String, Node, Config, Vec<String>);

/// Fails only when nothing of the file can be read.
fn read_config(path: &Path) -> Result<Read, Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![format!("read the configuration {}: {error}", path.display())])?;
    let file = path.display().to_string();
    let root = yaml::parse(&file, &text).map_err(|problems| texts(&problems))?;
    let (config, problems) = config::read(&file, &root);
    Ok((file, root, config, texts(&problems)))
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The rules of the files that are named, or those that come with the program.
fn load_rules(config: &Config, file: &str, root: &Node) -> Result<Vec<RuleGroup>, Vec<String>> {
    let mut found = Loaded::default();
    let logs = Loaded::files(("logql_rule_files", &config.logql_rule_files), (file, root), &promql_data::check_logql);
    if let Some(patterns) = &config.rule_files {
        found = Loaded::files(("rule_files", patterns), (file, root), &promql_data::check);
    } else {
        for (file, text) in shipped::FILES {
            found.load(file, text, &promql_data::check);
        }
    }
    found.groups.extend(logs.groups.into_iter().map(RuleGroup::over_logs));
    found.problems.extend(logs.problems);
    found.finish()
}

/// The causes of the files that are named, or those that come with the program.
fn load_causes(config: &Config, file: &str, root: &Node) -> Result<Catalogue, Vec<String>> {
    let Some(patterns) = &config.cause_files else {
        return causes::shipped::catalogue().map_err(|problems| texts(&problems));
    };
    let (files, mut problems) = read_files(("cause_files", patterns), (file, root));
    let loaded = Catalogue::load(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    problems.extend(loaded.as_ref().err().map(|found| texts(found)).unwrap_or_default());
    match loaded {
        Ok(catalogue) if problems.is_empty() => Ok(catalogue),
        _ => Err(problems),
    }
}

/// Names and texts of the files that the patterns of one key match, relative to the configuration file; and what is
/// wrong with the patterns.
fn read_files((key, patterns): (&str, &[String]), (file, root): (&str, &Node)) -> (Vec<(String, String)>, Vec<String>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let base = Path::new(file).parent().unwrap_or(Path::new("."));
    let places = root.get(key).map(Node::items).unwrap_or_default();
    for (index, pattern) in patterns.iter().enumerate() {
        let files = glob::expand(&base.join(pattern)).files;
        if files.is_empty() {
            let place = places.get(index).unwrap_or(root);
            let (line, column) = (place.line, place.column);
            problems.push(format!("{file}:{line}:{column}: {pattern:?} matches no file"));
        }
        for path in files {
            match std::fs::read_to_string(&path) {
                Ok(text) => found.push((path.display().to_string(), text)),
                Err(error) => problems.push(format!("read {}: {error}", path.display())),
            }
        }
    }
    (found, problems)
}

#[derive(Default)]
struct Loaded {
    groups: Vec<RuleGroup>,
    problems: Vec<String>,
}

impl Loaded {
    /// Loads what the patterns of one key match; they are relative to the configuration file.
    fn files((key, patterns): (&str, &[String]), (file, root): (&str, &Node), check: rules::file::CheckFn<'_>) -> Self {
        let (files, problems) = read_files((key, patterns), (file, root));
        let mut found = Self { problems, ..Self::default() };
        for (name, text) in files {
            found.load(&name, &text, check);
        }
        found
    }

    fn load(&mut self, file: &str, text: &str, check: rules::file::CheckFn<'_>) {
        match rules::load(file, text, RULES_EVERY, check) {
            Ok(groups) => self.groups.extend(groups),
            Err(problems) => self.problems.extend(texts(&problems)),
        }
    }

    fn finish(self) -> Result<Vec<RuleGroup>, Vec<String>> {
        if self.problems.is_empty() { Ok(self.groups) } else { Err(self.problems) }
    }
}
