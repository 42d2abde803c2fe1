//! Help that teaches, exit codes, and a reader that leaves.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::gateway::{binary, tollgate};

#[test]
fn each_help_has_examples() {
    let dir = tempfile::tempdir().unwrap();
    for command in [
        "",
        "run",
        "check",
        "pay",
        "keygen",
        "directory",
        "ledger",
        "ledger list",
        "ledger show",
        "ledger audit",
        "settle",
        "ledger verify",
        "ledger statements",
        "ledger statement",
        "ledger void",
        "ledger refund",
        "ledger dispute",
        "ledger archive",
        "ledger backup",
        "ledger restored",
        "demo",
        "completions",
    ] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let (code, out, err) = tollgate(dir.path(), &args);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        let examples = out.split("Examples:").nth(1).unwrap_or_else(|| panic!("no examples for `{command}`:\n{out}"));
        assert!(examples.contains(&format!("tollgate {command}")), "{out}");
        if command.is_empty() || command == "pay" {
            assert!(out.contains("Exit codes:") && out.contains("unreachable"), "{out}");
        }
    }
    let (code, out, _) = tollgate(dir.path(), &["--version"]);
    assert_eq!((code, out), (0, format!("tollgate {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn bad_usage_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["nonsense"][..],
        &[],
        &["pay"],
        &["pay", "example.com"],
        &["pay", "ftp://example.com/"],
        &["pay", "http://user@example.com/"],
        &["pay", "--key", "k.jwk", "http://127.0.0.1:1/"],
        &["pay", "--agent", "https://a.example", "http://127.0.0.1:1/"],
        &["pay", "--key", "missing.jwk", "--agent", "https://a.example", "http://127.0.0.1:1/"],
        &["pay", "--max", "1 cent", "http://127.0.0.1:1/"],
        &["pay", "-H", "no colon", "http://127.0.0.1:1/"],
        &["pay", "-H", "Host: other.example", "http://127.0.0.1:1/"],
        &["pay", "--ca-file", "missing.pem", "https://127.0.0.1:1/"],
        &["directory", "--key", "missing.jwk"],
        &["ledger", "list", "--since", "yesterday"],
        &["ledger", "list", "--state", "lost"],
        &["ledger", "list", "-c", "missing.toml"],
        &["ledger", "list", "--ledger", "mysql://books@db/books"],
        &["ledger", "list", "--ledger", "postgres://db/books"],
        &["ledger", "list", "--ledger", "."],
        &["ledger", "list", "--ledger", "sqlite:"],
        &["ledger", "refund", "1", "--reference", " "],
        &["ledger", "refund", "1", "--reference", "a", "--amount=-0.01"],
        &["ledger", "refund", "1", "--reference", "a", "--amount", "-0.01"],
        &["ledger", "void", "1", "--reason", ""],
        &["ledger", "dispute", "1", "--reason", ""],
        &["ledger", "statement", "1", "--mark", "sent", "--reason", "two\nlines"],
        &["check", "-c", "missing.toml"],
        &["run", "-c", "missing.toml"],
        &["demo", "extra"],
        &["completions", "tcsh"],
    ] {
        let (code, out, err) = tollgate(dir.path(), args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.is_empty() && !err.contains("panicked"), "{args:?}: {err}");
    }
}

#[test]
fn what_a_ledger_may_be_called_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| tollgate(dir.path(), args).2;
    let list = |ledger: &str| said(&["ledger", "list", "--ledger", ledger]);
    let expected = "--ledger: expected a file or `postgres://user@host/database`: ";
    assert_eq!(list("mysql://db/books"), format!("error: {expected}books are not kept at `mysql:`\n"));
    assert_eq!(list("."), format!("error: {expected}. is a directory\n"));
    assert!(
        list("sqlite:books.sqlite").starts_with("error: books.sqlite is not there"),
        "{}",
        list("sqlite:books.sqlite")
    );
    let refund = said(&["ledger", "refund", "1", "--reference", "a", "--amount=-0.01"]);
    assert!(
        refund.contains("expected an amount such as `0.004`, more than nothing") && !refund.contains("USD"),
        "{refund}"
    );
}

#[test]
fn a_database_that_is_not_there_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on port 1.
    let nowhere = "postgres://books@127.0.0.1:1/books";
    for args in
        [&["ledger", "list"][..], &["ledger", "audit"], &["ledger", "restored"], &["settle", "--until", "2026-01-01"]]
    {
        let (code, out, err) = tollgate(dir.path(), &[args, &["--ledger", nowhere]].concat());
        assert_eq!((code, out.as_str()), (3, ""), "{args:?}: {err}");
        assert!(err.contains("is the server up"), "{err}");
    }
}

#[test]
fn a_check_that_fails_gives_its_json_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let (code, out, _) = tollgate(dir.path(), &["check", "--json", "-c", "missing.toml"]);
    assert_eq!(code, 2);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["ok"], false);
}

#[test]
fn completions_name_the_commands() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = tollgate(dir.path(), &["completions", shell]);
        assert!(code == 0 && ["keygen", "directory", "ledger"].iter().all(|c| out.contains(c)), "{shell}");
    }
}

/// Runs a command whose reader leaves after `bytes`; its exit code and what it said on standard error.
fn abandoned(dir: &Path, args: &[&str], bytes: usize) -> (Option<i32>, String) {
    let mut child = Command::new(binary())
        .args(args)
        .current_dir(dir)
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut vec![0; bytes]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["completions", "bash"], &["demo", "--once"], &["demo"], &["keygen"]] {
        for bytes in [0, 1] {
            let _ = std::fs::remove_file(dir.path().join("agent.jwk"));
            let (code, err) = abandoned(dir.path(), args, bytes);
            assert_eq!(code, Some(0), "{args:?}: {err}");
            assert!(!err.contains("panicked"), "{args:?}: {err}");
        }
    }
}
