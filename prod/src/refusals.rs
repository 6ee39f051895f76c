//! The clients that the operator of a server refuses: a file in the state folder, which is the truth. The command edits
//! it, and so may a person.

use core::fmt::Write as _;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zipnet_core::id::PeerId;
use zipnet_node::config::parse_peer;
use zipnet_node::node::Handle;
use zipnet_world::disk::Folder;

/// The file: a peer id of 64 hexadecimal digits on each line, and `#` begins a comment.
pub const FILE: &str = "refused-clients";

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The clients of a file's text.
///
/// # Errors
/// The numbers of the lines that are wrong, from one, and what stands there.
pub fn parse(text: &str) -> Result<BTreeSet<PeerId>, Vec<(usize, String)>> {
    let (mut clients, mut wrong) = (BTreeSet::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let entry = entry(line);
        match parse_peer(entry) {
            Some(client) => drop(clients.insert(client)),
            None if entry.is_empty() => {}
            None => wrong.push((number, entry.to_owned())),
        }
    }
    if wrong.is_empty() { Ok(clients) } else { Err(wrong) }
}

/// What a line says besides its comment.
fn entry(line: &str) -> &str {
    line.split_once('#').map_or(line, |(entry, _)| entry).trim()
}

/// The text with one more client at its end.
fn with(text: &str, client: &PeerId) -> String {
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{gap}{client}\n")
}

/// The text without the lines of a client; everything else stays as it is.
fn without(text: &str, client: &PeerId) -> String {
    text.split_inclusive('\n').filter(|line| parse_peer(entry(line)) != Some(*client)).collect()
}

/// The list of a server that runs. Clones are the same.
#[derive(Clone, Debug)]
pub struct Refusals {
    folder: Folder,
    handle: Handle,
    /// The clients that the node was told.
    told: Arc<Mutex<BTreeSet<PeerId>>>,
}

impl Refusals {
    /// Reads the file and tells the node.
    ///
    /// # Errors
    /// The sentence that says what is wrong with the file.
    pub fn start(folder: Folder, handle: Handle) -> Result<Self, String> {
        let refusals = Self { folder, handle, told: Arc::default() };
        let clients = refusals.clients()?;
        if !clients.is_empty() {
            refusals.tell(&mut refusals.told(), clients);
        }
        Ok(refusals)
    }

