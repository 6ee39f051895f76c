//! The command `zipnet-tdx`, as a process: what it prints, and how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use zipnet_prod::attestation::platform::{QuoteError, REPORTS, take_quote};
use zipnet_tdx::date::Date;
use zipnet_tdx::measurement::{Measurement, ReportData};
use zipnet_tdx_mock::firmware::{image, sections};
use zipnet_tdx_mock::platform::{Build, Guest, Machine};
use zipnet_tdx_mock::vendor::Vendor;

/// When the collateral of the real quote was current.
const THEN: &str = "2025-06-19T10:32:28Z";
const MR_TD: &str =
    "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7";
const REPORT_DATA: &str = "9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9\
    eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20";

/// What the tool said, and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn tool(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_zipnet-tdx")).args(arguments).output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// It did what it was asked, and said so.
fn done(arguments: &[&str]) -> String {
    let Said { code, out, err } = tool(arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

/// A file of a real quote.
fn real(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdx/verifier/tests/data");
    folder.join(name).display().to_string()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A folder with a release key and a manifest that admits the image of the real quote.
struct Desk {
    folder: TempDir,
    key: String,
}

impl Desk {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let secret = folder.path().join("release.key");
        let key = done(&["manifest", "key", "--to", &text(&secret)]).trim().to_owned();
        let desk = Self { folder, key };
        let release = format!("v1={MR_TD}");
        let made = done(&[
            "manifest",
            "new",
            "--release",
            &release,
            "--not-before",
            "2025-01-01",
            "--not-after",
            "2026-01-01",
            "--at",
            "2025-01-01",
            "--evaluation-number-min",
            "17",
        ]);
        fs::write(desk.file("new.json"), made).unwrap();
        let signed = done(&["manifest", "sign", &desk.file("new.json"), "--secret-file", &text(&secret)]);
        fs::write(desk.file("signed.json"), signed).unwrap();
        desk
    }

    fn file(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    /// Judges the real quote by a manifest of this folder.
    fn verify(&self, manifest: &str, more: &[&str]) -> Said {
        let (quote, collateral) = (real("v4_td10.quote.bin"), real("v4_td10.collateral.json"));
        let manifest = self.file(manifest);
        let asked =
            ["verify", &quote, "--collateral", &collateral, "--manifest", &manifest, "--key", &self.key];
        tool(&[&asked, more].concat())
    }
}

#[test]
fn firmware_is_measured_in_both_orders() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("firmware.fd");
    fs::write(&file, image(&sections())).unwrap();
    let out = done(&["measure", &text(&file)]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "page-by-page  b260f27a831eed46d651e07d8277789ef45f6726467e96d59af4b33203da03c3b43cfd25969c9c568649fc5a444b32a9",
            "adds-first    aab441501656564d844e3211f0d93e4515c8ae39933e8e71e8f2fbb84fd3e3cb56713630f4e3a9cca0d3776aaf03a870",
            "  BFV              0x2000 bytes at  0xffffe000  measured",
        ]
    );
    let value: Value = serde_json::from_str(&done(&["measure", &text(&file), "--format", "json"])).unwrap();
    assert!(lines[0].ends_with(value["mr_td"]["page-by-page"].as_str().unwrap()));
    assert!(lines[1].ends_with(value["mr_td"]["adds-first"].as_str().unwrap()));
    assert_eq!(value["sections"].as_array().unwrap().len(), 5);
    fs::write(&file, "no firmware").unwrap();
    let said = tool(&["measure", &text(&file)]);
    assert_eq!((said.code, said.out.as_str()), (65, ""));
    assert!(said.err.contains("failed to read the firmware: no TDVF metadata in it"), "{}", said.err);
}

#[test]
fn a_real_quote_is_judged() {
    let desk = Desk::new();
    let bound = ["--report-data", REPORT_DATA, "--at", THEN];
    let said = desk.verify("signed.json", &bound);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.starts_with(&format!("attested: v1 on {THEN}, until 2025-07-")), "{}", said.out);
    let said = desk.verify("signed.json", &[&bound[..], &["--format", "json"]].concat());
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&value["verdict"], &value["quote"]["mr_td"]),
        (&Value::from("attested"), &Value::from(MR_TD))
    );

    // Whoever does not ask for whom it speaks is told what that is worth.
    let said = desk.verify("signed.json", &["--any-process", "--at", THEN]);
    assert_eq!(said.code, 0);
    assert!(
        said.out.starts_with("released: v1 on ") && said.err.contains("anybody can show it"),
        "{}",
        said.err
    );

    let zeros = "00".repeat(32);
    let another = ["--instance", "acme.mainnet", "--peer", &zeros, "--boot-key", &zeros, "--at", THEN];
    for (manifest, more, reason) in [
        ("signed.json", &another[..], "report-data"),
        ("signed.json", &["--any-process"], "collateral-expired"),
        ("signed.json", &["--any-process", "--at", "2025-06-01"], "collateral-from-the-future"),
        ("signed.json", &["--any-process", "--at", THEN, "--floor", "2025-06-20"], "clock-turned-back"),
        ("new.json", &bound, "manifest-unsigned"),
    ] {
        let said = desk.verify(manifest, more);
        assert_eq!((said.code, said.err.as_str()), (1, ""), "{reason}: {}", said.out);
        assert!(said.out.starts_with(&format!("refused: {reason}\n  have    ")), "{reason}: {}", said.out);
        assert!(said.out.contains("\n  need    ") && said.out.contains("\n  remedy  "), "{}", said.out);
        let said = desk.verify(manifest, &[more, &["--format", "json"]].concat());
        let value: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(value["refused"]["reason"], reason);
    }
    let said = desk.verify("missing.json", &bound);
    assert_eq!(said.code, 65);
    assert!(said.err.contains("failed to read ") && said.err.contains("missing.json"), "{}", said.err);
    // One of them has to be said.
    assert_eq!(desk.verify("signed.json", &["--at", THEN]).code, 78);
    assert_eq!(desk.verify("signed.json", &["--any-process", "--att", THEN]).code, 64);
    assert_eq!(desk.verify("signed.json", &["--any-process", "--at", "now"]).code, 78);
}

