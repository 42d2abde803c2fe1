//! The binary, started as a user starts it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// What is tested: the development binary, or the one that `TOLLGATE_TEST_BINARY` names.
pub fn binary() -> PathBuf {
    match std::env::var_os("TOLLGATE_TEST_BINARY") {
        Some(path) if !path.is_empty() => path.into(),
        _ => env!("CARGO_BIN_EXE_tollgate").into(),
    }
}

/// A running gateway in a directory of its own; killed when dropped.
pub struct Gateway {
    /// Where it speaks plain HTTP; nowhere, if that is not asked for.
    pub addr: SocketAddr,
    /// Where it speaks HTTPS.
    pub https: Option<SocketAddr>,
    /// Where it tells how it is.
    pub admin: Option<SocketAddr>,
    pub dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Gateway {
    pub fn start(toml: &str) -> Gateway {
        Gateway::start_in(tempfile::tempdir().unwrap(), toml)
    }

    /// Starts over an earlier gateway's files.
    pub fn start_in(dir: tempfile::TempDir, toml: &str) -> Gateway {
        Gateway::start_by(dir, toml, Command::new(binary()))
    }

    /// Starts through a command that ends with the binary.
    pub fn start_by(dir: tempfile::TempDir, toml: &str, mut command: Command) -> Gateway {
        std::fs::write(dir.path().join("tollgate.toml"), toml).unwrap();
        let mut child = command
            .args(["run", "-c", "tollgate.toml"])
            .current_dir(dir.path())
            .env_remove("TOLLGATE_TEST_SEED")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("stderr.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let after = |scheme: &str| line.split(scheme).nth(1)?.split([',', ' ']).next()?.parse().ok();
        assert!(line.contains("listens on"), "{line:?}; {}", log(dir.path()));
        let (addr, https, admin) = (after("http://"), after("https://"), after("admin http://"));
        let addr = addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        Gateway { addr, https, admin, dir, child: Some(child) }
    }

    /// The ledger's file.
    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("tollgate.sqlite")
    }

    pub fn log(&self) -> String {
        log(self.dir.path())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// kill -9, and its files.
    pub fn kill(mut self) -> tempfile::TempDir {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// TERM; waits for the end.
    pub fn stop(mut self) -> (ExitStatus, tempfile::TempDir) {
        let mut child = self.child.take().unwrap();
        terminate(&child);
        let status = child.wait().unwrap();
        (status, std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap()))
    }

    /// Waits for an end that somebody else has brought about; its files stay.
    pub fn leave(mut self) -> tempfile::TempDir {
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}", self.log());
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// A signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().unwrap(), name);
    }

    /// TERM, without waiting.
    pub fn term(&self) {
        terminate(self.child.as_ref().unwrap());
    }

    /// Waits for the end after [`Gateway::term`].
    pub fn wait(mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }
}

fn terminate(child: &Child) {
    signal(child, "TERM");
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            let log = log(self.dir.path());
            assert!(!log.contains("panicked"), "the gateway panicked:\n{log}");
        } else {
            eprintln!("--- gateway log ---\n{}", log(self.dir.path()));
        }
    }
}

pub fn log(dir: &Path) -> String {
    let mut log = String::new();
    if let Ok(mut file) = std::fs::File::open(dir.join("stderr.log")) {
        let _ = file.read_to_string(&mut log);
    }
    log
}

/// Runs the binary to its end.
pub fn tollgate(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary()).args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
