//! Small byte buffers for many series: blocks of a few sizes, reused, without an allocation each.

/// Size of the smallest block; each further class doubles it.
const SMALLEST: usize = 8;
const CLASSES: usize = 18;
/// Blocks are cut from pages of this size; a larger one is a page of its own.
const PAGE_BYTES: usize = 64 << 10;

/// A buffer of a series; the bytes are in [`Buffers`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Buffer {
    block: u32,
    used: u32,
    /// 0: no block.
    class: u8,
}

impl Buffer {
    pub(super) fn len(self) -> usize {
        self.used as usize
    }
}

#[derive(Debug, Default)]
struct Class {
    pages: Vec<Box<[u8]>>,
    free: Vec<u32>,
    /// Blocks handed out so far, free ones included.
    made: u32,
}

/// The bytes of all buffers of a window.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    classes: [Class; CLASSES],
}

fn block_bytes(class: u8) -> usize {
    SMALLEST << (class - 1)
}

fn per_page(bytes: usize) -> usize {
    (PAGE_BYTES / bytes).max(1)
}

impl Class {
    fn take(&mut self, bytes: usize) -> u32 {
        if let Some(block) = self.free.pop() {
            return block;
        }
        let per_page = per_page(bytes);
        if (self.made as usize).is_multiple_of(per_page) {
            self.pages.push(vec![0; per_page * bytes].into_boxed_slice());
        }
        let block = self.made;
        self.made += 1;
        block
    }

    fn slice(&self, block: u32, bytes: usize) -> &[u8] {
        let (page, at) = place(block, bytes);
        self.pages.get(page).and_then(|page| page.get(at..at + bytes)).unwrap_or_default()
    }

    fn slice_mut(&mut self, block: u32, bytes: usize) -> &mut [u8] {
        let (page, at) = place(block, bytes);
        self.pages.get_mut(page).and_then(|page| page.get_mut(at..at + bytes)).unwrap_or_default()
    }
}

fn place(block: u32, bytes: usize) -> (usize, usize) {
    let per_page = per_page(bytes);
    let block = block as usize;
    (block / per_page, block % per_page * bytes)
}

impl Buffers {
    /// Most bytes that a buffer takes.
    pub(super) const BYTES_MAX: usize = SMALLEST << (CLASSES - 1);

    pub(super) fn get(&self, buffer: Buffer) -> &[u8] {
        let Some(class) = usize::from(buffer.class).checked_sub(1).and_then(|class| self.classes.get(class)) else {
            return &[];
        };
        class.slice(buffer.block, block_bytes(buffer.class)).get(..buffer.len()).unwrap_or_default()
    }

    /// Adds bytes; whether they fit below [`Buffers::BYTES_MAX`].
    pub(super) fn append(&mut self, buffer: &mut Buffer, bytes: &[u8]) -> bool {
        let needed = buffer.len() + bytes.len();
        if needed > Self::BYTES_MAX {
            return false;
        }
        let mut class = buffer.class.max(1);
        while block_bytes(class) < needed {
            class += 1;
        }
        if class != buffer.class {
            self.move_to(buffer, class);
        }
        let used = buffer.len();
        if let Some(held) = self.classes.get_mut(usize::from(class) - 1)
            && let Some(room) = held.slice_mut(buffer.block, block_bytes(class)).get_mut(used..needed)
        {
            room.copy_from_slice(bytes);
        }
        buffer.used = u32::try_from(needed).unwrap_or(u32::MAX);
        true
    }

    fn move_to(&mut self, buffer: &mut Buffer, class: u8) {
        let held = self.get(*buffer).to_vec();
        let old = *buffer;
        if let Some(new) = self.classes.get_mut(usize::from(class) - 1) {
            buffer.block = new.take(block_bytes(class));
            buffer.class = class;
            if let Some(room) = new.slice_mut(buffer.block, block_bytes(class)).get_mut(..held.len()) {
                room.copy_from_slice(&held);
            }
        }
        self.give_back(old);
    }

    /// Empties a buffer.
    pub(super) fn clear(&mut self, buffer: &mut Buffer) {
        self.give_back(*buffer);
        *buffer = Buffer::default();
    }

    fn give_back(&mut self, buffer: Buffer) {
        if let Some(class) = usize::from(buffer.class).checked_sub(1).and_then(|class| self.classes.get_mut(class)) {
            class.free.push(buffer.block);
        }
    }

    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        let pages = |class: &Class| class.pages.iter().map(|page| page.len()).sum::<usize>();
        self.classes.iter().map(|class| pages(class) + class.free.capacity() * 4).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_keep_their_bytes_while_they_grow() {
        let mut buffers = Buffers::default();
        let mut many = vec![Buffer::default(); 300];
        for round in 0..200usize {
            for (number, buffer) in many.iter_mut().enumerate() {
                let byte = u8::try_from((round + number) % 251).unwrap();
                assert!(buffers.append(buffer, &vec![byte; number % 3]));
            }
        }
        for (number, buffer) in many.iter_mut().enumerate() {
            let expected: Vec<u8> =
                (0..200).flat_map(|round| vec![u8::try_from((round + number) % 251).unwrap(); number % 3]).collect();
            assert_eq!(buffers.get(*buffer), expected, "{number}");
            buffers.clear(buffer);
            assert_eq!(buffers.get(*buffer), [0u8; 0]);
        }
        let pages = buffers.bytes();
        let mut again = Buffer::default();
        assert!(buffers.append(&mut again, &[7; 100]));
        assert!(buffers.bytes() <= pages, "a block is reused");
        assert!(!buffers.append(&mut again, &vec![0; Buffers::BYTES_MAX]));
        assert_eq!(buffers.get(again), [7; 100]);
    }
}
