//! Rows of `claims` and `account_use`: claims, releases, and the turns of what is owed, many in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use super::lease::{Lease, NOW_MS};
use crate::{
    ledger::{
        entry::{Kind, PostingKey},
        open_accounts::total_of,
        settlements,
        sql::{Begin, Session, SqlResult, Value, params},
        store::{ClaimError, ClaimRequest, Purchase, Released, Unavailable, Unresolved},
    },
    payment::key::PaymentKey,
    wire::amount::Units,
};

/// No exchange takes longer than this from its claim to its capture.
const HARD_MS: i64 = 3_600_000;
/// The release that spends a payment.
const RELEASES_MAX: i64 = 3;

/// What one claim comes to.
pub(super) type Claimed = Result<(), ClaimError>;

/// What an ended claim had taken: account, asset, period, amount.
pub(super) type Freed = (String, String, i64, i64);

/// A row of what is used.
type Used = ((String, String, i64), i64);

/// Who owes, of what, in which period.
type UseKey<'a> = (&'a str, &'a str, i64);

/// Those of these payments whose rows another transaction has in hand, such as a capture whose commit hangs: waited for, one would
/// hold up every other claim of this gateway. The rest of the rows are locked.
pub(super) fn in_hand(session: &Session, requests: &[&ClaimRequest]) -> SqlResult<HashSet<[u8; 17]>> {
    let keys: Vec<Option<&[u8]>> = requests.iter().map(|request| Some(&request.key.as_bytes()[..])).collect();
    let in_hand = "WITH ours AS MATERIALIZED (SELECT key FROM claims WHERE key = ANY(?1) ORDER BY key FOR UPDATE SKIP LOCKED) \
                   SELECT key FROM claims WHERE key = ANY(?1) AND key NOT IN (SELECT key FROM ours)";
    Ok(session.all(in_hand, &[Value::Blobs(&keys)], |row| row.get(0))?.into_iter().collect())
}

/// Takes keys and credit, each claim together, after giving `freed` back; one transaction around it is the caller's. Of several
/// for one key the first wins.
pub(super) fn claim(
    session: &Session,
    lease: Lease,
    requests: &[&ClaimRequest],
    freed: &[Freed],
) -> SqlResult<Vec<Claimed>> {
    let mut verdicts: Vec<Option<Claimed>> = vec![None; requests.len()];
    let mut first: BTreeMap<[u8; 17], usize> = BTreeMap::new();
    for (at, request) in requests.iter().enumerate() {
        if first.contains_key(request.key.as_bytes()) {
            verdicts[at] = Some(Err(ClaimError::InFlight));
        } else {
            first.insert(*request.key.as_bytes(), at);
        }
    }
    in_doubt(session, requests, &mut first, &mut verdicts)?;
    let granted = insert(session, lease, requests, &first)?;
    for (key, at) in &first {
        if !granted.contains(key) {
            verdicts[*at] = Some(Err(why_not(session, &requests[*at].key)?));
        }
    }
    first.retain(|key, _| granted.contains(key));
    // Claimed first, looked second: whoever captured it before is seen, even if its tombstone was swept meanwhile.
    let captures: Vec<PostingKey> =
        first.values().map(|at| PostingKey::new(Kind::Capture, &requests[*at].key, 0)).collect();
    let captures: Vec<Option<&[u8]>> = captures.iter().map(|key| Some(key.as_bytes())).collect();
    let mut undone: Vec<[u8; 17]> = Vec::new();
    if !captures.is_empty() {
        let found = "SELECT key, n FROM entries WHERE key = ANY(?1)";
        let found = session.all(found, &[Value::Blobs(&captures)], |row| {
            Ok((PostingKey::from_bytes(row.get(0)?), row.get::<i64>(1)?))
        })?;
        for (key, n) in found {
            let Some(key) = key.map(|key| *key.payment().as_bytes()) else { continue };
            if let Some(at) = first.remove(&key) {
                verdicts[at] = Some(Err(ClaimError::AlreadyCaptured(Some(n))));
                undone.push(key);
            }
        }
    }
    take_credit(session, requests, freed, &mut first, &mut verdicts, &mut undone)?;
    if !undone.is_empty() {
        undone.sort_unstable();
        let keys: Vec<Option<&[u8]>> = undone.iter().map(|key| Some(&key[..])).collect();
        session.execute(
            "UPDATE claims SET state = CASE WHEN releases < 3 THEN 'f' ELSE 'b' END WHERE key = ANY(?1)",
            &[Value::Blobs(&keys)],
        )?;
    }
    for at in first.into_values() {
        verdicts[at] = Some(Ok(()));
    }
    let unsaid = || Err(Unavailable("the claim was not answered".into()).into());
    Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(unsaid)).collect())
}

