//! The state folder of a node: one process at a time, files that appear whole or not at all, nothing ever deleted.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use redb::backends::FileBackend;
use zipnet_node::world::Disk;

/// The file that holds where this node was reached, as others write it behind `--bootstrap`.
pub const OWN: &str = "address";
/// The file that holds the port that the system chose.
pub const PORT: &str = "port";
/// The file that a process holds while it uses the folder.
const LOCK: &str = "lock";
/// Folders of this prefix hold state that was set aside.
const ASIDE: &str = "set-aside-";
/// What stands behind the name of a file that is being made.
const UNFINISHED: &str = ".unfinished";

/// A state folder that this process holds. Clones are the same folder; it is let go when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// Why a state folder cannot be used. Each text fits behind "failed to".
#[derive(Debug)]
pub enum FolderError {
    /// Another process has it.
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be made or written.
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the file system says.
        reason: io::Error,
    },
}

impl core::fmt::Display for FolderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Taken { path } => write!(
                f,
                "use the state folder {}: another process holds it; stop that one first, or set another ZIPNET_STATE_DIR",
                path.display()
            ),
            Self::Unusable { path, reason } => write!(
                f,
                "use the state folder {}: {reason}; make it writable for this user, or set another ZIPNET_STATE_DIR",
                path.display()
            ),
        }
    }
}

impl core::error::Error for FolderError {}

/// What a node makes in its state folder, besides its databases, in the order in which it is removed: whatever is left by
/// a removal that is cut short still shows whose folder it is.
const FILES: [&str; 7] = [
    zipnet_node::remembered::FILE,
    zipnet_node::founding::FILE,
    PORT,
    "refused-clients",
    "admin.sock",
    OWN,
    LOCK,
];
/// The ending of a database.
const DATABASE: &str = ".redb";

/// What stands in a state folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// What a node made, as paths in the folder; files stand before the folders that hold them.
    pub known: Vec<PathBuf>,
    /// What it did not.
    pub foreign: Vec<PathBuf>,
    /// Whether there is something that only a node makes: a database of one, or where it is reached.
    is_of_a_node: bool,
}

impl Content {
    /// Looks at a folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let mut content = Self::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let name = PathBuf::from(name);
            let text = name.to_string_lossy().into_owned();
            if kind.is_dir() && text.starts_with(ASIDE) {
                let mut inside = Vec::new();
                for entry in fs::read_dir(entry.path())? {
                    inside.push(name.join(entry?.file_name()));
                }
                let a_nodes = |path: &&PathBuf| {
                    path.to_string_lossy().ends_with(DATABASE) || path.ends_with(zipnet_node::founding::FILE)
                };
                let (known, foreign): (Vec<_>, Vec<_>) = inside.iter().partition(a_nodes);
                content.is_of_a_node |= !known.is_empty();
                content.known.extend(known.into_iter().cloned());
                let whole = foreign.is_empty();
                content.foreign.extend(foreign.into_iter().cloned());
                content.known.extend(whole.then_some(name));
                continue;
            }
            let finished = text.strip_suffix(UNFINISHED).unwrap_or(&text);
            let database = finished.ends_with(DATABASE);
            if kind.is_dir() || kind.is_symlink() || !(database || FILES.contains(&finished)) {
                content.foreign.push(name);
                continue;
            }
            content.is_of_a_node |= database
                || finished == OWN
                    && fs::read_to_string(entry.path())
                        .is_ok_and(|note| zipnet_node::remembered::entry(&note).is_some());
            content.known.push(name);
        }
        let rank = |path: &PathBuf| FILES.iter().position(|file| path.as_os_str() == *file);
        content.known.sort_by_key(|path| (rank(path), path.components().count() == 1, path.clone()));
        content.foreign.sort();
        Ok(content)
    }

    /// Whether this is the state folder of a node.
    #[must_use]
    pub fn is_state(&self) -> bool {
        self.is_of_a_node && self.known.iter().any(|path| path.as_os_str() == LOCK)
    }
}

impl Folder {
    /// Removes what a node made, and the folder if nothing else is in it. What is left, afterwards.
    ///
    /// # Errors
    /// What the file system says.
    pub fn wipe(self) -> io::Result<Content> {
        let path = self.path().to_owned();
        for known in Content::of(&path)?.known {
            let known = path.join(known);
            if fs::symlink_metadata(&known)?.is_dir() {
                fs::remove_dir(&known)?;
            } else {
                fs::remove_file(&known)?;
            }
        }
        let left = Content::of(&path)?;
        if left == Content::default() {
            fs::remove_dir(&path)?;
        }
        Ok(left)
    }

    /// Makes the folder if it does not exist, readable to this user only, and takes it.
    ///
    /// # Errors
    /// If another process has it, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |reason| FolderError::Unusable { path: path.to_owned(), reason };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(Arc::new(Held { path: path.to_owned(), _lock: lock }))),
            Err(TryLockError::WouldBlock) => Err(FolderError::Taken { path: path.to_owned() }),
            Err(TryLockError::Error(reason)) => Err(unusable(reason)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Replaces a small file at once: readers see the old text or the new one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let unfinished = self.0.path.join(format!("{name}{UNFINISHED}"));
        let mut file = self.create(&unfinished)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        self.publish(&unfinished, name)
    }

