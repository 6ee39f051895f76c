//! The end of a growing file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Reads the lines of a file as they are written.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// A line whose end is not written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// The lines of this file from its beginning on. It need not exist yet.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that were completed since the last call, without their ends. With `all` an incomplete one counts as well.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn lines(&mut self, all: bool) -> io::Result<Vec<String>> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(reason) => return Err(reason),
            }
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.rest)?;
        }
        let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            _ if all => self.rest.len(),
            Some(end) => end + 1,
            None => return Ok(Vec::new()),
        };
        let rest = self.rest.split_off(end);
        let whole = core::mem::replace(&mut self.rest, rest);
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_come_once_and_whole() {
        let path = std::env::temp_dir().join(format!("zipnet-tail-{}", std::process::id()));
        let mut tail = Tail::new(path.clone());
        assert!(tail.lines(false).unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.lines(false).unwrap(), ["one"]);
        assert!(tail.lines(false).unwrap().is_empty());
        file.write_all(b"o\nthree\nfo").unwrap();
        assert_eq!(tail.lines(false).unwrap(), ["two", "three"]);
        assert_eq!(tail.lines(true).unwrap(), ["fo"]);
        std::fs::remove_file(&path).unwrap();
    }
}
