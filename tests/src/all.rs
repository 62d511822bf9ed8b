//! Index of the tests.
//!
//! | module | what it shows |
//! |---|---|
//! | [`rule`] | every rule of reservations, steps and events, as small tables: command, outcome, units |
//! | [`claim`] | steps of some lines, moves, late confirmations, limits of open holds: the same |
//! | [`allocation`] | channel allocations: actions, who draws from what, where units go back, levels of channels |
//! | [`group`] | units claimed of a group, the node chosen later: groups that overlap, choosing, life |
//! | [`backorder`] | claims on supplies: dates, limits, life, promises made anew by priority then age |
//! | [`door`] | idempotency window and catalogue: repeats, conflicts, too old, names and ids |
//! | [`model`] | random commands against an independent model, reply by reply, and conservation |
//! | [`shards`] | the same commands on 1 and 4 shards: same replies, same state hash, replay gives the same |
//! | [`sku_rule`] | safety stock and allocations by rule: which rule speaks, receipts, balancing, caps |
//! | [`sourcing`] | which node serves a line: strategies, zones, splits |
//! | [`storage`] | journal and snapshot: fold, trim, recover, gaps, damage, formats, a second process |
//! | [`crash`] | power cuts, EIO, full disks, at every operation under the real redb ([`disk`]) |
//! | [`simulation`] | the whole engine in one thread from a seed, on crash disks, checked by model and history |
//! | [`view`] | readers see whole durable states only, while a writer publishes |
//! | [`loom`] | every interleaving of view cells, votes and bells |
//! | [`codec`] | frames: cut anywhere, garbage, limits; docs/protocol.md's bytes are the real ones |
//! | [`engine`] | the running engine over QUIC: roles, limits, expiry, restart, repeats after restart |
//! | [`follow`] | what followers are told over QUIC: expiries, steps, promises, thresholds, cursors |
//! | [`history`] | positions as of earlier LSNs, and what moved there |
//! | [`http`] | the HTTP face of the real binary: every example of docs/http.md, roles, changes as they come |
//! | [`intake`] | stock events as people send them: skewed clocks, supplies by name, malformed rows, dead letters amended |
//! | [`gateway`] | what is around every HTTP call: TLS, HTTP/2, limits, ids, metrics, logs, configuration, drain |
//! | [`audit`] | the audit trail: what is in it, through kills and in backups; edited, removed, cut off |
//! | [`backup`] | backup while running, restore to an LSN, golden files of each format, an edited journal, self-audit |
//! | [`budget`] | bodies, answers, replies, connections: one that takes too much harms itself; bodies as clients send them |
//! | [`attack`] | garbage, stalled readers, floods: only the guilty suffer, memory stays bounded |
//! | [`binary`] | `stockline` and `loadgen` as a user types them: demo, import, errors, kill and resume |
//! | [`command_line`] | `stockline` where somebody mistypes, pipes into nothing, hands it hostile files; copies; damaged files |
//! | [`faulty`] | the real binary on a disk that is slow, fails or is full |
//! | [`webhook`] | messages to receivers that refuse, stall and go away; streams that begin with a snapshot |
//! | [`trace`] | spans of OpenTelemetry, as a collector gets them, and a collector that stalls |
//! | [`kill`] | the real binary under random commands: SIGKILL, SIGSTOP, cut connections, clocks set wrong |
//! | [`plan`] | orders planned as a whole: few nodes, substitutes of skus, cut-offs and capacities of days |
//! | [`planted`] | bugs planted on purpose, and the layers that catch each |
//! | [`receiver`] | somebody who is called over HTTP |
//! | [`rounds`] | how long random layers run, and the command that repeats a failure |
//! | [`architecture`] | who may name what, file lengths, module docs, vocabulary |

mod allocation;
mod architecture;
mod attack;
mod audit;
mod backorder;
mod backup;
mod binary;
mod budget;
mod claim;
mod codec;
mod command_line;
mod crash;
mod disk;
mod document;
mod door;
mod engine;
mod faulty;
mod follow;
mod gateway;
mod group;
mod history;
mod http;
mod intake;
mod kill;
mod loom;
mod model;
mod plan;
mod planted;
mod receiver;
mod rounds;
mod rule;
mod shards;
mod shop;
mod simulation;
mod sku_rule;
mod sourcing;
mod storage;
mod trace;
mod view;
mod webhook;

use stockline_tests::{bench, chance};
