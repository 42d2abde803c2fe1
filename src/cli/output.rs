//! Standard output whose reader may leave at any time (`| head`), and what a terminal can show.

use std::io::{self, IsTerminal as _, Write};

/// Writes to standard output; an error tells that nobody reads it any more.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes to standard output, whether anybody reads it or not.
pub fn say(text: &str) {
    let _ = print(text);
}

/// Writes a line to standard error, whether anybody reads it or not.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes `error: …` to standard error.
pub fn error(text: impl std::fmt::Display) {
    note(&format!("error: {text}"));
}

/// A number with its noun: `1 entry`, `2 entries`.
pub fn counted(number: impl std::fmt::Display, one: &str, more: &str) -> String {
    let noun = if number.to_string() == "1" { one } else { more };
    format!("{number} {noun}")
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// For standard output: on a terminal, unless NO_COLOR is set.
    pub fn stdout() -> Paint {
        Paint(io::stdout().is_terminal() && allowed())
    }

    /// For standard error, likewise.
    pub fn stderr() -> Paint {
        Paint(io::stderr().is_terminal() && allowed())
    }

    /// What matters.
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What does not.
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// What went well.
    pub fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What asks for something.
    pub fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What went wrong.
    pub fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// NO_COLOR as <https://no-color.org> has it: set and not empty.
fn allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns as wide as their widest cell, two spaces apart; the last one is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
