//! Every limit of the system, in one place, with the relations between them checked at compile time.
//!
//! Guarantee 8 (bounded): a queue, frame, batch, map or count that is not limited here is a defect.

/// Units in one line or event.
pub const QUANTITY_MAX: u32 = 1_000_000_000;
/// Units in any one bucket of a position.
pub const BUCKET_UNITS_MAX: i64 = 4_000_000_000;
/// Bytes of a sku, node, channel, group or principal name.
pub const NAME_BYTES_MAX: usize = 128;
/// Length of each text that is kept with a reservation, and of an event's reason.
pub const LABEL_BYTES_MAX: usize = 128;
/// Reservations that one question for a text is answered.
pub const FOUND_MAX: usize = 100;
/// Lines of reservations beyond which no more reservations are shown for a text.
pub const FOUND_LINES_MAX: usize = 8_192;
/// Reservations of one text that are looked at, and of each channel for who sees only those at its nodes.
pub const FIND_LOOKS_MAX: usize = 256;
pub const FIND_LOOKS_PER_CHANNEL_MAX: usize = 32;
/// Texts that one frame asks for.
pub const FIND_MAX: usize = 32;
/// Dense ids ever given to skus.
pub const SKUS_MAX: usize = 1 << 26;
/// Skus that one token, not an administrator's, may make between two starts of the server.
pub const SKUS_PER_TOKEN_MAX: u32 = 1_000_000;
/// Nodes, channels and groups: ids are 16 bits and the top one means "any".
pub const NODES_MAX: usize = 4_096;
pub const CHANNELS_MAX: usize = 8_192;
pub const ZONES_MAX: usize = 4_096;
/// Nodes that may serve a line in place of the one it names, and skus in place of its own.
pub const SUBSTITUTES_MAX: usize = 8;
/// Nodes of a channel that are looked at together when an order's lines are to come from few: the first by priority.
pub const PLANNED_NODES_MAX: usize = 63;
/// Rules by sku.
pub const RULES_MAX: usize = 65_536;
/// Channels above one another.
pub const CHANNEL_LEVELS_MAX: usize = 8;
pub const GROUPS_MAX: usize = 4_096;
pub const PRINCIPALS_MAX: usize = 65_536;
/// Open dated supplies of one sku.
pub const SUPPLIES_PER_SKU_MAX: usize = 1_024;
/// Reservations that wait for a sku, counted by node.
pub const WAITING_PER_SKU_MAX: usize = 32_766;
/// The same of one channel's reservations: no more than half, so that others can wait too.
pub const WAITING_PER_CHANNEL_MAX: usize = WAITING_PER_SKU_MAX / 2;

/// Whether nobody more of a channel may wait for a sku, where so many do, and so many of its own.
pub fn waiting_is_full(all: i64, own: i64) -> bool {
    all >= WAITING_PER_SKU_MAX as i64 || own >= WAITING_PER_CHANNEL_MAX as i64
}

/// Groups of which units of one sku are claimed, their nodes not chosen yet.
pub const CLAIMED_GROUPS_PER_SKU_MAX: usize = 64;
/// The same of one channel's reservations, so that one cannot take all places.
pub const CLAIMED_GROUPS_PER_CHANNEL_MAX: usize = 16;
/// Allocations of one sku, counted by channel and node.
pub const ALLOCATIONS_PER_SKU_MAX: usize = 16_384;

/// Cells of the view in use, places that rows left behind when they grew included; beyond it the door answers
/// events with OVERLOADED. What is under way then still finds room.
pub const VIEW_CELLS_MAX: usize = 1 << 29;

/// Lines of one reservation.
pub const RESERVATION_LINES_MAX: usize = 4_096;
/// Time to live of a hold, in milliseconds.
pub const TTL_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Active reservations in the whole ledger; beyond it the door answers OVERLOADED.
pub const RESERVATIONS_MAX: usize = 16_000_000;
/// Ended reservations are remembered for this many LSNs, so that a late `confirm` hears WRONG_STATE and
/// not UNKNOWN_RESERVATION. Counted in LSNs because that is the same for every number of shards.
pub const ENDED_RESERVATION_LSNS: u64 = 1 << 20;