/// Refuses those whose payer has another payment for the same thing that nobody knows the end of.
fn in_doubt(
    session: &Session,
    requests: &[&ClaimRequest],
    first: &mut BTreeMap<[u8; 17], usize>,
    verdicts: &mut [Option<Claimed>],
) -> SqlResult<()> {
    let wanted: Vec<(usize, [u8; 32])> =
        first.values().filter_map(|at| Some((*at, purchase_digest(requests[*at].purchase.as_ref()?)))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let digests: Vec<Option<&[u8]>> = wanted.iter().map(|(_, digest)| Some(&digest[..])).collect();
    let doubtful = "SELECT purchase, key FROM claims WHERE doubtful = 1 AND purchase = ANY(?1)";
    let doubtful = session
        .all(doubtful, &[Value::Blobs(&digests)], |row| Ok((row.get::<[u8; 32]>(0)?, row.get::<Vec<u8>>(1)?)))?;
    for (at, digest) in wanted {
        let key = requests[at].key.as_bytes();
        // A payment that has a state of its own is told that.
        let of_itself = doubtful.iter().any(|(_, other)| other == key);
        if !of_itself && doubtful.iter().any(|(found, _)| *found == digest) && !has_state(session, key)? {
            verdicts[at] = Some(Err(ClaimError::PayerUnresolved));
            first.remove(key);
        }
    }
    Ok(())
}

fn has_state(session: &Session, key: &[u8; 17]) -> SqlResult<bool> {
    let found = "SELECT 1 FROM claims WHERE key = ?1 AND state <> 'f'";
    Ok(session.first(found, params![key], |_| Ok(()))?.is_some())
}

/// Inserts or revives the rows; the keys that are this gateway's now.
fn insert(
    session: &Session,
    lease: Lease,
    requests: &[&ClaimRequest],
    first: &BTreeMap<[u8; 17], usize>,
) -> SqlResult<HashSet<[u8; 17]>> {
    if first.is_empty() {
        return Ok(HashSet::new());
    }
    let of = || first.values().map(|at| requests[*at]);
    let int = |ms: u64| Some(i64::try_from(ms).unwrap_or(i64::MAX));
    let keys: Vec<Option<&[u8]>> = first.keys().map(|key| Some(&key[..])).collect();
    let accounts: Vec<Option<&str>> = of().map(|request| Some(&*request.account)).collect();
    let periods: Vec<Option<i64>> = of().map(|request| Some(request.period)).collect();
    let assets: Vec<Option<&str>> = of().map(|request| Some(request.asset.as_str())).collect();
    let amounts: Vec<Option<i64>> = of().map(|request| Some(request.amount.get())).collect();
    let paid: Vec<Option<i64>> = of().map(|request| int(request.paid_at_ms)).collect();
    let purchases: Vec<Option<[u8; 32]>> = of().map(|request| request.purchase.as_ref().map(purchase_digest)).collect();
    let purchases: Vec<Option<&[u8]>> = purchases.iter().map(|digest| digest.as_ref().map(|d| &d[..])).collect();
    let insert = format!(
        "INSERT INTO claims AS c (key, slot, epoch, state, account, period, asset, amount, hard_until_ms, paid_at_ms, \
         purchase) SELECT u.key, ?1, ?2, 'r', u.account, u.period, u.asset, u.amount, {NOW_MS} + {HARD_MS}, \
         u.paid_at_ms, u.purchase \
         FROM unnest(?3::bytea[], ?4::text[], ?5::bigint[], ?6::text[], ?7::bigint[], ?8::bigint[], ?9::bytea[]) \
         AS u(key, account, period, asset, amount, paid_at_ms, purchase) \
         WHERE EXISTS (SELECT 1 FROM writers w WHERE w.slot = ?1 AND w.epoch = ?2 AND w.lease_until > {NOW_MS}) \
         AND u.paid_at_ms >= (SELECT replay_floor_ms FROM book) ORDER BY u.key \
         ON CONFLICT (key) DO UPDATE SET slot = excluded.slot, epoch = excluded.epoch, state = 'r', \
         account = excluded.account, period = excluded.period, asset = excluded.asset, amount = excluded.amount, \
         hard_until_ms = excluded.hard_until_ms, paid_at_ms = greatest(c.paid_at_ms, excluded.paid_at_ms), \
         purchase = excluded.purchase, doubtful = 0 WHERE c.state = 'f' RETURNING key"
    );
    let values = [
        Value::Int(lease.slot),
        Value::Int(lease.epoch),
        Value::Blobs(&keys),
        Value::Texts(&accounts),
        Value::Ints(&periods),
        Value::Texts(&assets),
        Value::Ints(&amounts),
        Value::Ints(&paid),
        Value::Blobs(&purchases),
    ];
    Ok(session.all(&insert, &values, |row| row.get(0))?.into_iter().collect())
}

/// Why a key was not granted.
fn why_not(session: &Session, key: &PaymentKey) -> SqlResult<ClaimError> {
    let state = "SELECT state, n FROM claims WHERE key = ?1";
    let found = session.first(state, params![key.as_bytes()], |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?)))?;
    let Some((state, n)) = found else {
        let (capture, floor) = (PostingKey::new(Kind::Capture, key, 0), ClaimError::BelowFloor);
        let captured = "SELECT n FROM entries WHERE key = ?1";
        let captured = session.first(captured, params![capture.as_bytes()], |row| row.get(0))?;
        return Ok(captured.map_or(floor, |n| ClaimError::AlreadyCaptured(Some(n))));
    };
    Ok(match state.as_str() {
        "r" | "s" | "v" => ClaimError::InFlight,
        "u" => ClaimError::Unresolved,
        "o" => ClaimError::Owed,
        "b" => ClaimError::Burnt,
        "c" => ClaimError::AlreadyCaptured((n != 0).then_some(n)),
        // It was free to be taken: only the lease was not.
        _ => Unavailable("this gateway's lease on the ledger has run out; it is being renewed".into()).into(),
    })
}

