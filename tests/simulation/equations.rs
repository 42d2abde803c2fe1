//! What must be true after each step, in the numbering of the rules:
//!
//! ```text
//! (1)  admitted = live claims + settling or unknown + captured + definite failures + released or refused + given back
//! (2)  captured − voided − refunded = statements + open; open = roll-ups = entries recomputed
//! (3)  used = claims + captures − voids of the period; within the limit whenever a claim is granted
//! (4)  0 ≤ transfers − captures of transfers ≤ unknown; each transfer has an earlier durable intent
//! (5)  a payment: captures ≤ 1, voids and refunds ≤ captures, failures + captures ≤ 1, live claims + captures ≤ 1
//! (6)  answers only with a capture, one more at most for each redelivery; nothing is voided whose client held it up
//! (7)  calls of the origin ≤ 1 + claims that ended without a capture; turns at what is owed ≤ 3 a process
//! (8)  nothing is posted in a closed day; closes are contiguous
//! (9)  numbers are dense, chains recompute; at rest each capture has one outcome
//! (10) floor, open day, epoch and posting time of a writer never fall
//! (11) captured on a chain = delivered + owed + unproven
//! ```
//!
//! (1) to (3) are held per account, asset and period, (5) to (7) per payment, however many keys it was booked under.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::{
    ledger::{entry::Kind, store::Delivery},
    payment::key::PaymentKey,
};

use tollgate::ledger::open_accounts::{PREFIX, TOTAL};

use super::{
    payments::OPEN_LIMIT,
    stores::{Books, Closed, UseKey, Writer},
    world::{Admission, End, World},
};

/// The sequence in an entry's number.
const SEQ: i64 = (1 << 48) - 1;

/// An equation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub equation: u8,
    pub what: String,
}

fn unless(holds: bool, equation: u8, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { equation, what: what() }) }
}

/// What must not fall, as it was.
#[derive(Debug, Default)]
pub struct Watch {
    floor_ms: i64,
    writers: BTreeMap<i64, Writer>,
}

/// Sums of one account, asset and period.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    admitted: i64,
    live: i64,
    open: i64,
    captured: i64,
    voided: i64,
    failed: i64,
    released: i64,
    given_back: i64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.admitted += other.admitted;
        self.live += other.live;
        self.open += other.open;
        self.captured += other.captured;
        self.voided += other.voided;
        self.failed += other.failed;
        self.released += other.released;
        self.given_back += other.given_back;
    }
}

/// What the books say of one payment key.
#[derive(Clone, Debug, Default)]
struct Facts {
    captures: Vec<(i64, i64)>,
    /// The credit period of what ended it.
    period: Option<i64>,
    voids: u32,
    failed: Option<i64>,
    owed: u32,
    redelivered: u32,
    lapsed: u32,
    /// Postings about refunds.
    refunds: u32,
    /// Gone back, less what has not arrived.
    refunded: i64,
}

impl World {
    /// Every equation; at `rest` nothing is under way any more.
    pub fn equations(&mut self, rest: bool) -> Result<(), Broken> {
        let mut facts: BTreeMap<PaymentKey, Facts> = BTreeMap::new();
        for entry in &self.books.entries {
            let of = facts.entry(entry.key).or_default();
            match entry.kind {
                Kind::Capture => {
                    of.captures.push((entry.n, entry.amount));
                    of.period = Some(entry.period);
                }
                Kind::Void => of.voids += 1,
                Kind::Failed => of.failed = Some(entry.amount),
                Kind::Owed => of.owed += 1,
                Kind::Redelivered => of.redelivered += 1,
                Kind::Lapsed => of.lapsed += 1,
                Kind::Refund => {
                    of.refunds += 1;
                    of.refunded -= entry.change;
                }
                _ => {}
            }
        }
        if self.books.at_rest && self.unclear.is_empty() {
            self.conserved(&facts, rest)?;
        }
        self.stated()?;
        self.transferred(&facts, rest)?;
        self.once(&facts)?;
        self.answered(&facts)?;
        self.closed()?;
        self.ended(&facts, rest)?;
        self.rises()
    }