/// How long before now a count may have been taken, when stock has moved since.
pub const COUNT_LATE_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// Physical movements remembered per sku for late counts.
pub const RECENT_MOVEMENTS_PER_SKU: usize = 128;
/// How far ahead of the server the moment of a stock event may lie.
pub const CLOCK_AHEAD_MS_MAX: u64 = CLOCK_AHEAD_S_MAX as u64 * 1_000;
pub const CLOCK_AHEAD_S_MAX: u32 = 5 * 60;
/// Bytes of an event that a dead letter keeps.
pub const LETTER_BYTES_MAX: usize = 16 << 10;
/// How far ahead of the server `issued_at` may lie; senders learn the time at sign-in.
pub const ISSUED_AHEAD_MS_MAX: u64 = 5_000;
/// How far ahead of the server the clock of a sender may be that says when it sent an event.
pub const SENT_AHEAD_MS_MAX: u64 = 60_000;

/// Idempotency: a repeat is answered while its first command is among this many, of which each principal has its share, ...
pub const IDEMPOTENCY_COMMANDS: u64 = 1 << 21;
/// ... and not older than this.
pub const IDEMPOTENCY_MS: u64 = 3_600 * 1_000;

/// Repeats of a command are known for at most this many commands after it: the journal keeps no more for them.
pub const IDEMPOTENCY_LSNS: u64 = 1 << 25;

/// Bytes of one frame after its length prefix.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Commands, or availability queries, in one frame.
pub const FRAME_COMMANDS_MAX: usize = 8_192;
/// Reservation lines in one frame.
pub const FRAME_LINES_MAX: usize = 16_384;
/// Skus asked for in one frame.
pub const FRAME_SKUS_MAX: usize = 8_192;
/// Times a query starts again because cells it reads change faster than it reads them, before it is refused.
pub const QUERY_ATTEMPTS_MAX: u32 = 16;
/// Nodes listed in one availability answer.
pub const ANSWER_NODES_MAX: usize = 65_536;
/// Reservations read in one frame.
pub const READ_RESERVATIONS_MAX: usize = 16;
/// Lines explained in one frame.
pub const EXPLAIN_LINES_MAX: usize = 16;
/// Skus whose allocations are read in one frame.
pub const READ_ALLOCATIONS_MAX: usize = 64;
/// Entries of the catalogue read in one frame.
pub const READ_DEFINITIONS_MAX: usize = 64;
/// Nodes one line is split over, where its channel has no smaller limit.
pub const LINE_SPLITS_MAX: usize = 64;
/// Supplies that one line waits for.
pub const LINE_SUPPLIES_MAX: usize = 16;
/// The latest date of a supply: 48 bits of milliseconds, signed.
pub const ETA_MAX: crate::id::Millis = crate::id::Millis((1 << 47) - 1);
/// Parts in one reply. A frame of reservations never has more; late confirmations that would are told without.
pub const REPLY_PARTS_MAX: usize = FRAME_LINES_MAX * (LINE_SPLITS_MAX + LINE_SUPPLIES_MAX);
/// Bytes of one reply after its length prefix.
pub const REPLY_BYTES_MAX: usize = 32 << 20;
/// Frames whose repeats are looked up in the journal at once, one of a principal, and records read for one before
/// it is another's turn.
pub const REPEAT_LOOKUPS_MAX: usize = 2;
pub const REPEAT_READS_PER_TURN: usize = 16;
/// Bytes of an event's id, source and other text.
pub const EVENT_TEXT_BYTES_MAX: usize = 255;
/// Dead letters kept, and marks of settled ones.
pub const LETTERS_MAX: u64 = 100_000;
/// Of these, by one token: it leaves room for others.
pub const LETTERS_PER_OWNER_MAX: u64 = 20_000;
/// Webhooks at once, names that webhooks ever had, and bytes of the address of one.
pub const WEBHOOKS_MAX: usize = 64;
pub const WEBHOOK_NAMES_MAX: usize = 65_536;
pub const WEBHOOK_URL_BYTES_MAX: usize = 2_048;
/// Times that a message is tried, and milliseconds between two tries.
pub const WEBHOOK_ATTEMPTS_MAX: u16 = 32;
pub const WEBHOOK_BACKOFF_MS_MAX: u64 = 3_600 * 1_000;
/// Milliseconds that a receiver has to answer, and bytes of what it says that are looked at.
pub const WEBHOOK_ANSWER_MS_MAX: u64 = 15_000;
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 4_096;
/// Milliseconds for which that is waited for.
pub const WEBHOOK_BODY_MS_MAX: u64 = 2_000;
/// Changes in one message, and bytes of messages that wait for a receiver; behind them it is told what is offered anew.
pub const WEBHOOK_CHANGES_MAX: usize = 250;
pub const WEBHOOK_QUEUE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of them that are in memory besides.
pub const WEBHOOK_HOT_BYTES_MAX: usize = 1 << 20;
/// Milliseconds for which a secret that was replaced signs too.
pub const WEBHOOK_FORMER_MS: u64 = 24 * 3_600 * 1_000;
/// Milliseconds between two times that it is written how far receivers are.
pub const WEBHOOK_FLUSH_MS: u64 = 1_000;
/// Dead letters up to which messages of webhooks become some: the rest is for events. And bytes of them in one answer.
pub const LETTERS_WITH_MESSAGES_MAX: u64 = 10_000;
pub const LETTERS_TOLD_BYTES_MAX: usize = 16 << 20;
/// Names told for one beginning.
pub const NAMES_FOUND_MAX: usize = 200;
/// Journal commands looked through in one turn of a question for history, and what moved that one answer tells.
pub const HISTORY_COMMANDS_PER_TURN: usize = 200_000;
pub const HISTORY_ITEMS_MAX: usize = 1_000;
/// What one answer to a follower has at most: skus, and things that happened to reservations.
pub const FOLLOW_SKUS_MAX: usize = 8_192;
pub const FOLLOW_NOTICES_MAX: usize = 8_192;
/// Journal records read for a follower before it is another's turn, and followers that read at once.
pub const FOLLOW_RECORDS_PER_TURN: usize = 64;
pub const FOLLOW_READERS_MAX: usize = 2;
/// Commands that a follower may be behind and still wait for others to be gathered.
pub const FOLLOW_GATHER_COMMANDS: u64 = 4_096;
/// Milliseconds that a follower may wait for an answer, and for others to be gathered into it.
pub const FOLLOW_WAIT_MS_MAX: u32 = 25_000;
/// Skus whose last answer is remembered for a connection that follows; of more, what was told is forgotten.
pub const FOLLOWED_SKUS_MAX: usize = 1 << 14;
/// Skus that are read at once for a follower.
pub const FOLLOW_SKUS_PER_READ: usize = 64;
/// Skus told together to whoever begins.
pub const FOLLOW_SNAPSHOT_SKUS: u32 = 512;
/// Journal records that are kept decoded for followers.
pub const FOLLOW_RECORDS_KEPT: usize = 8;
/// Bytes of the frame that signs in.
pub const SIGN_IN_BYTES_MAX: usize = 4_096;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 2_048;