/// Takes the credit of every claim that is left, in order, or undoes the claim.
fn take_credit(
    session: &Session,
    requests: &[&ClaimRequest],
    freed: &[Freed],
    first: &mut BTreeMap<[u8; 17], usize>,
    verdicts: &mut [Option<Claimed>],
    undone: &mut Vec<[u8; 17]>,
) -> SqlResult<()> {
    let freed_keys = freed.iter().map(|(account, asset, period, _)| (account.as_str(), asset.as_str(), *period));
    let of_accounts: BTreeSet<UseKey<'_>> = freed_keys.chain(first.values().map(|at| use_key(requests[*at]))).collect();
    let keys: BTreeSet<UseKey<'_>> = of_accounts.iter().copied().flat_map(counted).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let stored = lock_use(session, keys.iter().copied())?;
    // What is stored, and what this transaction takes of it.
    let mut used: BTreeMap<UseKey<'_>, (i64, i64)> = keys.into_iter().map(|key| (key, (0, 0))).collect();
    for (account, asset, period, amount) in freed {
        for key in counted((account, asset, *period)) {
            used.entry(key).or_default().1 -= amount;
        }
    }
    for ((account, asset, period), stored) in &stored {
        if let Some(entry) = used.get_mut(&(account.as_str(), asset.as_str(), *period)) {
            entry.0 = *stored;
        }
    }
    // In the order of arrival: who asked first has the last unit.
    let mut arrived: Vec<([u8; 17], usize)> = first.iter().map(|(key, at)| (*key, *at)).collect();
    arrived.sort_by_key(|(_, at)| *at);
    for (key, at) in arrived {
        let request = requests[at];
        let over = |(key, limit): (UseKey<'_>, Units)| {
            let (stored, taken) = used.get(&key)?;
            let now = stored.saturating_add(*taken);
            let is_over = now.checked_add(request.amount.get()).is_none_or(|sum| sum > limit.get());
            is_over.then(|| ClaimError::CreditExhausted { used: Units::new(now.max(0)).unwrap_or(Units::MAX), limit })
        };
        let limits = counted(use_key(request)).zip([Some(request.limit), request.within]);
        if let Some(error) = limits.filter_map(|(key, limit)| Some((key, limit?))).find_map(over) {
            verdicts[at] = Some(Err(error));
            first.remove(&key);
            undone.push(key);
            continue;
        }
        for key in counted(use_key(request)) {
            used.entry(key).or_default().1 += request.amount.get();
        }
    }
    // What all open accounts use follows from what each of them does.
    change_use(
        session,
        used.into_iter().filter(|(key, _)| of_accounts.contains(key)).map(|(key, (_, taken))| (key, taken)),
    )
}

