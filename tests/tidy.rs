//! The structure that ARCHITECTURE.md promises, held against the sources.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate::payment::reason::Reason;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// The code of a file without its unit tests and comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or("");
    code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Fails for each line of `folder` that names one of `forbidden`.
fn forbid(folder: &str, forbidden: &[&str]) {
    let mut wrong = Vec::new();
    for (path, text) in sources(folder) {
        for (number, line) in code(&text).lines().enumerate() {
            for word in forbidden {
                if line.contains(word) {
                    wrong.push(format!("{}:{}: {word}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports must point inwards:\n{}", wrong.join("\n"));
}

const OUTSIDE: &[&str] = &[
    "tokio",
    "hyper",
    "socket2",
    "rusqlite",
    "std::net::Tcp",
    "std::fs",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "getrandom",
    "tracing::",
];

#[test]
fn the_pure_core_knows_no_io_no_clock_and_no_edge() {
    for folder in ["src/wire", "src/pricing", "src/payment"] {
        forbid(folder, OUTSIDE);
        let edge = ["crate::config", "crate::identity", "crate::ledger", "crate::proxy", "crate::server", "crate::cli"];
        forbid(folder, &edge);
    }
    forbid("src/wire", &["crate::pricing", "crate::payment"]);
    forbid("src/pricing", &["crate::payment"]);
}

#[test]
fn the_agent_pays_without_the_gateways_parts() {
    let edge = ["crate::config", "crate::identity", "crate::ledger", "crate::proxy", "crate::server", "crate::cli"];
    forbid("src/agent", &edge);
    for pure in ["budget.rs", "means.rs", "offer.rs", "offer/token.rs", "signer.rs", "wallet.rs"] {
        let pure = &format!("src/agent/{pure}");
        let text = code(&fs::read_to_string(root().join(pure)).unwrap());
        for word in OUTSIDE.iter().chain(&["crate::clock", "crate::tls"]) {
            assert!(!text.contains(word), "{pure}: {word}");
        }
    }
}

#[test]
fn ports_do_not_know_the_edge() {
    for folder in ["src/identity", "src/facilitator", "src/ledger", "src/config"] {
        forbid(folder, &["crate::proxy", "crate::server", "crate::cli"]);
    }
    forbid("src/ledger", &["hyper", "crate::config", "crate::identity", "crate::facilitator"]);
    forbid("src/config", &["crate::ledger", "crate::identity", "crate::facilitator", "hyper"]);
    forbid("src/facilitator", &["crate::config", "crate::identity", "crate::ledger", "rusqlite"]);
    forbid(
        "src/telemetry",
        &["crate::config", "crate::ledger", "crate::proxy", "crate::server", "crate::cli", "tokio", "hyper"],
    );
    forbid("src/proxy", &["crate::server", "crate::cli", "rusqlite", "SystemTime"]);
}

#[test]
fn only_the_clock_reads_the_wall_clock() {
    for (path, text) in sources("src") {
        if path.ends_with("clock.rs") {
            continue;
        }
        assert!(!code(&text).contains("SystemTime::now"), "{} reads the wall clock", path.display());
    }
}

#[test]
fn no_file_grows_past_two_subjects() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines: split it by subject", path.display());
    }
}

#[test]
fn nothing_unfinished_is_left() {
    for (path, text) in sources("src") {
        for word in ["todo!(", "unimplemented!(", "TODO", "FIXME", "dbg!("] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn the_reason_codes_are_documented_and_unique() {
    let mut table = String::from(
        "# Reason codes\n\nEvery refusal carries one of these in the field `Tollgate-Reason` and in the log, and in its body \
         (`error`)\nunless the scheme has a word of its own for it. 400s and 402s of a priced route bring a fresh offer.\n\n| code | status | meaning | what the agent should \
         do |\n|---|---|---|---|\n",
    );
    let mut codes: Vec<_> = Reason::ALL.iter().map(|r| r.code()).collect();
    for reason in Reason::ALL {
        let (code, status) = (reason.code(), reason.status());
        table += &format!("| `{code}` | {status} | {} | {} |\n", reason.meaning(), reason.advice());
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Reason::ALL.len());
    let path = root().join("docs/reasons.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::create_dir_all(root().join("docs")).unwrap();
        fs::write(&path, &table).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), table, "run with UPDATE_EXPECTED=1");
}

#[test]
fn the_fuzzers_lock_file_has_the_versions_of_the_gateways() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let packages = |text: &str| -> Vec<(String, String)> {
        let field = |block: &str, name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_matches(['"', ' ', '=']).to_owned()
        };
        text.split("[[package]]").skip(1).map(|block| (field(block, "name"), field(block, "version"))).collect()
    };
    let (gateway, fuzzers) = (packages(&read("Cargo.lock")), packages(&read("fuzz/Cargo.lock")));
    let of_fuzzing = ["arbitrary", "jobserver", "libfuzzer-sys", "tollgate-fuzz"];
    let is_strange = |package: &&(String, String)| !gateway.contains(package) && !of_fuzzing.contains(&&*package.0);
    let manifest = read("Cargo.toml");
    let wanted = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let wanted = wanted.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim());
    let missing: Vec<&str> = wanted.filter(|name| !fuzzers.iter().any(|(known, _)| known == name)).collect();
    let strange: Vec<_> = fuzzers.iter().filter(is_strange).collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "missing: {missing:?}, others: {strange:?}; run `cargo update --offline --workspace` in fuzz/"
    );
}
