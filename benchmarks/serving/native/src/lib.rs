//! What the client and the native server share: just enough of protobuf's wire format, over bytes in several pieces.

pub mod ort;

use bytes::Bytes;

/// A position in bytes that came in pieces.
#[derive(Clone)]
pub struct Cursor<'a> {
    pieces: &'a [Bytes],
    piece: usize,
    at: usize,
    pub left: usize,
}

/// A field of a message.
pub enum Field<'a> {
    Bytes(u64, Cursor<'a>),
    Other,
}

impl<'a> Cursor<'a> {
    pub fn new(pieces: &'a [Bytes]) -> Self {
        let left = pieces.iter().map(Bytes::len).sum();
        Cursor { pieces, piece: 0, at: 0, left }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.left == 0 {
            return None;
        }
        while self.at == self.pieces[self.piece].len() {
            self.piece += 1;
            self.at = 0;
        }
        self.at += 1;
        self.left -= 1;
        Some(self.pieces[self.piece][self.at - 1])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next `size` bytes at most, those in one piece.
    pub fn slice(&mut self, size: usize) -> &'a [u8] {
        while self.piece < self.pieces.len() && self.at == self.pieces[self.piece].len() {
            self.piece += 1;
            self.at = 0;
        }
        if self.left == 0 {
            return &[];
        }
        let here = &self.pieces[self.piece][self.at..];
        let taken = &here[..size.min(here.len()).min(self.left)];
        self.at += taken.len();
        self.left -= taken.len();
        taken
    }

    pub fn skip(&mut self, mut size: usize) -> Option<()> {
        while size > 0 {
            let taken = self.slice(size).len();
            if taken == 0 {
                return None;
            }
            size -= taken;
        }
        Some(())
    }

    /// The next field; None at the end. The cursor then stands behind the field.
    pub fn field(&mut self) -> Result<Option<Field<'a>>, &'static str> {
        const CUT: &str = "the message is cut off";
        if self.left == 0 {
            return Ok(None);
        }
        let tag = self.varint().ok_or(CUT)?;
        match tag & 7 {
            0 => self.varint().map(|_| Some(Field::Other)).ok_or(CUT),
            1 => self.skip(8).map(|()| Some(Field::Other)).ok_or(CUT),
            5 => self.skip(4).map(|()| Some(Field::Other)).ok_or(CUT),
            2 => {
                let size = self.varint().ok_or(CUT)? as usize;
                if size > self.left {
                    return Err(CUT);
                }
                let mut content = self.clone();
                content.left = size;
                self.skip(size).ok_or(CUT)?;
                Ok(Some(Field::Bytes(tag >> 3, content)))
            }
            _ => Err("the message has an unknown wire type"),
        }
    }

    /// The values as varints, where the content is a packed list of them.
    pub fn varints(&mut self) -> Vec<i64> {
        let mut values = Vec::new();
        while self.left > 0 {
            match self.varint() {
                Some(value) => values.push(value as i64),
                None => break,
            }
        }
        values
    }

    pub fn to_vec(&mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.left);
        while self.left > 0 {
            let slice = self.slice(self.left);
            all.extend_from_slice(slice);
        }
        all
    }
}

/// Append `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Append a field that has a length.
pub fn put_bytes(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}