/// Frames of one principal waiting for the sequencer, and their commands or lines; beyond it OVERLOADED.
pub const LANE_FRAMES_MAX: usize = 4_096;
pub const LANE_COMMANDS_MAX: usize = 131_072;
/// Commands that one principal may put into the order before it is another's turn ...
pub const TURN_COMMANDS: usize = 64;
/// ... and have there without being durable, while others are at work.
pub const LANE_SHARE_COMMANDS: usize = 128;
/// Frames of one connection that wait for durability; more stay unread in the stream.
pub const CONNECTION_FRAMES_IN_FLIGHT_MAX: usize = 1_024;
/// Commands of one connection that wait for durability, and their lines.
pub const CONNECTION_COMMANDS_IN_FLIGHT_MAX: usize = 65_536;
/// Bytes of replies of one connection that are set aside or wait; the frame that exceeds them is the last that is read.
pub const CONNECTION_REPLY_BYTES_MAX: usize = 4 << 20;
/// Connections at once, and of these not yet signed in.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Commands or skus that a connection may take from its stream before another has the thread.
pub const SESSION_TURN_COMMANDS: usize = 1_024;
/// Milliseconds for which a connection is not read after a frame of it found its lane full.
pub const OVERLOADED_PAUSE_MS: u64 = 20;
/// Handshakes begun a second, and at once after a quiet time; more must first prove their address (QUIC Retry), and
/// wait.
pub const HANDSHAKES_PER_S_MAX: f64 = 500.0;
pub const HANDSHAKES_BURST_MAX: f64 = 32.0;
/// Open handshakes above which each must do so, and those that may wait.
pub const HANDSHAKES_BEFORE_RETRY: usize = 256;
/// Milliseconds a connection may take to sign in, and to stay silent.
pub const SIGN_IN_MS_MAX: u64 = 5_000;
pub const IDLE_MS_MAX: u64 = 30_000;
/// Bytes that may wait on the way in and on the way out of a connection, before it is signed in and after.
pub const STRANGER_WINDOW_BYTES: usize = 64 << 10;
pub const CONNECTION_WINDOW_BYTES: usize = 2 << 20;
/// Milliseconds after which a reader that takes nothing is let go.
pub const STALLED_READER_MS_MAX: u64 = 30_000;
/// HTTP connections at once; more wait in the listener's queue.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;
/// Calls that one HTTP/2 connection may have open.
pub const HTTP_STREAMS_MAX: u32 = 64;
/// Bytes of the body of one call, decompressed.
pub const HTTP_BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of a body that is too long which are read and dropped, so that its sender hears of it, and milliseconds for that.
pub const HTTP_DROPPED_BYTES_MAX: usize = 64 << 20;
pub const HTTP_DROPPED_MS_MAX: u64 = 10_000;
/// Bytes of bodies that are read at once, and of answers that wait to be taken: of all principals. One has at most half.
pub const HTTP_BODIES_BYTES_MAX: usize = 512 << 20;
pub const HTTP_ANSWERS_BYTES_MAX: usize = 256 << 20;
/// Bytes of an answer up to which it is not counted.
pub const HTTP_SMALL_ANSWER_BYTES: usize = 16 << 10;
/// The same of replies over QUIC that wait for their commands or for their reader.
pub const QUIC_REPLIES_BYTES_MAX: usize = 256 << 20;
/// Bytes of a call's line and headers together.
pub const HTTP_HEADER_BYTES_MAX: usize = 32 << 10;
/// Milliseconds for which an HTTP connection may stay silent, or take for the headers of a call.
pub const HTTP_IDLE_MS_MAX: u64 = 60_000;
/// Milliseconds that the body of a call may take to come, and its answer to be ready.
pub const HTTP_BODY_MS_MAX: u64 = 30_000;
pub const HTTP_CALL_MS_MAX: u64 = 60_000;
/// Milliseconds that open calls have to end when the server stops.
pub const HTTP_DRAIN_MS_MAX: u64 = 2_000;
/// Milliseconds that the last traces have to be sent when the server stops.
pub const TRACES_STOP_MS_MAX: u64 = 3_000;
/// Connections of one principal.
pub const CONNECTIONS_PER_PRINCIPAL_MAX: usize = 1_024;

