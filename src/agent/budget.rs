//! How much one request may cost.

use std::fmt;

use super::offer::Offer;
use crate::wire::amount::Money;

/// What one request may cost, by currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget(Vec<Money>);

/// No offer is within the budget.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the offer asks {}, the budget is {budget}", offer.price)]
pub struct OverBudget {
    /// The cheapest in a currency of the budget, else the first.
    pub offer: Box<Offer>,
    /// What may be spent.
    pub budget: Budget,
}

impl Budget {
    /// At most `max` a request, and nothing in other currencies.
    pub fn up_to(max: Money) -> Budget {
        Budget(vec![max])
    }

    /// And at most `max` in its currency.
    pub fn or(mut self, max: Money) -> Budget {
        self.0.retain(|m| m.currency != max.currency);
        self.0.push(max);
        self
    }

    /// Whether a price is within it.
    pub fn allows(&self, price: Money) -> bool {
        self.0.iter().any(|max| max.currency == price.currency && price.units <= max.units)
    }

    /// The first offer within the budget: servers put the one that they prefer first.
    ///
    /// # Errors
    /// [`OverBudget`], also for no offers at all of its currencies. `None` for an empty list.
    pub fn choose<'o>(&self, offers: &'o [Offer]) -> Option<Result<&'o Offer, OverBudget>> {
        if let Some(offer) = offers.iter().find(|offer| self.allows(offer.price)) {
            return Some(Ok(offer));
        }
        let known = |offer: &&Offer| self.0.iter().any(|max| max.currency == offer.price.currency);
        let cheapest = offers.iter().filter(known).min_by_key(|offer| offer.price.units).or(offers.first())?;
        Some(Err(OverBudget { offer: Box::new(cheapest.clone()), budget: self.clone() }))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, max) in self.0.iter().enumerate() {
            write!(f, "{}{max}", if i == 0 { "" } else { " or " })?;
        }
        if self.0.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::offer::Way;

    fn offer(price: &str, expires: Option<i64>) -> Offer {
        Offer {
            price: Money::parse(price).unwrap(),
            network: "example-network-provider".into(),
            resource: None,
            pay_to: None,
            description: None,
            expires,
            way: Way::Deferred { id: "abc123".into(), terms_url: None },
        }
    }

    #[test]
    fn the_first_offer_within_the_budget_is_taken() {
        let money = |text: &str| Money::parse(text).unwrap();
        let offers = [offer("0.50 EUR", None), offer("0.30 USD", None), offer("0.20 USD", None)];
        let choose = |budget: &Budget| budget.choose(&offers).unwrap().map(|o| o.price.to_string());
        assert_eq!(choose(&Budget::up_to(money("0.30 USD"))).unwrap(), "0.30 USD");
        assert_eq!(choose(&Budget::up_to(money("0.25 USD"))).unwrap(), "0.20 USD");
        assert_eq!(choose(&Budget::up_to(money("0.1 USD")).or(money("1 EUR"))).unwrap(), "0.50 EUR");
        let error = choose(&Budget::up_to(money("0.1 USD"))).unwrap_err();
        assert_eq!(error.to_string(), "the offer asks 0.20 USD, the budget is 0.10 USD");
        assert_eq!(
            choose(&Budget::default()).unwrap_err().to_string(),
            "the offer asks 0.50 EUR, the budget is nothing"
        );
        assert!(Budget::default().choose(&[]).is_none());
    }
}
