//! The tables of the simulated database, as the equations look at them.

use std::collections::BTreeMap;

use tollgate::ledger::open_accounts::{PREFIX, TOTAL};

use super::{
    bugs::Bug,
    database::{EntryRow, State, WriterRow},
    model::Model,
    stores::{Books, Open, Posted, Rollup, Stated, Writer},
};

impl Model {
    pub fn books(&self) -> Books {
        let db = &self.db;
        let mut used: BTreeMap<_, i64> = BTreeMap::new();
        for ((account, asset, period), sum) in &db.used {
            used.insert((account.to_string(), asset.to_string(), *period), *sum);
        }
        let (mut live, mut open) = (BTreeMap::new(), BTreeMap::new());
        for (key, row) in &db.claims {
            let (request, amount) = (&row.request, row.request.amount.get());
            let (account, asset) = (request.account.to_string(), request.asset.to_string());
            let account_is_open = account.starts_with(PREFIX);
            match row.state {
                State::Live => _ = live.insert(*key, amount),
                State::Settling | State::Unknown => {
                    open.insert(*key, Open { account, asset, period: request.period, amount });
                }
                _ => continue,
            }
            if db.bug == Some(Bug::ChecksThenCaptures) {
                let key = (request.account.to_string(), request.asset.to_string(), request.period);
                *used.entry(key).or_default() += amount;
                if account_is_open {
                    *used.entry((TOTAL.to_owned(), request.asset.to_string(), request.period)).or_default() += amount;
                }
            }
        }
        let writer = |(slot, row): (&i64, &WriterRow)| Writer {
            slot: *slot,
            epoch: row.epoch,
            seq: row.seq,
            at_ms: row.at_ms,
            open_day: row.open_day,
        };
        let posted = |row: &EntryRow| Posted {
            n: row.n,
            kind: row.kind,
            key: row.key.payment(),
            at_ms: row.at_ms,
            day: row.day,
            account: row.account.to_string(),
            asset: row.asset.to_string(),
            scheme: row.scheme.to_owned(),
            amount: row.amount,
            change: row.change,
            period: row.period,
            ref_n: row.ref_n,
        };
        let rollups = db.rollups.iter().map(|((day, account, asset), net)| Rollup {
            day: *day,
            account: account.to_string(),
            asset: asset.to_string(),
            net: *net,
        });
        let statements = db.statements.iter().map(|(account, asset, total)| Stated {
            account: account.to_string(),
            asset: asset.to_string(),
            total: *total,
        });
        Books {
            floor_ms: db.floor_ms,
            writers: db.writers.iter().map(writer).collect(),
            entries: db.entries.values().map(posted).collect(),
            open,
            outcomes: db.told.iter().map(|(n, outcome)| (*n, outcome.delivery)).collect(),
            rollups: rollups.collect(),
            closes: db.closes.clone(),
            statements: statements.collect(),
            used,
            live: Some(live),
            at_rest: true,
        }
    }
}
