//! Outcome codes: closed, with stable numbers, listed in order of precedence.
//!
//! A command that deserves several refusals gets the one that stands first here. Replays and second
//! implementations therefore always agree.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The answer to a command.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        /// Every code, in order of precedence.
        pub const CODES: &[Code] = &[$(Code::$name,)*];

        impl Code {
            pub fn from_number(number: u8) -> Option<Code> {
                match number { $($number => Some(Code::$name),)* _ => None }
            }

            /// The stable name, as in HTTP problems, metrics and docs.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// It took effect.
    Ok = 0, "OK";

    // At the door: no LSN, nothing in the journal, may be sent again.
    /// The frame or a record in it cannot be read.
    Malformed = 1, "MALFORMED";
    /// The first frame was no valid sign-in.
    Unauthenticated = 2, "UNAUTHENTICATED";
    /// The principal's role does not allow this.
    Forbidden = 3, "FORBIDDEN";
    /// A queue is full; try again later with the same key.
    Overloaded = 4, "OVERLOADED";
    /// The server is draining; try again elsewhere or later with the same key.
    ShuttingDown = 5, "SHUTTING_DOWN";
    /// The same key, or reservation id, came before with another body.
    KeyConflict = 6, "KEY_CONFLICT";
    /// Issued before the idempotency window: whether it was executed can no longer be known.
    KeyTooOld = 7, "KEY_TOO_OLD";
    /// `issued_at` lies too far ahead of the server's clock.
    ClockAhead = 8, "CLOCK_AHEAD";
    /// What happened from there on is not kept any more, or has not happened here; ask for what is now, and follow from
    /// its LSN.
    CursorUnknown = 9, "CURSOR_UNKNOWN";
    /// The entry is not what its reader saw; read it again.
    VersionConflict = 10, "VERSION_CONFLICT";

    // Checked against the catalogue, in the order.
    InvalidQuantity = 20, "INVALID_QUANTITY";
    /// No lines.
    NoLines = 21, "NO_LINES";
    /// More lines than a reservation may have.
    TooManyLines = 22, "TOO_MANY_LINES";
    /// Zero or longer than allowed.
    InvalidTtl = 23, "INVALID_TTL";
    /// A field the event's type needs is missing or makes no sense.
    InvalidEvent = 24, "INVALID_EVENT";
    /// `occurred_at` lies ahead of the server's clock.
    EventInFuture = 25, "EVENT_IN_FUTURE";
    /// A name is empty, too long or has control characters.
    InvalidName = 26, "INVALID_NAME";
    /// A rule names a node and a group, allocates for no channel, or more than there can be.
    InvalidRule = 28, "INVALID_RULE";
    /// Of the sku as many reservations wait for supplies as may, of the channel or in all. Decided by the ledger.
    TooManyWaiting = 29, "TOO_MANY_WAITING";
    UnknownSku = 30, "UNKNOWN_SKU";
    UnknownNode = 31, "UNKNOWN_NODE";
    UnknownChannel = 32, "UNKNOWN_CHANNEL";
    UnknownGroup = 33, "UNKNOWN_GROUP";
    /// The channel is not offered that node.
    NodeNotOffered = 34, "NODE_NOT_OFFERED";
    /// No more ids of that kind.
    CatalogueFull = 35, "CATALOGUE_FULL";
    /// Another principal has that token.
    TokenInUse = 36, "TOKEN_IN_USE";
    /// The channel named as parent is below this one, or the channels would stand in more than 8 levels.
    InvalidParent = 37, "INVALID_PARENT";

    // Decided by the ledger.
    /// The channel, or its customer, has as many open holds as it may.
    HoldLimit = 38, "HOLD_LIMIT";
    /// Units of the sku are claimed of as many groups as can be, their nodes not chosen yet.
    TooManyGroups = 39, "TOO_MANY_GROUPS";
    /// The id belongs to another reservation.
    ReservationExists = 40, "RESERVATION_EXISTS";
    UnknownReservation = 41, "UNKNOWN_RESERVATION";
    /// The hold's time is over.
    Expired = 42, "EXPIRED";
    /// The reservation's state does not allow the step; the reply carries that state.
    WrongState = 43, "WRONG_STATE";
    /// The reservation claims less of this sku at this node.
    InsufficientClaim = 44, "INSUFFICIENT_CLAIM";
    UnknownSupply = 45, "UNKNOWN_SUPPLY";
    /// More open supplies than a sku may have.
    TooManySupplies = 46, "TOO_MANY_SUPPLIES";
    /// A later count is known, or stock moved since and the count is too old to tell.
    CountTooLate = 47, "COUNT_TOO_LATE";
    /// On-hand is not what the sender expected.
    ExpectedMismatch = 48, "EXPECTED_MISMATCH";
    /// Fewer units are on hand than would leave.
    InsufficientOnHand = 49, "INSUFFICIENT_ON_HAND";
    /// A bucket would hold more units than it can.
    PositionLimit = 50, "POSITION_LIMIT";
    /// Too little is free; the reply lists each short line.
    InsufficientStock = 51, "INSUFFICIENT_STOCK";
    /// The channel's allocation has fewer units there.
    InsufficientAllocation = 52, "INSUFFICIENT_ALLOCATION";
    /// More allocations than a sku may have.
    TooManyAllocations = 53, "TOO_MANY_ALLOCATIONS";
    /// No such place that orders go to.
    UnknownZone = 54, "UNKNOWN_ZONE";
    /// Some of it has not come yet; what is there can be taken line by line.
    Backordered = 55, "BACKORDERED";
    /// Some of it is claimed of a group, and the node is not chosen; a move chooses it.
    NodeNotChosen = 56, "NODE_NOT_CHOSEN";
    /// Several sources announced a supply of that name; say which with `supply_source`.
    AmbiguousSupply = 57, "AMBIGUOUS_SUPPLY";
    /// No token has that name.
    UnknownToken = 58, "UNKNOWN_TOKEN";
    /// Some of it was picked or shipped and some was not: fulfil lines, or say that it is all of it.
    PartlyPicked = 59, "PARTLY_PICKED";
    /// An expiry that found its hold confirmed, extended or gone.
    NotDue = 60, "NOT_DUE";
    /// The token has made as many skus as it may until the server starts again; an administrator's may make more.
    TooManySkus = 61, "TOO_MANY_SKUS";
}

