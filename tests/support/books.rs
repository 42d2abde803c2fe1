//! The books, read by the binary's own commands.

use std::collections::BTreeMap;
use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::gateway::tollgate;

/// What `ledger list` and `ledger audit` say.
#[derive(Debug, Default)]
pub struct Books {
    /// By payment key, hex: number, state.
    pub captures: BTreeMap<String, Vec<(String, String)>>,
    /// How many voids, by the number of their capture.
    pub voids: BTreeMap<String, usize>,
    /// Settlements that were begun, and those that failed.
    pub intents: usize,
    pub failed: usize,
    /// How many were served once more, by the number of their capture.
    pub redelivered: BTreeMap<String, usize>,
}

impl Books {
    /// Audits, and reads everything.
    pub fn read(dir: &Path) -> Books {
        let (code, out, err) = tollgate(dir, &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
        assert_eq!(code, 0, "{out}{err}");
        let list = ["ledger", "list", "--json", "--limit", "0", "--ledger", "tollgate.sqlite"];
        let (code, out, err) = tollgate(dir, &list);
        assert_eq!(code, 0, "{err}");
        let mut books = Books::default();
        for line in out.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            match row["kind"].as_str() {
                Some("capture") => books.captures.entry(text("key")).or_default().push((text("n"), text("state"))),
                Some("void") => *books.voids.entry(text("ref")).or_default() += 1,
                Some("intent") => books.intents += 1,
                Some("failed") => books.failed += 1,
                Some("redelivered") => *books.redelivered.entry(text("ref")).or_default() += 1,
                other => panic!("{other:?}"),
            }
        }
        for (key, captures) in &books.captures {
            assert_eq!(captures.len(), 1, "{key} was captured more than once");
        }
        let numbers: Vec<&String> = books.captures.values().map(|c| &c[0].0).collect();
        for (n, count) in &books.voids {
            assert!(*count == 1 && numbers.contains(&n), "capture {n} has {count} voids");
        }
        assert!(books.redelivered.values().all(|count| *count == 1), "{:?}", books.redelivered);
        books
    }

    /// What is owed in the end, in purchases.
    pub fn charged(&self) -> usize {
        self.captures.len() - self.voids.len()
    }

    pub fn has(&self, id: &str) -> bool {
        self.captures.contains_key(&key_of(id))
    }

    /// What the books say of the payment with this id.
    pub fn state(&self, id: &str) -> Option<&str> {
        Some(&self.captures.get(&key_of(id))?[0].1)
    }

    pub fn in_state(&self, state: &str) -> usize {
        self.captures.values().filter(|c| c[0].1 == state).count()
    }
}

/// The payment key of an offer id as the books print it.
pub fn key_of(id: &str) -> String {
    let bytes = URL_SAFE_NO_PAD.decode(id).unwrap();
    std::iter::once(&1).chain(&bytes[..16]).map(|b| format!("{b:02x}")).collect()
}
