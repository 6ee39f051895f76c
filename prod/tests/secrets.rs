//! Secrets are printed nowhere, whatever is wrong around them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{NAME, Process, binary, page, run, variables};

#[expect(dead_code, reason = "each file of tests uses a part of it")]
#[path = "support/processes.rs"]
mod support;

/// What every secret has in it: nothing of it is a word of ours.
const MARK: &str = "zq7Kx9";

fn secret(of: &str) -> String {
    format!("{MARK}-{of}-0123456789abcdef0123456789abcdef")
}

/// What a file of variables says, before it is broken.
fn file() -> String {
    format!(
        "# of this node\nZIPNET_INSTANCE={NAME}\nZIPNET_SECRET={}\nZIPNET_COMMITTEE_SECRET={}\nZIPNET_ROUND_PERIOD=3s\n\
         ZIPNET_LISTEN=127.0.0.1:0\n",
        secret("one"),
        secret("two")
    )
}

/// The file in twenty and more ways in which people break one.
fn broken_files() -> Vec<Vec<u8>> {
    let whole = file();
    let swap = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replace(from, to).into_bytes()
    };
    vec![
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET "),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET: "),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET"),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET==\n"),
        swap("ZIPNET_SECRET=", "export ZIPNET_SECRET="),
        swap("ZIPNET_SECRET=", "set ZIPNET_SECRET="),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRETS="),
        swap("ZIPNET_SECRET=", "zipnet_secret="),
        swap("ZIPNET_SECRET=", ""),
        swap("ZIPNET_SECRET=", "ZIPNET_ROUND_DEADLINE="),
        swap("ZIPNET_SECRET=", "ZIPNET_BOOTSTRAP="),
        swap("ZIPNET_SECRET=", "ZIPNET_METRICS="),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET_FILE="),
        swap("ZIPNET_SECRET=", "ZIPNET_FORMAT="),
        swap("ZIPNET_SECRET=", "ZIPNET_UNIVERSE=a "),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET=\""),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET='"),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET=$"),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET=two words "),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET=\u{feff}"),
        swap("ZIPNET_SECRET=", "ZIPNET_SECRET=\u{0}"),
        swap("ZIPNET_SECRET=", "ZIPNET_ROUND_DEADLINE=\"9s\nZIPNET_SECRET=\""),
        swap("ZIPNET_SECRET=", "ZIPNET_ROUND_DEADLINE=9s \\\nZIPNET_SECRET="),
        swap("ZIPNET_SECRET=", "ZIPNET_ROUND_DEADLINE=9s ZIPNET_SECRET="),
        swap("ZIPNET_SECRET=", "# \\\n"),
        swap("ZIPNET_INSTANCE=", "ZIPNET_INSTANCE=\n"),
        swap("=3s", "=three"),
        swap("# of this node", "\u{feff}# of this node"),
        swap("\n", " "),
        swap("\n", "\r"),
        swap("\n", "\\n"),
        whole.replace('\n', "\r\n").into_bytes(),
        [whole.as_bytes(), b"\xff\xfe"].concat(),
        whole.replacen(MARK, "zq7\u{7f}Kx9", 1).into_bytes(),
        whole.bytes().flat_map(|byte| [byte, 0]).collect(),
    ]
}

