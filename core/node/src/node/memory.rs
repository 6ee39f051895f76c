//! A state folder in memory, for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use crate::world::Disk;

/// A folder in memory whose power fails before the n-th change of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) left: Option<usize>,
}

impl Folder {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panics while holding the lock"))
    }

    /// Another one with the same files, and power.
    pub(super) fn copy(&self) -> Self {
        let files = self.with(|inner| inner.files.clone());
        Self(Arc::new(Mutex::new(Inner { files, left: None })))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.with(|inner| inner.files.keys().cloned().collect())
    }
}

impl Inner {
    fn power(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::other("the power failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for Folder {
    type Backend = File;

    fn open(&self, name: &str) -> io::Result<File> {
        self.with(|inner| {
            inner.files.entry(name.to_owned()).or_default();
        });
        Ok(File(self.clone(), name.to_owned()))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.with(|inner| inner.files.contains_key(name)))
    }

    fn set_aside(&self, names: &[&str]) -> io::Result<()> {
        self.with(|inner| {
            for name in names {
                if inner.files.contains_key(*name) {
                    inner.power()?;
                    inner.files.remove(*name);
                }
            }
            Ok(())
        })
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let bytes = self.with(|inner| inner.files.get(name).cloned());
        bytes.map(|bytes| String::from_utf8(bytes).map_err(io::Error::other)).transpose()
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        self.with(|inner| {
            inner.power()?;
            inner.files.insert(name.to_owned(), text.as_bytes().to_vec());
            Ok(())
        })
    }
}

#[derive(Debug)]
pub(super) struct File(Folder, String);

impl File {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        Ok(self.0.with(|inner| act(inner.files.entry(self.1.clone()).or_default())))
    }
}

impl redb::StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|file| out.copy_from_slice(&file[start..start + out.len()]))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|file| file.resize(len, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|file| file[start..start + data.len()].copy_from_slice(data))
    }
}
