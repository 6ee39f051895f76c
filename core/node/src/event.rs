//! What a node tells about itself.

/// Something that happened inside a node.
#[derive(Clone, Debug)]
pub enum Event {}
