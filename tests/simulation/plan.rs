//! What happens next, by the dice of a seed. Some runs are calm, some have one kind of trouble, some all of it.

use super::{
    random::Random,
    steps::{COPIES, Order, PAYMENTS, Step},
    stores::{Answer, Fate},
    world::World,
};

/// Kinds of trouble; each run has about half of them.
const TROUBLES: usize = 8;

pub struct Plan {
    has: [bool; TROUBLES],
    /// What follows without dice.
    script: Vec<Step>,
}

impl Plan {
    pub fn new(random: &mut Random) -> Plan {
        Plan { has: std::array::from_fn(|_| random.below(2) == 0), script: Vec::new() }
    }

    pub fn next(&mut self, random: &mut Random, world: &World) -> Step {
        if let Some(step) = self.script.pop() {
            return step;
        }
        let replicas = world.stores.replicas();
        let replica = random.below(replicas);
        let number = replica as u8;
        // What stands still is mostly brought back soon.
        if world.stores.is_down(replica) && random.below(3) > 0 {
            return Step::Open { replica: number };
        }
        if world.stores.holds(replica) && self.has[4] && random.below(25) == 0 {
            return Step::Crash { replica: number, after: random.below(2) == 0 };
        }
        if world.stores.holds(replica) && random.below(5) == 0 {
            return self.answer(random, number);
        }
        if world.stores.is_frozen(replica) && random.below(8) == 0 {
            return Step::Thaw { replica: number };
        }
        let luck = random.below(100) as u8;
        let (payment, copy) = (random.below(usize::from(PAYMENTS)) as u8, random.below(usize::from(COPIES)) as u8);
        let places: Vec<(u8, u8)> = world.requests.keys().copied().collect();
        let some = if places.is_empty() { (payment, copy) } else { *random.pick(&places) };
        match random.below(100) {
            0..50 if !places.is_empty() => {
                let (payment, copy) = *random.pick(&places);
                Step::Go { payment, copy, luck }
            }
            // What is spent is sent again, too, but not only.
            0..72 if random.below(3) == 0 && world.is_spent(payment) => Step::Sign { payment },
            0..72 => Step::Send { payment, copy, replica: number, spelling: random.below(2) as u8 },
            72..76 => Step::Sign { payment },
            76..79 => Step::Reconcile { payment, replica: number },
            79 | 80 => Step::Advance { ms: *random.pick(&[50, 700, 4_000, 40_000, 500_000]) },
            81 => self.order(random, payment, number, world),
            82 => Step::Mine,
            83 | 84 => self.of_day(random, number),
            _ => self.trouble(random, some, number).unwrap_or(Step::Advance { ms: 10 }),
        }
    }

    fn answer(&self, random: &mut Random, replica: u8) -> Step {
        let answer = match random.below(4) {
            0 => Answer::Fail,
            1 if self.has[0] => Answer::Unseen,
            _ => Answer::Commit,
        };
        Step::Answer { replica, answer }
    }

    /// Mostly about what was captured.
    fn order(&self, random: &mut Random, payment: u8, replica: u8, world: &World) -> Step {
        let spent: Vec<u8> = (0..PAYMENTS).filter(|place| world.is_spent(*place)).collect();
        let payment = if spent.is_empty() { payment } else { *random.pick(&spent) };
        let units = *random.pick(&[1, 2, 5, 9]);
        let refunds = [Order::Refund(units), Order::RefundDone(units), Order::RefundFailed(units)];
        let others = [Order::Void, Order::Dispute, Order::Uphold, Order::Reject];
        let orders = [&refunds[..], &others].concat();
        Step::Correct { payment, replica, order: *random.pick(&orders) }
    }

    fn of_day(&mut self, random: &mut Random, replica: u8) -> Step {
        if self.has[7] && random.below(3) == 0 {
            // A day is closed as soon as it is over, by a clock that is then set back before its end.
            let close = Step::Close { replica, before: 0 };
            self.script = vec![Step::Accept { replica }, Step::Wall { replica, seconds: -200 }, close];
            return Step::Midnight { after_ms: 1200 };
        }
        match random.below(3) {
            0 => Step::Midnight { after_ms: *random.pick(&[-1500, -200, 300, 1200, 2500]) },
            _ => Step::Close { replica, before: u8::from(random.below(4) == 0) },
        }
    }

    fn trouble(&self, random: &mut Random, (payment, copy): (u8, u8), replica: u8) -> Option<Step> {
        let trouble = random.below(TROUBLES);
        if !self.has[trouble] {
            return None;
        }
        Some(match trouble {
            0 => {
                let fate = *random.pick(&[Fate::Fail, Fate::Unseen, Fate::Unseen, Fate::Row]);
                Step::Arm { replica, fate }
            }
            1 => Step::Arm { replica, fate: Fate::Hold },
            2 if random.below(2) == 0 => Step::Leave { payment, copy },
            2 => Step::Stall { payment, copy },
            3 => Step::Panic { payment, copy },
            4 if random.below(3) == 0 => Step::Crash { replica, after: random.below(2) == 0 },
            5 if random.below(2) == 0 => Step::Freeze { replica },
            6 if random.below(3) == 0 => Step::CrashDatabase,
            6 if random.below(2) == 0 => Step::Arm { replica, fate: Fate::Broken },
            6 => Step::Mend,
            7 => match random.below(6) {
                0 => Step::Wall { replica, seconds: *random.pick(&[-3600, -400, -120, 90, 240, 400, 900]) },
                1 => Step::Wall { replica, seconds: 0 },
                2 => Step::Accept { replica },
                _ => return None,
            },
            _ => return None,
        })
    }
}
