//! `tollgate ledger statements`

use super::settle::{listing, to_json};
use super::{Failure, Where};
use crate::cli::Exit;
use crate::cli::output::{note, say};

/// List statements: what each account owes for closed days, and whether it was sent and paid.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
`tollgate settle --until DAY` makes them.

Examples:
  tollgate ledger statements
  tollgate ledger statements --account example-crawler --json

With --json an object a line, as `tollgate settle --json` prints it.")]
pub struct Statements {
    #[command(flatten)]
    place: Where,
    /// Of this account only.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Statements {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let statements = self.place.open()?.statements(self.account.as_deref())?;
        if self.json {
            say(&statements.iter().map(|statement| format!("{}\n", to_json(statement))).collect::<String>());
        } else if statements.is_empty() {
            note("no statement yet; `tollgate settle --until DAY` makes them");
        } else {
            say(&listing(&statements));
        }
        Ok(Exit::Done)
    }
}
