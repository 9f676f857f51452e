//! Faults that are to happen on the link of a device process: what, and when. They are made in the device process, beside
//! its models, which know nothing of them.
//!
//! Whether a rule strikes depends on nothing but the rule, the seed and how many events it has seen, and the count is kept in
//! the link: the same machine file gives the same faults, whoever died meanwhile.

use crate::time::VirtualTime;
use serde::{Deserialize, Serialize};

/// Rules per device process.
pub const MAX_FAULTS: usize = 16;
/// [`When::Chance`] is of so many.
pub const CERTAIN: u32 = 1_000_000;
/// Number of the first PIRQ where lines are numbered.
pub const FIRST_PIRQ: u8 = 16;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A line rises later.
    DelayInterrupt {
        /// Virtual time that it is late.
        nanos: u64,
    },
    /// A line that a model raises stays low until the model raises it again.
    DropInterrupt,
    /// A line that a model lowers makes a further pulse.
    RepeatInterrupt,
    /// The guest reads all ones instead of what the model answered.
    FloatRead,
    /// Of a DMA transfer only the first bytes arrive. The model does not notice; what it reads beyond them is all ones.
    ShortDma {
        /// Bytes that arrive.
        bytes: u64,
    },
    /// The process is killed when it is about to deal with a request.
    Kill,
}

/// Which of the events that a rule is about are struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// Number so much, counted from 1.
    At(u64),
    /// Each one whose number is a multiple.
    Every(u64),
    /// So many in [`CERTAIN`], chosen by the seed.
    Chance(u32),
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// With which event.
    pub when: When,
    /// Events that count: accesses to this port or address, edges of this line (PIRQs from [`FIRST_PIRQ`] on). `None`: all.
    pub only: Option<u64>,
}

/// The rules for one device process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Decides where chance does.
    pub seed: u64,
    /// At most [`MAX_FAULTS`].
    pub rules: Vec<FaultRule>,
}

impl Faults {
    /// Whether rule number `rule` strikes at its event number `number`.
    pub fn strikes(&self, rule: usize, number: u64) -> bool {
        match self.rules.get(rule).map(|rule| rule.when) {
            None => false,
            Some(When::At(at)) => number == at,
            Some(When::Every(period)) => number.checked_rem(period) == Some(0),
            Some(When::Chance(chance)) => {
                let mixed = mix(self.seed ^ mix(rule as u64 + 1) ^ number);
                mixed % u64::from(CERTAIN) < u64::from(chance)
            }
        }
    }
}

/// What faults have under way on one interrupt line. It is kept in the link, so that a successor goes on with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineFault {
    /// A model holds the line, and the machine does not see it.
    pub rise: Option<KeptRise>,
    /// A pulse that no model makes.
    pub pulse: Option<Pulse>,
}

/// How a rise is kept from the machine. It is forgotten when the line falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeptRise {
    /// Until then.
    Late(VirtualTime),
    /// For good.
    Dropped,
}

/// Where a pulse has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulse {
    /// It begins then.
    Begins(VirtualTime),
    /// The line is high, and falls then.
    Ends(VirtualTime),
}

/// Word of a rise that is dropped.
const DROPPED: u64 = u64::MAX;
/// Bit of a pulse that has begun.
const BEGUN: u64 = 1 << 0;

impl LineFault {
    /// When something of it happens next.
    pub fn due(&self) -> Option<VirtualTime> {
        let rise = self.rise.and_then(|rise| match rise {
            KeptRise::Late(due) => Some(due),
            KeptRise::Dropped => None,
        });
        let pulse = self.pulse.map(|(Pulse::Begins(due) | Pulse::Ends(due))| due);
        [rise, pulse].into_iter().flatten().min()
    }

    /// As two words of a link: 0 for nothing. Each stands for itself, so that whoever dies between them leaves no nonsense.
    pub fn words(&self) -> [u64; 2] {
        let rise = match self.rise {
            None => 0,
            Some(KeptRise::Late(due)) => due.0.saturating_add(1).min(DROPPED - 1),
            Some(KeptRise::Dropped) => DROPPED,
        };
        let time = |due: VirtualTime| due.0.saturating_add(1).min(u64::MAX >> 1) << 1;
        let pulse = match self.pulse {
            None => 0,
            Some(Pulse::Begins(due)) => time(due),
            Some(Pulse::Ends(due)) => time(due) | BEGUN,
        };
        [rise, pulse]
    }

    /// Of the words of a link, whatever they are.
    pub fn from_words([rise, pulse]: [u64; 2]) -> Self {
        let rise = match rise {
            0 => None,
            DROPPED => Some(KeptRise::Dropped),
            late => Some(KeptRise::Late(VirtualTime(late - 1))),
        };
        let due = (pulse >> 1).checked_sub(1).map(VirtualTime);
        let pulse = due.map(|due| if pulse & BEGUN == 0 { Pulse::Begins(due) } else { Pulse::Ends(due) });
        Self { rise, pulse }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): each bit of the
/// result depends on each of the argument.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(seed: u64, when: When, events: u64) -> Vec<u64> {
        let rule = FaultRule { fault: Fault::FloatRead, when, only: None };
        let faults = Faults { seed, rules: vec![rule] };
        (1..=events).filter(|number| faults.strikes(0, *number)).collect()
    }

    #[test]
    fn what_is_under_way_on_a_line_is_the_same_in_words_and_any_words_are_something() {
        let times = [0, 1, 7_000_000_000, u64::MAX >> 2].map(VirtualTime);
        let rises = times.map(KeptRise::Late).into_iter().chain([KeptRise::Dropped]).map(Some).chain([None]);
        for rise in rises {
            for time in times {
                for pulse in [None, Some(Pulse::Begins(time)), Some(Pulse::Ends(time))] {
                    let fault = LineFault { rise, pulse };
                    assert_eq!(LineFault::from_words(fault.words()), fault);
                }
            }
        }
        assert_eq!(LineFault::default().words(), [0; 2]);
        let last = LineFault { rise: Some(KeptRise::Late(VirtualTime(u64::MAX))), pulse: None };
        assert!(matches!(LineFault::from_words(last.words()).rise, Some(KeptRise::Late(_))));
        assert_eq!(LineFault::from_words([0, BEGUN]), LineFault::default());
    }

    #[test]
    fn a_rule_strikes_at_a_number_at_its_multiples_or_by_chance_the_same_each_time() {
        assert_eq!(struck(1, When::At(3), 10), [3]);
        assert_eq!(struck(1, When::Every(4), 10), [4, 8]);
        assert_eq!(struck(1, When::Every(0), 10), [0; 0]);
        let chance = |seed| struck(seed, When::Chance(CERTAIN / 100), 100_000);
        assert!((800..1200).contains(&chance(1).len()));
        assert_eq!(chance(1), chance(1));
        assert_ne!(chance(1), chance(2));
        assert_eq!(struck(1, When::Chance(CERTAIN), 100).len(), 100);
        assert_eq!(struck(1, When::Chance(0), 1000), [0; 0]);
    }
}
