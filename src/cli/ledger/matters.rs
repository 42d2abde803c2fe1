//! Refunds and disputes of an entry, and what somebody said about them.

use serde_json::{Value, json};

use super::show::visible;
use super::{amount, hex, money, time};
use crate::ledger::correction::Matter;
use crate::ledger::evidence::Note;
use crate::ledger::read::Shown;

pub(super) fn to_json(matters: &[Matter], asset: &str) -> Value {
    let matter = |matter: &Matter| {
        json!({"number": matter.number, "n": matter.n.to_string(), "at": time(matter.at_ms), "state": matter.state.name(),
            "ended": matter.ended_n.map(|n| n.to_string()), "amount": amount(matter.amount, asset), "units": matter.amount,
            "reference": matter.reference, "reason": matter.reason, "by": matter.by})
    };
    matters.iter().map(matter).collect()
}

pub(super) fn to_text(shown: &Shown, line: &mut impl FnMut(&str, &str)) {
    for (name, matters) in [("refund", &shown.refunds), ("dispute", &shown.disputes)] {
        for matter in matters {
            let reference = matter.reference.as_deref().map_or_else(String::new, |text| format!(", {}", visible(text)));
            let reason =
                if matter.reason.is_empty() { String::new() } else { format!(": {}", visible(&matter.reason)) };
            let ended = matter.ended_n.map_or_else(String::new, |n| format!(" by entry {n}"));
            let (amount, state) = (money(matter.amount, &shown.listed.asset), matter.state.name());
            let begun = format!("{} by the {}, entry {}", time(matter.at_ms), matter.by, matter.n);
            let text = format!("{}: {amount}{reference}, {state}{ended}  ({begun}){reason}", matter.number);
            line(name, &text);
        }
    }
}

pub(super) fn note_json(note: &Note) -> Value {
    json!({"state": note.state, "number": note.number, "reference": note.reference, "reason": note.reason, "by": note.by,
        "proof": note.proof.as_deref().map(hex)})
}

pub(super) fn note_text(note: &Note, line: &mut impl FnMut(&str, &str)) {
    line("said", &format!("{} by the {}", visible(&note.state), visible(&note.by)));
    if let Some(reference) = &note.reference {
        line("reference", &visible(reference));
    }
    if !note.reason.is_empty() {
        line("reason", &visible(&note.reason));
    }
}
