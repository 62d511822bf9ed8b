//! Cuts a stream of bytes into frames.

use crate::drill::{Bug, planted};
use crate::limit;
use crate::wire::{FrameType, HEADER_BYTES, VERSION, WireError};

/// Bytes received and not yet understood.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes a frame may have.
    max: usize,
}

impl Default for Inbox {
    /// For requests.
    fn default() -> Inbox {
        Inbox { bytes: Vec::new(), start: 0, max: limit::FRAME_BYTES_MAX }
    }
}

/// A frame whose header is sound; its archive is not looked at yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawFrame<'a> {
    pub kind: FrameType,
    pub request: u32,
    pub archive: &'a [u8],
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Inbox {
    /// For somebody who has yet to sign in.
    pub fn for_strangers() -> Inbox {
        Inbox { max: limit::SIGN_IN_BYTES_MAX, ..Inbox::default() }
    }

    /// Whoever it is has signed in: requests of any length may follow.
    pub fn welcome(&mut self) {
        self.max = limit::FRAME_BYTES_MAX;
    }

    /// For replies, which may be longer.
    pub fn for_replies() -> Inbox {
        Inbox { max: limit::REPLY_BYTES_MAX, ..Inbox::default() }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && (self.start == self.bytes.len() || self.start > limit::FRAME_BYTES_MAX) {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether part of a frame has arrived.
    pub fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// The next whole frame. An error is final: where a frame ends is no longer known.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame<'_>>, WireError> {
        let rest = &self.bytes[self.start..];
        if rest.len() < 4 {
            return Ok(None);
        }
        let length = number(rest) as usize;
        if length > self.max && !planted(Bug::UnboundedFrame) {
            return Err(WireError::TooLong { length, max: self.max });
        }
        if length < HEADER_BYTES - 4 {
            return Err(WireError::TooShort(length));
        }
        // The header is judged as soon as it is here: nobody waits for a frame that will be refused.
        if rest.len() >= 8 {
            if rest[4] != VERSION {
                return Err(WireError::Version(rest[4]));
            }
            if rest[6] != 0 || rest[7] != 0 {
                return Err(WireError::Reserved);
            }
            if FrameType::from_number(rest[5]).is_none() {
                return Err(WireError::Type(rest[5]));
            }
        }
        if rest.len() < 4 + length {
            return Ok(None);
        }
        let frame = &self.bytes[self.start..self.start + 4 + length];
        self.start += 4 + length;
        Ok(Some(RawFrame {
            kind: FrameType::from_number(frame[5]).ok_or(WireError::Type(frame[5]))?,
            request: number(&frame[8..]),
            archive: &frame[HEADER_BYTES..],
        }))
    }
}
