//! What MR_TD a firmware image will have: what the TDX module measures while the host builds the guest from it.
//!
//! A TDVF image says at its end which of its parts go where in the guest's memory, and which of them are measured. For
//! every page that is added, its address is measured; for every 256 bytes of those that are measured, address and
//! content. Hosts differ in when they do the one and the other, so one image has two values.

use core::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha384};

use crate::measurement::Measurement;

/// The longest image that is read. Real ones have 2 to 16 MiB.
pub const FIRMWARE_BYTES_MAX: usize = 64 << 20;

/// The most memory that an image may have measured.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const SECTIONS_MAX: u32 = 64;
const PAGE: u64 = 4096;
const CHUNK: usize = 256;
/// What the TDX module hashes for an operation: its name, and an address at byte 16.
const OPERATION: usize = 128;

/// Section attribute: the content is measured.
const MR_EXTEND: u32 = 1;
/// Section attribute: the guest accepts the memory later; nothing is added now.
const PAGE_AUG: u32 = 2;

/// `96b582de-1fb2-45f7-baea-a366c55a082d`: the table of GUIDs that ends 32 bytes before the end of an image.
const TABLE_FOOTER: [u8; 16] =
    guid(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
/// `e47a6535-984a-4798-865e-4685a7bf8ec2`: its entry that tells where the TDVF metadata are.
const METADATA_OFFSET: [u8; 16] =
    guid(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);

/// In which order a host adds pages and has them measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Each page is added and measured before the next one: Linux since 6.16, and most others.
    PageByPage,
    /// All pages of a section are added, then all are measured: Canonical's older kernels for TDX.
    AddsFirst,
}

impl Order {
    /// Both.
    pub const ALL: [Self; 2] = [Self::PageByPage, Self::AddsFirst];

    /// As it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PageByPage => "page-by-page",
            Self::AddsFirst => "adds-first",
        }
    }
}

/// A part of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What it is for.
    pub kind: &'static str,
    /// Where it begins in the image.
    pub offset: u32,
    /// How many bytes of the image it has. The rest of its memory is zeros.
    pub bytes: u32,
    /// Where it goes in the guest's memory.
    pub address: u64,
    /// How many bytes of memory it has.
    pub memory: u64,
    /// Whether the host adds it before the guest starts.
    pub is_added: bool,
    /// Whether its content goes into MR_TD.
    pub is_measured: bool,
}

/// An image, read.
#[derive(Clone, Debug)]
pub struct Firmware<'a> {
    image: &'a [u8],
    sections: Vec<Section>,
}

impl<'a> Firmware<'a> {
    /// Reads the metadata of an image.
    ///
    /// # Errors
    /// If it is no TDVF image, or one whose metadata contradict themselves.
    pub fn read(image: &'a [u8]) -> Result<Self, FirmwareError> {
        let fail = |text: String| Err(FirmwareError(text));
        if image.len() > FIRMWARE_BYTES_MAX {
            return fail(format!("{} bytes exceed {FIRMWARE_BYTES_MAX}", image.len()));
        }
        let metadata = image.len() - metadata_offset(image)?;
        let word = |at: usize| image.get(at..at + 4).map(|bytes| u32::from_le_bytes(array(bytes)));
        let long = |at: usize| image.get(at..at + 8).map(|bytes| u64::from_le_bytes(array(bytes)));
        let truncated = || FirmwareError("the TDVF metadata end too early".to_owned());
        if image.get(metadata..metadata + 4) != Some(b"TDVF") || word(metadata + 8) != Some(1) {
            return fail("no TDVF metadata of version 1 where its table says they are".to_owned());
        }
        let count = word(metadata + 12).ok_or_else(truncated)?;
        if count == 0 || count > SECTIONS_MAX {
            return fail(format!("{count} sections; expected 1 to {SECTIONS_MAX}"));
        }
        let mut sections = Vec::new();
        let mut memory_left = MEMORY_BYTES_MAX;
        for number in 0..count as usize {
            let at = metadata + 16 + 32 * number;
            let (Some(offset), Some(bytes), Some(address), Some(memory), Some(kind), Some(attributes)) =
                (word(at), word(at + 4), long(at + 8), long(at + 16), word(at + 24), word(at + 28))
            else {
                return Err(truncated());
            };
            let name = kind_name(kind);
            let inside = (offset as usize).checked_add(bytes as usize).is_some_and(|end| end <= image.len());
            if !inside {
                return fail(format!("section {number} ({name}) goes beyond the end of the image"));
            }
            let aligned = address % PAGE == 0 && memory % PAGE == 0 && address.checked_add(memory).is_some();
            let is_added = attributes & PAGE_AUG == 0;
            if !aligned || is_added && u64::from(bytes) > memory {
                return fail(format!(
                    "section {number} ({name}) does not fit its {memory:#x} bytes at {address:#x}"
                ));
            }
            if is_added {
                memory_left = memory_left.checked_sub(memory).ok_or_else(|| {
                    FirmwareError(format!("more than {MEMORY_BYTES_MAX} bytes of memory are to be added"))
                })?;
            }
            let is_measured = is_added && attributes & MR_EXTEND != 0;
            sections.push(Section { kind: name, offset, bytes, address, memory, is_added, is_measured });
        }
        Ok(Self { image, sections })
    }

