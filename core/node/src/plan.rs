//! What would follow from stopping, removing or adding a server, or from giving it an empty disk: consequences in words, from what a server knows now.
//!
//! [`Plan::of`] is a function of a [`View`]; it decides nothing and changes nothing.

use core::fmt;
use std::collections::BTreeSet;

use serde::Serialize;
use zipnet_core::checks::Strict;
use zipnet_core::id::PeerId;

use crate::meeting::{majority, may_retire};
use crate::status::View;

/// What an operator thinks of doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop a server that will come back.
    Stop(PeerId),
    /// Give a server an empty disk: what it has on the present one is lost, or will be.
    ReplaceDisk(PeerId),
    /// Take a server away for good.
    Remove(PeerId),
    /// Add a server.
    Add,
}

/// What would become of rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounds {
    /// They go on.
    GoOn,
    /// They are opened, and each client decides by its own floor and pins; those that were told no floor sit them out.
    ClientsDecide,
    /// No server opens one: its floor asks for more servers.
    Pause,
    /// The committee can agree on nothing.
    Stop,
    /// The step is refused, so that nothing changes.
    Refused,
}

/// How a server goes, as far as clients are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    /// It comes back.
    Departs,
    /// It has told the clients that it does not.
    Leaves,
    /// It has told nobody anything.
    Dead,
}

/// What would follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whether the committee goes on, or at least comes back by itself.
    pub safe: bool,
    /// What would become of rounds.
    pub rounds: Rounds,
    /// What would follow, each a sentence, the gravest first.
    pub consequences: Vec<String>,
    /// How many more servers may then be away before the committee can agree on nothing.
    pub may_leave: usize,
}

impl Plan {
    /// Thinks a step through.
    #[must_use]
    pub fn of(view: &View, step: Step) -> Self {
        if view.voters.is_empty() {
            return Self {
                safe: false,
                rounds: Rounds::Stop,
                consequences: vec!["this server is in no committee yet, so it cannot tell".to_owned()],
                may_leave: 0,
            };
        }
        match step {
            Step::Stop(server) => stop(view, server),
            Step::ReplaceDisk(server) => replace_disk(view, server),
            Step::Remove(server) => remove(view, server),
            Step::Add => add(view),
        }
    }
}

/// Voters that can cast their vote, without `away`.
fn alive(view: &View, away: Option<PeerId>) -> usize {
    view.voters.iter().filter(|voter| view.can_vote(voter) && Some(**voter) != away).count()
}

/// How many of so many that answer may leave before there is no majority.
const fn spare(alive: usize, voters: usize) -> usize {
    alive.saturating_sub(majority(voters))
}

/// What rounds do once so many of the registered servers remain.
fn rounds(view: &View, remaining: usize, going: Going, consequences: &mut Vec<String>) -> Rounds {
    if let Some(floor) = view.min_servers.and_then(|floor| usize::try_from(floor).ok())
        && remaining < floor
    {
        consequences.push(format!("rounds pause: {remaining} servers remain and {floor} are required"));
        return Rounds::Pause;
    }
    let (outcome, clients) = match going {
        Going::Departs => (
            Rounds::ClientsDecide,
            "those with ZIPNET_MIN_SERVERS or pins that allow it go on, all others sit them out until it is back",
        ),
        Going::Leaves => (
            Rounds::GoOn,
            "clients are told that it leaves, and go on; those that pin it, or whose ZIPNET_MIN_SERVERS asks for more, do not",
        ),
        Going::Dead => (
            Rounds::ClientsDecide,
            "those with ZIPNET_MIN_SERVERS or pins that allow it go on, all others sit them out until another server has \
             joined or they are restarted",
        ),
    };
    consequences.push(format!("rounds are open to the {remaining} servers that remain: {clients}"));
    outcome
}

/// What rounds do until a server is back.
fn without(view: &View, server: PeerId, consequences: &mut Vec<String>) -> Rounds {
    if view.roster.contains(&server) {
        rounds(view, view.roster.len().saturating_sub(1), Going::Departs, consequences)
    } else {
        Rounds::GoOn
    }
}

fn stop(view: &View, server: PeerId) -> Plan {
    let (voters, name) = (view.voters.len(), server.short());
    let mut consequences = Vec::new();
    let is_voter = view.voters.contains(&server);
    let left = alive(view, Some(server));
    let quorum = left >= majority(voters);
    if !is_voter {
        consequences.push(format!("server {name} has no vote: the committee goes on as before"));
    } else if quorum {
        consequences.push(format!(
            "{left} of {voters} votes remain and {} are needed: the committee goes on",
            majority(voters)
        ));
        if view.leader == Some(server) {
            consequences
                .push(format!("server {name} leads and hands over; another one is elected within seconds"));
        }
    } else {
        consequences.push(format!(
            "the committee stops until it is back: {left} of {voters} votes remain and {} are needed",
            majority(voters)
        ));
    }
    let rounds = if quorum { without(view, server, &mut consequences) } else { Rounds::Stop };
    consequences.push(format!("the vote of server {name} still counts while it is away"));
    Plan { safe: quorum, rounds, consequences, may_leave: spare(left, voters) }
}