#[test]
fn a_manifest_is_made_signed_shown_and_checked() {
    let desk = Desk::new();
    let secret = desk.file("release.key");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let again = tool(&["manifest", "key", "--to", &secret]);
    assert_eq!(again.code, 65, "a key is not written over");

    let signed = desk.file("signed.json");
    let out = done(&["manifest", "check", &signed, "--key", &desk.key, "--at", THEN]);
    assert_eq!(out, format!("manifest 1 is signed by {}, and admits v1\n", desk.key));
    let out = done(&["manifest", "show", &signed, "--at", "2025-12-31"]);
    assert!(
        out.starts_with(&format!("manifest 1 of 2025-01-01T00:00:00Z, signed by {}\n", desk.key)),
        "{out}"
    );
    assert!(out.contains("  admitted  v1, until 2026-01-01T00:00:00Z, 24 h\n"), "{out}");
    let retired = done(&["manifest", "show", &signed, "--at", "2026-02-01", "--format", "json"]);
    let value: Value = serde_json::from_str(&retired).unwrap();
    assert_eq!(value["releases"][0]["standing"], "retired");

    // The next one takes over what the last one says.
    let release = format!("v2={}", "2".repeat(96));
    let next = done(&[
        "manifest",
        "new",
        "--from",
        &signed,
        "--release",
        &release,
        "--not-before",
        "2025-06-01",
        "--not-after",
        "2026-06-01",
    ]);
    fs::write(desk.file("next.json"), &next).unwrap();
    let next = done(&["manifest", "sign", &desk.file("next.json"), "--secret-file", &secret]);
    fs::write(desk.file("next.json"), &next).unwrap();
    let both =
        ["manifest", "check", &desk.file("next.json"), "--key", &desk.key, "--after", &signed, "--at", THEN];
    assert_eq!(done(&both), format!("manifest 2 is signed by {}, and admits v1, v2\n", desk.key));

    let changed = desk.file("changed.json");
    fs::write(&changed, next.replace("2026-06-01", "2036-06-01")).unwrap();
    let out = done(&["manifest", "show", &changed]);
    assert!(out.contains("NOT signed by"), "{out}");
    let stranger = "ab".repeat(32);
    for (arguments, sentence) in [
        (vec![&changed, "--key", &desk.key], "refused: manifest-signature"),
        (vec![&signed, "--key", &stranger], "refused: manifest-key"),
        (
            vec![&signed, "--key", &desk.key, "--after", &desk.file("next.json")],
            "number 1 does not come after 2",
        ),
        (vec![&signed, "--key", &desk.key, "--at", "2027-01-01"], "admits nobody on 2027-01-01T00:00:00Z"),
    ] {
        let said = tool(&[&["manifest", "check"], &arguments[..]].concat());
        assert_eq!(said.code, 1, "{sentence}");
        assert!(said.out.contains(sentence), "{sentence}: {}", said.out);
    }
    fs::write(&changed, next.replace("releases", "release")).unwrap();
    let said = tool(&["manifest", "show", &changed]);
    assert_eq!(said.code, 65);
    assert!(said.err.contains("failed to read the manifest: unknown field `release`"), "{}", said.err);
    // The secret is not repeated, whatever is wrong with it.
    fs::write(&secret, "nobody may read this").unwrap();
    let said = tool(&["manifest", "sign", &signed, "--secret-file", &secret]);
    assert_eq!(said.code, 65);
    assert!(!said.err.contains("nobody may"), "{}", said.err);
}

