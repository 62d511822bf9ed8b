//! Identities, as newtypes: none can be passed where another is meant.
//!
//! Names become dense ids once, in the [catalogue](crate::catalogue); everything behind it works on ids.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $raw);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(/** Dense id of an item, given at its first mention and never reused. */ SkuId(u32));
id!(/** Dense id of a place that holds stock. */ NodeId(u16));
id!(/** Dense id of a source of demand. */ ChannelId(u16));
id!(/** Dense id of a named set of nodes. */ GroupId(u16));
id!(/** Dense id of a place that orders go to. */ ZoneId(u16));
id!(/** Dense id of whoever a token stands for; 0 is the system itself. */ PrincipalId(u32));
id!(/** Log sequence number: place of a command in the one total order; the first is 1, 0 means none. */ Lsn(u64));
id!(/** Milliseconds since 1970-01-01T00:00:00Z. */ Millis(u64));

/// Who announces events: a principal, and the name it gives the source (0: none). Sources of two principals are never
/// the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SourceId(pub u64);

impl SourceId {
    /// The number of a source's name; 0 for no name.
    pub fn name(text: &str) -> u32 {
        if text.is_empty() { 0 } else { (xxh3_64(text.as_bytes()) as u32).max(1) }
    }

    pub fn new(principal: PrincipalId, name: u32) -> SourceId {
        SourceId(u64::from(principal.0) << 32 | u64::from(name))
    }

    pub fn name_number(self) -> u32 {
        self.0 as u32
    }
}

/// A supply (purchase order, shipment, transfer): the source that announced it, and the number or the hash of the text
/// by which that source calls it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SupplyId(pub u128);

impl SupplyId {
    pub fn new(source: SourceId, name: u64) -> SupplyId {
        SupplyId(u128::from(source.0) << 64 | u128::from(name))
    }

    pub fn source(self) -> SourceId {
        SourceId((self.0 >> 64) as u64)
    }

    /// What its source calls it, without the source.
    pub fn name(self) -> u64 {
        self.0 as u64
    }
}

/// A sender's idempotency key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Key(pub u128);

/// A reservation's id, chosen by its client: a UUID, as a big number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReservationId(pub u128);

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl NodeId {
    /// In a line: any node the channel is offered. In a record: none.
    pub const ANY: NodeId = NodeId(u16::MAX);
    /// In a line: units are claimed of its group, and of which node is chosen later.
    pub const LATER: NodeId = NodeId(u16::MAX - 1);
    /// In place of a node: the first of the groups.
    pub const GROUPS: NodeId = NodeId(1 << 15);

    /// In place of a node, where units of a group are claimed; [`GroupId::ANY`] stands for all nodes.
    pub fn of_group(group: GroupId) -> NodeId {
        NodeId(NodeId::GROUPS.0 + group.0.min(NodeId::LATER.0 - NodeId::GROUPS.0 - 1))
    }

    /// Whether it stands for a group.
    pub fn is_group(self) -> bool {
        (NodeId::GROUPS..NodeId::LATER).contains(&self)
    }

    /// The group that it stands for.
    pub fn group(self) -> Option<GroupId> {
        let group = GroupId(self.0.wrapping_sub(NodeId::GROUPS.0));
        let all = NodeId::of_group(GroupId::ANY);
        self.is_group().then_some(if self == all { GroupId::ANY } else { group })
    }
}

impl ChannelId {
    /// In place of a channel: units that are in no channel's allocation.
    pub const SHARED: ChannelId = ChannelId(u16::MAX);
    /// In place of a channel: claims that wait and that no supply serves.
    pub const NO_SUPPLY: ChannelId = ChannelId(u16::MAX - 1);
    /// In place of a channel: the first of the pools of supplies, which are numbered by sku.
    pub const SUPPLIES: ChannelId = ChannelId(1 << 15);

    /// Whether it stands for units to come: a supply's, or nobody's.
    pub fn is_supply(self) -> bool {
        (ChannelId::SUPPLIES..ChannelId::SHARED).contains(&self)
    }
}

impl GroupId {
    /// In a line: the channel's own group.
    pub const ANY: GroupId = GroupId(u16::MAX);
}

impl ZoneId {
    /// It is not known where the order goes.
    pub const NONE: ZoneId = ZoneId(u16::MAX);
}

impl PrincipalId {
    /// The system itself, which expires holds.
    pub const SYSTEM: PrincipalId = PrincipalId(0);
}

impl Lsn {
    pub const NONE: Lsn = Lsn(0);

    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl Millis {
    pub fn plus(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Quarters of an hour since 1970.
    pub fn quarter(self) -> u32 {
        (self.0 / crate::limit::QUARTER_MS) as u32
    }

    /// Milliseconds from `earlier` to this moment, 0 if it lies ahead.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Which skus a ledger owns: those whose id leaves `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardOf {
    pub index: u32,
    pub count: u32,
}

impl ShardOf {
    /// One ledger that owns every sku.
    pub const ALL: ShardOf = ShardOf { index: 0, count: 1 };

    pub fn owns(self, sku: SkuId) -> bool {
        self.count == 1 || sku.0 % self.count == self.index
    }

    /// Index of the one of `count` ledgers that counts a channel's open holds. Who votes and who waits go by this.
    pub fn counting(channel: ChannelId, count: u32) -> u32 {
        u32::from(channel.0) % count
    }

    /// Whether open holds of a channel are counted here.
    pub fn counts(self, channel: ChannelId) -> bool {
        ShardOf::counting(channel, self.count) == self.index
    }

    /// Index of a sku's row in the ledger that owns it.
    pub fn row(self, sku: SkuId) -> usize {
        if self.count == 1 { sku.0 as usize } else { (sku.0 / self.count) as usize }
    }

    /// The sku of a row; the inverse of [`ShardOf::row`].
    pub fn sku(self, row: usize) -> SkuId {
        SkuId(row as u32 * self.count + self.index)
    }
}
