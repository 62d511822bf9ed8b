//! The binary protocol `stockline/1`: frames and what is in them. Pure: bytes in, bytes out.
//!
//! A frame is a 12-byte header and one archive. The header: length of everything after these four bytes,
//! version, type, two zero bytes, request id; all little-endian. docs/protocol.md lists every type with a
//! worked example, and a test keeps that page and this code in step.

mod inbox;
mod reply;
mod request;

use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;

pub use inbox::{Inbox, RawFrame};
pub use reply::*;
pub use request::*;

/// Application protocol of the QUIC handshake.
pub const ALPN: &[u8] = b"stockline/1";
/// Version byte of every frame.
pub const VERSION: u8 = 1;
/// Bytes before the archive.
pub const HEADER_BYTES: usize = 12;

/// What a frame holds. Requests are below 0x80, replies above.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameType {
    SignIn = 0x01,
    Resolve = 0x02,
    Define = 0x03,
    Events = 0x04,
    Reserve = 0x05,
    Transitions = 0x06,
    Availability = 0x07,
    ReadPositions = 0x08,
    ReadReservations = 0x09,
    Allocate = 0x0a,
    ReadAllocations = 0x0b,
    Explain = 0x0c,
    Follow = 0x0d,
    ReadDefinitions = 0x0e,
    Find = 0x0f,
    Welcome = 0x81,
    Results = 0x82,
    AvailabilityAnswer = 0x87,
    Positions = 0x88,
    Reservations = 0x89,
    Allocations = 0x8b,
    Explanations = 0x8c,
    Changes = 0x8d,
    Definitions = 0x8e,
    Found = 0x8f,
    /// The whole frame was turned away.
    Refusal = 0xff,
}

/// Every type, requests first.
pub const FRAME_TYPES: [FrameType; 26] = [
    FrameType::SignIn,
    FrameType::Resolve,
    FrameType::Define,
    FrameType::Events,
    FrameType::Reserve,
    FrameType::Transitions,
    FrameType::Availability,
    FrameType::ReadPositions,
    FrameType::ReadReservations,
    FrameType::Allocate,
    FrameType::ReadAllocations,
    FrameType::Explain,
    FrameType::Follow,
    FrameType::ReadDefinitions,
    FrameType::Find,
    FrameType::Welcome,
    FrameType::Results,
    FrameType::AvailabilityAnswer,
    FrameType::Positions,
    FrameType::Reservations,
    FrameType::Allocations,
    FrameType::Explanations,
    FrameType::Changes,
    FrameType::Definitions,
    FrameType::Found,
    FrameType::Refusal,
];

impl FrameType {
    pub fn from_number(number: u8) -> Option<FrameType> {
        FRAME_TYPES.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Why bytes are no valid frame. The text goes back to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("frame of {length} bytes: at most {max} are allowed")]
    TooLong { length: usize, max: usize },
    #[error("frame of {0} bytes: at least 8 are needed")]
    TooShort(usize),
    #[error("version {0}: this server speaks version {VERSION}")]
    Version(u8),
    #[error("frame type 0x{0:02x} is not known here")]
    Type(u8),
    #[error("the two bytes after the type must be 0")]
    Reserved,
    #[error("the archive is not valid for its frame type")]
    Archive,
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    #[error("{count} {what} in one frame: at most {max} are allowed")]
    TooMany { what: &'static str, count: usize, max: usize },
}

/// Appends a frame to `out`.
pub fn encode<T>(out: &mut Vec<u8>, kind: FrameType, request: u32, body: &T)
where
    T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>,
{
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, VERSION, kind as u8, 0, 0]);
    out.extend_from_slice(&request.to_le_bytes());
    let written = rkyv::api::high::to_bytes_in::<_, Failure>(body, std::mem::take(out));
    *out = written.expect("memory takes every archive");
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The archive of a frame, checked.
pub fn access<T>(archive: &[u8]) -> Result<&T, WireError>
where
    T: rkyv::Portable + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, Failure>>,
{
    rkyv::access::<T, Failure>(archive).map_err(|_| WireError::Archive)
}
