//! Which states to keep when old ones go.

use std::collections::BTreeMap;

use crate::log::Refs;
use crate::state::{State, StateId, Tag};

/// How many states to keep of each kind; what no rule keeps goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest ones.
    pub last: u32,
    /// All of so many days up to today's.
    pub within: u32,
    /// The newest one of each of the latest days that have any.
    pub daily: u32,
    /// The same by weeks, which begin on Mondays.
    pub weekly: u32,
    /// The same by months.
    pub monthly: u32,
    /// The same by years.
    pub yearly: u32,
}

/// Why a state is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Live roots follow it.
    Current,
    /// A tag names it.
    Tag(Tag),
    /// It is one of the newest.
    Last,
    /// It is of one of the latest days.
    Within,
    /// It is the newest one of a day.
    Daily,
    /// It is the newest one of a week.
    Weekly,
    /// It is the newest one of a month.
    Monthly,
    /// It is the newest one of a year.
    Yearly,
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// 2026, for example.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl Day {
    /// Days since 0000-03-01, so that the day that comes and goes is the last of a
    /// year.
    fn number(self) -> i64 {
        let (year, month) = match self.month {
            1 | 2 => (self.year - 1, i64::from(self.month) + 9),
            _ => (self.year, i64::from(self.month) - 3),
        };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        // From March on, months have 31, 30, 31, 30 and 31 days, over and over.
        365 * year + leap_days + (153 * month + 2) / 5 + i64::from(self.day) - 1
    }

    /// Weeks, counted from some Monday.
    fn week(self) -> i64 {
        // 0000-03-01 was a Wednesday.
        (self.number() + 2).div_euclid(7)
    }
}

/// Names the period that a state was committed in.
type Period<'a> = &'a dyn Fn(&State) -> (i64, i64);

impl Keep {
    /// The states that stay, with all reasons for each; the current one and those with
    /// tags always do. `day` tells on which day a state was committed.
    #[must_use]
    pub fn choose(
        &self,
        refs: &Refs,
        today: Day,
        day: &dyn Fn(&State) -> Day,
    ) -> BTreeMap<StateId, Vec<Reason>> {
        let mut kept: BTreeMap<StateId, Vec<Reason>> = BTreeMap::new();
        let mut keep = |id, reason| kept.entry(id).or_default().push(reason);
        if let Some(current) = refs.current {
            keep(current, Reason::Current);
        }
        for (tag, id) in &refs.tags {
            keep(*id, Reason::Tag(tag.clone()));
        }
        // Also those from after today: clocks go wrong.
        let first = today.number() + 1 - i64::from(self.within);
        for state in refs.states.values() {
            if self.within > 0 && day(state).number() >= first {
                keep(state.id, Reason::Within);
            }
        }
        let rules: [(u32, Reason, Period<'_>); 5] = [
            (self.last, Reason::Last, &|state| (i64::try_from(state.id.0).unwrap_or(i64::MAX), 0)),
            (self.daily, Reason::Daily, &|state| (day(state).number(), 0)),
            (self.weekly, Reason::Weekly, &|state| (day(state).week(), 0)),
            (self.monthly, Reason::Monthly, &|state| (day(state).year, day(state).month.into())),
            (self.yearly, Reason::Yearly, &|state| (day(state).year, 0)),
        ];
        for (count, reason, period) in rules {
            let mut periods = Vec::new();
            for state in refs.states.values().rev() {
                if periods.len() >= count as usize {
                    break;
                }
                let of_state = period(state);
                if !periods.contains(&of_state) {
                    periods.push(of_state);
                    keep(state.id, reason.clone());
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::TreeId;

    /// States 1, 2, … of these days, of which the last is current.
    fn refs(days: &[(i64, u8, u8)]) -> (Refs, impl Fn(&State) -> Day) {
        let mut refs = Refs::default();
        for id in (1..).map(StateId).take(days.len()) {
            let tree = TreeId::of(b"");
            let (time, request) = (id.0, String::new());
            let state = State { id, parent: None, time, request, tree, packages: tree };
            refs.states.insert(id, state);
            refs.current = Some(id);
        }
        let days = days.to_vec();
        let day = move |state: &State| {
            let (year, month, day) = days[usize::try_from(state.id.0).unwrap() - 1];
            Day { year, month, day }
        };
        (refs, day)
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_latest_periods() {
        let (mut refs, day) = refs(&[
            (2024, 12, 31), // 1, a Tuesday
            (2025, 1, 1),   // 2, of the same week
            (2025, 1, 5),   // 3, its Sunday
            (2025, 1, 6),   // 4, a Monday
            (2025, 1, 6),   // 5
            (2025, 2, 28),  // 6
            (2025, 3, 1),   // 7
            (2025, 3, 1),   // 8
        ]);
        refs.current = Some(StateId(2));
        refs.tags.insert(Tag::new("kept").unwrap(), StateId(1));
        let today = Day { year: 2025, month: 3, day: 1 };
        let check = |keep: Keep, expected: &[u64]| {
            let kept: Vec<u64> = keep.choose(&refs, today, &day).keys().map(|id| id.0).collect();
            assert_eq!(kept, expected, "{keep:?}");
        };
        let none = Keep::default();
        check(none, &[1, 2]);
        check(Keep { last: 3, ..none }, &[1, 2, 6, 7, 8]);
        check(Keep { within: 1, ..none }, &[1, 2, 7, 8]);
        check(Keep { within: 2, ..none }, &[1, 2, 6, 7, 8]);
        check(Keep { within: 55, ..none }, &[1, 2, 4, 5, 6, 7, 8]);
        check(Keep { within: u32::MAX, ..none }, &[1, 2, 3, 4, 5, 6, 7, 8]);
        check(Keep { daily: 3, ..none }, &[1, 2, 5, 6, 8]);
        check(Keep { daily: 100, ..none }, &[1, 2, 3, 5, 6, 8]);
        check(Keep { weekly: 3, ..none }, &[1, 2, 3, 5, 8]);
        check(Keep { monthly: 3, ..none }, &[1, 2, 5, 6, 8]);
        check(Keep { yearly: 5, ..none }, &[1, 2, 8]);
        check(Keep { last: 1, yearly: 2, ..none }, &[1, 2, 8]);
        let reasons = Keep { last: 1, daily: 1, ..none }.choose(&refs, today, &day);
        assert_eq!(reasons[&StateId(8)], [Reason::Last, Reason::Daily]);
        assert_eq!(reasons[&StateId(1)], [Reason::Tag(Tag::new("kept").unwrap())]);
    }

    #[test]
    fn days_follow_one_another_and_weeks_begin_on_mondays() {
        let day = |year, month, day| Day { year, month, day };
        assert_eq!(day(2000, 3, 1).number() - day(2000, 2, 28).number(), 2);
        assert_eq!(day(1900, 3, 1).number() - day(1900, 2, 28).number(), 1);
        assert_eq!(day(2025, 1, 1).number() - day(2024, 12, 31).number(), 1);
        assert_eq!(day(2024, 3, 1).number() - day(2023, 3, 1).number(), 366);
        // 2026-11-23 is a Monday.
        assert_eq!(day(2026, 11, 23).week(), day(2026, 11, 29).week());
        assert_eq!(day(2026, 11, 23).week(), day(2026, 11, 22).week() + 1);
    }
}