/// Where a change counts: for the account, and for all open ones if it is one of them.
fn counted<'a>(key: UseKey<'a>) -> impl Iterator<Item = UseKey<'a>> {
    [key].into_iter().chain(total_of(key.0).map(|total| (total, key.1, key.2)))
}

fn use_key(request: &ClaimRequest) -> UseKey<'_> {
    (&request.account, request.asset.as_str(), request.period)
}

/// What is used, each row locked in the order of its key, made where it is missing.
fn lock_use<'a>(session: &Session, keys: impl Iterator<Item = UseKey<'a>>) -> SqlResult<Vec<Used>> {
    let keys: Vec<UseKey<'_>> = keys.collect();
    let accounts: Vec<Option<&str>> = keys.iter().map(|(account, ..)| Some(*account)).collect();
    let assets: Vec<Option<&str>> = keys.iter().map(|(_, asset, _)| Some(*asset)).collect();
    let periods: Vec<Option<i64>> = keys.iter().map(|(.., period)| Some(*period)).collect();
    session.all(
        "INSERT INTO account_use AS a (account, asset, period, used) \
         SELECT u.account, u.asset, u.period, 0 FROM unnest(?1::text[], ?2::text[], ?3::bigint[]) \
         AS u(account, asset, period) ORDER BY u.account COLLATE \"C\", u.asset COLLATE \"C\", u.period \
         ON CONFLICT (account, asset, period) DO UPDATE SET used = a.used RETURNING account, asset, period, used",
        &[Value::Texts(&accounts), Value::Texts(&assets), Value::Ints(&periods)],
        |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)),
    )
}

/// Adds to what is used, in the order of the keys.
pub(in crate::ledger) fn change_use<'a>(
    session: &Session,
    changes: impl Iterator<Item = (UseKey<'a>, i64)>,
) -> SqlResult<()> {
    let mut sums: BTreeMap<UseKey<'_>, i64> = BTreeMap::new();
    for (key, change) in changes {
        for key in counted(key) {
            let sum = sums.entry(key).or_default();
            *sum = sum.saturating_add(change);
        }
    }
    sums.retain(|_, sum| *sum != 0);
    if sums.is_empty() {
        return Ok(());
    }
    let accounts: Vec<Option<&str>> = sums.keys().map(|(account, ..)| Some(*account)).collect();
    let assets: Vec<Option<&str>> = sums.keys().map(|(_, asset, _)| Some(*asset)).collect();
    let periods: Vec<Option<i64>> = sums.keys().map(|(.., period)| Some(*period)).collect();
    let changes: Vec<Option<i64>> = sums.values().map(|sum| Some(*sum)).collect();
    session.execute(
        "INSERT INTO account_use AS a (account, asset, period, used) \
         SELECT u.account, u.asset, u.period, u.change \
         FROM unnest(?1::text[], ?2::text[], ?3::bigint[], ?4::bigint[]) AS u(account, asset, period, change) \
         ORDER BY u.account COLLATE \"C\", u.asset COLLATE \"C\", u.period \
         ON CONFLICT (account, asset, period) DO UPDATE SET used = a.used + excluded.used",
        &[Value::Texts(&accounts), Value::Texts(&assets), Value::Ints(&periods), Value::Ints(&changes)],
    )?;
    Ok(())
}

