//! The command `zipnet-aggregator`; see [`zipnet_prod::process`].

use std::process::ExitCode;

use zipnet_core::id::Role;

fn main() -> ExitCode {
    zipnet_prod::process::main(Role::Aggregator)
}
