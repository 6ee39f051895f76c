//! What a node may tell: typed, serialisable, and without a field for a payload, a key, a pad or a client's network address.
//! Lines of logs are made of it; only [`Fact::line`] makes sentences.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod change;
pub mod fact;
pub mod line;
pub mod refusal;
#[cfg(test)]
mod schema;

pub use change::Change;
pub use fact::{Account, Fact, RoundEnd, Stall};
pub use line::{Level, Line};
pub use refusal::{Farewell, Refusal};
