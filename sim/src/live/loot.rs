//! What a burglar finds: everything that is on the disk of a machine when a process of it ends.
//!
//! Round keys are drawn by the process and never leave its memory, so which private halves to look for is not known. What
//! is known are the public halves, which stand in the log. So each 32 bytes of each file are tried as a private half.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use zipnet_core::id::PeerId;
use zipnet_core::key::{PublicKey, RoundSecret};
use zipnet_core::message::Command;
use zipnet_core::wire;
use zipnet_node::consensus::recording::Recorded;

use crate::conform;

/// The length of a private half.
const KEY: usize = 32;

/// Random bytes have about 30 different values in 32; text, lengths and zeros have few.
const VALUES_MIN: usize = 20;

/// What was found on one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Loot {
    /// The contents of files, each once.
    files: BTreeSet<Vec<u8>>,
    /// The public halves of the round keys that the machine announced, as far as logs on its disk tell.
    announced: BTreeSet<PublicKey>,
}

impl Loot {
    /// Takes everything in the state folder of a node that has ended.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn take(&mut self, folder: &Path, peer: PeerId) -> io::Result<()> {
        if !folder.is_dir() {
            return Ok(());
        }
        // A process that was killed leaves a log that is not readable at once; the next one that ends in order does.
        if let Ok(recording) = conform::read(folder) {
            for entry in &recording.entries {
                if let Recorded::Command { command, .. } = entry {
                    self.announced.extend(announced(command, peer));
                }
            }
        }
        self.take_files(folder)
    }

    fn take_files(&mut self, folder: &Path) -> io::Result<()> {
        for entry in folder.read_dir()? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.take_files(&entry.path())?;
            } else if kind.is_file() {
                self.files.insert(fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// Whether it is known what to look for.
    pub(super) fn has_keys(&self) -> bool {
        !self.announced.is_empty()
    }

    /// Looks for the private half of a key that the machine announced.
    pub(super) fn search(&self) -> Option<PublicKey> {
        let windows = self.files.iter().flat_map(|file| file.windows(KEY));
        let tried: BTreeSet<[u8; KEY]> =
            windows.filter_map(|window| window.try_into().ok()).filter(is_random).collect();
        tried
            .into_iter()
            .map(|seed| RoundSecret::from_seed(seed).public())
            .find(|key| self.announced.contains(key))
    }
}

/// The round keys of a server in a command.
fn announced(command: &[u8], peer: PeerId) -> Vec<PublicKey> {
    match wire::decode_command(command) {
        Ok(Command::OpenRound(header)) => {
            let own = header.servers.iter().filter(|server| server.peer == peer);
            own.map(|server| server.round_key).collect()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Whether these could be 32 random bytes; one in many millions of random ones is not taken for it.
fn is_random(window: &[u8; KEY]) -> bool {
    let mut values = *window;
    values.sort_unstable();
    values.windows(2).filter(|pair| pair.first() != pair.last()).count() + 1 >= VALUES_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn loot(file: Vec<u8>, announced: PublicKey) -> Loot {
        Loot { files: [file].into(), announced: [announced].into() }
    }

    #[test]
    fn a_private_half_is_found_wherever_it_stands() {
        let seed = Random::new(7).bytes();
        let public = RoundSecret::from_seed(seed).public();
        for place in [0, 1, 13] {
            let mut file = vec![0; place];
            file.extend(seed);
            file.extend([0; 5]);
            assert_eq!(loot(file.clone(), public).search(), Some(public));
            file[place + 3] ^= 1;
            assert_eq!(loot(file, public).search(), None, "another private half");
        }
        assert_eq!(loot(public.0.to_vec(), public).search(), None, "the public half is no secret");
    }

    #[test]
    fn random_bytes_are_tried_and_others_are_not() {
        let mut random = Random::new(1);
        assert!((0..10_000).all(|_| is_random(&random.bytes())));
        assert!(
            !is_random(&[0; KEY])
                && !is_random(b"committee: leader=none term=4 loc"[..KEY].try_into().unwrap())
        );
    }

    #[test]
    fn a_folder_is_taken_with_all_that_is_below_it() {
        let folder = std::env::temp_dir().join(format!("zipnet-loot-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("a"), b"one").unwrap();
        fs::write(folder.join("deep/b"), b"two").unwrap();
        let mut loot = Loot::default();
        loot.take(&folder, PeerId([1; 32])).unwrap();
        loot.take(&folder.join("nowhere"), PeerId([1; 32])).unwrap();
        assert_eq!(loot.files, [b"one".to_vec(), b"two".to_vec()].into());
        assert!(!loot.has_keys());
        fs::remove_dir_all(&folder).unwrap();
    }
}
