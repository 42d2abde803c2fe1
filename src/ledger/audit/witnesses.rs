//! Rows that no posting stands for: each is as some writer's chain has witnessed it, and what was witnessed is there.

use std::collections::BTreeMap;

use super::{Audit, Place, Stop, finding, hex};
use crate::ledger::{
    chain::Hash,
    file,
    sql::{SqlError, SqlResult},
    witness::Subject,
    witnessed,
};

/// Holds the rows against the witnesses that were met on the way, and both against each other.
pub(super) fn check(audit: &mut Audit<'_>) -> Result<(), Stop> {
    let mut said: BTreeMap<Subject, (i64, Hash)> = BTreeMap::new();
    for walked in &audit.walked {
        for (of, digest) in &walked.witnesses {
            if let Some((other, _)) = said.insert(*of, (walked.slot, *digest)) {
                let (what, expected) = ("what chains say of it", format!("one, that of writer {other}"));
                return Err(finding(place(*of), what, expected, format!("another one of writer {}", walked.slot)));
            }
        }
    }
    audit.place = Place::File;
    // One that is only read may be of an earlier layout; its owner makes up for them when it is opened to write.
    let is_due = !said.is_empty() || layout(audit)? >= witnessed::LAYOUT;
    for row in witnessed::all(audit.connection)? {
        match said.remove(&row.of) {
            Some((_, digest)) if digest == row.digest => {}
            Some((slot, digest)) => {
                let (what, slot) = ("its digest, as a chain has it", format!(" (writer {slot}{})", which(row.of)));
                return Err(finding(place(row.of), what, hex(&digest) + &slot, hex(&row.digest)));
            }
            None if is_due => {
                let expected = format!("its digest{}", which(row.of));
                return Err(finding(place(row.of), "what a chain says of it", expected, "nothing"));
            }
            None => {}
        }
    }
    match said.first_key_value() {
        None => Ok(()),
        Some((of, (slot, _))) => {
            let expected = format!("one, for writer {slot} has written it{}", which(*of));
            Err(finding(place(*of), "the row", expected, "none"))
        }
    }
}

fn layout(audit: &Audit<'_>) -> SqlResult<i64> {
    match audit.connection.sqlite() {
        Some(file) => file::layout(file).map_err(SqlError::from),
        None => audit.connection.cell("SELECT version FROM book", &[]),
    }
}

fn place(of: Subject) -> Place {
    match of {
        Subject::Close { until } => Place::Close(until),
        Subject::Event { number, .. } => Place::Statement(number),
        Subject::Evidence { slot, last_batch } | Subject::Rows { slot, last_batch } => {
            Place::Archive(format!("row of writer {slot}, up to batch {last_batch}"))
        }
    }
}

/// Of rows of which a place has several.
fn which(of: Subject) -> String {
    match of {
        Subject::Event { i, .. } => format!(", event {i}"),
        Subject::Evidence { .. } => ", evidence".to_owned(),
        Subject::Rows { .. } => ", rows".to_owned(),
        Subject::Close { .. } => String::new(),
    }
}
