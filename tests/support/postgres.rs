//! A PostgreSQL server of Debian's, in a directory of its own, reached through a socket there; stopped when dropped.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one database, `books`, of the user `books`.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    child: Option<Child>,
    settings: Vec<String>,
}

impl Postgres {
    /// Starts one; says that the test is skipped where there is none to start.
    pub fn start(test: &str) -> Option<Postgres> {
        Postgres::start_with(test, &[])
    }

    /// With settings, `fsync=off`.
    pub fn start_with(test: &str, settings: &[&str]) -> Option<Postgres> {
        let Some(bin) = bin() else {
            super::skipped(test, "no PostgreSQL server is installed (Debian: postgresql)");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in(place()).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        give_to_its_user(dir.path());
        copy_template(&bin, &data);
        let mut server = Postgres { dir, bin, child: None, settings: settings.iter().map(|&s| s.to_owned()).collect() };
        server.resume_service();
        server.sql_in("postgres", "CREATE DATABASE books");
        Some(server)
    }

    /// Starts the stopped server again, and waits until it takes connections.
    pub fn resume_service(&mut self) {
        self.resume_without_waiting();
        let until = Instant::now() + PATIENCE;
        while !self.ready() {
            assert!(Instant::now() < until, "PostgreSQL does not start: {}", self.log());
            // Asked again: nothing tells when it is ready.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The settings that it starts with the next time.
    pub fn settings_become(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&s| s.to_owned()).collect();
    }

    /// Writes a file that only the server's user may read.
    pub fn write_as_its_own(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        give_to_its_user(path);
    }

    pub fn resume_without_waiting(&mut self) {
        assert!(self.child.is_none());
        let log = fs::File::options().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let mut command = as_user(&self.bin.join("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        command.args(["-c", "listen_addresses=", "-c", "shared_buffers=32MB", "-c", "max_connections=60"]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.child = Some(child);
    }

    pub fn ready(&self) -> bool {
        let asked = Command::new(self.bin.join("pg_isready"))
            .arg("-h")
            .arg(self.dir.path())
            .args(["-U", "books", "-d", "postgres", "-t", "1"])
            .output();
        asked.unwrap().status.success()
    }

    /// Cuts every connection at once and loses what was not made durable, as a crash of it does.
    pub fn crash(&mut self) {
        self.signal("QUIT");
        self.child.take().unwrap().wait().unwrap();
    }

    /// Nothing is answered any more, on connections old and new, until [`Postgres::thaw`].
    pub fn freeze(&self) {
        self.all_processes("STOP");
    }

    pub fn thaw(&self) {
        self.all_processes("CONT");
    }

    /// `psql`, connected.
    pub fn psql(&self) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.arg("-h").arg(self.dir.path()).args(["-U", "books", "-d", "books", "-X", "-q", "-t", "-A"]);
        command.args(["-v", "ON_ERROR_STOP=1"]);
        command
    }

    /// Runs statements; what they return, a row a line, columns between `|`.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("books", sql)
    }

    fn sql_in(&self, database: &str, sql: &str) -> String {
        let done = self.psql().args(["-d", database, "-c", sql]).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// The one number that a statement returns.
    pub fn number(&self, sql: &str) -> i64 {
        self.sql(sql).parse().unwrap_or_else(|_| panic!("{sql} returns no number"))
    }

    /// `postgres://books@%2Ftmp%2Fpg…/books`
    pub fn url(&self) -> String {
        format!("postgres://books@{}/books", self.dir.path().to_str().unwrap().replace('/', "%2F"))
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// The server and all of its children.
    fn all_processes(&self, signal: &str) {
        let parent = self.child.as_ref().unwrap().id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let mut pids = vec![parent.to_string()];
        pids.extend(children.split_whitespace().map(str::to_owned));
        let flag = format!("-{signal}");
        // One that has just ended is not there to be told.
        let _ = Command::new("kill").arg(flag).args(pids).stderr(Stdio::null()).status();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("--- PostgreSQL log ---\n{}", &log[log.len().saturating_sub(8000)..]);
        }
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            let _ = Command::new("kill").args(["-CONT", &pid]).stderr(Stdio::null()).status();
            let _ = Command::new("kill").args(["-QUIT", &pid]).stderr(Stdio::null()).status();
            let _ = child.wait();
        }
    }
}

/// In memory where there is plenty: none of these tests takes the machine's power away, and a disk makes them wait for it.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = Command::new("df").args(["--output=avail", "-k"]).arg(memory).stderr(Stdio::null()).output();
    let free = free.ok().and_then(|df| String::from_utf8(df.stdout).ok()?.lines().nth(1)?.trim().parse::<u64>().ok());
    if free.is_some_and(|kib| kib >= 4 << 20) { memory.to_owned() } else { std::env::temp_dir() }
}

/// A new cluster, copied from one that is made once: making it takes seconds.
fn copy_template(bin: &Path, data: &Path) {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let version = bin.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let template = tmp.join(format!("postgres-{version}-{}", if is_root() { "root" } else { "user" }));
    let lock = fs::File::create(tmp.join("postgres.lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let new = tempfile::Builder::new().prefix("pg-template").tempdir().unwrap();
        fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give_to_its_user(new.path());
        let made = as_user(&bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=books", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(new.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        copy(&new.path().join("data"), &template);
    }
    lock.unlock().unwrap();
    copy(&template, data);
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn give_to_its_user(folder: &Path) {
    if is_root() {
        assert!(Command::new("chown").arg("postgres:postgres").arg(folder).status().unwrap().success());
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The server refuses to run as root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

/// Where the newest server's programs are.
fn bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql");
    let mut found: Vec<(u32, PathBuf)> = versions
        .and_then(|versions| versions.collect::<io::Result<Vec<_>>>())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(version, bin)| *version >= 15 && bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}