/// Commands or lines after which a batch goes to the shards, and the next frame into another: small enough that
/// the journal writes one while the shards execute the next. One frame or all expiries of a tick may exceed it.
pub const BATCH_COMMANDS: usize = 1_024;
pub const BATCH_LINES: usize = 2_048;
/// Batches between the sequencer and each shard, and between each shard and the journal.
pub const BATCH_QUEUE: usize = 64;
/// Bytes collected into one journal record before it is written.
pub const JOURNAL_RECORD_BYTES: usize = 4 << 20;
/// Expired holds reported by the shards and not yet in the order.
pub const EXPIRY_QUEUE: usize = 16_384;
/// Expiries put into one batch, so that a storm of them leaves room for others.
pub const BATCH_EXPIRIES_MAX: usize = 4_096;
/// Balances of allocations that a shard brings into one batch.
pub const BATCH_BALANCES_MAX: usize = 256;
/// Skus looked at in one turn when allocations are due that keep themselves at times.
pub const SWEEP_SKUS_PER_TURN: usize = 1_024;
/// Milliseconds of a minute, in which such times are counted.
pub const MINUTE_MS: u64 = 60_000;
/// Milliseconds of a quarter of an hour, in which the days of nodes are counted.
pub const QUARTER_MS: u64 = 15 * MINUTE_MS;
pub const QUARTERS_PER_DAY: u32 = 96;
/// Milliseconds between two looks at the expiry queue: an expiry is at most this late.
pub const TICK_MS: u64 = 10;

