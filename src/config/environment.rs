//! Variables `TOLLGATE__SECTION__KEY`, and options of commands, that override scalar keys outside lists.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::{
    report::{Place, Problem},
    schema::{Key, Kind, ROOT},
    walk::{is_name, nearest, quote, suggestion},
};

const PREFIX: &str = "TOLLGATE__";

/// What the environment sets.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Path → variable, its text, its value.
    pub(super) set: BTreeMap<String, (String, String, Value)>,
    pub(super) problems: Vec<Problem>,
}

impl Overrides {
    /// Reads every variable with the prefix; others are none of ours.
    pub(super) fn read(variables: impl Iterator<Item = (String, String)>) -> Overrides {
        let mut ours: Vec<(String, String)> = variables
            .filter(|(name, _)| name.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX)))
            .collect();
        ours.sort();
        let mut overrides = Overrides::default();
        for (name, text) in ours {
            match locate(&name).and_then(|(path, kind)| Ok((path, value(&kind, &text)?))) {
                Ok((path, value)) => {
                    overrides.set.insert(path, (name, text, value));
                }
                Err(wrong) => {
                    let value = wrong.path_known.then_some(text);
                    overrides.problems.push(Problem {
                        place: Place::Env(name, value),
                        key: wrong.path,
                        message: wrong.message,
                        label: wrong.label,
                        help: wrong.help,
                        other: None,
                        warning: false,
                    });
                }
            }
        }
        overrides
    }
}

/// Options of commands that override keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `--sandbox`: `exact.sandbox = true`.
    pub sandbox: bool,
}

impl Overrides {
    /// Lays options over the variables.
    pub(super) fn and(mut self, options: Options) -> Overrides {
        if options.sandbox {
            let option = ("--sandbox".to_owned(), String::new(), Value::new(None, true));
            self.set.insert("exact.sandbox".to_owned(), option);
        }
        self
    }
}

struct Wrong {
    path: String,
    /// The value is shown only where it is known to be no secret of another program.
    path_known: bool,
    message: String,
    label: String,
    help: Option<String>,
}

/// The key that a variable names.
fn locate(name: &str) -> Result<(String, Kind), Wrong> {
    let wrong = |path: &str, message: &str, help: Option<String>| Wrong {
        path: path.to_owned(),
        path_known: false,
        message: message.to_owned(),
        label: String::new(),
        help,
    };
    if name.bytes().any(|b| b.is_ascii_lowercase()) {
        let help = format!("write `{}`", name.to_ascii_uppercase());
        return Err(wrong("", "the variable is not in upper case, so it would not be read", Some(help)));
    }
    let mut keys: &[Key] = ROOT;
    let mut path = String::new();
    let lower = name[PREFIX.len()..].to_ascii_lowercase();
    let mut parts = lower.split("__").peekable();
    while let Some(part) = parts.next() {
        let Some(key) = keys.iter().find(|key| key.name == part) else {
            let help = match nearest(part, keys.iter().map(|key| key.name)) {
                Some(word) => {
                    let before = path.replace('.', "__").to_ascii_uppercase();
                    let before = if before.is_empty() { before } else { before + "__" };
                    Some(format!("did you mean `{PREFIX}{before}{}`?", word.to_ascii_uppercase()))
                }
                None => suggestion(keys, &path, part),
            };
            return Err(wrong(&path, "the variable names no key", help));
        };
        path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
        match (key.kind, parts.peek().is_some()) {
            (Kind::List(_), _) => {
                let help = "set it in the file".to_owned();
                return Err(wrong(&path, "lists of sections cannot be set from the environment", Some(help)));
            }
            (Kind::Table(inner), true) => keys = inner,
            (Kind::Named(inner), true) => {
                let origin = parts.next().unwrap_or_default();
                if !is_name(origin) || parts.peek().is_none() {
                    let help = format!("write `{PREFIX}ORIGINS__NAME__URL`");
                    return Err(wrong(&path, "the variable names no key", Some(help)));
                }
                path = format!("{path}.{origin}");
                keys = inner;
            }
            (Kind::Table(_) | Kind::Named(_), false) => {
                let help = format!("add one of its keys: `{name}__KEY`");
                return Err(wrong(&path, "the variable names a section, not a key", Some(help)));
            }
            (_, true) => return Err(wrong(&path, "the variable goes on below a key that has no keys", None)),
            (kind, false) => return Ok((path, kind)),
        }
    }
    Err(wrong("", "the variable names no key", None))
}

/// The text as the key's type, without any guessing.
fn value(kind: &Kind, text: &str) -> Result<Value, Wrong> {
    let found = if text.is_empty() { "nothing".to_owned() } else { format!("`{}`", quote(text)) };
    let expected = match kind {
        Kind::Text(_) => "text".to_owned(),
        Kind::Texts(_) => "texts with commas between".to_owned(),
        kind => kind.expected(),
    };
    let wrong = || Wrong {
        path: String::new(),
        path_known: true,
        message: format!("expected {expected}, found {found}"),
        label: format!("expected {expected}"),
        help: text.is_empty().then(|| "unset the variable to use the file's value or the default".to_owned()),
    };
    if text.is_empty() {
        return Err(wrong());
    }
    let value: ValueKind = match kind {
        Kind::Text(_) => text.into(),
        Kind::Flag(_) => match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => return Err(wrong()),
        },
        Kind::TextOrCount { .. } if text.parse::<i64>().is_err() => text.into(),
        Kind::Count { min, max, .. } | Kind::TextOrCount { min, max } => {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            match text.parse::<i64>().ok().filter(|n| digits && (min..=max).contains(&n)) {
                Some(n) => n.into(),
                None => return Err(wrong()),
            }
        }
        Kind::Choice { of, .. } if of.contains(&text) => text.into(),
        Kind::Texts(_) => {
            let items: Vec<&str> = text.split(',').map(str::trim).collect();
            if items.iter().any(|item| item.is_empty()) {
                return Err(wrong());
            }
            ValueKind::Array(items.into_iter().map(|item| Value::new(None, item)).collect())
        }
        _ => return Err(wrong()),
    };
    Ok(Value::new(None, value))
}
