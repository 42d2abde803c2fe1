//! README.md is executed: its shell blocks below a line `<!-- test -->`, one after the other, in one bash, in an empty
//! folder, with `tollgate` on the path. And every file of config/ is usable.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::gateway::{binary, tollgate};

const MARK: &str = "<!-- test -->";

#[test]
fn the_commands_of_readme_do_what_it_says() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(readme).expect("no README.md");
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "README.md has no shell block below {MARK}");
    let (success, output) = run(&blocks);
    assert!(success, "a command of README.md failed:\n{output}");
}

#[test]
fn every_configuration_that_we_ship_is_usable() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let (code, out, err) = tollgate(&folder, &["check", "-c", path.to_str().unwrap()]);
            assert_eq!(code, 0, "{}: {out}{err}", path.display());
            files += 1;
        }
    }
    assert!(files > 0, "config/ is empty");
}

/// The shell blocks that are to be run.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != MARK {
            continue;
        }
        let fence = lines.find(|l| !l.trim().is_empty()).unwrap_or("").trim();
        assert!(matches!(fence, "```sh" | "```bash" | "```shell"), "{MARK} stands above no shell block, but {fence:?}");
        let body: Vec<&str> = lines.by_ref().take_while(|l| l.trim() != "```").collect();
        blocks.push(body.join("\n"));
    }
    blocks
}

/// Runs blocks in one bash that ends at the first command that fails; whether none did, and what was printed.
fn run(blocks: &[String]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    let [bin, home, work] = ["bin", "home", "work"].map(|name| dir.path().join(name));
    [&bin, &home, &work].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    std::os::unix::fs::symlink(binary(), bin.join("tollgate")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // What was started with `&` may not listen yet: curl waits for it, as a reader would.
    fs::write(home.join(".curlrc"), "retry = 20\nretry-delay = 1\nretry-connrefused\nsilent\nshow-error\n").unwrap();
    let script = dir.path().join("readme.sh");
    fs::write(&script, format!("set -e -o pipefail\n{}\n", with_free_ports(&blocks.join("\n")))).unwrap();
    let mut output = tempfile::tempfile().unwrap();
    let mut bash = Command::new("timeout")
        .args(["120", "bash", "-v"])
        .arg(&script)
        .current_dir(&work)
        .env("PATH", path)
        .env("HOME", &home)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let status = bash.wait().unwrap();
    // What it left in the background goes with it.
    let group = format!("-{}", bash.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    (status.success(), text)
}

/// 8400 to 8499 are the ports of our documents; each becomes one that is free here.
fn with_free_ports(script: &str) -> String {
    let mut free = BTreeMap::new();
    let mut held = Vec::new();
    for port in 8400..8500 {
        if script.contains(&port.to_string()) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            free.insert(port, listener.local_addr().unwrap().port());
            held.push(listener);
        }
    }
    // In two passes: a free port may hold the digits of a documented one.
    let mark = |documented: u16| format!("<port {}>", documented - 8400);
    let mut script = script.to_owned();
    for documented in free.keys() {
        script = script.replace(&documented.to_string(), &mark(*documented));
    }
    for (documented, free) in free {
        script = script.replace(&mark(documented), &free.to_string());
    }
    script
}

/// The runner itself, on a document of its own.
#[test]
fn marked_blocks_run_in_one_session_and_the_first_failure_ends_it() {
    let text = r#"
# A gateway
<!-- test -->
```sh
tollgate --version
greeting=hello
ls -A | wc -l
echo http://127.0.0.1:8402/ http://127.0.0.1:8402 8403
```
Not run:
```sh
exit 1
```

<!-- test -->

```bash
echo "$greeting again"
sleep 1000 &
```
"#;
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    let (success, output) = run(&found);
    assert!(success, "{output}");
    let printed = |line: &str| output.lines().any(|l| l == line);
    assert!(printed(concat!("tollgate ", env!("CARGO_PKG_VERSION"))) && printed("0"), "{output}");
    assert!(printed("hello again") && !output.contains("8402") && !output.contains("8403"), "{output}");

    let broken = blocks("<!-- test -->\n```sh\nfalse | true\necho reached\n```\n");
    let (success, output) = run(&broken);
    assert!(!success && !output.lines().any(|l| l == "reached"), "{output}");
    assert!(std::panic::catch_unwind(|| blocks("<!-- test -->\nno block\n")).is_err());
}