#[test]
fn collateral_says_until_when_it_holds() {
    let file = real("v4_td10.collateral.json");
    for (at, code, word) in [
        (THEN, 0, "  OK       TCB info "),
        ("2025-07-10", 1, "  SOON     TCB info "),
        ("2025-07-20", 2, "  EXPIRED  TCB info "),
    ] {
        let said = tool(&["collateral", &file, "--at", at]);
        assert_eq!((said.code, said.err.as_str()), (code, ""), "{at}: {}", said.out);
        assert!(said.out.contains(word), "{at}: {}", said.out);
    }
    let said = tool(&["collateral", &file, "--at", "2025-07-10", "--format", "json"]);
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&value["standing"], &value["collateral"][0]["fmspc"]),
        (&"SOON".into(), &"b0c06f000000".into())
    );
    assert_eq!(value["collateral"][0]["parts"].as_array().unwrap().len(), 7);
    assert_eq!(tool(&["collateral", &real("v4_td10.quote.bin")]).code, 65);
}

#[test]
fn real_platforms_stand_as_intel_says() {
    let (quote, collateral) = (real("v4_td10.quote.bin"), real("v4_td10.collateral.json"));
    let out = done(&["tcb-status", &quote, "--collateral", &collateral, "--at", THEN]);
    assert!(out.ends_with("  standard  UpToDate, evaluation number 17\n"), "{out}");
    let old = [real("v5_td15_azure_outdated.quote.bin"), real("v5_td15_azure_outdated.collateral.json")];
    let asked = ["tcb-status", &old[0], "--collateral", &old[1], "--at", "2026-02-20T12:00:00Z"];
    let said = tool(&asked);
    assert_eq!(said.code, 2);
    assert!(said.out.contains("  standard  refused: tcb-below-every-level\n"), "{}", said.out);
    assert!(said.out.contains("remedy: update BIOS, microcode and TDX module"), "{}", said.out);
    let said = tool(&[&asked[..], &["--format", "json"]].concat());
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["quotes"][0]["standard"]["told"]["refused"]["reason"], "tcb-below-every-level");

    // By a manifest that asks for more than the collateral has.
    let desk = Desk::new();
    let more = desk.file("more.json");
    fs::write(&more, done(&["manifest", "new", "--at", "2025-01-01", "--evaluation-number-min", "18"]))
        .unwrap();
    fs::write(&more, done(&["manifest", "sign", &more, "--secret-file", &desk.file("release.key")])).unwrap();
    let said = tool(&[
        "tcb-status",
        &quote,
        "--collateral",
        &collateral,
        "--manifest",
        &more,
        "--key",
        &desk.key,
        "--at",
        THEN,
    ]);
    assert_eq!(said.code, 2);
    assert!(said.out.contains("does not accept it: evaluation-number"), "{}", said.out);
}

