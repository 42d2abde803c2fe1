//! What the writer does for its slot when nothing else happens: it says that it is there, and looks at the others.

use std::time::{Duration, Instant};

use super::lease::Lease;
use crate::{
    ledger::{
        sql::SqlResult,
        writer::{Broken, Writer},
    },
    payment::secrets::disagreement,
};

/// How often the other gateways are looked at, and the lease is renewed by one whose clock stands.
const LOOK_EVERY: Duration = Duration::from_millis(900);

impl Writer {
    /// Connects anew where the connection has ended since it was used last.
    pub(in crate::ledger) fn reconnected(&mut self) -> Result<(), Broken> {
        if !self.books.connection.has_ended() {
            return Ok(());
        }
        self.try_again().map_err(|what| self.broken(&what))
    }

    /// Renews the lease, where there is one and it is time.
    pub(in crate::ledger) fn renew(&mut self) -> Result<(), Broken> {
        let (Some(lease), Some(desk)) = (self.books.lease, &self.shared.desk) else { return Ok(()) };
        let asked_ms = self.shared.clock.now_ms();
        if self.looked.elapsed() < LOOK_EVERY && !desk.held().is_due(asked_ms) {
            return Ok(());
        }
        self.looked = Instant::now();
        let at_disk = self.shared.at_disk();
        let renewed = lease.renew(&self.books.connection);
        drop(at_disk);
        match renewed {
            Ok(true) => {}
            Ok(false) => return Err(self.broken("another gateway has taken this one's slot")),
            Err(error) => return Err(self.broken(&error.to_string())),
        }
        if let Some(desk) = &self.shared.desk {
            desk.held().renewed(asked_ms);
        }
        let compared = self.shared.compare_clocks(&self.books.connection);
        compared.map_err(|error| self.broken(&error.to_string()))?;
        self.compare_secrets(lease).map_err(|error| self.broken(&error.to_string()))
    }

    /// Says it in the log when a gateway that lives would refuse this one's offers, or the other way round.
    fn compare_secrets(&mut self, lease: Lease) -> SqlResult<()> {
        let ours = &self.shared.secret_prints();
        if ours.is_empty() {
            return Ok(());
        }
        if self.published.as_ref() != Some(ours) {
            lease.publish(&self.books.connection, ours)?;
            self.published = Some(ours.clone());
        }
        let now_s = self.shared.clock.now_ms() / 1000;
        let found = lease.peers(&self.books.connection)?.into_iter().find_map(|(slot, theirs)| {
            let why = disagreement(ours, &theirs, now_s)?;
            Some(format!("the gateway of slot {slot} has other keys that seal offers: {why}"))
        });
        if found != self.peers {
            match &found {
                Some(why) => {
                    tracing::error!(why, "offers of one gateway are refused by another: give all the same secret_file")
                }
                None => tracing::info!("all gateways of this ledger have the keys that seal offers"),
            }
            self.shared.set_disagreement(found.clone());
            self.peers = found;
        }
        Ok(())
    }
}
