//! The command `zipnet`; see [`zipnet_prod::tool`].

use std::process::ExitCode;

fn main() -> ExitCode {
    zipnet_prod::tool::main()
}