    /// (1), (3).
    fn conserved(&self, facts: &BTreeMap<PaymentKey, Facts>, rest: bool) -> Result<(), Broken> {
        let mut sums: BTreeMap<UseKey, Sums> = BTreeMap::new();
        let mut by_key: BTreeMap<PaymentKey, Vec<&Admission>> = BTreeMap::new();
        for admission in &self.admissions {
            by_key.entry(admission.key).or_default().push(admission);
        }
        for (key, admissions) in &by_key {
            let (none, first) = (Facts::default(), admissions[0]);
            let of = facts.get(key).unwrap_or(&none);
            let row = self.books.live.as_ref().map(|rows| rows.contains_key(key));
            let fact = of.captures.first().map(|(_, amount)| *amount).or(of.failed);
            let fact = fact.or(self.books.open.get(key).map(|open| open.amount));
            let live = self.live(admissions, row, fact.is_some());
            let live = live.map_err(|what| Broken { equation: 1, what: format!("{key}: {what}") })?;
            let owner = owner(admissions, live, of.period);
            unless(fact.is_none() || owner.is_some(), 1, || format!("{key}: the books have what nobody was granted"))?;
            if let (Some(owner), Some(fact)) = (owner, fact) {
                let stands = of.captures.len() as u32 > of.voids || of.captures.is_empty();
                // Whoever waited was told that no capture stands; a void may hang, or have died with its writer.
                let told = matches!(admissions[owner].end, End::Withheld | End::Dropped) && !admissions[owner].suspect;
                let hangs = (0..self.stores.replicas()).any(|at| self.stores.holds(at) || self.stores.is_frozen(at));
                let hidden = told && stands && !hangs;
                unless(!hidden, 1, || {
                    format!("{key}: {fact} stand in the books, and whoever waited was told otherwise")
                })?;
            }
            for (i, admission) in admissions.iter().enumerate() {
                let of_use = (admission.account.clone(), admission.asset.clone(), admission.period);
                let sum = sums.entry(of_use).or_default();
                sum.admitted += admission.amount;
                match admission.end {
                    _ if live == Some(i) => sum.live += admission.amount,
                    _ if fact.is_some() && owner == Some(i) => {
                        sum.given_back += admission.amount - fact.unwrap_or_default();
                    }
                    End::Live | End::Released | End::Withheld | End::Dropped | End::Died => {
                        sum.released += admission.amount;
                    }
                    // Its end is for the books to say.
                    End::Captured(_) | End::Intended => {}
                }
            }
            unless(!rest || live.is_none(), 1, || format!("{key}: a claim of {} is left", first.account))?;
        }
        self.add_books(&mut sums);
        // What all open accounts together use is what each of them does, at every moment.
        let mut totals: BTreeMap<UseKey, Sums> = BTreeMap::new();
        for ((_, asset, period), sum) in sums.iter().filter(|((account, ..), _)| account.starts_with(PREFIX)) {
            totals.entry((TOTAL.to_owned(), asset.clone(), *period)).or_default().add(sum);
        }
        sums.extend(totals);
        self.used(&sums)
    }

    /// Which of a payment's claims is live. Where claims are rows: that one is, whose row is there.
    fn live(&self, admissions: &[&Admission], row: Option<bool>, fact: bool) -> Result<Option<usize>, String> {
        // One that has ended, and whose process stands still, has not heard of it.
        let unheard = |of: &Admission| fact && of.looked && self.stores.is_frozen(of.replica);
        let certain = |admission: &Admission| admission.end == End::Live && !admission.suspect && !unheard(admission);
        let certain: Vec<usize> = (0..admissions.len()).filter(|i| certain(admissions[*i])).collect();
        match (&certain[..], row) {
            ([i], None | Some(true)) => Ok(Some(*i)),
            ([], None | Some(false)) => Ok(None),
            ([], Some(true)) => match admissions.iter().rposition(|admission| admission.suspect) {
                Some(i) => Ok(Some(i)),
                None => Err("a claim that was given back is there".to_owned()),
            },
            ([_], Some(false)) => Err("a claim that was granted is gone".to_owned()),
            _ => Err(format!("{} claims are live at once", certain.len())),
        }
    }

