//! One file: what is durable, and what was written since the last sync.
//!
//! Pages are shared between the durable image, the view and the list of operations, so that a written page is copied
//! once, and a sync moves pages instead of bytes.

use core::fmt;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::Crash;
use crate::random::Random;

const PAGE: usize = 4_096;
const PAGE_U64: u64 = 4_096;
/// What a drive writes at once or not at all.
const SECTOR: usize = 512;

type Page = Arc<[u8; PAGE]>;

/// See the module.
#[derive(Default)]
pub(super) struct File {
    /// Somebody holds a handle.
    pub(super) opened: bool,
    durable: Image,
    /// Pages that differ from the durable image.
    overlay: BTreeMap<u64, Page>,
    /// The length that readers see.
    len: u64,
    /// The shortest length that readers saw since the last sync: beyond it, the durable image does not show through.
    visible: u64,
    /// What happened since the last sync, in order.
    pending: Vec<Operation>,
}

/// What one call did.
enum Operation {
    SetLen(u64),
    Write(Vec<Piece>),
}

/// A part of a write that lies within one page.
enum Piece {
    /// The whole page.
    Page(u64, Page),
    /// Some bytes from this offset of the file on.
    Bytes(u64, Box<[u8]>),
}

impl File {
    /// A file with this content, which is durable.
    pub(super) fn whole(content: &[u8]) -> Self {
        let mut file = Self::default();
        file.write(0, content);
        file.sync();
        file
    }

