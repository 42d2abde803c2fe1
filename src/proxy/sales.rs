//! What of a core needs the books, so that a gateway that ends gives them away as soon as nothing does: the next process sells
//! then, while free connections of this one live on.
//!
//! ```text
//! selling ── the drain begins ──► ending ── no sale is left, and nothing that may become one, ──► over: no more sales
//!                                           or the time for that is over ([`LATE`])
//! ```
//!
//! | what | counts | until |
//! |---|---|---|
//! | a request at the gate, a dispute | [`Sale`] | its answer or refusal is made |
//! | an exchange, with or without its client | [`Sale`] | its task has ended: the claim is released, the capture or what else was queued is answered |
//! | a captured answer on its way | [`Sale`] | its outcome is queued; so a slow paid download keeps the books, at most until the drain's end |
//! | the verdict about an observed request | [`Sale`] | the verdict is there |
//! | an observed request that waits for its origin | [`Chance`] | it is counted |
//! | a connection that may still bring a request | [`Chance`] | it was told to end (HTTP/1.1), or has ended (HTTP/2) |
//! | a call of an MCP server whose body is being read | [`Chance`] | it is known to be free, or is a sale |
//!
//! The process dies: nothing of this is durable, and the books are as after any crash. Each core decides for itself, and the books
//! are closed when the last one has: a core that is over never claims again, so nothing is sold by two processes. Whoever comes
//! later, on a head that took longer than [`LATE`], is refused before the gate, uncharged, and told to come back on another
//! connection. What is observed later is not counted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// How long after the drain's beginning the books wait for what may become a sale. A successor lets its priced requests wait for
/// longer than that (5 s).
pub const LATE: Duration = Duration::from_secs(2);

/// The sales of one core.
#[derive(Debug, Default)]
pub struct Sales {
    over: Cell<bool>,
    sales: Cell<usize>,
    chances: Cell<usize>,
}

/// Something that needs the books.
#[derive(Debug)]
pub struct Sale(Rc<Sales>);

/// Something that may become a sale.
#[derive(Debug)]
pub struct Chance(Rc<Sales>);

impl Sales {
    /// A sale begins; `None` once they are over.
    pub fn begin(self: &Rc<Sales>) -> Option<Sale> {
        (!self.over.get()).then(|| Sale::counted(self))
    }

    /// Something begins that may become a sale.
    pub fn chance(self: &Rc<Sales>) -> Chance {
        self.chances.set(self.chances.get() + 1);
        Chance(self.clone())
    }

    /// Ends them if nothing needs the books any more; the drain has begun so long ago. Whether they are over.
    pub fn try_end(&self, draining: Duration) -> bool {
        if self.sales.get() == 0 && (self.chances.get() == 0 || draining >= LATE) {
            self.over.set(true);
        }
        self.over.get()
    }

    /// Whether they are over.
    pub fn are_over(&self) -> bool {
        self.over.get()
    }
}

impl Sale {
    fn counted(sales: &Rc<Sales>) -> Sale {
        sales.sales.set(sales.sales.get() + 1);
        Sale(sales.clone())
    }
}

/// Another part of the same sale, which may outlive this one.
impl Clone for Sale {
    fn clone(&self) -> Sale {
        Sale::counted(&self.0)
    }
}

impl Drop for Sale {
    fn drop(&mut self) {
        self.0.sales.set(self.0.sales.get().saturating_sub(1));
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        self.0.chances.set(self.0.chances.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_end_with_the_last_part_of_the_last_sale() {
        let sales = Rc::new(Sales::default());
        let sale = sales.begin().unwrap();
        let delivery = sale.clone();
        drop(sale);
        assert!(!sales.try_end(Duration::from_secs(3600)), "however long it takes");
        drop(delivery);
        assert!(sales.try_end(Duration::ZERO));
        assert!(sales.begin().is_none(), "for good");
    }

    #[test]
    fn what_may_become_one_is_waited_for_a_while() {
        let sales = Rc::new(Sales::default());
        let chance = sales.chance();
        assert!(!sales.try_end(LATE - Duration::from_millis(1)));
        let sale = sales.begin().expect("it became one");
        drop(chance);
        assert!(!sales.try_end(LATE));
        drop(sale);
        let _slow = sales.chance();
        assert!(sales.try_end(LATE));
    }
}