/// Gives back what ended claims had taken.
pub(super) fn give_back<'a>(
    session: &Session,
    freed: impl Iterator<Item = (&'a str, &'a str, i64, i64)>,
) -> SqlResult<()> {
    change_use(session, freed.map(|(account, asset, period, amount)| ((account, asset, period), -amount)))
}

/// Ends claims of this gateway, uncharged, and says what they had taken. One that led to nothing at all leaves nothing behind.
pub(super) fn release(session: &Session, lease: Lease, released: &[(PaymentKey, Released)]) -> SqlResult<Vec<Freed>> {
    let released: BTreeMap<[u8; 17], Released> = released.iter().map(|(key, why)| (*key.as_bytes(), *why)).collect();
    let mut freed: Vec<Freed> = Vec::new();
    for (key, why) in &released {
        let counts = i64::from(*why != Released::NotAsked);
        let update = "UPDATE claims SET releases = releases + ?4, \
                      state = CASE WHEN releases + ?4 >= ?5 THEN 'b' ELSE 'f' END \
                      WHERE key = ?1 AND slot = ?2 AND epoch = ?3 AND state = 'r' \
                      RETURNING account, asset, period, amount, releases";
        let values = params![key, lease.slot, lease.epoch, counts, RELEASES_MAX];
        let held = session.first(update, values, |row| {
            Ok(((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?), row.get::<i64>(4)?))
        })?;
        // Its lease ended, and the sweeper was first.
        let Some((held, releases)) = held else { continue };
        freed.push(held);
        if releases == 0 {
            session.execute("DELETE FROM claims WHERE key = ?1 AND state = 'f'", params![key])?;
        }
    }
    Ok(freed)
}

/// The payments that are in this gateway's hand as far as the database knows, and whether money may be moving: one whose release
/// it has lost is among them, or that nobody knows the end of.
pub(super) fn held(session: &Session, lease: Lease) -> SqlResult<Vec<(PaymentKey, bool)>> {
    let held = "SELECT key, state FROM claims WHERE slot = ?1 AND epoch = ?2 AND state IN ('r', 's')";
    let held = session.all(held, params![lease.slot, lease.epoch], |row| {
        Ok((PaymentKey::from_bytes(row.get(0)?), row.get::<String>(1)? == "s"))
    })?;
    Ok(held.into_iter().filter_map(|(key, settling)| Some((key?, settling))).collect())
}

/// Whether a payment has gone further than a claim.
pub(super) fn knows(session: &Session, key: &PaymentKey) -> SqlResult<bool> {
    let known = "SELECT 1 FROM claims WHERE key = ?1 AND state IN ('s', 'u', 'o', 'v', 'c')";
    if session.first(known, params![key.as_bytes()], |_| Ok(()))?.is_some() {
        return Ok(true);
    }
    let capture = PostingKey::new(Kind::Capture, key, 0);
    let captured = "SELECT 1 FROM entries WHERE key = ?1";
    Ok(session.first(captured, params![capture.as_bytes()], |_| Ok(()))?.is_some())
}

/// Whether money of this purchase may have moved already.
pub(super) fn is_in_doubt(session: &Session, purchase: &Purchase) -> SqlResult<bool> {
    let doubtful = "SELECT 1 FROM claims WHERE doubtful = 1 AND purchase = ?1 LIMIT 1";
    Ok(session.first(doubtful, params![&purchase_digest(purchase)], |_| Ok(()))?.is_some())
}

/// The payer no longer waits for this settlement, or nobody does (`unknown`).
pub(super) fn doubt(session: &Session, lease: Lease, key: &PaymentKey, unknown: bool) -> SqlResult<()> {
    let doubt = "UPDATE claims SET doubtful = 1, state = CASE WHEN ?4 = 1 THEN 'u' ELSE state END \
                 WHERE key = ?1 AND slot = ?2 AND epoch = ?3 AND state = 's'";
    let values = params![key.as_bytes(), lease.slot, lease.epoch, i64::from(unknown)];
    session.execute(doubt, values).map(drop)
}

