//! `tollgate demo`

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::gateway::{binary, tollgate};

#[test]
fn the_whole_exchange_is_shown_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(binary())
        .args(["demo", "--once"])
        .env("TMPDIR", dir.path())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{out}");
    let mut rest = out.as_str();
    for part in [
        "> GET / HTTP/1.1",
        "< HTTP/1.1 200 OK",
        "> GET /articles/1 HTTP/1.1",
        "< HTTP/1.1 402 Payment Required",
        "\"price\": \"0.01 USD\"",
        "> GET /articles/1 HTTP/1.1",
        "> Payment: scheme=\"deferred\"",
        "> Signature-Agent: sig1=\"http://127.0.0.1:",
        "> Signature-Input: sig1=(\"@authority\" \"@method\" \"@path\" \"payment\" \"signature-agent\";key=\"sig1\")",
        "> Signature: sig1=:",
        "< HTTP/1.1 200 OK",
        "< Payment-Response: scheme=\"deferred\"",
        "<title>Why the tide is late</title>",
        "ENTRY",
        "capture  0.01 USD  demo-agent  delivered  200     GET http://127.0.0.1:",
        "ON PAPER. This is the sandbox",
        "> GET /api/tides HTTP/1.1",
        "< HTTP/1.1 402 Payment Required",
        "\"scheme\": \"exact\"",
        "* TransferWithAuthorization of USDC",
        "> Payment-Signature: ",
        "< HTTP/1.1 200 OK",
        "transaction 0x",
        "capture  0.001 USDC  wallets  delivered  200     GET http://127.0.0.1:",
    ] {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part} is missing, or too early:\n{out}")).1;
    }
    assert!(!out.contains('\u{1b}'), "colours in a pipe");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files are left");
}

#[test]
fn the_commands_that_it_prints_work_until_it_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(binary()).arg("demo").env("TMPDIR", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let shown: Vec<String> = lines.by_ref().take_while(|line| !line.contains("removed at the end")).collect();
    let binary = binary();
    let binary = binary.to_str().unwrap();
    let commands: Vec<&str> = shown.iter().filter_map(|line| line.trim().strip_prefix(binary)).collect();
    assert_eq!(commands.len(), 5, "{shown:?}");
    for (command, expect) in commands.iter().zip(["toll chain", "tides", "tides", "/api/tides", "ok: 7 entries"]) {
        let args: Vec<&str> = command.split_whitespace().collect();
        let (code, out, err) = tollgate(dir.path(), &args);
        assert!(code == 0 && out.contains(expect), "{command}: {out}{err}");
    }
    assert!(Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap().success());
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files are left");
}
