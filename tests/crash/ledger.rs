//! Books that cannot be written or read, and other reasons not to start: priced routes close, free ones go on, and a
//! start that would be wrong ends with 2 and says whose move it is.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rusqlite::Connection as Sqlite;

use crate::support::client::{PATIENCE, get};
use crate::support::gateway::tollgate;
use crate::support::*;

/// A disk of its own, so that it can be full.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(size: &str) -> Result<Disk, String> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tollgate-test"]).arg(dir.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Disk(dir)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        // As much as goes; what did not fit in large pieces goes in small ones.
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_closes_priced_routes_only_and_heals_without_restart() {
    let disk = match Disk::of("4m") {
        Ok(disk) => disk,
        Err(why) => return skipped("ledger-disk-full", &format!("no disk of its own: {why}")),
    };
    let (origin, agent) = (Origin::start(), Agent::start());
    let books = disk.path().join("tollgate.sqlite");
    let more = format!("[ledger]\nurl = \"sqlite:{}\"\n", books.display());
    let gateway = Gateway::start(&site_toml(&origin, &agent, &more));
    let mut served = 0;
    assert_eq!(agent.buy(gateway.addr, "/paid/before").status, 200);
    served += 1;

    let filler = disk.fill();
    let answer = loop {
        // Room that the file already has is used up first.
        let answer = agent.buy(gateway.addr, "/paid/full");
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served < 20_000, "the disk is never full");
    };
    let check = |answer: &Answer| {
        assert_eq!((answer.status, answer.reason()), (503, "ledger_unavailable"), "{}", answer.text());
        assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()));
        assert!(answer.header("payment-response").is_none() && !answer.text().contains("content of"), "{answer:?}");
    };
    check(&answer);
    for _ in 0..20 {
        check(&agent.buy(gateway.addr, "/paid/full"));
        assert_eq!(get(gateway.addr, "/free").text(), "content of /free");
    }

    fs::remove_file(filler).unwrap();
    let start = Instant::now();
    loop {
        let answer = agent.buy(gateway.addr, "/paid/after");
        if answer.status == 200 {
            break;
        }
        check(&answer);
        assert!(start.elapsed() < PATIENCE, "priced routes stay closed: {}", gateway.log());
    }
    served += 1;
    let (status, _dir) = gateway.stop();
    assert!(status.success(), "{status}");
    let books = Books::read(disk.path());
    assert_eq!((books.charged(), books.in_state("unproven")), (served, 0), "{:?}", books.voids);
}

/// A configuration whose gateway has run once, sold one page, and ended.
fn sold_one() -> (tempfile::TempDir, PathBuf) {
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    assert_eq!(agent.buy(gateway.addr, "/paid/page").status, 200);
    let ledger = gateway.ledger();
    let (_, dir) = gateway.stop();
    (dir, ledger)
}

