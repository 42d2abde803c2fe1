//! What is wrong with a configuration, and where.

use std::{fmt, ops::Range, sync::Arc};

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::masked::masked;

/// All problems of a configuration, in file order, those of the environment last.
///
/// `Display` shows each with file, line, caret and advice, without colours.
#[derive(Clone)]
pub struct ConfigErrors {
    file: Arc<str>,
    text: Arc<str>,
    problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) place: Place,
    /// `routes[2].price`; empty for the file as a whole.
    pub(super) key: String,
    /// What was expected and what arrived.
    pub(super) message: String,
    /// Stands at the caret, unless empty.
    pub(super) label: String,
    /// What to do.
    pub(super) help: Option<String>,
    /// Another place that contradicts, and what it is.
    pub(super) other: Option<(Range<usize>, String)>,
    /// The configuration is usable nevertheless.
    pub(super) warning: bool,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Bytes of the file.
    Span(Range<usize>),
    /// The file as a whole.
    File,
    /// A variable, and what it holds unless its name is unknown; or a command's option.
    Env(String, Option<String>),
}

impl ConfigErrors {
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> ConfigErrors {
        problems.sort_by_key(|problem| match &problem.place {
            Place::Span(span) => (0, span.start),
            Place::File => (1, 0),
            Place::Env(..) => (2, 0),
        });
        problems.dedup();
        for problem in &mut problems {
            problem.message = masked(&problem.message);
            if let Place::Env(_, Some(value)) = &mut problem.place {
                *value = masked(value);
            }
        }
        ConfigErrors { file: file.into(), text: masked(text).into(), problems }
    }

    /// How many problems, warnings included.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether any keeps the configuration from being used.
    pub fn fatal(&self) -> bool {
        self.problems.iter().any(|problem| !problem.warning)
    }

    /// Every problem as a snippet, for a terminal with or without colours.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let rendered: Vec<String> = self.problems.iter().map(|problem| self.snippet(problem, &renderer)).collect();
        rendered.join("\n\n")
    }

    /// `[{"level", "file", "line", "column", "key", "message", "help"}]`; line and column count from 1, and are null for
    /// the environment and the file as a whole.
    pub fn to_json(&self) -> Value {
        let entry = |problem: &Problem| {
            let (file, position) = match &problem.place {
                Place::Span(span) => (json!(&*self.file), Some(self.position(span.start))),
                Place::File => (json!(&*self.file), None),
                Place::Env(..) => (Value::Null, None),
            };
            let variable = match &problem.place {
                Place::Env(name, _) => json!(name),
                _ => Value::Null,
            };
            json!({
                "level": if problem.warning { "warning" } else { "error" },
                "file": file,
                "line": position.map(|(line, _)| line),
                "column": position.map(|(_, column)| column),
                "variable": variable,
                "key": problem.key,
                "message": problem.message,
                "help": problem.help,
            })
        };
        Value::Array(self.problems.iter().map(entry).collect())
    }

    fn snippet(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = if problem.warning { Level::WARNING } else { Level::ERROR };
        let title = match (&problem.place, problem.key.as_str()) {
            (Place::Env(name, _), _) => format!("{name}: {}", problem.message),
            (_, "") => problem.message.clone(),
            (_, key) => format!("{key}: {}", problem.message),
        };
        let label = || (!problem.label.is_empty()).then_some(problem.label.as_str());
        let environment;
        let element: Option<Element<'_>> = match &problem.place {
            Place::Span(span) => {
                let caret = AnnotationKind::Primary.span(self.clamp(span)).label(label());
                let mut snippet = Snippet::source(&*self.text).path(&*self.file).annotation(caret);
                if let Some((span, label)) = &problem.other {
                    snippet = snippet.annotation(AnnotationKind::Context.span(self.clamp(span)).label(label.as_str()));
                }
                Some(snippet.into())
            }
            Place::File => Some(Origin::path(&*self.file).into()),
            // An option has no value to point at; the title names it.
            Place::Env(name, _) if name.starts_with("--") => None,
            Place::Env(name, Some(value)) => {
                environment = format!("{name}={}", value.escape_debug());
                let caret = AnnotationKind::Primary.span(name.len() + 1..environment.len().max(name.len() + 2));
                let snippet = Snippet::source(environment.as_str()).path("environment").line_numbering(false);
                Some(snippet.annotation(caret.label(label())).into())
            }
            Place::Env(_, None) => None,
        };
        let mut group: Group<'_> = level.primary_title(title.as_str()).elements(element);
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    /// A span that lies in the text, on character boundaries, on one line.
    fn clamp(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.text.ceil_char_boundary(span.end).min(line_end).max(start);
        start..end
    }

    /// Line and column, in characters, from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.problems).finish()
    }
}

impl std::error::Error for ConfigErrors {}
