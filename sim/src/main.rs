//! The command `zipnet-sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zipnet_sim::cli::main().into()
}
