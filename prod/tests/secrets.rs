//! Secrets are printed nowhere, whatever is wrong around them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Instance, NAME, Process, binary, page, run, variables};

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
    told(role, arguments, environment, &[])
}

/// The same, with this on its standard input.
fn told(
    role: &str,
    arguments: &[&str],
    environment: &BTreeMap<OsString, OsString>,
    input: &[u8],
) -> (Option<i32>, String) {
    let mut process = Command::new(binary(role))
        .args(arguments)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever has seen enough does not read all of it.
    drop(process.stdin.take().unwrap().write_all(input));
    let output = process.wait_with_output().unwrap();
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
fn what_is_given_on_standard_input_is_not_repeated() {
    let scratch = tempfile::tempdir().unwrap();
    let state = scratch.path().join("state");
    let common = [("ZIPNET_INSTANCE", NAME), ("ZIPNET_STATE_DIR", state.to_str().unwrap())];
    for (number, text) in broken_files().into_iter().enumerate() {
        for question in QUESTIONS {
            let arguments = [question, &["--config", "/dev/stdin"]].concat();
            let (code, said) = told("server", &arguments, &os(&common[1..]), &text);
            assert!(matches!(code, Some(0 | 1 | 2 | 78)), "file {number}: {question:?}: {said}");
            holds_no_secret(&format!("file {number}: {question:?}"), &said);
        }
    }
    for (number, text) in broken_secrets().into_iter().enumerate() {
        for variable in ["ZIPNET_SECRET_FILE", "ZIPNET_COMMITTEE_SECRET_FILE"] {
            let file = [&common[..], &[(variable, "/dev/stdin")]].concat();
            let (code, said) = told("server", &["check"], &os(&file), &text);
            assert!(code == Some(78) && said.contains(variable), "{variable} {number}: {said}");
            holds_no_secret(&format!("{variable} {number}"), &said);
        }
    }
}

/// Messages that give away their author wherever they are printed, in all kinds of ways that break lines.
fn telling() -> Vec<Vec<u8>> {
    let secret = secret("message");
    let mut telling: Vec<Vec<u8>> = [
        secret.clone(),
        format!(" {secret} "),
        format!("{secret}\r"),
        format!("\t{secret}\u{1b}[31m"),
        format!("{secret}\u{0}"),
        format!("\u{feff}{secret}"),
        format!("\u{202e}{secret}"),
        format!("{{\"secret\":\"{secret}\"}}"),
        format!("ZIPNET_SECRET={secret}"),
        format!("--secret={secret}"),
        format!("secret={secret}&other=1"),
        format!("POST /publish HTTP/1.1 {secret}"),
        format!("{secret}/../{secret}"),
        format!("%s%n{{}}{secret}"),
        format!("{secret}{}", "x".repeat(1_000)),
        secret.repeat(100_000),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    telling.push([secret.as_bytes(), b"\xff\xfe"].concat());
    telling.push([b"\xc3", secret.as_bytes()].concat());
    telling.push(secret.bytes().flat_map(|byte| [byte, 0]).collect());
    telling.push([&[0; 50], secret.as_bytes()].concat());
    telling
}

#[test]
fn lines_to_publish_are_not_repeated_by_the_client() {
    let scratch = tempfile::tempdir().unwrap();
    let state = scratch.path().join("state");
    let mut environment = os(&[
        ("ZIPNET_INSTANCE", NAME),
        ("ZIPNET_STATE_DIR", state.to_str().unwrap()),
        ("ZIPNET_LISTEN", "127.0.0.1:0"),
        ("RUST_LOG", "trace"),
    ]);
    for format in ["human", "json"] {
        environment.insert("ZIPNET_FORMAT".into(), format.into());
        let mut client = Command::new(binary("client"))
            .arg("--stdin")
            .env_clear()
            .envs(&environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        for line in telling() {
            input.write_all(&[&line[..], b"\n"].concat()).unwrap();
        }
        // The longest one has been read once a later one is refused as well.
        input.write_all(&[&b"x".repeat(1_000)[..], b"\n"].concat()).unwrap();
        let mut seen = String::new();
        let mut said = BufReader::new(client.stdout.take().unwrap());
        while !seen.contains(&format!("refused line={}: ", telling().len() + 1)) {
            assert_ne!(said.read_line(&mut seen).unwrap(), 0, "it ended: {}", &seen[..seen.len().min(2_000)]);
        }
        let id = nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        said.read_to_string(&mut seen).unwrap();
        client.stderr.take().unwrap().read_to_string(&mut seen).unwrap();
        drop(input);
        client.wait().unwrap();
        holds_no_secret("client", &seen);
        assert!(seen.contains("unknown line=1: "), "{seen}");
    }
}

/// Says this to the socket of a node, and gives what it answers until it hangs up or is silent.
fn exchange(folder: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(folder.join("admin.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // It hangs up in the midst of what it does not take.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn orders_are_not_repeated_by_whoever_gets_them() {
    let mut instance = Instance::start(2, |node| {
        node.variables.insert("RUST_LOG".to_owned(), "trace".to_owned());
    });
    let secret = secret("order");
    let peer = "ab".repeat(32);
    let bodies = telling();
    for node in [&instance.servers[0], &instance.aggregator, &instance.clients[0]] {
        for path in [
            "/publish",
            "/retire/PEER",
            "/approve/PEER",
            "/refuse/PEER",
            "/unrefuse/PEER",
            "/refuse/ab",
            "/status",
            "/metrics",
            "/refused",
            "/parts/1",
            "/no-such-page",
        ] {
            // A retirement of nobody takes its time, and one way to say it is as good as twenty.
            let most = if path.starts_with("/retire") { 1 } else { bodies.len() };
            for body in &bodies[..most] {
                let head = format!(
                    "POST {} HTTP/1.1\r\nhost: zipnet\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    path.replace("PEER", &peer),
                    body.len()
                );
                let answer = exchange(&node.folder, &[head.as_bytes(), body].concat());
                holds_no_secret(&format!("{} {path}", node.name), &answer);
            }
        }
        // What is no request, or says of itself what is not so.
        for request in [
            format!("POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{secret}"),
            format!("POST /publish HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{secret}\r\n"),
            format!("POST /publish HTTP/1.1\r\nhost: x\r\ncontent-length: {secret}\r\n\r\n{secret}"),
            format!(
                "POST /publish HTTP/1.1\r\nhost: x\r\nauthorization: {secret}\r\ncontent-length: 0\r\n\r\n"
            ),
            format!("POST /publish HTTP/9.9 {secret}\r\n\r\n{secret}"),
            format!("{secret}\r\n\r\n"),
            format!(
                "GET /status HTTP/1.1\r\nhost: x\r\ncookie: {secret}\r\ncontent-length: 40\r\n\r\n{secret}"
            ),
            format!("GET /status?{secret} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        ] {
            holds_no_secret(&node.name, &exchange(&node.folder, request.as_bytes()));
        }
    }
    // Some of it was a message.
    instance.clients[0].process().wait_text("message landed");
    for node in instance.nodes_mut() {
        let lines: String = node.process().lines().into_iter().map(|line| line.raw + "\n").collect();
        holds_no_secret(&node.name, &lines);
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