/// A kernel that gives quotes, as a folder of files: whoever makes an entry finds its attributes there a moment later.
struct Kernel {
    root: TempDir,
    over: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

/// What it does with what is asked.
type Serve = fn(&ReportData) -> Vec<u8>;

impl Kernel {
    fn start(provider: &'static str, generation: &'static str, serve: Serve) -> Self {
        let root = TempDir::new().unwrap();
        let reports = root.path().join(REPORTS);
        fs::create_dir_all(&reports).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let serving = thread::spawn(move || {
            // Each entry is attended to once: what is put away is not made again.
            let (mut met, mut answered) = (BTreeSet::new(), BTreeSet::new());
            while !until.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&reports).unwrap() {
                    let entry = entry.unwrap().path();
                    if met.insert(entry.clone()) {
                        fs::write(entry.join("provider"), format!("{provider}\n")).unwrap();
                    }
                    let asked = fs::read(entry.join("inblob")).ok().and_then(|asked| asked.try_into().ok());
                    if let Some(asked) = asked
                        && answered.insert(entry.clone())
                    {
                        // It may be put away meanwhile.
                        drop(answer(&entry, generation, &serve(&ReportData(asked))));
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { root, over, serving: Some(serving) }
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.path().join(REPORTS)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.serving.take().map(thread::JoinHandle::join));
    }
}

fn answer(entry: &Path, generation: &str, quote: &[u8]) -> std::io::Result<()> {
    fs::write(entry.join("generation"), format!("{generation}\n"))?;
    fs::write(entry.join("outblob.new"), quote)?;
    fs::rename(entry.join("outblob.new"), entry.join("outblob"))
}

fn quote(report_data: &ReportData) -> Vec<u8> {
    let vendor = Vendor::new(b"kernel", Date(1_767_225_600));
    Machine::new(&vendor, "machine", Build::default()).quote(&Guest::new(Measurement([1; 48])), report_data)
}

#[test]
fn a_quote_is_taken_from_the_kernel() {
    const WITHIN: Duration = Duration::from_secs(10);
    let asked = ReportData([5; 64]);
    let kernel = Kernel::start("tdx_guest", "1", quote);
    let taken = take_quote(kernel.root.path(), &asked, WITHIN).unwrap();
    assert_eq!(taken, quote(&asked));
    assert!(kernel.entries().is_empty(), "the entry was put away");

    let wrong: [(&str, &str, Serve, &str); 5] = [
        ("sev_guest", "1", quote, "the platform is \"sev_guest\" and not tdx_guest"),
        ("tdx_guest", "1", |_| vec![], "the quote is empty"),
        ("tdx_guest", "2", quote, "somebody else uses the entry: its generation is 2"),
        ("tdx_guest", "1", |_| quote(&ReportData([6; 64])), "it has other report data"),
        (
            "tdx_guest",
            "1",
            |_| vec![1; 100],
            "what came is not the quote that was asked for: quote-unreadable",
        ),
    ];
    for (provider, generation, serve, sentence) in wrong {
        let kernel = Kernel::start(provider, generation, serve);
        let reason = take_quote(kernel.root.path(), &asked, WITHIN).unwrap_err().to_string();
        assert!(reason.contains(sentence), "{sentence}: {reason}");
        assert!(kernel.entries().is_empty(), "{sentence}: the entry was put away");
    }
    let slow = Kernel::start("tdx_guest", "1", |asked| {
        thread::sleep(Duration::from_millis(500));
        quote(asked)
    });
    let late = take_quote(slow.root.path(), &asked, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(late, QuoteError::Late(_)), "{late}");
    let nothing = TempDir::new().unwrap();
    assert!(matches!(take_quote(nothing.path(), &asked, WITHIN), Err(QuoteError::NoReports(_))));
}

#[test]
fn a_doctor_says_what_is_missing() {
    let kernel = Kernel::start("tdx_guest", "1", quote);
    let root = text(kernel.root.path());
    fs::create_dir_all(kernel.root.path().join("dev")).unwrap();
    let socket = kernel.root.path().join("qgs.socket");
    let service = format!("unix:{}", socket.display());
    let guest = ["doctor", "guest", "--root", &root, "--quote-service", &service];

    let said = tool(&guest);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("MISSING  device "), "{}", said.out);
    assert!(
        said.out.contains("ok       test quote ") && said.out.contains("warning  quote service "),
        "{}",
        said.out
    );

    fs::write(kernel.root.path().join("dev/tdx_guest"), "").unwrap();
    let listening = UnixListener::bind(&socket).unwrap();
    let said = tool(&guest);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert_eq!(said.out.lines().filter(|line| line.starts_with("ok ")).count(), 4, "{}", said.out);

    let host = ["doctor", "host", "--root", &root, "--quote-service", &service, "--format", "json"];
    let said = tool(&host);
    assert_eq!(said.code, 1);
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&value["ok"], &value["findings"][0]["what"]), (&Value::from(false), &Value::from("kernel")));
    let parameters = kernel.root.path().join("sys/module/kvm_intel/parameters");
    fs::create_dir_all(&parameters).unwrap();
    fs::write(parameters.join("tdx"), "N\n").unwrap();
    for name in ["sgx_enclave", "sgx_provision"] {
        fs::write(kernel.root.path().join("dev").join(name), "").unwrap();
    }
    let said = tool(&host);
    assert!(said.code == 1 && said.out.contains("KVM does not start TDX guests"), "{}", said.out);
    fs::write(parameters.join("tdx"), "Y\n").unwrap();
    assert_eq!(tool(&host).code, 0);
    drop(listening);
    let said = tool(&host);
    assert!(said.code == 1 && said.out.contains("start qgsd on the host"), "{}", said.out);
}