/// One disk at a time: a majority of those that have a vote has to be left, with what was agreed on.
fn replace_disk(view: &View, server: PeerId) -> Plan {
    let (voters, name) = (view.voters.len(), server.short());
    let left = alive(view, Some(server));
    let others: Vec<_> = view.old_disks.iter().filter(|other| **other != server).map(PeerId::short).collect();
    let mut refusals = Vec::new();
    if !others.is_empty() {
        refusals.push(format!(
            "refused: the vote of server {} is still that of the disk that it lost: wait there with zipnet wait vote first",
            others.join(", ")
        ));
    } else if !view.members_settled {
        refusals.push("refused: a change of the voters is under way: ask again in a few seconds".to_owned());
    }
    if view.voters.contains(&server) && left < majority(voters) {
        refusals.push(format!(
            "refused: with this disk the log would be lost, since {left} of {voters} votes remain and {} are needed",
            majority(voters)
        ));
    }
    if !refusals.is_empty() {
        let (rounds, may_leave) = (Rounds::Refused, spare(left, voters));
        return Plan { safe: false, rounds, consequences: refusals, may_leave };
    }
    let mut consequences = Vec::new();
    if view.voters.contains(&server) {
        consequences.push(format!(
            "{left} of {voters} votes remain and {} are needed: the committee goes on",
            majority(voters)
        ));
    }
    let rounds = without(view, server, &mut consequences);
    consequences.push(format!(
        "server {name} comes back as a new one: it gets the log first, and then the vote moves to the new disk"
    ));
    consequences.push(
        "replace no other disk, and stop no other server, before zipnet wait vote has come to an end at it"
            .to_owned(),
    );
    Plan { safe: true, rounds, consequences, may_leave: spare(left, voters) }
}

fn remove(view: &View, server: PeerId) -> Plan {
    let dead = !view.removal(server, false).alive.contains(&server);
    let remaining: BTreeSet<_> = view.voters.iter().filter(|voter| **voter != server).collect();
    let left = alive(view, Some(server));
    match may_retire(&view.removal(server, dead), &Strict) {
        Err(sentence) => Plan {
            safe: false,
            rounds: Rounds::Refused,
            consequences: vec![format!("refused: {sentence}")],
            may_leave: spare(left, view.voters.len()),
        },
        Ok(advice) => {
            let mut consequences = vec![format!(
                "{} servers have a vote afterwards and {} are needed; {left} of them answer",
                remaining.len(),
                majority(remaining.len())
            )];
            consequences.extend(advice);
            if dead {
                consequences.push(format!(
                    "server {} does not answer: use --dead, and the others testify once they have failed to reach it",
                    server.short()
                ));
            }
            let staying = view.roster.iter().filter(|listed| **listed != server).count();
            let going = if dead { Going::Dead } else { Going::Leaves };
            let rounds = rounds(view, staying, going, &mut consequences);
            consequences.push(
                "its identity is barred for good; after a removal for cause, rotate the committee secret"
                    .to_owned(),
            );
            Plan { safe: true, rounds, consequences, may_leave: spare(left, remaining.len()) }
        }
    }
}

fn add(view: &View) -> Plan {
    let voters = view.voters.len() + 1;
    let left = alive(view, None) + 1;
    let mut consequences = vec![format!(
        "{voters} servers have a vote afterwards and {} are needed; {left} of them answer",
        majority(voters)
    )];
    if voters.is_multiple_of(2) {
        consequences.push(format!("an even number tolerates no more failures than {}", voters - 1));
    }
    consequences.push(
        "it gets the log first and a vote once it has caught up; until then nothing depends on it".to_owned(),
    );
    consequences.push(
        "clients derive a pad with it from the next round on; pinned clients need no change".to_owned(),
    );
    Plan { safe: true, rounds: Rounds::GoOn, consequences, may_leave: spare(left, voters) }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sentence in &self.consequences {
            writeln!(f, "- {sentence}")?;
        }
        match self.may_leave {
            0 => writeln!(f, "afterwards no further server may be away"),
            1 => writeln!(f, "afterwards 1 more server may be away"),
            many => writeln!(f, "afterwards {many} more servers may be away"),
        }
    }
}

#[cfg(test)]
mod tests {
    use zipnet_core::id::Role;

    use super::*;
    use crate::meeting::ServerState;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn committee(size: u8) -> View {
        View {
            leader: Some(peer(2)),
            voters: (1..=size).map(peer).collect(),
            servers: (1..=size).map(|number| (peer(number), ServerState::Registered)).collect(),
            linked: (2..=size).map(peer).collect(),
            roster: (1..=size).map(peer).collect(),
            ..View::lonely("acme.mainnet", peer(1), Role::Server)
        }
    }

    #[test]
    fn stopping_one_of_three_leaves_no_spare_and_of_five_one() {
        let plan = Plan::of(&committee(3), Step::Stop(peer(2)));
        assert!(plan.safe && plan.may_leave == 0, "{plan}");
        assert!(plan.consequences[1].contains("leads and hands over"), "{plan}");
        let plan = Plan::of(&committee(5), Step::Stop(peer(3)));
        assert!(plan.safe && plan.may_leave == 1, "{plan}");
    }

