//! The file's spanned table, walked against the schema: what the `config` crate would coerce or drop is an error here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use config::{Map, Value, ValueKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    report::{Place, Problem},
    schema::{Key, Kind, ROOT, one_of},
};

/// Where the key and the value of a path such as `routes[2].price` stand.
pub(super) type Spans = BTreeMap<String, (Range<usize>, Range<usize>)>;

/// What a walk leaves: only known keys with values of the right type.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) spans: Spans,
    pub(super) problems: Vec<Problem>,
    /// Paths that variables set, so that the file need not.
    pub(super) overridden: BTreeSet<String>,
    /// What no message may show.
    pub(super) secrets: Vec<Range<usize>>,
}

impl Walk {
    /// Walks a section at `path` (empty for the file).
    pub(super) fn table(
        &mut self,
        keys: &[Key],
        table: &DeTable<'_>,
        path: &str,
        at: &Range<usize>,
    ) -> Map<String, Value> {
        let mut values = Map::new();
        for (name, value) in table {
            let full = join(path, name.get_ref());
            self.spans.insert(full.clone(), (name.span(), value.span()));
            match keys.iter().find(|key| key.name == name.get_ref().as_ref()) {
                Some(key) => {
                    if let Some(kind) = self.value(&key.kind, value, &full) {
                        values.insert(key.name.to_owned(), Value::new(None, kind));
                    }
                }
                None => self.unknown(keys, path, name, value.span()),
            }
        }
        let has = |name: &str| table.contains_key(name);
        for key in keys.iter().filter(|key| key.required && !has(key.name) && !key.instead.is_some_and(has)) {
            if self.overridden.contains(&join(path, key.name)) {
                continue;
            }
            self.problems.push(Problem {
                place: Place::Span(at.clone()),
                key: join(path, key.name),
                message: format!("missing, expected {}", key.kind.expected()),
                label: format!("`{}` belongs here", key.name),
                help: Some(match key.instead {
                    Some(instead) => format!("write `{} = {}`, or `{instead}`", key.name, key.example),
                    None => format!("write `{} = {}`", key.name, key.example),
                }),
                other: None,
                warning: false,
            });
        }
        values
    }

    fn value(&mut self, kind: &Kind, value: &Spanned<DeValue<'_>>, path: &str) -> Option<ValueKind> {
        match (kind, value.get_ref()) {
            (Kind::Text(_), DeValue::String(text)) => Some(text.as_ref().into()),
            (Kind::Flag(_), DeValue::Boolean(flag)) => Some((*flag).into()),
            (Kind::TextOrCount { .. }, DeValue::String(text)) => Some(text.as_ref().into()),
            (Kind::Count { min, max, .. } | Kind::TextOrCount { min, max }, DeValue::Integer(number)) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                match parsed.filter(|n| (min..=max).contains(&n)) {
                    Some(n) => Some(n.into()),
                    None => self.wrong(kind, value, path, None),
                }
            }
            (Kind::Choice { of, .. }, DeValue::String(text)) => match of.contains(&text.as_ref()) {
                true => Some(text.as_ref().into()),
                false => {
                    let help = nearest(text, of.iter().copied()).map(|word| format!("did you mean `\"{word}\"`?"));
                    self.wrong(kind, value, path, help)
                }
            },
            (Kind::Texts(_) | Kind::Statuses(_), DeValue::Array(items)) => {
                let statuses = matches!(kind, Kind::Statuses(_));
                let mut values = Vec::new();
                let mut whole = true;
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.spans.insert(path.clone(), (item.span(), item.span()));
                    match item.get_ref() {
                        DeValue::String(text) => values.push(Value::new(None, text.as_ref())),
                        DeValue::Integer(number) if statuses => values.push(Value::new(None, number.to_string())),
                        _ => {
                            whole = false;
                            self.wrong(if statuses { kind } else { &Kind::Text(None) }, item, &path, None);
                        }
                    }
                }
                whole.then_some(ValueKind::Array(values))
            }
            (Kind::Texts(_), DeValue::String(text)) => {
                let help = format!("write `[{}]`", quote(text));
                self.wrong(kind, value, path, Some(help))
            }
            (Kind::Table(keys), DeValue::Table(table)) => {
                Some(ValueKind::Table(self.table(keys, table, path, &value.span())))
            }
            (Kind::Named(keys), DeValue::Table(table)) => {
                let mut values = Map::new();
                for (name, value) in table {
                    let full = join(path, name.get_ref());
                    self.spans.insert(full.clone(), (name.span(), value.span()));
                    if !is_name(name.get_ref()) {
                        self.problems.push(Problem {
                            place: Place::Span(name.span()),
                            key: full,
                            message: "a name has 1 to 64 lower-case letters, digits and `-`".to_owned(),
                            label: "not a name".to_owned(),
                            help: None,
                            other: None,
                            warning: false,
                        });
                    } else if let Some(kind) = self.value(&Kind::Table(keys), value, &full) {
                        values.insert(name.get_ref().to_string(), Value::new(None, kind));
                    }
                }
                Some(ValueKind::Table(values))
            }
            (Kind::List(keys), DeValue::Array(items)) => {
                let mut values = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.spans.insert(path.clone(), (item.span(), item.span()));
                    // A wrong element keeps its place, so that the others keep their numbers.
                    let kind = self.value(&Kind::Table(keys), item, &path);
                    values.push(Value::new(None, kind.unwrap_or_else(|| ValueKind::Table(Map::new()))));
                }
                Some(ValueKind::Array(values))
            }
            (Kind::List(_), DeValue::Table(_)) => {
                let help = format!("write `[[{path}]]`, with two brackets, for each");
                self.wrong(kind, value, path, Some(help))
            }
            _ => self.wrong(kind, value, path, None),
        }
    }

    fn wrong(
        &mut self,
        kind: &Kind,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        help: Option<String>,
    ) -> Option<ValueKind> {
        let bare = path.rsplit('.').next().unwrap_or(path);
        let help = help.or_else(|| match (kind, value.get_ref()) {
            (Kind::Text(_), DeValue::Float(number)) if bare == "price" || bare == "credit" => {
                Some(format!("money is exact: write `{bare} = \"{} USD\"`", number.as_str()))
            }
            (Kind::Text(_), DeValue::Integer(number)) if bare == "price" || bare == "credit" => {
                Some(format!("write `{bare} = \"{} USD\"`", number.as_str()))
            }
            (Kind::Flag(_), DeValue::String(text)) if text == "true" || text == "false" => {
                Some(format!("write `{text}` without quotes"))
            }
            (Kind::Count { .. }, DeValue::String(text)) if text.parse::<i64>().is_ok() => {
                Some(format!("write `{text}` without quotes"))
            }
            _ => None,
        });
        self.problems.push(Problem {
            place: Place::Span(value.span()),
            key: path.to_owned(),
            message: format!("expected {}, found {}", kind.expected(), describe(value.get_ref())),
            label: format!("expected {}", kind.expected()),
            help,
            other: None,
            warning: false,
        });
        None
    }

    fn unknown(&mut self, keys: &[Key], path: &str, name: &Spanned<Cow<'_, str>>, value: Range<usize>) {
        let text = name.get_ref().as_ref();
        let private = text == "d" && path.ends_with(".jwk");
        let help = if private {
            self.secrets.push(value);
            Some("this is the private half of the key: remove it, and use another key from now on".to_owned())
        } else {
            suggestion(keys, path, text)
        };
        self.problems.push(Problem {
            place: Place::Span(name.span()),
            key: join(path, text),
            message: "unknown key".to_owned(),
            label: match path {
                "" => "not a section".to_owned(),
                path => format!("not a key of `{path}`"),
            },
            help,
            other: None,
            warning: false,
        });
    }
}

