//! Connections over real sockets: between two links, and with strangers who keep no rules.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use zipnet_core::id::UniqueId;
use zipnet_core::key::{Identity, NodeSecret};
use zipnet_core::wire::MESSAGE_BYTES_MAX;
use zipnet_node::frame::FRAME_BYTES_MAX;
use zipnet_node::world::{Address, Channel, Connection, Link, LinkError, Violation};
use zipnet_world::network::framing::{channel_byte, header};
use zipnet_world::network::{Limits, QuicConnection, QuicLink};

#[path = "support/stranger.rs"]
mod stranger;

use stranger::{Shows, Stranger};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The vector of the default round.
const LIMITS: Limits = Limits { vector_bytes: 16 << 10 };
/// The longest message of a stranger under [`LIMITS`].
const STRANGER_MESSAGE: usize = (16 << 10) + (16 << 10);

const STREAMS: [Channel; 4] = [Channel::Control, Channel::Consensus, Channel::Bulk, Channel::Protocol];

fn identity(name: &str) -> Identity {
    Identity::from_secret(&NodeSecret::from_bytes(UniqueId::from_text(name).0))
}

fn link(name: &str) -> QuicLink {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    QuicLink::bind(&identity(name), any, None, LIMITS).expect("loopback has free ports")
}

async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    timeout(PATIENCE, happens).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Has one link dial another.
async fn meet(
    one: &QuicLink,
    other: &QuicLink,
) -> (Result<QuicConnection, LinkError>, Result<QuicConnection, LinkError>) {
    let address = other.address();
    soon("a connection", async { tokio::join!(one.dial(&address), other.accept()) }).await
}

/// Two links and a connection between them: who dialled, and who was dialled.
async fn connected() -> (QuicLink, QuicLink, QuicConnection, QuicConnection) {
    let (one, other) = (link("one"), link("other"));
    let (dialled, accepted) = meet(&one, &other).await;
    (one, other, dialled.expect("it listens"), accepted.expect("it was dialled"))
}

