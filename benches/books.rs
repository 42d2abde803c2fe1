//! The books: durable captures a second and what they add to an answer, on a file and on a server; reports and exports over
//! ledgers of several sizes; bytes an entry.
//!
//! ```text
//! cargo bench --bench books                       a minute and a half
//! cargo bench --bench books -- --rows 10000000    with a ledger of ten million entries: some ten minutes, 7 GB of disk
//! ```
//!
//! PostgreSQL is started in a temporary folder, where it is installed. Each figure is the best of three rounds, interleaved.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tollgate::{
    clock::Clock,
    ledger::{
        ledger_store::{LedgerOptions, LedgerStore},
        location::Location,
        mailbox::Mailbox,
        read::LedgerReader,
        report::{By, Days},
        store::{ClaimRequest, Delivery, Outcome, Outcomes as _, Posting, Store},
    },
    payment::key::PaymentKey,
    wire::amount::{Currency, Units},
};

#[allow(dead_code)]
#[path = "../tests/support/postgres.rs"]
mod postgres;

fn skipped(what: &str, why: &str) {
    println!("{what}: {why}");
}

const ROUNDS: usize = 3;
/// How long each round lasts.
const ROUND: Duration = Duration::from_millis(1500);
/// What a capture of a deferred payment carries.
const EVIDENCE: usize = 700;

fn main() {
    // `cargo bench` and `cargo test` pass options of their own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    let most: u64 = match args.iter().position(|arg| arg == "--rows") {
        Some(at) => args.get(at + 1).and_then(|rows| rows.parse().ok()).expect("--rows N"),
        None => 1_000_000,
    };
    captures();
    sizes(most);
}

/// One capture after the other by each of so many who wait.
fn captures() {
    let folder = tempfile::tempdir().unwrap();
    let server = postgres::Postgres::start("PostgreSQL");
    let on_file = |name: &str, sync: bool| {
        let path = folder.path().join(name);
        (name.to_owned(), store(Location::File(path), sync))
    };
    let mut stores = vec![on_file("sqlite", true), on_file("sqlite, sync off", false)];
    if let Some(server) = &server {
        stores.push(("postgresql".to_owned(), store(Location::parse(&server.url(), None).unwrap(), true)));
    }
    println!("\n{:<18} {:>8} {:>14} {:>10} {:>10}", "captures", "waiting", "a second", "p50", "p99");
    for waiting in [1, 8, 64, 512] {
        let mut best: Vec<(f64, Duration, Duration)> = vec![(0.0, Duration::ZERO, Duration::ZERO); stores.len()];
        for _ in 0..ROUNDS {
            for (best, (_, store)) in best.iter_mut().zip(&stores) {
                let round = round(store, waiting);
                if round.0 > best.0 {
                    *best = round;
                }
            }
        }
        for ((rate, p50, p99), (name, _)) in best.iter().zip(&stores) {
            println!("{name:<18} {waiting:>8} {rate:>14.0} {:>10} {:>10}", us(*p50), us(*p99));
        }
    }
    for (name, store) in &stores {
        store.close().unwrap();
        let size = match name.as_str() {
            "postgresql" => server.as_ref().map_or(0, |server| {
                server
                    .number("SELECT pg_total_relation_size('entries') + pg_total_relation_size('batches')")
                    .unsigned_abs()
            }),
            name => size_of(&folder.path().join(name)),
        };
        let entries = match name.as_str() {
            "postgresql" => {
                server.as_ref().map_or(1, |server| server.number("SELECT count(*) FROM entries").unsigned_abs())
            }
            name => LedgerReader::open(&folder.path().join(name)).unwrap().count(Days::ALL).unwrap(),
        };
        println!("{name}: {} bytes an entry, with {EVIDENCE} of evidence", size / entries.max(1));
    }
}