    /// The clients of the file in a state folder.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn check(folder: &Folder) -> Result<BTreeSet<PeerId>, String> {
        Self { folder: folder.clone(), handle: zipnet_node::node::control().0, told: Arc::default() }
            .clients()
    }

    /// Looks at the file again and again, for as long as the process runs. What is wrong with it is warned about once,
    /// and until it is right the node keeps what it was told before.
    pub async fn watch(self, warn: impl Fn(String)) {
        let mut warned = None;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.look() {
                Ok(()) => warned = None,
                Err(sentence) => {
                    if warned.as_ref() != Some(&sentence) {
                        warn(format!("{sentence}; what was refused before stays refused"));
                        warned = Some(sentence);
                    }
                }
            }
        }
    }

    fn look(&self) -> Result<(), String> {
        let mut told = self.told();
        let clients = self.clients()?;
        // A node that gave up its log and joined another one has forgotten what it was told.
        if !clients.is_empty() || !told.is_empty() {
            self.tell(&mut told, clients);
        }
        Ok(())
    }

    /// Puts a client on the list, or takes it off. False if nothing had to be changed.
    ///
    /// # Errors
    /// The sentence that says why the file could not be changed.
    pub fn change(&self, client: &PeerId, refuse: bool) -> Result<bool, String> {
        // One change at a time.
        let mut told = self.told();
        let text = self.text()?;
        let mut clients = self.read(&text)?;
        let changed = if refuse { clients.insert(*client) } else { clients.remove(client) };
        if changed {
            let text = if refuse { with(&text, client) } else { without(&text, client) };
            self.folder.write(FILE, &text).map_err(|reason| self.failed("write", &reason))?;
        }
        self.tell(&mut told, clients);
        Ok(changed)
    }

    /// The clients of the file.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn clients(&self) -> Result<BTreeSet<PeerId>, String> {
        self.read(&self.text()?)
    }

    fn tell(&self, told: &mut BTreeSet<PeerId>, clients: BTreeSet<PeerId>) {
        self.handle.refuse(clients.clone());
        *told = clients;
    }

    fn told(&self) -> MutexGuard<'_, BTreeSet<PeerId>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> Result<String, String> {
        let text = self.folder.read(FILE).map_err(|reason| self.failed("read", &reason))?;
        Ok(text.unwrap_or_default())
    }

    fn read(&self, text: &str) -> Result<BTreeSet<PeerId>, String> {
        parse(text).map_err(|wrong| {
            let mut sentence = format!("failed to read {}: ", self.path());
            for (place, (line, found)) in wrong.iter().enumerate() {
                let gap = if place == 0 { "" } else { "; " };
                write!(
                    sentence,
                    "{gap}line {line}: `{}` is no peer id of 64 hexadecimal digits",
                    found.escape_debug()
                )
                .expect("writing to a string does not fail");
            }
            sentence
        })
    }

    fn failed(&self, what: &str, reason: &io::Error) -> String {
        format!("failed to {what} {}: {reason}", self.path())
    }

    fn path(&self) -> String {
        self.folder.path().join(FILE).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    #[test]
    fn a_file_is_ids_and_comments() {
        let text = format!("# who\n\n{}  # a garbler\n\t{}\n", peer(1), peer(2).to_string().to_uppercase());
        assert_eq!(parse(&text), Ok([peer(1), peer(2)].into()));
        assert_eq!(parse(""), Ok(BTreeSet::new()));
        let text = format!("{}\nclient-1\n# fine\n{}0 # too long\n", peer(1), peer(2));
        let wrong = parse(&text).expect_err("two lines are no ids");
        assert_eq!(wrong, [(2, "client-1".to_owned()), (4, format!("{}0", peer(2)))]);
    }

    #[test]
    fn a_change_leaves_everything_else_as_it_is() {
        let text = format!("# kept\n{} # why\n{}", peer(1), peer(2));
        let more = with(&text, &peer(3));
        assert_eq!(more, format!("{text}\n{}\n", peer(3)));
        assert_eq!(without(&more, &peer(2)), format!("# kept\n{} # why\n{}\n", peer(1), peer(3)));
        assert_eq!(without(&more, &peer(9)), more);
        assert_eq!(with("", &peer(1)), format!("{}\n", peer(1)));
    }

    #[test]
    fn a_wrong_line_is_named_and_nothing_is_lost() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        let handle = zipnet_node::node::control().0;
        let refusals = Refusals::start(folder.clone(), handle.clone()).expect("there is no file yet");
        assert_eq!(refusals.change(&peer(1), true), Ok(true));
        assert_eq!(refusals.change(&peer(1), true), Ok(false), "it is there");
        assert_eq!(refusals.change(&peer(2), false), Ok(false), "it is not there");
        let text = folder.read(FILE).unwrap().unwrap();
        folder.write(FILE, &format!("{text}rubbish\n")).unwrap();
        let sentence = refusals.change(&peer(3), true).expect_err("a line is wrong");
        assert!(
            sentence.ends_with("/refused-clients: line 2: `rubbish` is no peer id of 64 hexadecimal digits"),
            "{sentence}"
        );
        assert_eq!(folder.read(FILE).unwrap().unwrap(), format!("{text}rubbish\n"));
        assert_eq!(*refusals.told(), [peer(1)].into());
        assert_eq!(Refusals::start(folder.clone(), handle.clone()).map(drop), Err(sentence.clone()));
        assert_eq!(Refusals::check(&folder), Err(sentence));
        folder.write(FILE, &text).unwrap();
        assert_eq!(Refusals::start(folder, handle).unwrap().clients(), Ok([peer(1)].into()));
    }
}
