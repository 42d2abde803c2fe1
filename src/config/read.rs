//! The layered values, with the place that each came from: file under environment, through the `config` crate.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::{
    environment::Overrides,
    report::{Place, Problem},
    schema::{Key, Kind, ROOT},
    walk::{Spans, join},
};

/// Values and places of a configuration whose types are right.
#[derive(Debug)]
pub(super) struct Layers {
    root: Value,
    spans: Spans,
    /// Path → variable and its text.
    variables: BTreeMap<String, (String, String)>,
    pub(super) problems: RefCell<Vec<Problem>>,
}

/// The walked file, as the lower layer.
#[derive(Clone, Debug)]
struct File(Map<String, Value>);

impl Source for File {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Layers {
    /// Lays the environment over the file.
    pub(super) fn new(file: Map<String, Value>, spans: Spans, overrides: Overrides) -> Result<Layers, ConfigError> {
        let mut builder = config::Config::builder().add_source(File(file));
        let mut variables = BTreeMap::new();
        for (path, (name, text, value)) in overrides.set {
            builder = builder.set_override(path.as_str(), value)?;
            variables.insert(path, (name, text));
        }
        let root = builder.build()?.cache;
        Ok(Layers { root, spans, variables, problems: RefCell::new(Vec::new()) })
    }

    /// The file's top level.
    pub(super) fn root(&self) -> Section<'_> {
        Section { layers: self, path: String::new(), keys: ROOT, value: Some(&self.root) }
    }

    /// Where the value of a path stands, or the closest section around it.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some((name, text)) = self.variables.get(path) {
                return Place::Env(name.clone(), Some(text.clone()));
            }
            if let Some((_, value)) = self.spans.get(path) {
                return Place::Span(value.clone());
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return Place::File,
            }
        }
    }

    /// Who says what a path is: `exact.sandbox`, or the variable or option that overrides it.
    pub(super) fn said_by<'p>(&'p self, path: &'p str) -> &'p str {
        self.variables.get(path).map_or(path, |(name, _)| name)
    }

    /// Whether the file itself has the path.
    pub(super) fn in_file(&self, path: &str) -> bool {
        self.spans.contains_key(path)
    }

    /// Notes a problem.
    pub(super) fn complain(&self, path: &str, message: impl Into<String>, help: Option<String>) {
        let message = message.into();
        self.push(path, message, String::new(), help, None, false);
    }

    /// Notes something that works, but hardly as meant.
    pub(super) fn warn(&self, path: &str, message: impl Into<String>, help: &str) {
        self.push(path, message.into(), String::new(), Some(help.to_owned()), None, true);
    }

    /// Notes a value that repeats the one at `other`.
    pub(super) fn clash(&self, path: &str, other: &str, message: impl Into<String>, help: Option<String>) {
        let other = match self.place(other) {
            Place::Span(span) => Some((span, "the first".to_owned())),
            _ => None,
        };
        self.push(path, message.into(), "the second".to_owned(), help, other, false);
    }

    fn push(
        &self,
        path: &str,
        message: String,
        label: String,
        help: Option<String>,
        other: Option<(std::ops::Range<usize>, String)>,
        warning: bool,
    ) {
        let place = self.place(path);
        self.problems.borrow_mut().push(Problem { place, key: path.to_owned(), message, label, help, other, warning });
    }
}

/// One section, possibly absent: then all of its keys have their defaults.
#[derive(Clone, Debug)]
pub(super) struct Section<'l> {
    pub(super) layers: &'l Layers,
    pub(super) path: String,
    keys: &'static [Key],
    value: Option<&'l Value>,
}

impl<'l> Section<'l> {
    /// `routes[2].price`
    pub(super) fn at(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether file or environment has the key, with the right type.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A text, or its default. None for a wrong or missing one that has no default: the walk has complained.
    pub(super) fn text(&self, key: &str) -> Option<&'l str> {
        match (self.get(key).map(|value| &value.kind), self.kind(key)) {
            (Some(ValueKind::String(text)), _) => Some(text),
            (_, Kind::Text(default)) => default,
            (_, Kind::Choice { default, .. }) => Some(default),
            _ => None,
        }
    }