    /// The whole of it as text.
    pub(super) fn text(&self) -> io::Result<String> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(io::Error::other)?];
        self.read(0, &mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn footprint(&self) -> usize {
        (self.durable.pages.iter().flatten().count() + self.overlay.len()) * PAGE
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(size(out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (index, within, range) in pages(offset, out.len()) {
            let to = &mut out[range];
            if let Some(page) = self.overlay.get(&index) {
                to.copy_from_slice(&page[within..within + to.len()]);
                continue;
            }
            to.fill(0);
            let shown =
                usize::try_from(self.visible.saturating_sub(index * PAGE_U64)).unwrap_or(PAGE).min(PAGE);
            if let Some(page) = self.durable.page(index) {
                let shown = shown.saturating_sub(within).min(to.len());
                to[..shown].copy_from_slice(&page[within..within + shown]);
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut pieces = Vec::new();
        for (index, within, range) in pages(offset, data.len()) {
            let from = &data[range];
            if let Ok(whole) = <&[u8; PAGE]>::try_from(from) {
                let page = Arc::new(*whole);
                self.overlay.insert(index, Arc::clone(&page));
                pieces.push(Piece::Page(index, page));
            } else {
                let page = self.page_to_change(index);
                page[within..within + from.len()].copy_from_slice(from);
                pieces.push(Piece::Bytes(index * PAGE_U64 + size(within), from.into()));
            }
        }
        self.len = self.len.max(offset + size(data.len()));
        self.pending.push(Operation::Write(pieces));
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.visible = self.visible.min(len);
            self.overlay.split_off(&len.div_ceil(PAGE_U64));
            let rest = offset_in_page(len);
            if rest > 0 && self.overlay.contains_key(&(len / PAGE_U64)) {
                self.page_to_change(len / PAGE_U64)[rest..].fill(0);
            }
        }
        self.len = len;
        self.pending.push(Operation::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        self.durable.set_len(self.visible);
        self.durable.set_len(self.len);
        for (index, page) in core::mem::take(&mut self.overlay) {
            self.durable.put(index, page);
        }
        self.pending.clear();
        self.visible = self.len;
    }

    /// Decides what of the pending operations is durable; the view is what is durable then. Says how many operations did
    /// not survive whole.
    pub(super) fn crash(&mut self, crash: Crash, random: &mut Random) -> u64 {
        self.opened = false;
        let pending = core::mem::take(&mut self.pending);
        let mut lost = size(pending.len());
        match crash {
            Crash::KeepAll => {
                self.sync();
                return 0;
            }
            Crash::LoseAll => {}
            Crash::Prefix => {
                let survive = random.index(pending.len() + 1);
                lost -= size(survive);
                for operation in pending.into_iter().take(survive) {
                    self.durable.apply(operation);
                }
            }
            Crash::Torn => {
                for operation in pending {
                    match random.below(3) {
                        0 => {
                            lost -= 1;
                            self.durable.apply(operation);
                        }
                        1 => {}
                        _ => self.durable.tear(operation, random),
                    }
                }
            }
        }
        self.overlay.clear();
        self.len = self.durable.len;
        self.visible = self.len;
        lost
    }

    /// The page of the view, copied from the durable image if nobody wrote to it since the last sync.
    fn page_to_change(&mut self, index: u64) -> &mut [u8; PAGE] {
        let page = self.overlay.entry(index).or_insert_with(|| {
            let mut page = [0; PAGE];
            let shown = self.visible.saturating_sub(index * PAGE_U64).min(PAGE_U64);
            let shown = usize::try_from(shown).expect("at most a page");
            if let Some(durable) = self.durable.page(index) {
                page[..shown].copy_from_slice(&durable[..shown]);
            }
            Arc::new(page)
        });
        Arc::make_mut(page)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("opened", &self.opened)
            .field("len", &self.len)
            .field("durable", &self.durable.len)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

/// The durable bytes of a file.
#[derive(Default)]
struct Image {
    /// None is a page of zeros; also whatever is beyond the end.
    pages: Vec<Option<Page>>,
    len: u64,
}

impl Image {
    fn page(&self, index: u64) -> Option<&Page> {
        self.pages.get(usize::try_from(index).ok()?)?.as_ref()
    }

    fn slot(&mut self, index: u64) -> &mut Option<Page> {
        let index = usize::try_from(index).expect("a simulated file fits into memory");
        if self.pages.len() <= index {
            self.pages.resize(index + 1, None);
        }
        &mut self.pages[index]
    }

    fn put(&mut self, index: u64, page: Page) {
        *self.slot(index) = Some(page);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.truncate(
                usize::try_from(len.div_ceil(PAGE_U64)).expect("a simulated file fits into memory"),
            );
            let rest = offset_in_page(len);
            if rest > 0
                && let Some(page) = self.slot(len / PAGE_U64)
            {
                Arc::make_mut(page)[rest..].fill(0);
            }
        }
        self.len = len;
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::SetLen(len) => self.set_len(len),
            Operation::Write(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Page(index, page) => {
                            self.len = self.len.max((index + 1) * PAGE_U64);
                            self.put(index, page);
                        }
                        Piece::Bytes(offset, bytes) => self.copy(offset, &bytes),
                    }
                }
            }
        }
    }

    /// Lets each sector of a write survive or vanish for itself; a change of length survives or vanishes.
    fn tear(&mut self, operation: Operation, random: &mut Random) {
        match operation {
            Operation::SetLen(_) => {
                if random.permille(500) {
                    self.apply(operation);
                }
            }
            Operation::Write(pieces) => {
                for piece in &pieces {
                    let (offset, bytes): (u64, &[u8]) = match piece {
                        Piece::Page(index, page) => (index * PAGE_U64, page.as_slice()),
                        Piece::Bytes(offset, bytes) => (*offset, bytes),
                    };
                    let mut done = 0;
                    while done < bytes.len() {
                        let at = offset + size(done);
                        let sector = SECTOR - offset_in_page(at) % SECTOR;
                        let end = bytes.len().min(done + sector);
                        if random.permille(500) {
                            self.copy(at, &bytes[done..end]);
                        }
                        done = end;
                    }
                }
            }
        }
    }

    fn copy(&mut self, offset: u64, bytes: &[u8]) {
        for (index, within, range) in pages(offset, bytes.len()) {
            let from = &bytes[range];
            let page = self.slot(index).get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + from.len()].copy_from_slice(from);
        }
        self.len = self.len.max(offset + size(bytes.len()));
    }
}

/// A file that holds a database without tables.
pub(super) fn empty_database() -> io::Result<File> {
    let scratch = Scratch::default();
    let database = redb::Builder::new().create_with_backend(scratch.clone()).map_err(io::Error::other)?;
    drop(database);
    let mut file = core::mem::take(&mut *scratch.0.lock().unwrap_or_else(PoisonError::into_inner));
    file.sync();
    file.opened = false;
    Ok(file)
}

/// The temporary file in which a database is made.
#[derive(Clone, Debug, Default)]
struct Scratch(Arc<Mutex<File>>);

impl Scratch {
    fn act<T>(&self, act: impl FnOnce(&mut File) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl redb::StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        Ok(self.act(|file| file.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.act(|file| file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(|file| file.set_len(len));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.act(|file| file.write(offset, data));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The pages that a range of the file touches: (index of the page, offset within it, range of the caller's bytes).
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + size(done);
        let within = offset_in_page(at);
        let start = done;
        done = len.min(done + PAGE - within);
        Some((at / PAGE_U64, within, start..done))
    })
}

fn offset_in_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE_U64).expect("less than a page")
}

fn size(len: usize) -> u64 {
    u64::try_from(len).expect("lengths fit 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees.
    fn contents(file: &File) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(file.len()).unwrap()];
        file.read(0, &mut out).unwrap();
        out
    }

    /// The same operations on plain bytes.
    fn model(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        bytes.resize(bytes.len().max(offset + data.len()), 0);
        bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    #[test]
    fn readers_see_what_plain_bytes_would_hold_and_crashes_keep_what_was_synced() {
        let mut random = Random::new(7);
        for _ in 0..200 {
            let (mut file, mut view, mut durable) = (File::default(), Vec::new(), Vec::new());
            for _ in 0..60 {
                match random.below(10) {
                    0 | 1 => {
                        let len = random.below(40_000);
                        file.set_len(len);
                        view.resize(usize::try_from(len).unwrap(), 0);
                    }
                    2 => {
                        file.sync();
                        durable.clone_from(&view);
                    }
                    3 => {
                        file.crash(Crash::LoseAll, &mut random);
                        view.clone_from(&durable);
                    }
                    4 => {
                        file.crash(Crash::KeepAll, &mut random);
                        durable.clone_from(&view);
                    }
                    aligned => {
                        let offset = if aligned > 7 { random.below(8) * 4_096 } else { random.below(30_000) };
                        let len = if aligned > 6 { 4_096 * random.index(3) } else { random.index(9_000) };
                        let mut data = vec![0; len];
                        random.fill(&mut data);
                        if !data.is_empty() {
                            file.write(offset, &data);
                            model(&mut view, offset, &data);
                        }
                    }
                }
                assert_eq!(contents(&file), view);
            }
        }
    }

    #[test]
    fn a_prefix_is_a_prefix() {
        let mut random = Random::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let mut file = File::default();
            file.set_len(3);
            file.sync();
            for (offset, byte) in [1, 2, 3].into_iter().enumerate() {
                file.write(size(offset), &[byte]);
            }
            file.crash(Crash::Prefix, &mut random);
            seen.insert(contents(&file));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 3]]);
    }

    #[test]
    fn a_torn_write_tears_between_sectors_only() {
        let mut random = Random::new(3);
        let mut torn = false;
        for _ in 0..64 {
            let mut file = File::default();
            file.set_len(8_192);
            file.sync();
            file.write(0, &[1; 8_192]);
            file.crash(Crash::Torn, &mut random);
            let contents = contents(&file);
            for sector in contents.chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
            torn |= contents.contains(&0) && contents.contains(&1);
        }
        assert!(torn);
    }
}