    fn add_books(&self, sums: &mut BTreeMap<UseKey, Sums>) {
        for entry in &self.books.entries {
            let sum = sums.entry((entry.account.clone(), entry.asset.clone(), entry.period)).or_default();
            match entry.kind {
                Kind::Capture => sum.captured += entry.amount,
                Kind::Void => sum.voided += entry.amount,
                Kind::Failed => sum.failed += entry.amount,
                _ => {}
            }
        }
        for open in self.books.open.values() {
            sums.entry((open.account.clone(), open.asset.clone(), open.period)).or_default().open += open.amount;
        }
    }

    fn used(&self, sums: &BTreeMap<UseKey, Sums>) -> Result<(), Broken> {
        let books = &self.books;
        let keys: BTreeSet<&UseKey> = sums.keys().chain(books.used.keys()).collect();
        for key in keys {
            let sum = sums.get(key).copied().unwrap_or_default();
            let expected = sum.live + sum.open + sum.captured - sum.voided;
            // Where there is no credit, a store need not keep count.
            let uncounted = if key.2 == 0 { expected } else { 0 };
            let used = books.used.get(key).copied().unwrap_or(uncounted);
            unless(used == expected, 3, || format!("{key:?}: {used} are used, {expected} expected: {sum:?}"))?;
            // What the store holds as claims, and not what was granted.
            let live = used - sum.open - sum.captured + sum.voided;
            let all = live + sum.open + sum.captured + sum.failed + sum.released + sum.given_back;
            unless(sum.admitted == all, 1, || format!("{key:?}: {} were admitted, {all} are: {sum:?}", sum.admitted))?;
        }
        for admission in self.admitted.iter().map(|i| &self.admissions[*i]) {
            let key = (admission.account.clone(), admission.asset.clone(), admission.period);
            let used = books.used.get(&key).copied().unwrap_or_default();
            let limit = admission.limit;
            unless((0..=limit).contains(&used), 3, || format!("{key:?}: {used} of {limit} are used"))?;
            let total = (TOTAL.to_owned(), key.1, key.2);
            let used = books.used.get(&total).copied().unwrap_or_default();
            let is_within = !admission.account.starts_with(PREFIX) || (0..=OPEN_LIMIT).contains(&used);
            unless(is_within, 3, || format!("{total:?}: {used} of {OPEN_LIMIT} are used"))?;
        }
        Ok(())
    }

    /// (2).
    fn stated(&self) -> Result<(), Broken> {
        let books = &self.books;
        let open_day = books.writers.iter().map(|writer| writer.open_day).max().unwrap_or_default();
        let mut sums: BTreeMap<(&str, &str), [i64; 4]> = BTreeMap::new();
        for entry in &books.entries {
            let sum = sums.entry((&entry.account, &entry.asset)).or_default();
            sum[0] += entry.change;
            sum[3] += if entry.day >= open_day { entry.change } else { 0 };
        }
        for stated in &books.statements {
            sums.entry((&stated.account, &stated.asset)).or_default()[1] += stated.total;
        }
        for rollup in books.rollups.iter().filter(|rollup| rollup.day >= open_day) {
            sums.entry((&rollup.account, &rollup.asset)).or_default()[2] += rollup.net;
        }
        for (of, [net, stated, open, recomputed]) in sums {
            unless(net == stated + open, 2, || format!("{of:?}: {net} are charged, {stated} stated and {open} open"))?;
            unless(open == recomputed, 2, || format!("{of:?}: {open} are open, recomputed {recomputed}"))?;
        }
        Ok(())
    }

