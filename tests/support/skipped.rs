//! Tests that could not run.

/// Leaves a line in the list of what did not run, which the test command shows.
pub fn skipped(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("TOLLGATE_TEST_SKIPPED") {
        let mut list = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        std::io::Write::write_all(&mut list, format!("{test}: {reason}\n").as_bytes()).unwrap();
    }
}
