//! What a state folder remembers of the network beside the address book: the port of this node, and where it was reached.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use zipnet_core::id::{PeerId, UniqueId};
use zipnet_core::key::Identity;
use zipnet_node::config::PeerAddress;
use zipnet_node::remembered;
use zipnet_node::world::Address;

use crate::disk::{Folder, OWN, PORT};
use crate::network::{Limits, QuicLink};

/// Listens. Without a port, the one that this folder was given before is used again, if it is free.
///
/// # Errors
/// The sentence that says why the node cannot listen.
pub fn listen(
    identity: &Identity,
    folder: &Folder,
    address: &Address,
    advertise: Option<Address>,
    limits: Limits,
) -> Result<QuicLink, String> {
    let wanted = resolve(address)?;
    let bind = |at| QuicLink::bind(identity, at, advertise.clone(), limits);
    let saved = folder.read(PORT).ok().flatten().and_then(|port| port.trim().parse().ok());
    let link = match saved.filter(|_| wanted.port() == 0) {
        Some(port) => bind(SocketAddr::new(wanted.ip(), port)).or_else(|_| bind(wanted)),
        None => bind(wanted),
    };
    let link = link.map_err(|reason| {
        format!(
            "failed to listen on {wanted} (UDP): {reason}; stop whoever uses it, or set another ZIPNET_LISTEN"
        )
    })?;
    let local = link.local_address().map_err(|reason| format!("failed to listen on {wanted}: {reason}"))?;
    if wanted.port() == 0 && saved != Some(local.port()) {
        folder
            .write(PORT, &format!("{}\n", local.port()))
            .map_err(|reason| format!("failed to save the port in {}: {reason}", folder.path().display()))?;
    }
    Ok(link)
}

/// The first address that a host and port stand for.
///
/// # Errors
/// The sentence that says that it stands for none.
pub fn resolve(address: &Address) -> Result<SocketAddr, String> {
    let found =
        address.0.to_socket_addrs().map_err(|reason| format!("failed to resolve {address}: {reason}"))?;
    found.into_iter().next().ok_or_else(|| format!("failed to resolve {address}: the name has no address"))
}

/// Leaves a note for nodes on this machine, and for people.
///
/// # Errors
/// What the file system says.
pub fn leave_note(folder: &Folder, peer: PeerId, address: &Address) -> std::io::Result<()> {
    folder.write(OWN, &format!("{peer}@{address}\n"))
}

/// The peers that a node was told to start from, each with an address.
///
/// A bare peer id is looked up in the saved address book, then among the nodes whose state folders lie beside this one.
///
/// # Errors
/// For a bare peer id that is found nowhere, the sentence that says what to write.
pub fn bootstrap(folder: &Folder, asked: &[PeerAddress]) -> Result<Vec<PeerAddress>, String> {
    let saved = folder.read(remembered::FILE).ok().flatten();
    let saved = saved.map(|text| remembered::peers(&text)).unwrap_or_default();
    let mut all = Vec::new();
    for PeerAddress { peer, address } in asked {
        let found =
            address.clone().or_else(|| saved.get(peer).cloned()).or_else(|| beside(folder.path(), peer));
        let Some(address) = found else {
            return Err(format!(
                "ZIPNET_BOOTSTRAP={peer} is not enough: this node has not met that peer, and no state folder beside {} \
                 is its; write {}…@host:port, as that node prints it behind peer= at its start",
                folder.path().display(),
                peer.short()
            ));
        };
        all.push(PeerAddress { peer: *peer, address: Some(address) });
    }
    Ok(all)
}

/// Where a node is reached whose state folder has the same parent.
fn beside(folder: &Path, wanted: &PeerId) -> Option<Address> {
    let siblings = std::fs::read_dir(folder.parent()?).ok()?;
    let notes = siblings.filter_map(Result::ok).map(|sibling| sibling.path().join(OWN));
    let notes = notes.filter_map(|note| std::fs::read_to_string(note).ok());
    notes
        .filter_map(|note| remembered::entry(&note))
        .find(|(peer, _)| peer == wanted)
        .map(|(_, address)| address)
}

/// The state folder of a node that was given none: below the user's state folder, by instance and peer.
///
/// # Errors
/// The sentence that says what to set.
pub fn default_folder(
    environment: &BTreeMap<String, String>,
    instance: &str,
    peer: PeerId,
) -> Result<PathBuf, String> {
    Ok(instance_folder(environment, instance)?.join(peer.short()))
}

