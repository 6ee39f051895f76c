//! Publishes one message and says what became of it.
//!
//! ```text
//! ZIPNET_INSTANCE=acme.mixer.mainnet ZIPNET_BOOTSTRAP=<peer> cargo run -p zipnet --example publish -- hello
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to who runs it")]

use std::process::ExitCode;

use zipnet::{Config, Outcome, Publisher};

#[tokio::main]
async fn main() -> ExitCode {
    match publish().await {
        Ok(Outcome::Landed) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn publish() -> Result<Outcome, Box<dyn std::error::Error>> {
    let text = std::env::args().nth(1).ok_or("say what to publish")?;
    let publisher = Publisher::connect(Config::from_env()?).await?;
    let publication = publisher.send(text).await?.await;
    println!("{:?} in {:?}", publication.outcome, publication.round);
    publisher.close().await?;
    Ok(publication.outcome)
}
