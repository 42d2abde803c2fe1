//! The commented configuration, printed from the schema.

use std::fmt::Write;

use super::schema::{Key, Kind, ROOT};

const HEAD: &str = "\
# Tollgate: every setting.
#
# `# key = value` is a default: uncommenting it changes nothing. `## key = value` is an example of a key without
# default. What is neither must be there. Any key outside [[double brackets]] can be set by a variable instead:
# TOLLGATE__SERVER__LIMITS__CONNECTIONS=100. Relative files are relative to this one. `tollgate check` reads it and
# says what it understood.
";

/// `config/tollgate.toml`: every key with its sentence and default.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for key in ROOT {
        section(&mut out, key, "", "");
    }
    out
}

/// A section's header and keys; `mark` comments out what is optional as a whole.
fn section(out: &mut String, key: &Key, path: &str, mark: &str) {
    let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
    let (keys, header, mark) = match key.kind {
        Kind::Table(keys) if key.name == "tls" => (keys, format!("[{path}]"), "## "),
        Kind::Table(keys) => (keys, format!("[{path}]"), mark),
        Kind::List(keys) if matches!(key.name, "pins" | "agents" | "prices") => (keys, format!("[[{path}]]"), "## "),
        Kind::List(keys) => (keys, format!("[[{path}]]"), mark),
        Kind::Named(keys) => (keys, format!("[{path}.blog]"), "## "),
        _ => return,
    };
    out.push('\n');
    wrap(out, key.doc);
    let _ = writeln!(out, "{mark}{header}");
    let named = matches!(key.kind, Kind::Named(_));
    let inner = |key: &&Key| matches!(key.kind, Kind::Table(_) | Kind::List(_)) && key.name != "jwk";
    for key in keys.iter().filter(|key| !inner(key) && (!named || key.required)) {
        if !named {
            wrap(out, key.doc);
        }
        let (mark, value) = match key.kind.default_toml() {
            _ if key.required || (mark == "## " && !key.example.is_empty()) => (mark, key.example.to_owned()),
            Some(default) => (if mark.is_empty() { "# " } else { mark }, default),
            None => ("## ", key.example.to_owned()),
        };
        let _ = writeln!(out, "{mark}{} = {value}", key.name);
    }
    for key in keys.iter().filter(inner) {
        section(out, key, &path, mark);
    }
}

/// A comment of at most 120 columns.
fn wrap(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 120 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
