//! How bytes become decisions: from the front, one after the other, so that a change of one byte changes one decision.

/// Bytes that were not used yet.
pub(crate) struct Draw<'a>(&'a [u8]);

impl<'a> Draw<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; `None` at the end.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next two bytes; what is missing is zero.
    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte().unwrap_or(0), self.byte().unwrap_or(0)])
    }

    /// One of a list; `None` if it is empty.
    pub(crate) fn one<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        let place = usize::from(self.short());
        list.get(place.checked_rem(list.len())?)
    }

    /// So many bytes as the next two say, or as there are.
    pub(crate) fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.short()).min(self.0.len());
        let (chunk, rest) = self.0.split_at(len);
        self.0 = rest;
        chunk
    }

    /// Changes up to three bytes, and sometimes the length.
    pub(crate) fn alter(&mut self, bytes: &mut Vec<u8>) {
        let how = self.byte().unwrap_or(0);
        for _ in 0..how % 4 {
            let (place, value) = (usize::from(self.short()), self.byte().unwrap_or(0));
            if let Some(place) = place.checked_rem(bytes.len()) {
                bytes[place] = value;
            }
        }
        match how >> 5 {
            6 => drop(bytes.pop()),
            7 => bytes.extend_from_slice(self.chunk()),
            _ => {}
        }
    }
}

/// Writes what [`Draw`] reads.
#[derive(Default)]
pub(crate) struct Script(pub(crate) Vec<u8>);

impl Script {
    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(crate) fn short(mut self, number: usize) -> Self {
        let number = u16::try_from(number).expect("scripts have small numbers");
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn chunk(self, bytes: &[u8]) -> Self {
        let mut script = self.short(bytes.len());
        script.0.extend_from_slice(bytes);
        script
    }
}
