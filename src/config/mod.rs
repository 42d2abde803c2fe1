//! TOML and environment → checked [`Config`].
//!
//! The file is read once into a spanned table, walked against the schema (so that a misspelt key, a float or a wrong
//! type is an error at its line, rather than something that the `config` crate would coerce), laid under the
//! environment by `config`, and checked for sense. All problems are reported together.

mod accounts;
mod charging;
mod check;
mod environment;
mod listen;
mod masked;
mod model;
mod read;
mod reference;
mod report;
pub mod rules;
mod schema;
mod walk;

use std::{borrow::Cow, ops::Range, path::Path};

use toml::de::DeTable;

pub use accounts::{Account, AgentPattern, AgreedPrice, Allowance, Identity, OpenAccounts, Operator, Period, Pin};
pub use charging::{Charge, ChargeOn, Charging, Scheme, Settle};
pub use environment::Options;
pub use listen::{Certificate, ForwardedFields, Listen, ServerTls, Trust};
pub use model::*;
pub use reference::reference;
pub use report::ConfigErrors;
pub use rules::{AgentRule, Then, Who};

use self::{
    environment::Overrides,
    read::Layers,
    report::{Place, Problem},
    walk::Walk,
};

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads a file, with overrides from `env` (`std::env::vars_os`, those that are UTF-8). Relative paths in it are
/// relative to its directory.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    load_with(path, env, Options::default())
}

/// Reads a file as [`load`] does, with a command's options over the environment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_with(
    path: &Path,
    env: impl Iterator<Item = (String, String)>,
    options: Options,
) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let failed = |message: String, help: &str| {
        let help = (!help.is_empty()).then(|| help.to_owned());
        ConfigErrors::new(&name, "", vec![whole_file(message, help)])
    };
    let size = std::fs::metadata(path).map(|meta| meta.len());
    let bytes = match size {
        Ok(size) if size > FILE_BYTES_MAX => {
            return Err(failed(format!("the file has more than {FILE_BYTES_MAX} bytes"), ""));
        }
        Ok(_) => std::fs::read(path),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| failed(format!("the file cannot be read: {error}"), ""))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        failed(format!("the file is not UTF-8 text (line {line})"), "save it as UTF-8")
    })?;
    parse_with(&text, &name, path.parent().unwrap_or(Path::new("")), Overrides::read(env).and(options))
}

/// Checks the text of a file; `file_name` is what problems name, `base` what relative paths are relative to.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    text: &str,
    file_name: &str,
    base: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    parse_with(text, file_name, base, Overrides::read(env))
}

fn parse_with(text: &str, file_name: &str, base: &Path, mut overrides: Overrides) -> Result<Config, ConfigErrors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was recovered is a guess: checking it would report mistakes that nobody made.
        return Err(ConfigErrors::new(file_name, text, syntax(errors)));
    }
    let mut walk = Walk { overridden: overrides.set.keys().cloned().collect(), ..Walk::default() };
    let values = walk.table(schema::ROOT, table.get_ref(), "", &table.span());
    let text = &*hidden(text, &walk.secrets);
    let mut problems = walk.problems;
    problems.append(&mut overrides.problems);
    let layers = match Layers::new(values, walk.spans, overrides) {
        Ok(layers) => layers,
        Err(error) => {
            problems.push(whole_file(error.to_string(), None));
            return Err(ConfigErrors::new(file_name, text, problems));
        }
    };
    let config = check::check(&layers, base);
    problems.append(&mut layers.problems.take());
    let report = ConfigErrors::new(file_name, text, problems);
    match config {
        Some(mut config) if !report.fatal() => {
            config.warnings = (!report.is_empty()).then_some(report);
            Ok(config)
        }
        _ => Err(report),
    }
}

/// The text with secrets starred out, every span as it was.
fn hidden<'t>(text: &'t str, secrets: &[Range<usize>]) -> Cow<'t, str> {
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    let star = |(at, c): (usize, char)| match secrets.iter().any(|secret| secret.contains(&at)) && c != '\n' {
        true => "*".repeat(c.len_utf8()),
        false => c.to_string(),
    };
    Cow::Owned(text.char_indices().map(star).collect())
}

fn syntax(errors: Vec<toml::de::Error>) -> Vec<Problem> {
    let problem = |error: toml::de::Error| {
        let duplicate = error.message().contains("duplicate");
        Problem {
            place: error.span().map_or(Place::File, Place::Span),
            key: String::new(),
            message: if duplicate { "a key is given twice".to_owned() } else { "this is not TOML".to_owned() },
            label: error.message().to_owned(),
            help: duplicate.then(|| "keep one of them".to_owned()),
            other: None,
            warning: false,
        }
    };
    errors.into_iter().map(problem).collect()
}

fn whole_file(message: String, help: Option<String>) -> Problem {
    Problem { place: Place::File, key: String::new(), message, label: String::new(), help, other: None, warning: false }
}
