//! What the primitives promise, from the outside.

mod algebra;
mod bitmaps;
mod identifiers;
mod keyrings;
mod keys;
mod overhead;
mod randomness;
mod registries;
mod sample;
mod signatures;
mod slots;
mod wires;
