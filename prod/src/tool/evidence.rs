//! Evidence against servers: as files that convince whoever has nothing else.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use serde::{Deserialize, Serialize};
use zipnet::{Contradiction, Digest, LogId, PeerId, RecordSignature, Round};
use zipnet_core::key::Signature;

use super::Outcome;
use crate::flags;

/// What the file says that it is.
const FORMAT: &str = "zipnet evidence 1";

/// The longest file that is read: one has less than a kilobyte.
const BYTES_MAX: u64 = 64 << 10;

/// Two signatures of one server under two records of one round.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    log: String,
    round: u64,
    server: String,
    signed: [Signed; 2],
}

/// A record by its digest, and the server's signature under it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    record: String,
    signature: String,
}

impl From<&Contradiction> for File {
    fn from(pair: &Contradiction) -> Self {
        let signed = |it: &RecordSignature| Signed {
            record: it.record.to_string(),
            signature: hex::encode(it.signature.0),
        };
        Self {
            format: FORMAT.to_owned(),
            log: pair.one.log.to_string(),
            round: pair.one.round.0,
            server: pair.server().to_string(),
            signed: [signed(&pair.one), signed(&pair.other)],
        }
    }
}

impl File {
    fn contradiction(&self) -> Result<Contradiction, String> {
        if self.format != FORMAT {
            return Err(format!("it is not in the format {FORMAT:?}"));
        }
        let (log, server) = (LogId(digits(&self.log)?), PeerId(digits(&self.server)?));
        let signature = |it: &Signed| {
            let (record, signature) = (Digest(digits(&it.record)?), Signature(digits(&it.signature)?));
            Ok::<_, String>(RecordSignature { log, round: Round(self.round), record, server, signature })
        };
        let [one, other] = &self.signed;
        Ok(Contradiction { one: signature(one)?, other: signature(other)? })
    }
}

/// As many bytes as are wanted, in hexadecimal digits.
fn digits<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let wrong = || format!("{text:?} is not {} hexadecimal digits", 2 * N);
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        let two = text.get(2 * place..2 * place + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(two, 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// Writes a file into the folder, and says where. One that is there already is left as it is: it says the same.
///
/// # Errors
/// What the system says.
pub(super) fn write(folder: &Path, pair: &Contradiction) -> Result<PathBuf, String> {
    let RecordSignature { log, round, server, .. } = pair.one;
    let path = folder.join(format!("evidence-{}-{round}-{}.json", log.short(), server.short()));
    let failed = |reason: std::io::Error| format!("failed to write evidence to {}: {reason}", path.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut text = serde_json::to_string_pretty(&File::from(pair)).map_err(|reason| failed(reason.into()))?;
    text.push('\n');
    match std::fs::File::create_new(&path) {
        Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?,
        Err(reason) if reason.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(reason) => return Err(failed(reason)),
    }
    Ok(path)
}

/// The command line.
pub(super) fn command() -> Command {
    Command::new("evidence").about("Evidence against servers that lie").subcommand_required(true).subcommand(
        Command::new("verify")
            .about(
                "Say whether a file convicts a server of having signed two records of one round; asks nobody",
            )
            .after_help("Exit codes: 0 it does, 1 it does not, 2 a flag is mistyped.")
            .arg(
                Arg::new("file")
                    .required(true)
                    .value_name("FILE")
                    .help("What zipnet tail --evidence has written"),
            ),
    )
}

/// Judges a file.
///
/// # Errors
/// If it convicts nobody.
pub(super) fn run(matches: &ArgMatches) -> Outcome {
    let Some(("verify", matches)) = matches.subcommand() else {
        unreachable!("clap requires the command");
    };
    let path = Path::new(matches.get_one::<String>("file").expect("it is required"));
    let pair = read(path).map_err(|reason| format!("{} is no evidence: {reason}", path.display()))?;
    flags::print(&sentence(&pair));
    Ok(0)
}

fn sentence(pair: &Contradiction) -> String {
    let Contradiction { one, other } = pair;
    format!(
        "server {} has signed two records of {} in log {}:\n    {}\n    {}\n",
        one.server, one.round, one.log, one.record, other.record
    )
}

fn read(path: &Path) -> Result<Contradiction, String> {
    let length = std::fs::metadata(path).map_err(|reason| reason.to_string())?.len();
    if length > BYTES_MAX {
        return Err(format!("it has {length} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|reason| reason.to_string())?;
    let file: File = serde_json::from_str(&text).map_err(|reason| reason.to_string())?;
    let pair = file.contradiction()?;
    pair.verify().map_err(|reason| reason.to_string())?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use zipnet::NodeSecret;
    use zipnet_core::key::Identity;

    use super::*;

    fn pair() -> Contradiction {
        let server = Identity::from_secret(&NodeSecret::from_bytes([1; 32]));
        let signed = |record| {
            let mut signed = RecordSignature {
                log: LogId([2; 32]),
                round: Round(7),
                record: Digest([record; 32]),
                server: server.peer(),
                signature: Signature::default(),
            };
            signed.signature = server.sign(&signed.signed_digest());
            signed
        };
        Contradiction { one: signed(3), other: signed(4) }
    }

    #[test]
    fn a_file_convicts_whom_it_names_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let pair = pair();
        let path = write(&folder.path().join("new"), &pair).unwrap();
        assert_eq!(
            path.file_name().unwrap(),
            format!("evidence-0202020202-r7-{}.json", pair.server().short()).as_str()
        );
        assert_eq!(read(&path), Ok(pair));
        assert!(
            sentence(&pair).starts_with(&format!("server {} has signed two records of r7", pair.server()))
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(write(&folder.path().join("new"), &pair).unwrap(), path);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let digit = |c: char| c.is_ascii_hexdigit();
        let long = text.split(|c| !digit(c)).filter(|word| word.len() >= 64).map(str::to_owned);
        for word in long.collect::<std::collections::BTreeSet<_>>() {
            let last = if word.ends_with('0') { "1" } else { "0" };
            let other = text.replace(&word, &format!("{}{last}", &word[..word.len() - 1]));
            std::fs::write(&path, other).unwrap();
            read(&path).expect_err(&word);
        }
        let same = File::from(&Contradiction { other: pair.one, ..pair });
        let changes = [
            text.replace("\"round\": 7", "\"round\": 8"),
            text.replace("evidence 1", "evidence 2"),
            text.replace("\"round\"", "\"more\": 1,\n  \"round\""),
            serde_json::to_string(&same).unwrap(),
            text[..text.len() - 3].to_owned(),
            String::new(),
            "0".repeat(100_000),
        ];
        for change in changes {
            assert_ne!(change, text);
            std::fs::write(&path, &change).unwrap();
            read(&path).expect_err(&change);
        }
        read(&folder.path().join("none")).expect_err("there is none");
    }
}