/// Takes an unresolved payment in hand; `None` when it is not unresolved, or somebody else was first.
pub(super) fn adopt(session: &Session, lease: Lease, key: &PaymentKey) -> SqlResult<Option<Unresolved>> {
    let adopt = "UPDATE claims SET slot = ?2, epoch = ?3, state = 's', doubtful = 1 \
                 WHERE key = (SELECT key FROM claims WHERE key = ?1 AND state = 'u' FOR UPDATE SKIP LOCKED)";
    if session.execute(adopt, params![key.as_bytes(), lease.slot, lease.epoch])? == 0 {
        return Ok(None);
    }
    Ok(settlements::open_settlements(session)?.into_iter().find(|open| open.request.key == *key))
}

/// Payments that wait to be adopted.
pub(super) fn unresolved(session: &Session) -> SqlResult<Vec<Unresolved>> {
    let waiting = "SELECT key FROM claims WHERE state = 'u'";
    let waiting: HashSet<Vec<u8>> = session.all(waiting, &[], |row| row.get(0))?.into_iter().collect();
    let open = if waiting.is_empty() { Vec::new() } else { settlements::open_settlements(session)? };
    Ok(open.into_iter().filter(|open| waiting.contains(&open.request.key.as_bytes()[..])).collect())
}

/// Frees a payment whose intent was written and told to nobody.
pub(in crate::ledger) fn withdraw(session: &Session, lease: Lease, key: &PaymentKey) -> SqlResult<()> {
    let transaction = session.begin(Begin::Write)?;
    let free = "UPDATE claims SET state = 'f', doubtful = 0 WHERE key = ?1 AND slot = ?2 AND epoch = ?3 AND state IN ('s', 'u') \
                RETURNING account, asset, period, amount";
    let freed: Option<Freed> = transaction.first(free, params![key.as_bytes(), lease.slot, lease.epoch], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    give_back(
        &transaction,
        freed.iter().map(|(account, asset, period, amount)| (&**account, &**asset, *period, *amount)),
    )?;
    transaction.commit()
}

/// What was owed is not fetched any more.
pub(in crate::ledger) fn end_owed(session: &Session, key: &PaymentKey) -> SqlResult<()> {
    let end = "UPDATE claims SET state = 'c' WHERE key = ?1 AND state IN ('o', 'v')";
    session.execute(end, params![key.as_bytes()]).map(drop)
}

/// The capture is owed: its answer was not given.
pub(in crate::ledger) fn owe(session: &Session, key: &PaymentKey, n: i64) -> SqlResult<()> {
    let owe = "UPDATE claims SET state = 'o', n = ?2 WHERE key = ?1 AND state IN ('c', 'v')";
    session.execute(owe, params![key.as_bytes(), n]).map(drop)
}

/// Takes the turn of serving what is owed; the capture's number.
pub(super) fn take_owed(session: &Session, lease: Lease, key: &PaymentKey) -> SqlResult<Option<i64>> {
    let take = format!(
        "UPDATE claims SET state = 'v', slot = ?2, epoch = ?3, hard_until_ms = {NOW_MS} + {HARD_MS} \
         WHERE key = (SELECT key FROM claims WHERE key = ?1 AND state = 'o' FOR UPDATE SKIP LOCKED) RETURNING n"
    );
    session.first(&take, params![key.as_bytes(), lease.slot, lease.epoch], |row| row.get(0))
}

/// The turn ends and nothing was given: owed again. True when that was the last of its turns: it stays in this gateway's hand
/// until its lapse is posted.
pub(super) fn give_back_owed(session: &Session, lease: Lease, key: &PaymentKey) -> SqlResult<bool> {
    let back = "UPDATE claims SET releases = releases + 1, \
                state = CASE WHEN releases + 1 >= ?4 THEN 'v' ELSE 'o' END \
                WHERE key = ?1 AND slot = ?2 AND epoch = ?3 AND state = 'v' RETURNING state";
    let values = params![key.as_bytes(), lease.slot, lease.epoch, RELEASES_MAX];
    Ok(session.first(back, values, |row| row.get::<String>(0))?.is_some_and(|state| state == "v"))
}

/// What stands for a purchase in the rows.
pub(super) fn purchase_digest(purchase: &Purchase) -> [u8; 32] {
    let mut digest = Sha256::new();
    for text in [&purchase.payer, &purchase.what] {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    }
    digest.finalize().into()
}
