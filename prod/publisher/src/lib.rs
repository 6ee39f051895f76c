//! Publish into a zipnet instance and read its broadcasts, from any program.
//!
//! A [`Publisher`] is a client of the instance: it takes part in every round, with a message or with cover traffic, and
//! says what became of each message. A [`Reader`] takes no part: it follows the broadcasts and checks every signature. Both
//! run the node that the binaries run, inside the calling process, on its tokio runtime.
//!
//! ```no_run
//! # async fn publish() -> Result<(), Box<dyn std::error::Error>> {
//! use zipnet::{Config, Outcome, Publisher};
//!
//! let config = Config::from_env()?;
//! let publisher = Publisher::connect(config).await?;
//! let receipt = publisher.send("hello").await?;
//! assert_eq!(receipt.await.outcome, Outcome::Landed);
//! publisher.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What a publisher may promise its users stands in `docs/adversary.md`, what each outcome means in `docs/publishing.md`.
//!
//! - [`Config`]: which instance, by whom it is found, and whom to trust.
//! - [`Publisher`]: sends messages; each has a [`Receipt`].
//! - [`Reader`]: a stream of [`Broadcast`]s.
//! - [`ConnectError`]: why neither could begin.
#![forbid(unsafe_code)]

mod config;
mod publisher;
mod reader;
mod running;

pub use zipnet_core::evidence::{Contradiction, NoEvidence};
pub use zipnet_core::id::{Digest, LogId, PeerId, Round};
pub use zipnet_core::key::NodeSecret;
pub use zipnet_core::machine::Outcome;
pub use zipnet_core::message::RecordSignature;
pub use zipnet_core::refused::Refused;
pub use zipnet_node::config::{ConfigError, PeerAddress};
pub use zipnet_node::frame::Refusal;

pub use self::config::{Config, Mistakes};
pub use self::publisher::{Publication, Publisher, Receipt, SendError};
pub use self::reader::{Broadcast, Doubt, Message, Reader};
pub use self::running::{ConnectError, Ended};