impl Code {
    /// Whether an event refused so leaves no trace in the order: it may be sent again, or corrected, under its key.
    pub fn leaves_no_trace(self) -> bool {
        matches!(
            self,
            Code::ClockAhead
                | Code::InvalidQuantity
                | Code::InvalidEvent
                | Code::EventInFuture
                | Code::UnknownSku
                | Code::UnknownNode
        )
    }

    /// Whether an event refused so is a fact to be kept: things may change, or somebody may correct it.
    pub fn may_pass(self) -> bool {
        self.leaves_no_trace() || self as u8 >= Code::UnknownSku as u8
    }
}

/// State of a reservation. Numbers are stable; 0 means that the reply is not about a reservation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum State {
    None = 0,
    Held = 1,
    Confirmed = 2,
    Fulfilled = 3,
    Released = 4,
    Expired = 5,
}

impl State {
    pub fn from_number(number: u8) -> Option<State> {
        [State::None, State::Held, State::Confirmed, State::Fulfilled, State::Released, State::Expired]
            .get(number as usize)
            .copied()
    }

    /// Whether units are still claimed.
    pub fn is_active(self) -> bool {
        matches!(self, State::Held | State::Confirmed)
    }

    pub fn name(self) -> &'static str {
        ["none", "held", "confirmed", "fulfilled", "released", "expired"][self as usize]
    }
}