fn us(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn store(place: Location, sync: bool) -> Arc<LedgerStore> {
    let clock = Clock::system();
    LedgerStore::open(LedgerOptions { sync, queue_max: 8192, ..LedgerOptions::offline(place, "UTC".to_owned(), clock) })
        .unwrap()
}

/// Captures a second, and the time that claim and capture take together.
fn round(store: &Arc<LedgerStore>, waiting: usize) -> (f64, Duration, Duration) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let mut times = local.block_on(&runtime, async {
        let driver = tokio::task::spawn_local(Mailbox::install());
        let end = Instant::now() + ROUND;
        let tasks: Vec<_> = (0..waiting)
            .map(|_| {
                let store = store.clone();
                tokio::task::spawn_local(async move {
                    let mut times = Vec::new();
                    while Instant::now() < end {
                        let begun = Instant::now();
                        let number = NEXT.fetch_add(1, Ordering::Relaxed);
                        let claim = store.claim(request(number)).await.unwrap();
                        let posting = posting(claim.request.amount, EVIDENCE);
                        let receipt = store.capture(claim, posting).await.unwrap();
                        times.push(begun.elapsed());
                        let (n, delivery) = (receipt.n, Delivery::Complete);
                        store.outcome(Outcome { n, delivery, void: false, ms: 1, bytes: 1024 });
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        driver.abort();
        times
    });
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    (times.len() as f64 / ROUND.as_secs_f64(), at(0.5), at(0.99))
}

/// Ledgers of 10^5, 10^6, … entries.
fn sizes(most: u64) {
    println!(
        "\n{:>10} {:>12} {:>12} {:>12} {:>16} {:>12}",
        "entries", "report", "list", "export", "export's memory", "bytes"
    );
    let mut rows = 100_000;
    while rows <= most {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("books.sqlite");
        fill(&path, rows);
        let reader = LedgerReader::open(&path).unwrap();
        let best = |work: &dyn Fn()| {
            let time = |_| {
                let begun = Instant::now();
                work();
                begun.elapsed()
            };
            (0..ROUNDS).map(time).min().unwrap_or_default()
        };
        let report = best(&|| drop(reader.report(By::Account, Days::ALL, None).unwrap()));
        let filter = tollgate::ledger::read::Filter { limit: 100, ..Default::default() };
        let list = best(&|| drop(reader.list(&filter).unwrap()));
        let begun = Instant::now();
        let memory = export(&path);
        let took = begun.elapsed();
        let bytes = size_of(&path) / rows;
        println!(
            "{rows:>10} {:>12} {:>12} {:>10.1} s {:>12.1} MiB {bytes:>12}",
            us(report),
            us(list),
            took.as_secs_f64(),
            memory as f64 / 1024.0
        );
        rows *= 10;
    }
}

/// Entries as a gateway writes them, with little evidence and no syncs.
fn fill(path: &Path, rows: u64) {
    let store = store(Location::File(path.to_owned()), false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let driver = tokio::task::spawn_local(Mailbox::install());
        let next = Arc::new(AtomicU64::new(1 << 40));
        let end = (1 << 40) + rows;
        let tasks: Vec<_> = (0..4096)
            .map(|_| {
                let (store, next) = (store.clone(), next.clone());
                tokio::task::spawn_local(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end {
                            return;
                        }
                        let claim = store.claim(request(number)).await.unwrap();
                        let posting = posting(claim.request.amount, 64);
                        store.capture(claim, posting).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        driver.abort();
    });
    store.close().unwrap();
}

/// Exports as a user does; the most memory that the command had, KiB.
fn export(path: &Path) -> u64 {
    let binary: PathBuf = env!("CARGO_BIN_EXE_tollgate").into();
    let mut child = Command::new(binary)
        .args(["ledger", "export", "--format", "jsonl", "--ledger"])
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        most = most.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    most
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn request(number: u64) -> ClaimRequest {
    ClaimRequest {
        within: None,
        key: PaymentKey::from_signature(&[&number.to_be_bytes()]),
        paid_at_ms: u64::MAX,
        account: format!("account-{}", number % 20).into(),
        amount: Units::new(10_000).unwrap(),
        asset: Currency::parse("USD").unwrap().into(),
        limit: Units::MAX,
        period: 202_611,
        purchase: None,
        payer: None,
    }
}

fn posting(amount: Units, evidence: usize) -> Posting {
    Posting {
        agent: "https://signer.example.com".into(),
        agent_key: None,
        route: "articles".into(),
        scheme: "deferred",
        amount,
        list_amount: amount,
        table_hash: [7; 32],
        status: 200,
        method: "GET".into(),
        target: "https://shop.example/articles/1?full".into(),
        evidence: vec![1; evidence],
        key: None,
        grant: None,
    }
}