    /// What the image is made of, in the order in which it is added.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The value on a host that adds pages in this order.
    #[must_use]
    pub fn mr_td(&self, order: Order) -> Measurement {
        let mut hasher = Sha384::new();
        for section in self.sections.iter().filter(|section| section.is_added) {
            let pages = || (0..section.memory / PAGE).map(|page| page * PAGE);
            match order {
                Order::PageByPage => {
                    for page in pages() {
                        add(&mut hasher, section, page);
                        self.measure(&mut hasher, section, page);
                    }
                }
                Order::AddsFirst => {
                    pages().for_each(|page| add(&mut hasher, section, page));
                    pages().for_each(|page| self.measure(&mut hasher, section, page));
                }
            }
        }
        Measurement(hasher.finalize().into())
    }

    fn measure(&self, hasher: &mut Sha384, section: &Section, page: u64) {
        if !section.is_measured {
            return;
        }
        let content = &self.image[section.offset as usize..][..section.bytes as usize];
        for chunk in (page..page + PAGE).step_by(CHUNK) {
            hasher.update(operation(b"MR.EXTEND", section.address + chunk));
            let mut bytes = [0; CHUNK];
            let from = usize::try_from(chunk).map_or(content.len(), |chunk| chunk.min(content.len()));
            let there = &content[from..content.len().min(from + CHUNK)];
            bytes[..there.len()].copy_from_slice(there);
            hasher.update(bytes);
        }
    }
}

fn add(hasher: &mut Sha384, section: &Section, page: u64) {
    hasher.update(operation(b"MEM.PAGE.ADD", section.address + page));
}

fn operation(name: &[u8], address: u64) -> [u8; OPERATION] {
    let mut bytes = [0; OPERATION];
    bytes[..name.len()].copy_from_slice(name);
    bytes[16..24].copy_from_slice(&address.to_le_bytes());
    bytes
}

/// How far before the end of the image the metadata begin.
fn metadata_offset(image: &[u8]) -> Result<usize, FirmwareError> {
    let none = || FirmwareError("no TDVF metadata in it: it is not built for TDX".to_owned());
    let table_end = image.len().checked_sub(32).ok_or_else(none)?;
    // From the end: GUID, length of the entry with both, and before that what it says.
    let entry = |end: usize| {
        let guid = image.get(end.checked_sub(16)?..end)?;
        let len = usize::from(u16::from_le_bytes(array(image.get(end.checked_sub(18)?..end - 16)?)));
        Some((guid, len))
    };
    let (footer, table_len) = entry(table_end).ok_or_else(none)?;
    if footer != TABLE_FOOTER {
        return Err(none());
    }
    let table_start = table_end.checked_sub(table_len).ok_or_else(none)?;
    let mut end = table_end - 18;
    while end > table_start {
        let (guid, len) = entry(end).ok_or_else(none)?;
        if len < 18 {
            return Err(FirmwareError(format!("its table has an entry of {len} bytes")));
        }
        let start = end.checked_sub(len).filter(|start| *start >= table_start).ok_or_else(none)?;
        if guid == METADATA_OFFSET && len >= 22 {
            let offset = u32::from_le_bytes(array(&image[start..start + 4])) as usize;
            if offset < 16 || offset > image.len() {
                return Err(FirmwareError(format!(
                    "its metadata are said to begin {offset} bytes before its end"
                )));
            }
            return Ok(offset);
        }
        end = start;
    }
    Err(none())
}

fn array<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    bytes.try_into().expect("the slice has this length")
}

const fn guid(first: u32, second: u16, third: u16, rest: [u8; 8]) -> [u8; 16] {
    let [a, b, c, d] = first.to_le_bytes();
    let [e, f] = second.to_le_bytes();
    let [g, h] = third.to_le_bytes();
    let [i, j, k, l, m, n, o, p] = rest;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

const fn kind_name(kind: u32) -> &'static str {
    match kind {
        0 => "BFV",
        1 => "CFV",
        2 => "TD_HOB",
        3 => "TEMP_MEM",
        4 => "PERM_MEM",
        5 => "PAYLOAD",
        6 => "PAYLOAD_PARAM",
        _ => "unknown",
    }
}

/// Why an image cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareError(String);

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read the firmware: {}", self.0)
    }
}

impl core::error::Error for FirmwareError {}