    /// A flag, or its default.
    pub(super) fn flag(&self, key: &str) -> bool {
        match (self.get(key).map(|value| &value.kind), self.kind(key)) {
            (Some(ValueKind::Boolean(flag)), _) => *flag,
            (_, Kind::Flag(default)) => default,
            _ => false,
        }
    }

    /// A number, or its default.
    pub(super) fn count(&self, key: &str) -> Option<usize> {
        let default = match self.kind(key) {
            Kind::Count { default, .. } => default,
            _ => None,
        };
        let count = match self.get(key).map(|value| &value.kind) {
            Some(ValueKind::I64(n)) => Some(*n),
            _ => default,
        };
        count.and_then(|n| usize::try_from(n).ok())
    }

    /// A number that has a default.
    pub(super) fn number(&self, key: &str) -> usize {
        self.count(key).unwrap_or_default()
    }

    /// A number of seconds that has a default.
    pub(super) fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.number(key).try_into().unwrap_or(u64::MAX))
    }

    /// A list of texts with the path of each, or its default.
    pub(super) fn texts(&self, key: &str) -> Vec<(String, &'l str)> {
        let path = self.at(key);
        let texts: Vec<&'l str> = match (self.get(key).map(|value| &value.kind), self.kind(key)) {
            (Some(ValueKind::Array(items)), _) => items
                .iter()
                .filter_map(|item| match &item.kind {
                    ValueKind::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            (_, Kind::Texts(default) | Kind::Statuses(default)) => default.to_vec(),
            _ => Vec::new(),
        };
        texts.into_iter().enumerate().map(|(index, text)| (format!("{path}[{index}]"), text)).collect()
    }

    /// `[path.key]`
    pub(super) fn section(&self, key: &str) -> Section<'l> {
        let keys = match self.kind(key) {
            Kind::Table(keys) => keys,
            _ => &[],
        };
        Section { layers: self.layers, path: self.at(key), keys, value: self.get(key) }
    }

    /// `[path.key.NAME]`, by name.
    pub(super) fn named(&self, key: &str) -> Vec<(&'l str, Section<'l>)> {
        let (Kind::Named(keys), Some(ValueKind::Table(table))) = (self.kind(key), self.get(key).map(|v| &v.kind))
        else {
            return Vec::new();
        };
        let mut found: Vec<_> = table
            .iter()
            .map(|(name, value)| {
                let path = join(&self.at(key), name);
                (name.as_str(), Section { layers: self.layers, path, keys, value: Some(value) })
            })
            .collect();
        found.sort_by_key(|(name, _)| *name);
        found
    }

    /// `[[path.key]]`
    pub(super) fn list(&self, key: &str) -> Vec<Section<'l>> {
        let (Kind::List(keys), Some(ValueKind::Array(items))) = (self.kind(key), self.get(key).map(|v| &v.kind)) else {
            return Vec::new();
        };
        let path = self.at(key);
        let section = |(index, value)| Section {
            layers: self.layers,
            path: format!("{path}[{index}]"),
            keys,
            value: Some(value),
        };
        items.iter().enumerate().map(section).collect()
    }

    /// Notes a problem with a key.
    pub(super) fn complain(&self, key: &str, message: impl Into<String>, help: Option<String>) {
        self.layers.complain(&self.at(key), message, help);
    }

    /// Turns a result into an option, and its error into a problem with a key.
    pub(super) fn accept<T, E: std::fmt::Display>(&self, key: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.complain(key, error.to_string(), None)).ok()
    }

    fn get(&self, key: &str) -> Option<&'l Value> {
        match &self.value?.kind {
            ValueKind::Table(table) => table.get(key),
            _ => None,
        }
    }

    fn kind(&self, key: &str) -> Kind {
        let found = self.keys.iter().find(|k| k.name == key);
        // Callers name keys of the schema by literals, and every configuration reads them all.
        debug_assert!(found.is_some() || self.keys.is_empty(), "{} is not in the schema", self.at(key));
        found.map_or(Kind::Text(None), |k| k.kind)
    }
}
