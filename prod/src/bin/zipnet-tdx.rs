//! The command `zipnet-tdx`; see [`zipnet_prod::attestation`].

use std::process::ExitCode;

fn main() -> ExitCode {
    zipnet_prod::attestation::main()
}
