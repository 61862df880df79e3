//! Whose turn it is: tenants take turns, and then the actors of each.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::id::ActorId;
use crate::permission::Tenant;
use crate::store::waiting::Candidate;

/// Turns that are remembered of actors that have nothing waiting.
const REMEMBERED: usize = 1_000;

/// When each tenant and each actor had its last turn, in turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    tenants: HashMap<Tenant, u64>,
    actors: HashMap<ActorId, u64>,
    turn: u64,
}

impl Turns {
    /// Puts candidates in line: who has waited longest for a turn is first.
    pub(super) fn line_up(&mut self, mut candidates: Vec<Candidate>) -> Line {
        if self.actors.len() > candidates.len() + REMEMBERED {
            let waiting: HashSet<_> = candidates.iter().map(|c| &c.actor).collect();
            self.actors.retain(|actor, _| waiting.contains(actor));
            let tenants: HashSet<_> = candidates.iter().map(|c| &c.tenant).collect();
            self.tenants.retain(|tenant, _| tenants.contains(tenant));
        }
        candidates.sort_by_cached_key(|c| {
            let tenant = self.tenants.get(&c.tenant).copied().unwrap_or(0);
            (tenant, c.tenant.clone(), self.actors.get(&c.actor).copied().unwrap_or(0))
        });
        let mut tenants: VecDeque<VecDeque<Candidate>> = VecDeque::new();
        for candidate in candidates {
            match tenants.back_mut() {
                Some(actors) if actors[0].tenant == candidate.tenant => actors.push_back(candidate),
                _ => tenants.push_back(VecDeque::from([candidate])),
            }
        }
        Line { tenants }
    }

    /// Notes that a candidate has its turn.
    pub(super) fn take(&mut self, candidate: &Candidate) {
        self.turn += 1;
        self.actors.insert(candidate.actor.clone(), self.turn);
        self.tenants.insert(candidate.tenant.clone(), self.turn);
    }
}

/// Candidates in the order of their turns, by tenant.
#[derive(Debug, Default)]
pub(super) struct Line {
    tenants: VecDeque<VecDeque<Candidate>>,
}

impl Line {
    /// Who is first; out of line from now on.
    pub(super) fn next(&mut self) -> Option<Candidate> {
        loop {
            match self.tenants.front_mut()?.pop_front() {
                Some(candidate) => return Some(candidate),
                None => _ = self.tenants.pop_front(),
            }
        }
    }

    /// Puts who was first and had its turn behind all others.
    pub(super) fn put_last(&mut self, candidate: Candidate) {
        let mut actors = self.tenants.pop_front().unwrap_or_default();
        actors.push_back(candidate);
        self.tenants.push_back(actors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Capacity;

    #[test]
    fn tenants_take_turns_and_then_their_actors() {
        let candidate = |tenant: &str| Candidate {
            actor: ActorId::generate(),
            tenant: Tenant::new(tenant),
            class: "default".to_owned(),
            capacity: Capacity {
                stateless: true,
                max_workers: None,
                wanted_workers: 0,
                on_trial: false,
            },
        };
        let (a1, a2, a3, b1) = (candidate("a"), candidate("a"), candidate("a"), candidate("b"));
        let names = HashMap::from([
            (a1.actor.clone(), "a1"),
            (a2.actor.clone(), "a2"),
            (a3.actor.clone(), "a3"),
            (b1.actor.clone(), "b1"),
        ]);
        let mut turns = Turns::default();
        let mut line = turns.line_up(vec![a1.clone(), b1.clone(), a2.clone(), a3.clone()]);
        let mut had = Vec::new();
        for _ in 0..6 {
            let candidate = line.next().unwrap();
            turns.take(&candidate);
            had.push(names[&candidate.actor]);
            line.put_last(candidate);
        }
        assert_eq!(had, ["a1", "b1", "a2", "b1", "a3", "b1"]);
        // A new line goes on where the old one ended; who cannot run is out of it.
        let mut line = turns.line_up(vec![a3, b1, a2, a1]);
        let passed_by = line.next().unwrap();
        assert_eq!(names[&passed_by.actor], "a1");
        assert_eq!(names[&line.next().unwrap().actor], "a2");
        assert_eq!(names[&line.next().unwrap().actor], "a3");
        assert_eq!(names[&line.next().unwrap().actor], "b1");
        assert!(line.next().is_none());
    }
}
