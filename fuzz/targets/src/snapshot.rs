//! The state of the committee, as a leader sends it or a disk returns it.

use zipnet_core::committee::Committee;
use zipnet_core::machine::{Effect, Outbox};
use zipnet_core::server;
use zipnet_core::time::Time;

use crate::Verdict;
use crate::memory::bounded;
use crate::network::{Event, Machine, Node, RESEND, Surrounded, committee_config, history, peer};
use crate::wires::cut;

/// A snapshot has one encoding, one that is refused changes nothing, and whatever is taken, the server goes on.
pub(crate) fn snapshot(bytes: &[u8]) -> Verdict {
    const ME: usize = 1;
    let mut committee = Committee::new(committee_config(), Surrounded { me: peer(ME) });
    let before = committee.snapshot();
    if bounded(bytes, || committee.restore(bytes)).is_err() {
        assert_eq!(committee.snapshot(), before, "a refused snapshot changed the committee");
        return Verdict::Refused;
    }
    assert_eq!(committee.snapshot(), bytes, "a state has two snapshots");

    let (mut node, mut now) = (Node::new(ME), Time::default());
    if let Machine::Server(server) = &mut node.machine {
        // As a peer's it is examined more closely than as one of this server's own disk.
        let mut out = Outbox::new();
        let installed = server.install(bytes, &mut out).is_ok();
        while out.pop().is_some() {}
        if !installed {
            server.restore(bytes).expect("the committee took it");
        }
    }
    let voters = (0..3).map(peer).collect();
    let mut happens = vec![
        Event::Server(server::Input::Voters { voters }),
        Event::Linked(0),
        Event::Linked(2),
        Event::Linked(3),
        Event::Server(server::Input::CaughtUp(true)),
        Event::Server(server::Input::Led { leader: Some(peer(ME)) }),
    ];
    let log = history().log.iter().zip(0..);
    happens.extend(
        log.map(|(command, index)| {
            Event::Server(server::Input::Committed { index, command: command.clone() })
        }),
    );
    let mut index = 1_000;
    for event in happens {
        let mut proposed = node.feed(now, event);
        // What the server says itself comes into the log as well, as long as it has something to say.
        for _ in 0..4 {
            now = now.after(RESEND);
            proposed.extend(node.feed(now, Event::Tick));
            for effect in core::mem::take(&mut proposed) {
                if let Effect::Propose(command) = effect {
                    let command = zipnet_core::wire::encode_command(&command).to_vec();
                    let input = server::Input::Committed { index, command };
                    proposed.extend(node.feed(now, Event::Server(input)));
                    index += 1;
                }
            }
            if proposed.is_empty() {
                break;
            }
        }
    }
    Verdict::Taken
}

/// The state at five moments, from nothing to the end of the history.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let snapshots = &history().snapshots;
    let committee = Committee::new(committee_config(), Surrounded { me: peer(1) });
    let empty = ("empty".to_owned(), committee.snapshot());
    let moments = [4, 10, 13, 16, 18, 24, 30];
    let moments = moments.into_iter().filter(|place| *place < snapshots.len());
    let mut seeds: Vec<_> =
        moments.map(|place| (format!("moment-{place}"), snapshots[place].clone())).collect();
    seeds.push(cut(&empty.1));
    seeds.push(empty);
    seeds
}
