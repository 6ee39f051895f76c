//! What a guest or a host lacks for quotes.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use serde_json::json;
use zipnet_tdx::measurement::ReportData;

use super::platform::{REPORTS, take_quote};
use super::{Outcome, is_json, line};
use crate::flags;

/// How long a test quote may take.
const QUOTE_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn command() -> Command {
    let root = || {
        Arg::new("root")
            .long("root")
            .value_name("FOLDER")
            .default_value("/")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Where the machine's folders dev and sys are")
    };
    let service = |default: &'static str| {
        Arg::new("quote-service")
            .long("quote-service")
            .value_name("ADDRESS")
            .default_value(default)
            .value_parser(service)
            .help("The host's quote service: vsock:CID:PORT or unix:PATH")
    };
    Command::new("doctor")
        .about("Say what a guest or a host lacks for quotes; exit code 1 if it lacks something")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("guest")
                .about("In a TDX guest: device, configfs, quote service, and one test quote")
                .arg(root())
                .arg(service("vsock:2:4050"))
                .arg(flags::format_argument()),
        )
        .subcommand(
            Command::new("host")
                .about("On a TDX host: kernel, the enclaves that sign quotes, and the quote service")
                .arg(root())
                .arg(service("unix:/var/run/tdx-qgs/qgs.socket"))
                .arg(flags::format_argument()),
        )
}

/// Where a quote service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Service {
    Vsock { cid: u32, port: u32 },
    Unix(PathBuf),
}

fn service(text: &str) -> Result<Service, String> {
    let wrong = || "write it like vsock:2:4050 or unix:/var/run/tdx-qgs/qgs.socket".to_owned();
    match text.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Ok(Service::Unix(path.into())),
        Some(("vsock", rest)) => {
            let (cid, port) = rest.split_once(':').ok_or_else(wrong)?;
            let number = |digits: &str| digits.parse().map_err(|_| wrong());
            Ok(Service::Vsock { cid: number(cid)?, port: number(port)? })
        }
        _ => Err(wrong()),
    }
}

/// What was looked at.
struct Finding {
    what: &'static str,
    /// What is there, or what is missing and what helps.
    found: Result<String, String>,
    /// Whether nothing works without it.
    is_needed: bool,
}

pub(super) fn act(matches: &ArgMatches) -> Outcome {
    let (name, matches) = matches.subcommand().expect("clap requires one of the commands");
    let root = super::path(matches, "root");
    let service: &Service = matches.get_one("quote-service").expect("it has a default");
    let findings = if name == "guest" { guest(root, service) } else { host(root, service) };
    let is_well = findings.iter().all(|finding| finding.found.is_ok() || !finding.is_needed);
    if is_json(matches) {
        let values: Vec<_> = findings
            .iter()
            .map(|Finding { what, found, is_needed }| {
                let said = found.as_ref().map_or_else(String::as_str, String::as_str);
                json!({ "what": what, "ok": found.is_ok(), "needed": is_needed, "said": said })
            })
            .collect();
        flags::print(&format!("{}\n", json!({ "ok": is_well, "findings": values })));
    } else {
        let mut text = String::new();
        for Finding { what, found, is_needed } in &findings {
            let (word, said) = match (found, is_needed) {
                (Ok(said), _) => ("ok", said),
                (Err(said), true) => ("MISSING", said),
                (Err(said), false) => ("warning", said),
            };
            line(&mut text, format_args!("{word:<8} {what:<14} {said}"));
        }
        flags::print(&text);
    }
    Ok(u8::from(!is_well))
}

fn guest(root: &Path, service: &Service) -> Vec<Finding> {
    let device = root.join("dev/tdx_guest");
    let reports = root.join(REPORTS);
    let there = |path: &Path, helps: &str| {
        if path.exists() {
            Ok(path.display().to_string())
        } else {
            Err(format!("{} is not there: {helps}", path.display()))
        }
    };
    // Nobody has to be deceived with it: it is all zeros.
    let quote = take_quote(root, &ReportData([0; 64]), QUOTE_WITHIN);
    vec![
        Finding {
            what: "device",
            found: there(&device, "this is no TDX guest, or the module tdx-guest is not loaded"),
            is_needed: true,
        },
        Finding {
            what: "configfs",
            found: there(&reports, "mount configfs, and load the modules tsm and tdx-guest"),
            is_needed: true,
        },
        Finding {
            what: "test quote",
            found: quote.map(|quote| format!("{} bytes", quote.len())).map_err(|reason| reason.to_string()),
            is_needed: true,
        },
        // A host may answer the kernel and not listen here; then a quote takes a second instead of milliseconds.
        Finding { what: "quote service", found: reach(service), is_needed: false },
    ]
}

fn host(root: &Path, service: &Service) -> Vec<Finding> {
    let parameter = root.join("sys/module/kvm_intel/parameters/tdx");
    let kernel = match fs::read_to_string(&parameter) {
        Ok(text) if matches!(text.trim(), "Y" | "1") => Ok("KVM starts TDX guests".to_owned()),
        Ok(_) => {
            Err("KVM does not start TDX guests: switch TDX on in the BIOS, and start with kvm_intel.tdx=1"
                .to_owned())
        }
        Err(_) => Err(format!(
            "{} is not there: run a kernel that can host TDX, 6.16 or newer",
            parameter.display()
        )),
    };
    let enclaves = |name: &str| {
        let path = root.join("dev").join(name);
        if path.exists() {
            Ok(path.display().to_string())
        } else {
            Err(format!(
                "{} is not there: switch SGX on in the BIOS, for the enclaves that sign quotes",
                path.display()
            ))
        }
    };
    vec![
        Finding { what: "kernel", found: kernel, is_needed: true },
        Finding { what: "enclaves", found: enclaves("sgx_enclave"), is_needed: true },
        Finding { what: "provisioning", found: enclaves("sgx_provision"), is_needed: true },
        Finding { what: "quote service", found: reach(service), is_needed: true },
    ]
}

/// Whether somebody listens. That it gives quotes is seen in a guest.
fn reach(service: &Service) -> Result<String, String> {
    match service {
        Service::Unix(path) => {
            UnixStream::connect(path).map(|_| format!("it listens at {}", path.display())).map_err(|reason| {
                format!("nobody listens at {}: {reason}; start qgsd on the host", path.display())
            })
        }
        Service::Vsock { cid, port } => {
            let said = |reason: nix::Error| {
                format!("nobody listens at vsock {cid}:{port}: {}; let qgsd listen on vsock", reason.desc())
            };
            let ours =
                socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(said)?;
            connect(ours.as_raw_fd(), &VsockAddr::new(*cid, *port)).map_err(said)?;
            Ok(format!("it listens at vsock {cid}:{port}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_quote_service_are_read() {
        assert_eq!(service("vsock:2:4050"), Ok(Service::Vsock { cid: 2, port: 4_050 }));
        assert_eq!(service("unix:/run/q"), Ok(Service::Unix("/run/q".into())));
        for wrong in ["", "vsock", "vsock:2", "vsock:two:4050", "unix:", "tcp:1:2", "vsock:2:4050:1"] {
            assert!(service(wrong).is_err(), "{wrong}");
        }
    }
}