/// The next message, whatever its channel.
async fn next(connection: &QuicConnection) -> Result<(Channel, Bytes), LinkError> {
    soon("a message", connection.receive()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_know_whom_they_talk_to_and_share_a_secret() {
    let (one, other, dialled, accepted) = connected().await;
    assert_eq!(dialled.peer(), identity("other").peer());
    assert_eq!(accepted.peer(), identity("one").peer());
    assert_eq!(dialled.dialled(), Some(other.address()));
    assert_eq!(accepted.dialled(), None);
    assert_eq!(dialled.exporter(), accepted.exporter());
    let (again, accepted_again) = meet(&one, &other).await;
    let (again, accepted_again) = (again.unwrap(), accepted_again.unwrap());
    assert_eq!(again.exporter(), accepted_again.exporter());
    assert_ne!(again.exporter(), dialled.exporter());
    assert_ne!(again.exporter(), [0; 32]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_channel_keep_their_order_in_both_directions() {
    let (_one, _other, dialled, accepted) = connected().await;
    const COUNT: u32 = 300;
    for (from, to) in [(&dialled, &accepted), (&accepted, &dialled)] {
        for number in 0..COUNT {
            for channel in STREAMS {
                // Of all sizes, the empty message among them.
                let mut message = number.to_be_bytes().to_vec();
                message.resize(4 + usize::try_from(number * 7 % 1000).unwrap(), 0xee);
                from.send(channel, message.into()).unwrap();
            }
        }
        let mut expected = std::collections::BTreeMap::new();
        for _ in 0..COUNT * 4 {
            let (channel, message) = next(to).await.unwrap();
            let place = expected.entry(channel).or_insert(0_u32);
            assert_eq!(message[..4], place.to_be_bytes(), "on {channel:?}");
            *place += 1;
        }
        from.send(Channel::Control, Bytes::new()).unwrap();
        assert_eq!(next(to).await, Ok((Channel::Control, Bytes::new())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_under_way_does_not_hold_up_control() {
    let (_one, _other, dialled, accepted) = connected().await;
    accepted.trust();
    // More than waits at the receiver and on the way as long as nobody receives.
    const COUNT: usize = 60;
    for _ in 0..COUNT {
        let chunk = Bytes::from(vec![1; 500 << 10]);
        dialled.send(Channel::Bulk, chunk).unwrap();
    }
    let (channel, _) = next(&accepted).await.unwrap();
    assert_eq!(channel, Channel::Bulk, "it is under way");
    dialled.send(Channel::Control, Bytes::from_static(b"beat")).unwrap();
    let mut before = 1;
    let mut control = None;
    for place in 1..=COUNT {
        match next(&accepted).await.unwrap() {
            (Channel::Control, message) => {
                assert_eq!(message, "beat");
                control = Some(place);
            }
            _ => before += usize::from(control.is_none()),
        }
    }
    assert!(control.is_some() && before < COUNT, "control waited for {before} of {COUNT} chunks");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_snapshot_does_not_hold_up_control() {
    let node = link("node");
    let stranger = Stranger::dial("stranger", Shows::Key, node.local_address().unwrap()).await.unwrap();
    let accepted = soon("the stranger", node.accept()).await.unwrap();
    let half = [&[3][..], &header(STRANGER_MESSAGE).unwrap(), &[1; STRANGER_MESSAGE / 2]].concat();
    let beat = [&[1][..], &header(4).unwrap(), b"beat"].concat();
    let mut stranger = stranger.says(&half).await.says(&beat).await;
    assert_eq!(next(&accepted).await, Ok((Channel::Control, Bytes::from_static(b"beat"))));
    stranger.continues(0, &[1; STRANGER_MESSAGE / 2]).await;
    assert_eq!(next(&accepted).await, Ok((Channel::Bulk, Bytes::from(vec![1; STRANGER_MESSAGE]))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_queued_before_a_close_arrives() {
    // A receiver that does not look for a while; then one that looks, but slowly.
    for (count, first, pause) in [(12, 1_500, 0), (40, 0, 1)] {
        let (_one, _other, dialled, accepted) = connected().await;
        accepted.trust();
        for number in 0..count {
            dialled.send(Channel::Control, Bytes::from(vec![number; 10_000])).unwrap();
        }
        dialled.close(7);
        assert_eq!(dialled.send(Channel::Control, Bytes::new()), Err(LinkError::Closed(0)));
        sleep(Duration::from_millis(first)).await;
        for number in 0..count {
            sleep(Duration::from_millis(pause)).await;
            let (_, message) = next(&accepted).await.unwrap_or_else(|error| panic!("{number}: {error}"));
            assert_eq!((message.len(), message[0]), (10_000, number));
        }
        // The code comes last, and whoever has read everything need not wait for it.
        let end = next(&accepted).await;
        assert!(matches!(end, Err(LinkError::Closed(0 | 7))), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_take_messages_fills_its_own_queue_only() {
    let (_one, other, dialled, accepted) = connected().await;
    let message = Bytes::from(vec![3; 256 << 10]);
    let mut sent = 0;
    let refused = loop {
        match accepted.send(Channel::Protocol, message.clone()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        // As many as the network and the other end may hold besides the queue.
        assert!(sent < 200, "nothing bounds the queue");
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, LinkError::Full);
    // Others are not concerned.
    let third = link("third");
    let (to_other, from_third) = meet(&third, &other).await;
    to_other.unwrap().send(Channel::Control, Bytes::from_static(b"here")).unwrap();
    assert_eq!(next(&from_third.unwrap()).await, Ok((Channel::Control, Bytes::from_static(b"here"))));
    // Once it takes them, there is room again.
    for _ in 0..sent {
        assert_eq!(next(&dialled).await, Ok((Channel::Protocol, message.clone())));
    }
    soon("room in the queue", async {
        while accepted.send(Channel::Protocol, message.clone()).is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_may_send_what_a_client_needs_and_a_trusted_peer_a_snapshot() {
    let (_one, _other, dialled, accepted) = connected().await;
    dialled.send(Channel::Protocol, Bytes::from(vec![1; STRANGER_MESSAGE])).unwrap();
    assert_eq!(next(&accepted).await.unwrap().1.len(), STRANGER_MESSAGE);
    dialled.send(Channel::Protocol, Bytes::from(vec![1; STRANGER_MESSAGE + 1])).unwrap();
    assert_eq!(next(&accepted).await, Err(LinkError::Violation(Violation::TooLong)));
    assert_eq!(next(&dialled).await, Err(LinkError::Closed(1)), "it is told that it broke the rules");

    let (_one, _other, dialled, accepted) = connected().await;
    accepted.trust();
    assert_eq!(
        dialled.send(Channel::Bulk, Bytes::from(vec![2; MESSAGE_BYTES_MAX + 1])),
        Err(LinkError::TooLarge)
    );
    dialled.send(Channel::Bulk, Bytes::from(vec![2; MESSAGE_BYTES_MAX])).unwrap();
    let (channel, snapshot) = next(&accepted).await.unwrap();
    assert_eq!((channel, snapshot.len()), (Channel::Bulk, MESSAGE_BYTES_MAX));
    assert!(snapshot.iter().all(|byte| *byte == 2));
    // Frames are short, whoever sends them.
    dialled.send(Channel::Control, Bytes::from(vec![1; FRAME_BYTES_MAX])).unwrap();
    assert_eq!(next(&accepted).await.unwrap().1.len(), FRAME_BYTES_MAX);
    dialled.send(Channel::Control, Bytes::from(vec![1; FRAME_BYTES_MAX + 1])).unwrap();
    assert_eq!(next(&accepted).await, Err(LinkError::Violation(Violation::TooLong)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_held_to_a_rate() {
    let (_one, _other, dialled, accepted) = connected().await;
    // Eight messages a second, and a second's worth at once.
    const COUNT: usize = 26;
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        for _ in 0..COUNT {
            let message = Bytes::from(vec![1; STRANGER_MESSAGE]);
            while dialled.send(Channel::Protocol, message.clone()).is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        }
        dialled
    });
    for _ in 0..COUNT {
        next(&accepted).await.unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2), "{COUNT} of the longest messages took only {took:?}");
    drop(sending.await);
}

/// What a stranger does with its connection.
type Deed = fn(Stranger) -> std::pin::Pin<Box<dyn Future<Output = Stranger> + Send>>;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_the_rules_of_streams_is_cut_off_and_nobody_else() {
    let node = link("node");
    let address = node.local_address().unwrap();
    let deeds: [(Violation, Deed); 6] = [
        (Violation::NoChannel, |stranger| Box::pin(async { stranger.says(&[9]).await })),
        (Violation::NoChannel, |stranger| Box::pin(async { stranger.says(&[0, 0, 0, 0, 1, 7]).await })),
        (Violation::SecondStream, |stranger| {
            Box::pin(async {
                let message = [&[4][..], &header(1).unwrap(), b"a"].concat();
                stranger.says(&message).await.says(&message).await
            })
        }),
        (Violation::CutOff, |stranger| {
            Box::pin(async {
                stranger.says_and_ends(&[&[1][..], &header(9).unwrap(), b"half"].concat()).await
            })
        }),
        (Violation::CutOff, |stranger| Box::pin(async { stranger.says_and_ends(&[2, 0, 0]).await })),
        (Violation::TooLong, |stranger| {
            Box::pin(async { stranger.says(&[3, 0xff, 0xff, 0xff, 0xff]).await })
        }),
    ];
    let good = link("good");
    let (to_node, from_good) = meet(&good, &node).await;
    let (to_node, from_good) = (to_node.unwrap(), from_good.unwrap());
    for (number, (violation, deed)) in deeds.into_iter().enumerate() {
        let name = format!("stranger {number}");
        let stranger = Stranger::dial(&name, Shows::Key, address).await.expect("it shows a key");
        let accepted = soon("the stranger", node.accept()).await.unwrap();
        assert_eq!(accepted.peer(), identity(&name).peer());
        let stranger = deed(stranger).await;
        let end = soon("the end of the connection", async {
            loop {
                if let Err(end) = accepted.receive().await {
                    return end;
                }
            }
        })
        .await;
        assert_eq!(end, LinkError::Violation(violation), "{name}");
        assert_eq!(soon("the stranger to hear of it", stranger.closed()).await, Some(1), "{name}");
        to_node.send(Channel::Control, Bytes::from_static(b"still here")).unwrap();
        assert_eq!(next(&from_good).await, Ok((Channel::Control, Bytes::from_static(b"still here"))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_few_and_of_one_kind() {
    let node = link("node");
    let stranger = Stranger::dial("stranger", Shows::Key, node.local_address().unwrap()).await.unwrap();
    let accepted = soon("the stranger", node.accept()).await.unwrap();
    let mut stranger = stranger;
    for channel in STREAMS {
        let byte = channel_byte(channel).unwrap();
        stranger = stranger.says(&[byte]).await;
    }
    // The node grants no more than these, and none in both directions.
    assert!(!stranger.gets_another_stream().await);
    assert!(!stranger.gets_a_stream_both_ways().await);
    // What was granted works.
    stranger.continues(0, &[&header(2).unwrap()[..], b"hi"].concat()).await;
    assert_eq!(next(&accepted).await, Ok((Channel::Control, Bytes::from_static(b"hi"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_a_byte_at_a_time_delays_nobody() {
    let node = link("node");
    let mut slow = Stranger::dial("slow", Shows::Key, node.local_address().unwrap()).await.unwrap();
    let accepted = soon("the slow one", node.accept()).await.unwrap();
    let message = [&header(16).unwrap()[..], b"one at a time..."].concat();
    slow = slow.says(&[3]).await;
    let dripping = tokio::spawn(async move {
        for byte in message {
            slow.continues(0, &[byte]).await;
            sleep(Duration::from_millis(100)).await;
        }
        // Its control channel is open meanwhile.
        slow
    });
    let (mut others, mut arrived) = (0, false);
    while !arrived {
        let name = format!("quick {others}");
        let quick = link(&name);
        let (to_node, from_quick) = meet(&quick, &node).await;
        to_node.unwrap().send(Channel::Protocol, Bytes::from_static(b"quick")).unwrap();
        assert_eq!(next(&from_quick.unwrap()).await, Ok((Channel::Protocol, Bytes::from_static(b"quick"))));
        others += 1;
        if let Ok(received) = timeout(Duration::from_millis(50), accepted.receive()).await {
            assert_eq!(received, Ok((Channel::Bulk, Bytes::from_static(b"one at a time..."))));
            arrived = true;
        }
        assert!(others < 1_000, "the slow message never came");
    }
    assert!(others > 1, "somebody came first");
    drop(dripping.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_key_or_speaks_something_else_is_not_let_in() {
    let node = link("node");
    let address = node.local_address().unwrap();
    for shows in [Shows::Nothing, Shows::Certificate, Shows::KeyForAnotherProtocol, Shows::AnothersKey] {
        let refused = Stranger::dial("stranger", shows, address).await;
        if let Ok(stranger) = refused {
            // The client's side of a handshake is over before the server has looked at its key.
            assert!(
                soon("the refusal", stranger.closed()).await.is_none(),
                "{shows:?} was refused by the node"
            );
        }
    }
    // None of them was handed to the node: the first one is honest.
    let good = link("good");
    let (_to_node, first) = meet(&good, &node).await;
    assert_eq!(first.unwrap().peer(), identity("good").peer());

    // Nor are such servers dialled.
    for shows in [Shows::Certificate, Shows::KeyForAnotherProtocol, Shows::AnothersKey] {
        let (server, address) = stranger::server("server", shows);
        let address = Address(address.to_string());
        assert_eq!(
            soon("a refusal", good.dial(&address)).await.err(),
            Some(LinkError::Unreachable),
            "{shows:?}"
        );
        assert!(good.why_unreachable(&address).unwrap().contains("does not shake hands"), "{shows:?}");
        server.close(0_u32.into(), b"");
    }
    let (_server, address) = stranger::server("server", Shows::Key);
    assert!(soon("a server with a key", good.dial(&Address(address.to_string()))).await.is_ok());
}

#[test]
fn a_peer_that_vanishes_is_noticed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, accepted) = {
        let gone = tokio::runtime::Runtime::new().unwrap();
        let node = runtime.block_on(async { link("node") });
        let (address, accepting) = (node.address(), node.clone());
        let accepting = runtime.spawn(async move { accepting.accept().await });
        let vanishes = gone.block_on(async { link("vanishes") });
        let dialled = gone.block_on(async { soon("a connection", vanishes.dial(&address)).await.unwrap() });
        gone.block_on(async { dialled.send(Channel::Control, Bytes::from_static(b"last words")).unwrap() });
        let accepted = runtime.block_on(async { soon("a connection", accepting).await.unwrap().unwrap() });
        assert_eq!(runtime.block_on(next(&accepted)).unwrap().1, "last words");
        // As a machine that loses its power: no farewell is sent.
        gone.shutdown_background();
        std::mem::forget((vanishes, dialled));
        (node, accepted)
    };
    let begun = Instant::now();
    assert_eq!(runtime.block_on(next(&accepted)), Err(LinkError::Closed(0)));
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(5), "a short silence is no death: {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_is_unreachable_and_the_reason_is_kept() {
    let one = link("one");
    // A port at which nobody speaks QUIC.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = Address(silent.local_addr().unwrap().to_string());
    let nameless = Address("no-such-host.invalid:4000".to_owned());
    let (to_silent, to_nameless) =
        soon("both to fail", async { tokio::join!(one.dial(&silent), one.dial(&nameless)) }).await;
    assert_eq!(to_silent.err(), Some(LinkError::Unreachable));
    assert_eq!(to_nameless.err(), Some(LinkError::Unreachable));
    assert_eq!(one.why_unreachable(&silent).as_deref(), Some("nobody answers within 5 s"));
    let why = one.why_unreachable(&nameless).unwrap();
    assert!(why.starts_with("the name does not resolve"), "{why}");

    // Once somebody listens there, there is no reason any more.
    let other = link("other");
    let address = other.address();
    assert_eq!(one.why_unreachable(&address), None);
    let (dialled, _accepted) =
        soon("a connection", async { tokio::join!(one.dial(&address), other.accept()) }).await;
    assert!(dialled.is_ok());
    assert_eq!(one.why_unreachable(&address), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_held_by_one() {
    let one = link("one");
    let taken = QuicLink::bind(&identity("two"), one.local_address().unwrap(), None, LIMITS);
    assert_eq!(taken.err().map(|error| error.kind()), Some(std::io::ErrorKind::AddrInUse));
    let _keep = Arc::new(one);
}