    /// The text of a small file; `None` if it does not exist.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.0.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(reason) => Err(reason),
        }
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).read(true).write(true).mode(0o600).open(path)
    }

    /// Gives a finished file its name, durably.
    fn publish(&self, unfinished: &Path, name: &str) -> io::Result<()> {
        fs::rename(unfinished, self.0.path.join(name))?;
        File::open(&self.0.path)?.sync_all()
    }
}

impl Disk for Folder {
    type Backend = FileBackend;

    fn open(&self, name: &str) -> io::Result<FileBackend> {
        let path = self.0.path.join(name);
        if !path.try_exists()? {
            // A power failure while redb makes its first pages leaves a file that it cannot read.
            let unfinished = self.0.path.join(format!("{name}{UNFINISHED}"));
            let backend = FileBackend::new(self.create(&unfinished)?).map_err(io::Error::other)?;
            let database = redb::Builder::new().create_with_backend(backend).map_err(io::Error::other)?;
            drop(database);
            File::open(&unfinished)?.sync_all()?;
            self.publish(&unfinished, name)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        FileBackend::new(file).map_err(io::Error::other)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.path.join(name).try_exists()
    }

    fn set_aside(&self, names: &[&str]) -> io::Result<()> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut aside = self.0.path.join(format!("{ASIDE}{seconds}"));
        let mut number = 1;
        while aside.try_exists()? {
            number += 1;
            aside = self.0.path.join(format!("{ASIDE}{seconds}-{number}"));
        }
        let mut exist = Vec::new();
        for name in names {
            if self.exists(name)? {
                exist.push(name);
            }
        }
        if exist.is_empty() {
            return Ok(());
        }
        fs::DirBuilder::new().mode(0o700).create(&aside)?;
        for name in exist {
            fs::rename(self.0.path.join(name), aside.join(name))?;
            // One after the other: whatever the power failure leaves, the order holds.
            File::open(&aside)?.sync_all()?;
            File::open(&self.0.path)?.sync_all()?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        Self::read(self, name)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        Self::write(self, name, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_at_a_time_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("deep/state");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = Folder::open(&path).expect_err("it is held").to_string();
        assert!(refused.contains("another process holds it"), "{refused}");
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_can_not_be_written_says_so() {
        let refused = Folder::open(Path::new("/proc/zipnet")).expect_err("not there").to_string();
        assert!(refused.starts_with("use the state folder /proc/zipnet: "), "{refused}");
        assert!(refused.ends_with("or set another ZIPNET_STATE_DIR"), "{refused}");
    }

    #[test]
    fn a_database_appears_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        assert!(!folder.exists("log.redb").unwrap());
        let backend = folder.open("log.redb").unwrap();
        assert!(folder.exists("log.redb").unwrap());
        let database = redb::Builder::new().create_with_backend(backend).unwrap();
        drop(database);
        folder.open("log.redb").unwrap();
        let names: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains(UNFINISHED)), "{names:?}");
    }

    #[test]
    fn what_a_crash_left_unfinished_is_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        fs::write(scratch.path().join("log.redb.unfinished"), b"half a page").unwrap();
        let backend = folder.open("log.redb").unwrap();
        redb::Builder::new().create_with_backend(backend).unwrap();
    }

    #[test]
    fn what_is_set_aside_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(scratch.path()).unwrap();
        for _ in 0..2 {
            drop(folder.open("log.redb").unwrap());
            folder.write("port", "4000").unwrap();
            folder.set_aside(&["log.redb"]).unwrap();
            assert!(!folder.exists("log.redb").unwrap());
        }
        assert_eq!(folder.read("port").unwrap().as_deref(), Some("4000"));
        assert_eq!(folder.read("nothing").unwrap(), None);
        let aside = fs::read_dir(scratch.path()).unwrap().filter_map(Result::ok);
        let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE));
        assert_eq!(aside.filter(|entry| entry.path().join("log.redb").exists()).count(), 2);
    }

    #[test]
    fn only_what_a_node_made_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state");
        let folder = Folder::open(&path).unwrap();
        assert!(!Content::of(&path).unwrap().is_state(), "anybody may have a file called lock");
        folder.write("address", "somewhere\n").unwrap();
        assert!(!Content::of(&path).unwrap().is_state(), "or one called address");
        folder.open("log.redb").unwrap();
        assert!(Content::of(&path).unwrap().is_state());
        folder.set_aside(&["log.redb"]).unwrap();
        folder.open("log.redb").unwrap();
        fs::write(path.join("thesis.txt"), "mine").unwrap();
        fs::create_dir(path.join("photos")).unwrap();
        let outside = scratch.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        std::os::unix::fs::symlink(&outside, path.join("port")).unwrap();
        let left = folder.wipe().unwrap();
        assert!(left.known.is_empty(), "{left:?}");
        assert_eq!(left.foreign, ["photos", "port", "thesis.txt"].map(PathBuf::from));
        assert!(outside.exists() && path.join("thesis.txt").exists());
        fs::remove_dir_all(&path).unwrap();

        let folder = Folder::open(&path).unwrap();
        folder.open("log.redb").unwrap();
        folder.set_aside(&["log.redb"]).unwrap();
        assert!(Content::of(&path).unwrap().is_state(), "what was set aside is a node's");
        assert_eq!(folder.wipe().unwrap(), Content::default());
        assert!(!path.exists());
    }
}
