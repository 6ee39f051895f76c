//! Where the others were last, as a small file of the state folder tells the next process: a line for each peer, as it is
//! written behind `--bootstrap`.
//!
//! It is a hint. Whoever is remembered is dialled, and nothing follows from that.

use std::collections::BTreeMap;

use zipnet_core::id::PeerId;

use crate::config::{PeerAddress, parse_peer_address};
use crate::world::{Address, Disk, World, on_disk};

/// The file.
pub const FILE: &str = "peers";

/// The text of the file.
#[must_use]
pub fn text(peers: &BTreeMap<PeerId, Address>) -> String {
    peers.iter().map(|(peer, address)| format!("{peer}@{address}\n")).collect()
}

/// What a text says. Lines that cannot be read are left out.
#[must_use]
pub fn peers(text: &str) -> BTreeMap<PeerId, Address> {
    text.lines().filter_map(entry).collect()
}

/// A line of the file.
#[must_use]
pub fn entry(line: &str) -> Option<(PeerId, Address)> {
    let PeerAddress { peer, address } = parse_peer_address(line.trim()).ok()?;
    Some((peer, address?))
}

/// What an earlier process left; nothing if there is none, or if it cannot be read.
pub(crate) async fn load<W: World>(world: &W) -> BTreeMap<PeerId, Address> {
    let read = on_disk::<W, _>(world.disk().clone(), |disk| disk.read(FILE)).await;
    let text = read.ok().and_then(Result::ok).flatten().unwrap_or_default();
    peers(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_rubbish_is_left_out() {
        let peer = |number| PeerId([number; 32]);
        let known: BTreeMap<_, _> =
            [(peer(1), "a:1"), (peer(2), "[::1]:2")].map(|(peer, at)| (peer, Address(at.to_owned()))).into();
        assert_eq!(peers(&text(&known)), known);
        let damaged = format!("rubbish\n{}@a:1\n{}\n", peer(1), peer(3));
        assert_eq!(peers(&damaged).len(), 1);
    }
}