    #[test]
    fn stopping_a_second_one_stops_the_committee() {
        let mut view = committee(3);
        view.linked.remove(&peer(3));
        let plan = Plan::of(&view, Step::Stop(peer(2)));
        assert!(!plan.safe && plan.rounds == Rounds::Stop, "{plan}");
        assert!(plan.consequences[0].starts_with("the committee stops until it is back: 1 of 3"), "{plan}");
    }

    #[test]
    fn disks_are_replaced_one_at_a_time() {
        let plan = Plan::of(&committee(3), Step::ReplaceDisk(peer(2)));
        assert!(plan.safe && plan.to_string().contains("before zipnet wait vote"), "{plan}");
        // The first one is being replaced: it answers, and its vote cannot be cast.
        for size in [3, 5] {
            let view = View { old_disks: [peer(2)].into(), ..committee(size) };
            let plan = Plan::of(&view, Step::ReplaceDisk(peer(3)));
            assert!(
                !plan.safe && plan.consequences[0].contains("wait there with zipnet wait vote"),
                "{plan}"
            );
            assert!(Plan::of(&view, Step::ReplaceDisk(peer(2))).safe, "there is nothing on it that counts");
        }
        let view = View { old_disks: [peer(2)].into(), ..committee(3) };
        let plan = Plan::of(&view, Step::ReplaceDisk(peer(3)));
        assert!(plan.consequences[1].contains("the log would be lost, since 1 of 3 votes remain"), "{plan}");
        assert!(!Plan::of(&view, Step::Stop(peer(3))).safe, "nor may another one be away");
        // It moves.
        let view = View { members_settled: false, ..committee(3) };
        assert!(!Plan::of(&view, Step::ReplaceDisk(peer(3))).safe);
        // Another one is away.
        let mut view = committee(3);
        view.linked.remove(&peer(2));
        assert!(!Plan::of(&view, Step::ReplaceDisk(peer(3))).safe);
        assert!(Plan::of(&view, Step::ReplaceDisk(peer(2))).safe, "it is the one that lost its disk");
    }

    #[test]
    fn without_floors_clients_sit_rounds_out() {
        let plan = Plan::of(&committee(3), Step::Stop(peer(3)));
        assert!(plan.to_string().contains("all others sit them out until it is back"), "{plan}");
        assert_eq!(plan.rounds, Rounds::ClientsDecide);
    }

    #[test]
    fn clients_go_on_without_whoever_has_said_that_it_leaves() {
        let mut view = committee(4);
        let plan = Plan::of(&view, Step::Remove(peer(3)));
        assert_eq!(plan.rounds, Rounds::GoOn, "{plan}");
        assert!(plan.to_string().contains("clients are told that it leaves, and go on"), "{plan}");
        view.linked.remove(&peer(3));
        let plan = Plan::of(&view, Step::Remove(peer(3)));
        assert_eq!(plan.rounds, Rounds::ClientsDecide, "{plan}");
        assert!(plan.to_string().contains("until another server has joined or they are restarted"), "{plan}");
    }

    #[test]
    fn floors_decide_whether_rounds_go_on() {
        let mut view = committee(4);
        view.min_servers = Some(3);
        assert_eq!(Plan::of(&view, Step::Stop(peer(2))).rounds, Rounds::ClientsDecide);
        view.min_servers = Some(4);
        let plan = Plan::of(&view, Step::Stop(peer(2)));
        assert_eq!(plan.rounds, Rounds::Pause);
        assert!(plan.to_string().contains("rounds pause"), "{plan}");
        assert_eq!(Plan::of(&view, Step::Remove(peer(2))).rounds, Rounds::Pause);
    }

    #[test]
    fn removing_follows_the_rule_of_retirement() {
        let plan = Plan::of(&committee(5), Step::Remove(peer(5)));
        assert!(plan.safe && plan.may_leave == 1, "{plan}");
        assert!(plan.to_string().contains("4 servers remain: an even number"), "{plan}");
        let mut view = committee(3);
        view.linked.remove(&peer(2));
        let plan = Plan::of(&view, Step::Remove(peer(3)));
        assert!(!plan.safe && plan.consequences[0].contains("majority would be lost"), "{plan}");
        assert_eq!(plan.rounds, Rounds::Refused);
        assert!(Plan::of(&view, Step::Remove(peer(2))).to_string().contains("use --dead"));
        assert!(!Plan::of(&view, Step::Remove(peer(9))).safe);
    }

    #[test]
    fn adding_counts_the_newcomer() {
        let plan = Plan::of(&committee(3), Step::Add);
        assert!(plan.safe && plan.may_leave == 1, "{plan}");
        assert!(plan.to_string().contains("an even number tolerates no more failures than 3"), "{plan}");
    }

    #[test]
    fn a_server_outside_any_committee_does_not_guess() {
        let plan = Plan::of(&View::lonely("a", peer(1), Role::Server), Step::Add);
        assert!(!plan.safe, "{plan}");
    }
}
