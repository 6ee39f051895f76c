//! How much a decoder allocates: an allocator that counts, and the bound that every decoder keeps.
//!
//! A binary that wants the bound to be checked makes [`Meter`] its global allocator. Elsewhere nothing is counted and
//! [`bounded`] only calls.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a decoder may allocate in any case. Lists are made with room for as many elements as they claim to have, but
/// for no more than serde's 1 MiB, and no decoder has more than two of them open at a time.
const ALWAYS: usize = 3 << 20;

/// What it may allocate for each byte of its input: an element of a list takes more room in memory than on the wire.
const PER_BYTE: usize = 8;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The allocator of the system, with a count of what each thread holds.
#[derive(Clone, Copy, Debug)]
pub struct Meter;

fn add(len: usize) {
    // A thread that ends has no count any more.
    let _gone = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(len));
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn subtract(len: usize) {
    // What another thread allocated may be freed here: the count wraps, and back again at the next start.
    let _gone = HELD.try_with(|held| held.set(held.get().saturating_sub(len)));
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one passes everything on as it came"
)]
// SAFETY: every call is passed on to the system's allocator with the arguments that it came with.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: the caller keeps the rules of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Calls a decoder and asserts that it allocates no more than its input explains.
///
/// # Panics
/// If it allocates more.
pub fn bounded<T>(input: &[u8], decode: impl FnOnce() -> T) -> T {
    bounded_besides(0, input, decode)
}

/// The same for one that needs so many bytes on purpose, whatever its input.
///
/// # Panics
/// If it allocates more.
pub fn bounded_besides<T>(needed: usize, input: &[u8], decode: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let value = decode();
    let allocated = PEAK.get().saturating_sub(before);
    let most = ALWAYS.saturating_add(needed).saturating_add(input.len().saturating_mul(PER_BYTE));
    assert!(allocated <= most, "{} bytes made a decoder allocate {allocated}", input.len());
    value
}