    /// (4). That an intent comes first is looked at when money moves.
    fn transferred(&self, facts: &BTreeMap<PaymentKey, Facts>, rest: bool) -> Result<(), Broken> {
        for payment in self.payments.iter().filter(|payment| payment.is_exact()) {
            let (mut captured, mut open) = (0, 0);
            for key in self.keys(payment.number) {
                captured += facts.get(&key).map_or(0, |of| of.captures.iter().map(|(_, amount)| *amount).sum());
                open += self.books.open.get(&key).map_or(0, |open| open.amount);
            }
            let missing = self.chain.moved(payment.number).unwrap_or_default() - captured;
            let known = if rest { 0 } else { open };
            unless((0..=known).contains(&missing), 4, || {
                format!("payment {}: {missing} moved without a capture, {open} unknown", payment.number)
            })?;
        }
        Ok(())
    }

    /// The keys under which a payment was ever presented.
    fn keys(&self, payment: usize) -> impl Iterator<Item = PaymentKey> + '_ {
        self.owners.iter().filter(move |(_, owner)| **owner == payment).map(|(key, _)| *key)
    }

    /// (5), (7).
    fn once(&self, facts: &BTreeMap<PaymentKey, Facts>) -> Result<(), Broken> {
        let processes = self.books.writers.iter().map(|writer| writer.epoch + 1).sum::<i64>().max(self.starts);
        for payment in 0..self.payments.len() {
            let [mut captures, mut voids, mut failed, mut owed, mut again, mut lapsed] = [0; 6];
            for of in self.keys(payment).filter_map(|key| facts.get(&key)) {
                captures += of.captures.len() as u32;
                voids += of.voids;
                failed += u32::from(of.failed.is_some());
                owed += of.owed;
                let charged: i64 = of.captures.iter().map(|(_, amount)| *amount).sum();
                let back = of.refunded;
                unless((0..=charged).contains(&back) && (back == 0 || of.voids == 0), 5, || {
                    format!("payment {payment}: {back} of {charged} went back, and {} voids", of.voids)
                })?;
                again += of.redelivered;
                lapsed += of.lapsed;
            }
            let claims = self.admissions.iter().filter(|a| a.payment == payment);
            let (live, ended): (Vec<_>, Vec<_>) = claims.partition(|a| a.end == End::Live && !a.suspect);
            let live = live.iter().filter(|a| a.looked && !self.stores.is_frozen(a.replica)).count() as u32;
            let all = format!("payment {payment}: {captures} captures, {voids} voids, {failed} failures, {live} live");
            unless(captures <= 1 && voids + owed <= captures && failed + captures <= 1, 5, || all.clone())?;
            unless(live + captures <= 1, 5, || all.clone())?;
            let seen = self.seen.get(&payment).copied().unwrap_or_default();
            let free = ended.iter().filter(|a| !matches!(a.end, End::Captured(_) | End::Intended) || a.suspect).count();
            unless(seen.calls <= 1 + free as u32, 7, || format!("{all}: {} calls of the origin", seen.calls))?;
            unless(i64::from(seen.turns) <= 3 * processes, 7, || format!("{all}: {} turns", seen.turns))?;
            let turns = format!("{all}: {again} redeliveries, {lapsed} lapsed");
            unless(again + lapsed <= captures && lapsed <= owed, 6, || turns)?;
        }
        Ok(())
    }

    /// (6).
    fn answered(&self, facts: &BTreeMap<PaymentKey, Facts>) -> Result<(), Broken> {
        for (payment, seen) in &self.seen {
            let of = self.keys(*payment).filter_map(|key| facts.get(&key));
            let (captures, again) = of.fold((0, 0), |(c, r), of| (c + of.captures.len() as u32, r + of.redelivered));
            let most = if captures == 0 { 0 } else { 1 + again };
            unless(seen.answers <= most, 6, || {
                format!("payment {payment}: {} answers, {captures} captures, {again} redeliveries", seen.answers)
            })?;
        }
        for entry in self.books.entries.iter().filter(|entry| matches!(entry.kind, Kind::Void | Kind::Owed)) {
            // Whoever orders a void may have his reasons.
            let stalled = entry.ref_n.is_some_and(|n| self.stalled.contains(&n) && !self.ordered.contains(&n));
            unless(!stalled, 6, || format!("entry {} takes back what its client did not read", entry.n))?;
        }
        Ok(())
    }

    /// (8).
    fn closed(&self) -> Result<(), Broken> {
        let Books { closes, entries, .. } = &self.books;
        for pair in closes.windows(2) {
            let contiguous = pair[0].until == pair[1].from;
            unless(contiguous, 8, || format!("the days {pair:?} were closed one after the other"))?;
        }
        for entry in entries {
            let after = |close: &Closed| close.heads.get(&(entry.n >> 48)).is_some_and(|seq| entry.n & SEQ > *seq);
            let late = closes.iter().find(|close| entry.day < close.until && after(close));
            unless(late.is_none(), 8, || format!("entry {} was posted in a closed day: {late:?}", entry.n))?;
        }
        Ok(())
    }

    /// (9), (11).
    fn ended(&self, facts: &BTreeMap<PaymentKey, Facts>, rest: bool) -> Result<(), Broken> {
        let books = &self.books;
        for writer in &books.writers {
            let numbers = books.entries.iter().map(|entry| entry.n).filter(|n| n >> 48 == writer.slot);
            let dense = numbers.eq((1..=writer.seq).map(|seq| writer.slot << 48 | seq));
            unless(dense, 9, || format!("the numbers of writer {} are not 1 to {}", writer.slot, writer.seq))?;
        }
        let mut told: BTreeMap<i64, Delivery> = BTreeMap::new();
        for (n, delivery) in &books.outcomes {
            unless(told.insert(*n, *delivery).is_none(), 9, || format!("capture {n} has two outcomes"))?;
        }
        for entry in books.entries.iter().filter(|entry| entry.kind == Kind::Capture) {
            let (of, outcome) = (&facts[&entry.key], told.get(&entry.n));
            let unproven = outcome.is_none() && of.owed == 0;
            if rest {
                let died = self.unproven.contains(&entry.n);
                unless(!unproven || died, 9, || format!("capture {} has no outcome", entry.n))?;
            }
            if entry.scheme != "exact" {
                continue;
            }
            let seen = self.owners.get(&entry.key).and_then(|payment| self.seen.get(payment)).copied();
            let answers = seen.unwrap_or_default().answers;
            // Delivered: somebody had it, at least its first byte. What goes back is owed no more.
            let delivered = of.redelivered + of.owed + of.refunds == 0 && outcome.is_some();
            unless(!delivered || answers > 0, 11, || format!("capture {} was delivered to nobody", entry.n))?;
            unless(of.voids == 0, 11, || format!("capture {} moved money and was voided", entry.n))?;
        }
        Ok(())
    }

    /// (10).
    fn rises(&mut self) -> Result<(), Broken> {
        let (books, watch) = (&self.books, &mut self.watch);
        unless(books.floor_ms >= watch.floor_ms, 10, || "the replay floor fell".to_owned())?;
        watch.floor_ms = books.floor_ms;
        for pair in books.entries.windows(2) {
            let fell = pair[0].n >> 48 == pair[1].n >> 48 && pair[1].at_ms < pair[0].at_ms;
            unless(!fell, 10, || format!("entry {} was posted before the one before it", pair[1].n))?;
        }
        for writer in &books.writers {
            let before = watch.writers.insert(writer.slot, writer.clone());
            let fell = before.is_some_and(|before| {
                writer.epoch < before.epoch || writer.at_ms < before.at_ms || writer.open_day < before.open_day
            });
            unless(!fell, 10, || format!("writer {} went back: {writer:?}", writer.slot))?;
        }
        Ok(())
    }
}

/// Whose claim became what the books have: the one that says so, else one of which nobody knows.
fn owner(admissions: &[&Admission], live: Option<usize>, period: Option<i64>) -> Option<usize> {
    let rank = |admission: &Admission| match admission.end {
        End::Captured(_) => 5,
        End::Intended => 4,
        End::Dropped | End::Died => 3,
        End::Live => 2,
        End::Withheld => 1,
        End::Released => 0,
    };
    let fits = |admission: &Admission| rank(admission) > 0 && period.is_none_or(|period| period == admission.period);
    let candidates = (0..admissions.len()).filter(|i| live != Some(*i) && fits(admissions[*i]));
    candidates.max_by_key(|i| rank(admissions[*i]))
}