/// Starts a gateway that must not start; what it says.
#[track_caller]
fn unusable(dir: &Path, words: &[&str]) -> String {
    let (code, out, err) = tollgate(dir, &["run", "-c", "tollgate.toml"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for word in words {
        assert!(err.contains(word), "no {word:?} in: {err}");
    }
    assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE") && err.lines().count() < 6, "{err}");
    err
}

#[test]
fn a_file_that_is_no_ledger_ends_the_start() {
    let (dir, ledger) = sold_one();
    fs::write(&ledger, "This is a letter to a friend, not a database. ".repeat(1000)).unwrap();
    unusable(dir.path(), &["tollgate.sqlite", "not a ledger", "ledger.url"]);
    fs::remove_file(&ledger).unwrap();
    Sqlite::open(&ledger).unwrap().execute_batch("CREATE TABLE somebody_elses (x)").unwrap();
    unusable(dir.path(), &["tollgate.sqlite", "not a ledger", "another program"]);
}

#[test]
fn a_damaged_ledger_ends_the_start() {
    let (dir, ledger) = sold_one();
    let whole = fs::read(&ledger).unwrap();
    let damaged = ["damaged", "backup"];
    // Cut off, and every page but the first filled with noise.
    fs::write(&ledger, &whole[..whole.len() / 2]).unwrap();
    unusable(dir.path(), &damaged);
    let mut noise = whole.clone();
    noise[4096..].iter_mut().enumerate().for_each(|(i, b)| *b = (i * 31 % 251) as u8);
    fs::write(&ledger, noise).unwrap();
    unusable(dir.path(), &damaged);
    // The writer's chain and the entries disagree.
    fs::write(&ledger, &whole).unwrap();
    Sqlite::open(&ledger).unwrap().execute("UPDATE writers SET seq = 7", ()).unwrap();
    unusable(dir.path(), &damaged);
    fs::write(&ledger, &whole).unwrap();
    let (code, out, err) = tollgate(dir.path(), &["ledger", "audit", "--ledger", "tollgate.sqlite"]);
    assert_eq!(code, 0, "the copy itself is whole: {out}{err}");
}

#[test]
fn a_ledger_of_a_newer_version_ends_the_start() {
    let (dir, ledger) = sold_one();
    Sqlite::open(&ledger).unwrap().pragma_update(None, "user_version", 99).unwrap();
    unusable(dir.path(), &["99", "newer version"]);
}

#[test]
fn a_place_that_can_hold_no_ledger_ends_the_start() {
    let (dir, ledger) = sold_one();
    fs::remove_file(&ledger).unwrap();
    fs::create_dir(&ledger).unwrap();
    unusable(dir.path(), &["tollgate.sqlite", "not a ledger", "directory"]);
    let config = dir.path().join("tollgate.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[ledger]\nurl = \"sqlite:tollgate.toml/books.sqlite\"\n")).unwrap();
    unusable(dir.path(), &["tollgate.toml/books.sqlite", "not a ledger", "ledger.url"]);
}

#[test]
fn a_port_in_use_ends_the_start() {
    let (dir, _) = sold_one();
    // One that another program has, and one that another gateway has, which shares its ports among its cores.
    let (origin, agent) = (Origin::start(), Agent::start());
    let gateway = paid_site(&origin, &agent);
    let config = dir.path().join("tollgate.toml");
    let text = fs::read_to_string(&config).unwrap();
    for addr in [origin.addr, gateway.addr] {
        fs::write(&config, text.replace("127.0.0.1:0", &addr.to_string())).unwrap();
        unusable(dir.path(), &["cannot listen on", &addr.to_string(), "another process has it"]);
    }
}

#[test]
fn a_secret_file_that_cannot_be_read_ends_the_start_and_is_not_shown() {
    let (dir, _) = sold_one();
    let file = dir.path().join("tollgate-secret.json");
    let text = fs::read_to_string(&file).unwrap();
    let secret = text.split('"').find(|word| word.len() > 40).unwrap().to_owned();
    let all = |change: &dyn Fn(&str) -> String| {
        fs::write(&file, change(&text)).unwrap();
        let said = unusable(dir.path(), &["secret file", "tollgate-secret.json"]);
        assert!(!said.contains(&secret[..12]) && !said.contains(&secret[secret.len() - 12..]), "{said}");
    };
    all(&|text| text[..text.len() - 3].to_owned());
    all(&|text| text.replace("\"secret\"", "\"secert\""));
    all(&|text| text.replace(&secret, &secret[..40]));
    all(&|text| text.replace(&secret, &format!("{}=", &secret)));
    all(&|_| secret.clone());
    all(&|text| text.replace("false", "true"));
    all(&|text| text.replace("\"n\":1", &format!("\"n\":\"{secret}\"")));
    all(&|_| String::new());
    all(&|_| "[]".to_owned());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    unusable(dir.path(), &["secret file", "tollgate-secret.json"]);
}