/// Where the state folders of an instance lie by default.
///
/// # Errors
/// The sentence that says what to set.
pub fn instance_folder(environment: &BTreeMap<String, String>, instance: &str) -> Result<PathBuf, String> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".local/state"));
    let base = set("XDG_STATE_HOME").or_else(home);
    let base = base
        .ok_or("ZIPNET_STATE_DIR is not set, and neither HOME nor XDG_STATE_HOME says where state belongs")?;
    Ok(base.join("zipnet").join(file_name(instance)))
}

/// The longest name that is kept whole; file names may have 255 bytes.
const NAME_BYTES_MAX: usize = 200;

/// A file name for the name of an instance, which may hold what file names may not. Different names have different ones.
fn file_name(instance: &str) -> String {
    let mut name = String::new();
    for (place, byte) in instance.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || byte == b'.' && place > 0 {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > NAME_BYTES_MAX {
        let digest = UniqueId::from_text(instance);
        name.truncate(NAME_BYTES_MAX / 2);
        // In a name that is whole, no two of these stand beside each other.
        name.push_str(&format!("%%{digest}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn asked(number: u8, address: Option<&str>) -> PeerAddress {
        PeerAddress { peer: peer(number), address: address.map(|address| Address(address.to_owned())) }
    }

    #[test]
    fn bare_peers_are_found_in_the_book_and_beside_or_refused_with_what_to_write() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(&scratch.path().join("me")).unwrap();
        let refused = bootstrap(&folder, &[asked(2, None)]).expect_err("nobody knows it");
        assert!(refused.contains("write 0202020202…@host:port"), "{refused}");

        let other = Folder::open(&scratch.path().join("other")).unwrap();
        leave_note(&other, peer(2), &Address("127.0.0.1:7".to_owned())).unwrap();
        let found = bootstrap(&folder, &[asked(2, None)]).unwrap();
        assert_eq!(found, [asked(2, Some("127.0.0.1:7"))]);

        folder.write(remembered::FILE, &format!("rubbish\n{}@b:2\n{}@c:3\n", peer(2), peer(3))).unwrap();
        let found = bootstrap(&folder, &[asked(2, None)]).unwrap();
        assert_eq!(found, [asked(2, Some("b:2"))], "the book goes first");
        let found = bootstrap(&folder, &[asked(2, Some("d:4"))]).unwrap();
        assert_eq!(found, [asked(2, Some("d:4"))], "what was written wins");
    }

    #[test]
    fn state_lies_where_users_keep_state() {
        let env = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let folder = default_folder(&env(&[("HOME", "/home/a")]), "acme.mainnet", peer(1)).unwrap();
        assert_eq!(folder, Path::new("/home/a/.local/state/zipnet/acme.mainnet/0101010101"));
        let folder =
            default_folder(&env(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), "../a b", peer(1)).unwrap();
        assert_eq!(folder, Path::new("/s/zipnet/%2E.%2Fa%20b/0101010101"));
        assert!(default_folder(&env(&[]), "a", peer(1)).expect_err("no home").contains("ZIPNET_STATE_DIR"));
    }

    #[test]
    fn names_that_differ_have_folders_that_differ() {
        let long = "\u{e9}".repeat(100);
        let names = [
            "acme:prod",
            "acme/prod",
            "acme_prod",
            "acme.prod",
            ".acme.prod",
            "..acme.prod",
            "acme%3Aprod",
            "acme prod",
            "Acme.prod",
            "caf\u{e9}",
            "cafe\u{301}",
            ".",
            "..",
            "%2E",
            &long,
            &long.replacen('\u{e9}', "e", 1),
            &(long.clone() + "x"),
        ];
        let folders: std::collections::BTreeSet<_> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(folders.len(), names.len(), "{folders:?}");
        for folder in &folders {
            assert!(folder.len() <= 255 && !folder.starts_with('.') && !folder.contains('/'), "{folder}");
        }
    }

    #[test]
    fn the_port_that_the_system_chose_is_used_again() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        let identity = Identity::from_secret(&zipnet_core::key::NodeSecret::from_bytes([0x11; 32]));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let any = Address("127.0.0.1:0".to_owned());
        let limits = Limits { vector_bytes: 1024 };
        let first = listen(&identity, &folder, &any, None, limits).unwrap().local_address().unwrap();
        // The system has the port back once the tasks of the link that was dropped have ended.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::net::UdpSocket::bind(first).is_err() && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let again = listen(&identity, &folder, &any, None, limits).unwrap();
        let second = again.local_address().unwrap();
        assert_eq!(first.port(), second.port());
        let taken = Address(second.to_string());
        let refused = listen(&identity, &folder, &taken, None, limits).expect_err("in use");
        assert!(refused.contains("stop whoever uses it, or set another ZIPNET_LISTEN"), "{refused}");
        assert!(resolve(&Address("no.such.host.invalid:1".to_owned())).is_err());
    }
}