/// The content of a file that is a secret, broken.
fn broken_secrets() -> Vec<Vec<u8>> {
    let secret = secret("file");
    [
        format!("\u{feff}{secret}\n"),
        format!("{secret}\n\n"),
        format!("\n{secret}"),
        format!("{secret}\nanother\n"),
        format!("ZIPNET_SECRET={secret}\n"),
        format!("{secret} \n"),
        format!("{secret}\u{0}"),
        format!("{secret}\u{200b}\n"),
        String::new(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([[secret.as_bytes(), b"\xff"].concat()])
    .collect()
}

/// Runs a binary to its end and gives all that it printed.
fn said(role: &str, arguments: &[&str], environment: &BTreeMap<OsString, OsString>) -> (Option<i32>, String) {
    let output = Command::new(binary(role))
        .args(arguments)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn holds_no_secret(what: &str, text: &str) {
    assert!(!text.contains(MARK) && !text.contains("0123456789abcdef"), "{what}: {text}");
}

/// What answers, and starts nothing that would go on.
const QUESTIONS: [&[&str]; 4] =
    [&["check"], &["config", "show"], &["config", "show", "--origin"], &["keys", "id"]];

fn os(variables: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn ask_all(what: &str, flags: &[&str], environment: &BTreeMap<OsString, OsString>) {
    for role in ["server", "aggregator", "client"] {
        for question in QUESTIONS {
            let arguments = [question, flags].concat();
            let (code, text) = said(role, &arguments, environment);
            assert!(
                matches!(code, Some(0 | 1 | 2 | 78)),
                "{what}: {role} {question:?} ended with {code:?}: {text}"
            );
            holds_no_secret(&format!("{what}: {role} {question:?}"), &text);
        }
    }
    let (code, text) = said("zipnet", &["status", "--state-dir", "/no/such/folder"], environment);
    assert!(matches!(code, Some(1 | 78)), "{what}: {text}");
    holds_no_secret(what, &text);
}

#[test]
fn a_broken_file_of_variables_is_named_and_not_repeated() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("node.env");
    let state = scratch.path().join("state");
    let environment = os(&[("ZIPNET_STATE_DIR", state.to_str().unwrap()), ("HOME", "/no/such/home")]);
    let broken = broken_files();
    assert!(broken.len() >= 20);
    for (number, text) in broken.into_iter().enumerate() {
        fs::write(&path, &text).unwrap();
        let what = format!("file {number}");
        ask_all(&what, &["--config", path.to_str().unwrap()], &environment);
    }
    // As a shell or a unit hands over the same, broken, in the environment.
    for (number, text) in broken_files().into_iter().enumerate() {
        let Ok(text) = String::from_utf8(text) else { continue };
        let mut environment = environment.clone();
        for (name, value) in text.split('\n').filter_map(|line| line.split_once('=')) {
            if !name.is_empty() && !name.contains('\0') && !value.contains('\0') {
                environment.insert(name.into(), value.into());
            }
        }
        ask_all(&format!("environment {number}"), &[], &environment);
    }
}

#[test]
fn a_broken_file_of_a_secret_is_named_and_not_repeated() {
    let scratch = tempfile::tempdir().unwrap();
    let state = scratch.path().join("state");
    for (number, text) in broken_secrets().into_iter().enumerate() {
        for name in ["zipnet-secret", "zipnet-committee-secret"] {
            let folder = scratch.path().join(format!("{number}-{name}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(name), &text).unwrap();
            let what = format!("{name} {number}");
            let common = [("ZIPNET_INSTANCE", NAME), ("ZIPNET_STATE_DIR", state.to_str().unwrap())];
            let credential = [&common[..], &[("CREDENTIALS_DIRECTORY", folder.to_str().unwrap())]].concat();
            ask_all(&what, &[], &os(&credential));
            let variable = name.to_uppercase().replace('-', "_") + "_FILE";
            let path = folder.join(name);
            let file = [&common[..], &[(&*variable, path.to_str().unwrap())]].concat();
            ask_all(&what, &[], &os(&file));
            let (code, said) = said("server", &["check"], &os(&file));
            assert!(code == Some(78) && said.contains(&format!("{variable}=/")), "{what}: {said}");
        }
    }
    // The secret itself where its file belongs, and the other way round.
    let secret = secret("itself");
    for variable in
        ["ZIPNET_SECRET_FILE", "ZIPNET_COMMITTEE_SECRET_FILE", "ZIPNET_CONFIG", "CREDENTIALS_DIRECTORY"]
    {
        let environment = os(&[("ZIPNET_INSTANCE", NAME), (variable, &secret)]);
        let (code, said) = said("server", &["check"], &environment);
        assert_eq!(code, Some(78), "{said}");
        if variable.ends_with("SECRET_FILE") {
            holds_no_secret(variable, &said);
        }
    }
}

#[test]
fn variables_that_are_no_text_are_refused_by_name_if_they_are_ours() {
    let broken = OsString::from_vec([MARK.as_bytes(), b"\xff"].concat());
    let mut environment = os(&[("ZIPNET_INSTANCE", NAME)]);
    environment.insert("ZIPNET_SECRET".into(), broken.clone());
    for role in ["server", "aggregator", "client", "zipnet"] {
        let arguments: &[&str] = if role == "zipnet" { &["status"] } else { &[] };
        let (code, text) = said(role, arguments, &environment);
        assert_eq!(code, Some(78), "{role}: {text}");
        assert_eq!(text, "error: ZIPNET_SECRET is not UTF-8: write it as text\n");
    }
    let mut environment = os(&[]);
    environment.insert("SOMETHING".into(), broken.clone());
    environment.insert(broken, "x".into());
    assert_eq!(said("zipnet", &["keys"], &environment).0, Some(0));
    let (code, text) = said("server", &["check"], &environment);
    assert!(code == Some(78) && text.contains("ZIPNET_INSTANCE is not set"), "{text}");
}

#[test]
fn secrets_on_the_command_line_are_not_repeated() {
    let (one, two) = (secret("one"), secret("two"));
    for arguments in [
        &["--secret", &*one, &*two] as &[&str],
        &["--secret", &*one, "--secret", &*two, "extra"],
        &[&*format!("--secret={one}"), &*two],
        &["--secrets", &*one],
        &[&*format!("--secrets={one}")],
        &["--committee-secret", &*one, "--round-perod", &*two],
        &["--secret", &*one, "--format", &*two],
        &["--secret-file", &*one],
        &["--committee-secret", &*one, "check", "--instance", "acme"],
    ] {
        for role in ["server", "aggregator", "client"] {
            let (code, text) = said(role, arguments, &os(&[("HOME", "/no/such/home")]));
            assert!(matches!(code, Some(1 | 2 | 78)), "{text}");
            holds_no_secret(role, &text);
        }
    }
}

#[test]
fn a_running_node_says_nothing_of_its_secrets() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("state");
    let path = scratch.path().join("node.env");
    fs::write(&path, format!("{}ZIPNET_MESSAGE=x\nANOTHER=x\n", file())).unwrap();
    let environment = variables([
        ("ZIPNET_STATE_DIR", folder.to_str().unwrap()),
        ("ZIPNET_CONFIG", path.to_str().unwrap()),
        ("ZIPNET_FORMAT", "json"),
        ("RUST_LOG", "debug"),
    ]);
    let mut server = Process::start("server", &mut Command::new(binary("server")), &environment);
    server.wait_event("up");
    let mut answers = String::new();
    for path in
        ["/status", "/status?table", "/readyz?verbose", "/metrics", "/records", "/refused", "/no-such-page"]
    {
        answers += &page(&folder, path).unwrap().1;
    }
    holds_no_secret("admin", &answers);
    assert!(answers.contains(NAME));
    let status = run("zipnet", &["status", "--state-dir", folder.to_str().unwrap()], &BTreeMap::new());
    holds_no_secret("status", &(status.stdout + &status.stderr));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.code(), 0, "{}", server.tail());
    let lines: String = server.lines().into_iter().map(|line| line.raw + "\n").collect();
    holds_no_secret("log", &lines);
    assert!(lines.contains("ANOTHER is not read"), "{lines}");
    let backup = run("zipnet", &["backup", "--state-dir", folder.to_str().unwrap()], &BTreeMap::new());
    holds_no_secret("backup", &(backup.stdout + &backup.stderr));
    files_hold_no_secret(&folder);
}

fn files_hold_no_secret(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if let Ok(bytes) = fs::read(&path) {
            assert!(!bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes()), "{}", path.display());
        }
    }
}
