//! Which files a path on the command line stands for.

use std::io;
use std::path::{Path, PathBuf};

/// The folders that hold scenarios. The last one is entered only when it is named itself.
pub const FOLDERS: [&str; 5] = ["runbooks", "misuse", "faults", "regressions", CANARIES];

/// Its scenarios are run with a defect, and are to fail.
pub const CANARIES: &str = "canaries";

/// The scenario files that a path stands for, in the order of their names.
///
/// A file is that file, whatever its name and place. A scenario folder stands for the `*.toml` in it; any other folder
/// for those of its scenario folders without the canaries, which must be named. A folder without scenarios is an empty
/// list; a path that does not exist is an error.
pub fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.metadata()?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    // `.` and `..` have no name of their own.
    let named = path.canonicalize()?;
    let name = named.file_name().unwrap_or_default();
    if FOLDERS.iter().any(|folder| *folder == name) {
        return files(path);
    }
    let mut all = Vec::new();
    for folder in FOLDERS.into_iter().filter(|folder| *folder != CANARIES) {
        let folder = path.join(folder);
        if folder.is_dir() {
            all.append(&mut files(&folder)?);
        }
    }
    Ok(all)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