/// What an unknown key may have meant.
pub(super) fn suggestion(keys: &[Key], path: &str, text: &str) -> Option<String> {
    let names = || keys.iter().map(|key| key.name);
    if let Some(name) = nearest(text, names()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let elsewhere = sections(ROOT, "").into_iter().find(|(section, keys)| {
        section != path && !section.is_empty() && keys.iter().any(|key| plain(key.name) == plain(text))
    });
    if let Some((section, keys)) = elsewhere {
        let name = keys.iter().map(|key| key.name).find(|name| plain(name) == plain(text)).unwrap_or(text);
        return Some(format!("`{name}` belongs to `[{section}]`"));
    }
    Some(format!("known here: {}", one_of(&names().collect::<Vec<_>>()).replace(" or ", ", ")))
}

fn sections(keys: &'static [Key], path: &str) -> Vec<(String, &'static [Key])> {
    let mut found = vec![(path.to_owned(), keys)];
    for key in keys {
        if let Kind::Table(inner) | Kind::List(inner) = key.kind
            && key.name != "jwk"
        {
            found.extend(sections(inner, &join(path, key.name)));
        }
    }
    found
}

/// The word that a misspelt one most resembles.
pub(super) fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // Longer than any word, so that the cost of a comparison is bounded.
    if text.len() > 64 {
        return None;
    }
    let wanted = plain(text);
    words
        .map(|word| {
            // `ttl` for `ttl_seconds`: a unit is easily forgotten.
            let unit = word.strip_prefix(text).is_some_and(|rest| rest.starts_with('_'));
            (if unit { 0 } else { distance(&wanted, &plain(word)) }, word)
        })
        .filter(|(distance, word)| *distance <= 1.max(word.len().min(text.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn plain(text: &str) -> String {
    text.to_lowercase().replace(['-', '_'], "")
}

/// Edits (insert, delete, replace, swap neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// Whether a text can name an origin, in the file and in a variable.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(super) fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = if plain { name.to_owned() } else { quote(name) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// A short quoted form.
pub(super) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("\"{}\"", shown.escape_debug())
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text `{}`", quote(text)),
        DeValue::Integer(number) => format!("the number `{number}`"),
        DeValue::Float(number) => format!("the float `{number}`"),
        DeValue::Boolean(flag) => format!("`{flag}`"),
        DeValue::Datetime(date) => format!("the date `{date}`"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}