/// Commands after which the journal is folded into the snapshot, or this many milliseconds if sooner.
pub const FOLD_COMMANDS: u64 = 4_000_000;
pub const FOLD_MS: u64 = 30_000;
/// Backups asked for and not yet made.
pub const BACKUP_QUEUE: usize = 4;
/// Parts into which the self-audit cuts all skus, and milliseconds between two of them.
pub const AUDIT_SLICES: u32 = 16;
pub const AUDIT_MS: u64 = 60_000;
/// Ages, in milliseconds, by which confirmed reservations are counted that nobody has fulfilled: an hour, a day, a week.
pub const AGES_MS: [u64; 3] = [3_600_000, 86_400_000, 604_800_000];
/// Sources of stock events that one principal may name before the others are counted together.
pub const SOURCES_PER_PRINCIPAL_MAX: usize = 64;
/// Milliseconds of silence behind which a source makes room for another.
pub const SOURCE_SILENT_MS: u64 = 86_400_000;
/// Gaps in a source's own numbers that are known one by one.
pub const SOURCE_GAPS_MAX: usize = 256;
/// Records of the audit trail that are kept, of each kind; those that wait to be written; refusals of different kinds that
/// are told one by one in a second; bytes of what a record says was asked.
pub const AUDIT_RECORDS_MAX: u64 = 500_000;
pub const AUDIT_QUEUE: usize = 4_096;
pub const AUDIT_REFUSALS_PER_S: usize = 64;
pub const AUDIT_TEXT_BYTES_MAX: usize = 256;
/// Milliseconds after which it is noted again that the data directory is in use.
pub const CLOCK_NOTED_MS: u64 = 60_000;
/// Log lines that wait to be written; more are counted and lost.
pub const LOG_LINES_WAITING_MAX: usize = 8_192;
/// Commands folded in one snapshot transaction.
pub const FOLD_CHUNK_COMMANDS: u64 = 100_000;
/// Commands the snapshot may lag behind the journal; beyond it the door answers OVERLOADED.
pub const FOLD_LAG_MAX: u64 = 50_000_000;
/// Commands of lag up to which the checkpoint rests as long as it works.
pub const FOLD_LAG_RELAXED: u64 = 20_000_000;
/// Old journal records removed along with one append.
pub const TRIM_RECORDS_PER_APPEND: usize = 8;
/// Shards of one process.
pub const SHARDS_MAX: usize = 64;

const _: () = {
    assert!(NODES_MAX < u16::MAX as usize);
    // Above them are the pools of supplies, two more numbers, and what all share.
    assert!(CHANNELS_MAX <= 1 << 15);
    assert!(SUPPLIES_PER_SKU_MAX + 2 < 1 << 15);
    // Above nodes are the places of groups, two more numbers, and any.
    assert!(NODES_MAX <= 1 << 15);
    assert!(GROUPS_MAX + 2 < 1 << 15);
    assert!(QUANTITY_MAX as i64 <= BUCKET_UNITS_MAX);
    assert!(BUCKET_UNITS_MAX <= u32::MAX as i64);
    assert!(TTL_MS_MAX <= u32::MAX as u64);
    assert!(RESERVATION_LINES_MAX <= FRAME_LINES_MAX);
    assert!(RESERVATION_LINES_MAX <= u16::MAX as usize);
    assert!(FRAME_COMMANDS_MAX <= CONNECTION_COMMANDS_IN_FLIGHT_MAX);
    assert!(FRAME_SKUS_MAX * 4 < FRAME_BYTES_MAX);
    assert!(FOLLOW_SKUS_MAX < FOLLOWED_SKUS_MAX);
    // The largest answers fit: parts have 20 bytes, items 11 and 16 for what is to come, nodes 10.
    assert!(REPLY_PARTS_MAX * 20 + FRAME_COMMANDS_MAX * 28 < REPLY_BYTES_MAX);
    assert!(FRAME_SKUS_MAX * (11 + 16) + ANSWER_NODES_MAX * 10 < REPLY_BYTES_MAX);
    assert!(EXPLAIN_LINES_MAX * NODES_MAX * 45 < REPLY_BYTES_MAX / 2);
    assert!(READ_ALLOCATIONS_MAX * ALLOCATIONS_PER_SKU_MAX * 8 < REPLY_BYTES_MAX / 2);
    assert!(FRAME_BYTES_MAX <= CONNECTION_WINDOW_BYTES);
    assert!(SHARDS_MAX < 1 << 16);
    assert!(FOLD_COMMANDS * 10 < FOLD_LAG_MAX);
    // An id in an unfolded record is always still in the retained journal.
    assert!(ENDED_RESERVATION_LSNS <= IDEMPOTENCY_COMMANDS);
    assert!(IDEMPOTENCY_COMMANDS <= IDEMPOTENCY_LSNS && IDEMPOTENCY_COMMANDS < 1 << 31);
};
