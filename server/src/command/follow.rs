//! `stockline follow`: what happens to a channel's reservations and availability, line by line, from a cursor on.

use stockline_core::catalogue::NameKind;
use stockline_core::id::{ChannelId, Millis, NodeId, ReservationId};
use stockline_core::limit;
use stockline_core::outcome::State;
use stockline_core::wire::{ChangeRec, Follow, NoticeRec};

use crate::availability::Status;
use crate::command::{ProfileOption, id, with_client};
use crate::exit;
use crate::follow::{reason_name, what_name};
use crate::out;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Whose reservations and availability [default: the reservations of all channels]
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// The first LSN that was not told yet [default: whatever comes]
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    from: u64,
    /// Skus whose status is another: in stock, low, out, backorder, preorder
    #[arg(long, requires = "channel")]
    statuses: bool,
    /// Skus whose number is another
    #[arg(long, requires = "channel")]
    numbers: bool,
    /// Gather for so many milliseconds: of one sku only the last is told
    #[arg(long, default_value_t = 0)]
    gather_ms: u32,
    /// End when all that happened so far is told
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    profile: ProfileOption,
}

pub fn run(options: &Options) -> i32 {
    with_client(&options.profile, async |client, _| {
        let channel = match &options.channel {
            None => ChannelId::SHARED.0,
            Some(name) => match id(&client, NameKind::Channel, name).await? {
                Some(id) => id as u16,
                None => return Ok(exit::FAILED),
            },
        };
        let mut asked = Follow {
            from_lsn: options.from,
            channel,
            what: 1 | u8::from(options.statuses) << 1 | u8::from(options.numbers) << 2,
            wait_ms: if options.once { 0 } else { limit::FOLLOW_WAIT_MS_MAX },
            gather_ms: options.gather_ms,
        };
        loop {
            let told = client.follow(&asked).await?;
            told.notices.iter().for_each(print_notice);
            told.changes.iter().for_each(|change| print_change(change, told.as_of_lsn));
            if told.redefined != 0 {
                out!("redefined: any sku may be another");
            }
            let is_all = told.next_lsn == asked.from_lsn || asked.from_lsn == 0;
            asked.from_lsn = told.next_lsn;
            if options.once && is_all {
                out!("next={}", told.next_lsn);
                return Ok(exit::OK);
            }
        }
    })
}

fn print_notice(notice: &NoticeRec) {
    let (what, lsn, at_ms, channel) = (what_name(notice.what), notice.lsn, notice.at_ms, notice.channel);
    let id = ReservationId(notice.reservation);
    let mut line = format!("lsn={lsn} at_ms={at_ms} channel={channel} reservation={id} {what}");
    if let Some(state) = State::from_number(notice.state).filter(|state| *state != State::None) {
        line += &format!(" state={}", state.name());
    }
    if notice.node != NodeId::ANY.0 {
        line += &format!(" sku={} node={} quantity={}", notice.sku, notice.node, notice.quantity);
    }
    match reason_name(notice.reason) {
        Some(reason) if notice.due_ms == Millis(u64::MAX).0 => line += &format!(" for=never reason={reason}"),
        Some(reason) if notice.due_ms == 0 => line += &format!(" for=now reason={reason}"),
        Some(reason) => line += &format!(" for_ms={} reason={reason}", notice.due_ms),
        None if notice.due_ms > 0 => line += &format!(" expires_at_ms={}", notice.due_ms),
        None => {}
    }
    out!("{line}");
}

fn print_change(change: &ChangeRec, as_of_lsn: u64) {
    let before = Status::name(change.before).map_or_else(String::new, |before| format!(" before={before}"));
    let status = Status::name(change.status).unwrap_or("unknown");
    out!("sku={} available={} status={status}{before} as_of_lsn={as_of_lsn}", change.sku, change.available);
}
