//! Sending messages.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use zipnet_core::client::PublishError;
use zipnet_core::id::{Role, Round};
use zipnet_core::machine::{Outcome, Report, RequestId};
use zipnet_node::event::Event;
use zipnet_node::node::{self, Known};

use crate::config::Config;
use crate::running::{ConnectError, Ended, Running};

/// A client of an instance. It takes part in every round, with a message or with cover traffic, so that nobody can tell
/// when it publishes.
///
/// Dropping it stops the client in order, without waiting for that.
#[derive(Debug)]
pub struct Publisher {
    running: Running,
    instance: String,
    timeout: Duration,
    counted_in: watch::Receiver<bool>,
    last: AtomicU64,
}

impl Publisher {
    /// Starts a client and waits until it is linked with the aggregator of the instance. Call it within a tokio runtime
    /// with network and time.
    ///
    /// # Errors
    /// See [`ConnectError`]; after an error nothing runs any more.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let timeout = config.connect_timeout;
        let (counting, counted_in) = watch::channel(false);
        let observe = move |event: &Event| {
            if matches!(event, Event::Core(Report::Enrolled { .. })) {
                counting.send_replace(true);
            }
        };
        let config = config.publisher();
        let instance = config.instance.name().to_owned();
        let running = Running::start(config, timeout, &[Role::Aggregator], observe).await?;
        Ok(Self { running, instance, timeout, counted_in, last: AtomicU64::new(0) })
    }

    /// Waits until a round counts this publisher in, so that the next one can take its messages. An instance that lacks
    /// servers or clients opens no round, and a retired one never will.
    ///
    /// # Errors
    /// [`ConnectError::ConnectTimeout`] after [`Config::connect_timeout`]; [`ConnectError::Ended`] if the client ended.
    pub async fn ready(&mut self) -> Result<(), ConnectError> {
        let waiting = self.counted_in.wait_for(|counted_in| *counted_in);
        let waited = tokio::time::timeout(self.timeout, waiting).await.map(|counted_in| counted_in.is_ok());
        match waited {
            Ok(true) => Ok(()),
            // Whoever would tell is gone.
            Ok(false) => {
                let in_order = Ended { code: 0, reason: "stopped in order".to_owned() };
                Err(ConnectError::Ended(self.running.end().await.err().unwrap_or(in_order)))
            }
            Err(_) => Err(ConnectError::ConnectTimeout {
                instance: self.instance.clone(),
                after: self.timeout,
                answered: true,
            }),
        }
    }

    /// Queues a message for one of the next rounds. Short text is filled with zeros, so that its length does not tell who
    /// wrote it.
    ///
    /// # Errors
    /// If the client does not take it; nothing was sent then.
    pub async fn send(&self, payload: impl Into<Vec<u8>>) -> Result<Receipt, SendError> {
        let request = RequestId(self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
        match self.running.handle.submit(request, payload.into()).await {
            Some(Ok(receipt)) => Ok(Receipt(receipt)),
            Some(Err(PublishError::TooLong { bytes, payload_bytes })) => {
                Err(SendError::TooLong { bytes, payload_bytes })
            }
            Some(Err(PublishError::QueueFull { queue_max })) => Err(SendError::QueueFull { queue_max }),
            Some(Err(PublishError::Stopping)) | None => Err(SendError::Closed),
        }
    }

    /// Stops the client in order and waits for its end. Receipts that are still open then say [`Outcome::Unknown`]:
    /// await them first.
    ///
    /// # Errors
    /// If the client had ended by itself, or did not end in order.
    pub async fn close(mut self) -> Result<(), Ended> {
        self.running.end().await
    }
}

/// Resolves to what became of a message. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Receipt(node::Receipt);

impl Future for Receipt {
    type Output = Publication;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Publication> {
        Pin::new(&mut self.0).poll(context).map(|known| match known {
            Some(Known { outcome, round }) => Publication { outcome, round: Some(round) },
            None => Publication { outcome: Outcome::Unknown, round: None },
        })
    }
}

/// What became of a message, and in which round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// What became of it.
    pub outcome: Outcome,
    /// The last round that it was sealed for. `None` if the publisher ended before that was known: the outcome is
    /// [`Outcome::Unknown`] then.
    pub round: Option<Round>,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// It does not fit into a slot.
    TooLong {
        /// Bytes of the message.
        bytes: usize,
        /// The most bytes of a message.
        payload_bytes: usize,
    },
    /// As many messages wait as may: one leaves with each round of the cadence.
    QueueFull {
        /// How many may wait.
        queue_max: usize,
    },
    /// The publisher has ended.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, payload_bytes } => {
                write!(f, "send a message: {bytes} bytes exceed the {payload_bytes} of a slot")
            }
            Self::QueueFull { queue_max } => write!(f, "send a message: {queue_max} messages wait already"),
            Self::Closed => f.write_str("send a message: the publisher has ended"),
        }
    }
}

impl core::error::Error for SendError {}
