//! `stockline query`: what a channel can be promised of some skus, now.

use stockline_core::catalogue::NameKind;
use stockline_core::id::GroupId;
use stockline_core::wire::{Availability, QueryRec};

use crate::availability::Status;
use crate::command::{ProfileOption, with_client};
use crate::exit;
use crate::{err, out};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// One or more skus
    #[arg(required = true, value_name = "SKU")]
    skus: Vec<String>,
    /// The channel that asks
    #[arg(long, value_name = "CHANNEL")]
    channel: String,
    #[command(flatten)]
    profile: ProfileOption,
}

pub fn run(options: &Options) -> i32 {
    with_client(&options.profile, async |client, _| {
        let channel = client.resolve(NameKind::Channel, &[&options.channel], false).await?;
        let Some(Ok(channel)) = channel.first() else {
            err!("stockline: no channel {:?}; `stockline define channel NAME` creates one", options.channel);
            return Ok(exit::FAILED);
        };
        let names: Vec<&str> = options.skus.iter().map(String::as_str).collect();
        let skus = client.resolve(NameKind::Sku, &names, false).await?;
        let known = skus.iter().filter_map(|sku| sku.ok()).collect::<Vec<_>>();
        let query = QueryRec {
            channel: *channel as u16,
            group: GroupId::ANY.0,
            detail: 0,
            sku_count: known.len() as u32,
        };
        let answer = client.availability(&Availability { queries: vec![query], skus: known }).await?;
        let mut items = answer.items.iter().enumerate();
        let mut missing = false;
        for (name, sku) in names.iter().zip(&skus) {
            match sku.ok().and_then(|_| items.next()) {
                Some((index, item)) if item.status != 0 => {
                    let status = Status::name(item.status).unwrap_or("unknown");
                    let later = answer.later.iter().find(|later| later.item as usize == index);
                    let later = later.map_or_else(String::new, |later| {
                        format!(" later={} later_from_ms={}", later.units, later.from_ms)
                    });
                    out!(
                        "{name} available={} status={status}{later} as_of_lsn={}",
                        item.available,
                        answer.as_of_lsn
                    );
                }
                _ => {
                    missing = true;
                    err!("stockline: no sku {name:?}; it comes into being with its first event");
                }
            }
        }
        Ok(if missing { exit::FAILED } else { exit::OK })
    })
}
