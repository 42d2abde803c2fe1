//! Runs: a seed becomes a list of steps while it runs; a list that fails is made as short as it can be.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use tollgate::ledger::entry::Kind;

use super::{
    bugs::Bug,
    equations::Broken,
    model::ModelStores,
    plan::Plan,
    postgres::PostgresStores,
    random::{self, Random, is_long},
    sqlite::SqliteStores,
    steps::Step,
    stores::Stores,
    world::{End, START_MS, World},
};

/// Steps of a run from a seed.
const STEPS: usize = 150;
/// Replicas of the simulated store.
const REPLICAS: usize = 3;

/// What a run is driven over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Sqlite,
    /// The server of this thread; see `Database::is_there`.
    Postgres,
    /// The simulated store; `tombstones`: the rows of captured claims stay.
    Model {
        tombstones: bool,
    },
}

impl Over {
    fn world(self, bug: Option<Bug>) -> World {
        let stores: Box<dyn Stores> = match self {
            Over::Sqlite => Box::new(SqliteStores::new(START_MS)),
            Over::Postgres => Box::new(PostgresStores::new(START_MS)),
            Over::Model { tombstones } => Box::new(ModelStores::new(bug, tombstones, REPLICAS, START_MS)),
        };
        World::new(stores, bug)
    }
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its steps, up to the one that broke something.
    pub steps: Vec<Step>,
    pub broken: Broken,
}

/// How often things came to pass, by their names.
pub type Tally = BTreeMap<String, u64>;

/// The run of a seed: its steps, up to one that breaks something, and what came to pass.
pub fn seeded(over: Over, bug: Option<Bug>, seed: u64, tally: &mut Tally) -> (Vec<Step>, Result<(), Broken>) {
    let (mut random, mut world) = (Random::of(seed), over.world(bug));
    let mut plan = Plan::new(&mut random);
    let mut steps = Vec::new();
    let end = run(&mut world, |world| {
        (steps.len() < STEPS).then(|| {
            let step = plan.next(&mut random, world);
            steps.push(step);
            step
        })
    });
    count(&world, tally);
    (steps, end)
}

fn count(world: &World, tally: &mut Tally) {
    let mut add = |name: &str, count: usize| *tally.entry(name.to_owned()).or_default() += count as u64;
    let kinds = [Kind::Capture, Kind::Void, Kind::Intent, Kind::Failed, Kind::Owed, Kind::Redelivered, Kind::Lapsed];
    let kinds = kinds.into_iter().chain([Kind::Refund, Kind::Dispute]);
    for kind in kinds {
        add(kind.name(), world.books.entries.iter().filter(|entry| entry.kind == kind).count());
    }
    add("close", world.books.closes.len());
    add("statement", world.books.statements.len());
    add("unproven", world.unproven.len());
    add("stalled", world.stalled.len());
    for end in [End::Released, End::Withheld, End::Dropped, End::Died] {
        add(&format!("{end:?}"), world.admissions.iter().filter(|admission| admission.end == end).count());
    }
}

/// A run of these steps.
pub fn replay(over: Over, bug: Option<Bug>, steps: &[Step]) -> Result<(), Broken> {
    let mut steps = steps.iter().copied();
    run(&mut over.world(bug), |_| steps.next())
}

/// Steps until there are none, then everything is brought to an end. A panic counts as broken.
fn run(world: &mut World, mut next: impl FnMut(&World) -> Option<Step>) -> Result<(), Broken> {
    let all = catch_unwind(AssertUnwindSafe(|| {
        while let Some(step) = next(world) {
            world.step(step)?;
        }
        world.settle_down()
    }));
    all.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Broken { equation: 0, what: said.unwrap_or("a panic").to_owned() })
    })
}

/// Leaves out whatever does not matter, as long as the same equation breaks.
pub fn shrink(over: Over, bug: Option<Bug>, failure: Failure) -> Failure {
    let mut best = failure;
    let fails = |steps: &[Step], equation: u8| replay(over, bug, steps).err().filter(|b| b.equation == equation);
    let mut size = best.steps.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() {
            let end = (at + size).min(best.steps.len());
            let rest = [&best.steps[..at], &best.steps[end..]].concat();
            match fails(&rest, best.broken.equation) {
                Some(broken) => {
                    best = Failure { steps: rest, broken };
                    shorter = true;
                }
                None => at = end,
            }
        }
        if size == 1 && !shorter {
            return best;
        }
        size = size.div_ceil(2).max(1);
    }
}

/// The failure as a test that can be kept.
pub fn told(over: Over, bug: Option<Bug>, seed: u64, failure: &Failure) -> String {
    let bug_text = bug.map_or("None".to_owned(), |bug| format!("Some(Bug::{bug:?})"));
    let mut text = format!(
        "seed {seed} over {over:?} with {bug:?}: equation ({}) does not hold after {} steps: {}\n\n#[test]\nfn seed_{seed}() {{\n    \
         kept(Over::{over:?}, {bug_text}, &[\n",
        failure.broken.equation,
        failure.steps.len(),
        failure.broken.what
    );
    for step in &failure.steps {
        let step = format!("{step:?}").replace("fate: ", "fate: Fate::").replace("answer: ", "answer: Answer::");
        let step = step.replace("order: ", "order: Order::");
        let _ = writeln!(text, "        Step::{step},");
    }
    text + "    ]);\n}\n"
}

/// Runs seeds for as long as this may take, or the one that was asked for.
///
/// # Panics
/// With the shortest run of the first seed that fails.
pub fn all(over: impl Fn(u64) -> Over, short: Duration, long: Duration) {
    let asked = std::env::var("TOLLGATE_SIMULATION_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let (start, budget) = (Instant::now(), if is_long() { long } else { short });
    let first: u64 = asked.unwrap_or_else(|| random::seed().wrapping_mul(1_000_000));
    let (mut seed, mut tally) = (first, Tally::new());
    loop {
        let over = over(seed);
        if let (steps, Err(broken)) = seeded(over, None, seed, &mut tally) {
            eprintln!("seed {seed}: {broken:?}");
            let failure = Failure { steps, broken };
            // A seed over a server is not quite a run.
            let failure = if over == Over::Postgres { failure } else { shrink(over, None, failure) };
            panic!("{}", told(over, None, seed, &failure));
        }
        seed += 1;
        if asked.is_some() || start.elapsed() > budget {
            break;
        }
    }
    println!("{} runs of {STEPS} steps from seed {first}, {} s: {tally:?}", seed - first, start.elapsed().as_secs());
    // Runs in which nothing happens hold every equation.
    let must = ["capture", "void", "intent", "failed", "owed", "redelivered", "close", "statement", "Withheld", "Died"];
    let never: Vec<&str> = must.into_iter().filter(|name| tally.get(*name).is_none_or(|count| *count == 0)).collect();
    let few = seed - first < 100;
    assert!(few || never.is_empty(), "never came to pass: {never:?}");
}
