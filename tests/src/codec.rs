//! Frames: cutting, garbage, limits, and docs/protocol.md byte by byte.

use rkyv::Serialize;
use rkyv::api::high::HighSerializer;
use rkyv::rancor::Failure;
use rkyv::ser::allocator::ArenaHandle;
use stockline_core::catalogue::{Definition, Policy};
use stockline_core::id::{Millis, PrincipalId, SourceId};
use stockline_core::label::{LabelRec, Whose};
use stockline_core::limit;
use stockline_core::outcome::Code;
use stockline_core::record::{
    AllocateRec, DefinitionList, EventRec, LineRec, ReserveRec, TextRec, TransitionRec,
};
use stockline_core::wire::{self, EntryRec, ReadDefinitions, *};
use stockline_loadgen::dice::Dice;

const T0: u64 = 1_700_000_000_000;

fn frame<T>(kind: FrameType, body: &T) -> (FrameType, Vec<u8>)
where
    T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Failure>>,
{
    let mut out = Vec::new();
    wire::encode(&mut out, kind, 7, body);
    (kind, out)
}

/// One frame of each type: the examples of docs/protocol.md.
fn examples() -> Vec<(FrameType, Vec<u8>)> {
    let reserve = ReserveRec {
        key: 0xa1,
        issued_at_ms: T0,
        id: 0xa1,
        channel: 0,
        ttl_ms: 900_000,
        fill: 0,
        customer: 0,
        zone: u16::MAX,
        line_count: 1,
        label_count: 0,
    };
    let line = LineRec { sku: 3, node: 65_535, group: 65_535, quantity: 2 };
    let labels = vec![LabelRec { kind: 2, text: TextRec { start: 0, len: 4 } }];
    let reservations = wire::Reservations {
        reservations: vec![ReserveRec { label_count: 1, ..reserve }],
        lines: vec![line],
        labels: labels.clone(),
        text: b"4711".to_vec(),
    };
    let event = EventRec {
        key: 0xe1,
        issued_at_ms: T0,
        occurred_at_ms: T0 - 1_000,
        reservation: 0,
        quantity: 10,
        expected: 0,
        source: u64::from(SourceId::name("wms")),
        supply: 0,
        eta_ms: 0,
        sku: 3,
        damaged: 0,
        supply_source: 0,
        node: 1,
        to_node: 65_535,
        kind: 1,
        given: 0,
        from: 0,
        to: 0,
        reason: TextRec { start: 0, len: 7 },
        redrive: 0,
        other: 0,
    };
    let step =
        TransitionRec { key: 0xb1, issued_at_ms: T0, reservation: 0xa1, verb: 1, ttl_ms: 0, line_count: 0 };
    let channel = Definition::Channel {
        name: "web".into(),
        parent: Some("shop".into()),
        group: Some("eu".into()),
        buffer: 5,
        policy: Policy::default(),
    };
    let allocate = AllocateRec {
        key: 0xc1,
        issued_at_ms: T0,
        sku: 3,
        quantity: 4,
        node: 1,
        channel: 0,
        to_channel: 65_535,
        action: 1,
    };
    let wanted = ResolveRec { kind: 1, create: 1, name: TextRec { start: 0, len: 6 } };
    let query = QueryRec { channel: 0, group: 65_535, detail: 1, sku_count: 2 };
    let result = ResultRec {
        lsn: 42,
        expires_at_ms: T0 + 900_000,
        id: 0,
        part_count: 1,
        code: 0,
        state: 1,
        repeat: 0,
        late: 0,
    };
    vec![
        frame(FrameType::SignIn, &SignIn { token: b"secret".to_vec() }),
        frame(FrameType::Resolve, &Resolve { wanted: vec![wanted], text: b"85123A".to_vec() }),
        frame(FrameType::Define, &DefinitionList::of([&channel])),
        frame(FrameType::Events, &Events { events: vec![event], text: b"po 4711".to_vec() }),
        frame(FrameType::Reserve, &reservations),
        frame(FrameType::Transitions, &Transitions { transitions: vec![step], lines: vec![] }),
        frame(FrameType::Availability, &Availability { queries: vec![query], skus: vec![3, 4] }),
        frame(FrameType::ReadPositions, &ReadPositions { places: vec![PlaceRec { sku: 3, node: 1 }] }),
        frame(FrameType::ReadReservations, &ReadReservations { ids: vec![0xa1] }),
        frame(FrameType::Allocate, &wire::Allocations { allocations: vec![allocate] }),
        frame(FrameType::ReadAllocations, &ReadAllocations { channel: 0, skus: vec![3] }),
        frame(
            FrameType::Explain,
            &wire::Reservations {
                reservations: vec![reserve],
                lines: vec![line],
                ..wire::Reservations::default()
            },
        ),
        frame(
            FrameType::Follow,
            &Follow { from_lsn: 42, channel: 1, what: 3, wait_ms: 20_000, gather_ms: 0 },
        ),
        frame(
            FrameType::ReadDefinitions,
            &ReadDefinitions {
                wanted: vec![EntryRec { kind: 4, name: TextRec { start: 0, len: 3 } }],
                text: b"web".to_vec(),
            },
        ),
        frame(
            FrameType::Find,
            &Find { wanted: vec![LabelRec { kind: 0, ..labels[0] }], text: b"4711".to_vec() },
        ),
        frame(
            FrameType::Welcome,
            &Welcome {
                now_ms: T0,
                durable_lsn: 41,
                principal: 1,
                role: 1,
                channel: 65_535,
                frame_bytes_max: limit::FRAME_BYTES_MAX as u32,
                frame_commands_max: limit::FRAME_COMMANDS_MAX as u32,
                frame_lines_max: limit::FRAME_LINES_MAX as u32,
                window_ms: limit::IDEMPOTENCY_MS,
                window_commands: limit::IDEMPOTENCY_COMMANDS,
            },
        ),
        frame(
            FrameType::Results,
            &Results {
                results: vec![result],
                parts: vec![PartRec { sku: 3, quantity: 2, node: 1, line: 0, at_ms: 0 }],
            },
        ),
        frame(
            FrameType::AvailabilityAnswer,
            &AvailabilityAnswer {
                as_of_lsn: 42,
                items: vec![
                    ItemRec { available: 8, node_count: 1, status: 1 },
                    ItemRec { available: 0, node_count: 0, status: 4 },
                ],
                nodes: vec![NodeRec { available: 8, node: 1 }],
                later: vec![LaterRec { from_ms: T0 + 86_400_000, units: 5, item: 1 }],
            },
        ),
        frame(
            FrameType::Positions,
            &wire::Positions {
                as_of_lsn: 42,
                positions: vec![PositionRec { units: [8, 2, 0, 0, 0, 0, 0, 0, 0, 4] }],
            },
        ),
        frame(
            FrameType::Reservations,
            &ReservationAnswers {
                as_of_lsn: 42,
                reservations: vec![ReservationRec {
                    expires_at_ms: T0 + 900_000,
                    claim_count: 1,
                    code: 0,
                    state: 1,
                    label_count: 1,
                }],
                claims: vec![ClaimRec {
                    sku: 3,
                    quantity: 2,
                    held: 2,
                    picked: 0,
                    shipped: 0,
                    node: 1,
                    pool: 0,
                    at_ms: 0,
                }],
                labels: labels.clone(),
                text: b"4711".to_vec(),
            },
        ),
        frame(
            FrameType::Allocations,
            &AllocationAnswers {
                as_of_lsn: 42,
                counts: vec![1],
                shares: vec![ShareRec { units: 4, node: 1, channel: 0 }],
            },
        ),
        frame(
            FrameType::Explanations,
            &Explanations {
                as_of_lsn: 42,
                results: vec![ResultRec { lsn: 0, ..result }],
                parts: vec![PartRec { sku: 3, quantity: 2, node: 1, line: 0, at_ms: 0 }],
                traces: vec![TraceRec {
                    free: 8,
                    withheld: 1,
                    own: 4,
                    order: 0,
                    taken: 2,
                    reservation: 0,
                    line: 0,
                    node: 1,
                    rank: 0,
                    why: 0,
                    late: 0,
                }],
            },
        ),
        frame(
            FrameType::Changes,
            &Changes {
                next_lsn: 44,
                as_of_lsn: 43,
                notices: vec![NoticeRec {
                    reservation: 9,
                    lsn: 43,
                    at_ms: 1_700_000_600_000,
                    due_ms: 0,
                    sku: 0,
                    quantity: 0,
                    node: u16::MAX,
                    channel: 1,
                    what: 1,
                    state: 5,
                    reason: 0,
                }],
                changes: vec![ChangeRec { available: 12, sku: 3, status: 1, before: 3 }],
                redefined: 0,
            },
        ),
        frame(FrameType::Definitions, &DefinitionList::of([&channel])),
        frame(FrameType::Found, &Found { as_of_lsn: 42, counts: vec![1], ids: vec![0xa1] }),
        frame(FrameType::Refusal, &Refusal { code: 3, text: b"no".to_vec() }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
        .collect();
    lines.join("\n")
}

#[test]
fn the_protocol_page_shows_the_real_bytes_of_every_frame_type() {
    let page = include_str!("../../docs/protocol.md");
    for (kind, bytes) in examples() {
        let text = hex(&bytes);
        assert!(
            page.contains(&text),
            "docs/protocol.md must show for {kind:?} (0x{:02x}):\n{text}",
            kind as u8
        );
    }
    for code in stockline_core::outcome::CODES {
        let row = format!("| {} | {} |", *code as u8, code.name());
        assert!(page.contains(&row), "docs/protocol.md must list {row}");
    }
    assert_eq!(examples().len(), FRAME_TYPES.len());
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let mut stream = Vec::new();
    let all = examples();
    all.iter().for_each(|(_, bytes)| stream.extend_from_slice(bytes));
    let mut dice = Dice::new(3);
    for _ in 0..200 {
        let mut inbox = Inbox::default();
        let mut found = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((dice.roll() as usize % 90 + 1).min(rest.len()));
            inbox.push(now);
            rest = later;
            while let Some(raw) = inbox.next_frame().expect("valid frames") {
                assert_eq!(raw.request, 7);
                found.push((raw.kind, raw.archive.to_vec()));
            }
        }
        assert!(!inbox.is_partial());
        let due: Vec<_> = all.iter().map(|(kind, bytes)| (*kind, bytes[HEADER_BYTES..].to_vec())).collect();
        assert_eq!(found, due);
    }
}

fn header(length: u32, version: u8, kind: u8, reserved: u16) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[version, kind]);
    bytes.extend_from_slice(&reserved.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

#[test]
fn a_bad_header_is_refused_before_its_frame_is_there() {
    let judge = |bytes: Vec<u8>| {
        let mut inbox = Inbox::default();
        inbox.push(&bytes);
        inbox.next_frame().map(|frame| frame.is_some())
    };
    let max = limit::FRAME_BYTES_MAX as u32;
    assert_eq!(
        judge(header(max + 1, 1, 5, 0)),
        Err(WireError::TooLong { length: max as usize + 1, max: max as usize })
    );
    assert_eq!(
        judge(header(u32::MAX, 1, 5, 0)),
        Err(WireError::TooLong { length: u32::MAX as usize, max: max as usize })
    );
    assert_eq!(judge(header(7, 1, 5, 0)), Err(WireError::TooShort(7)));
    assert_eq!(judge(header(100, 2, 5, 0)), Err(WireError::Version(2)));
    assert_eq!(judge(header(100, 1, 0x60, 0)), Err(WireError::Type(0x60)));
    assert_eq!(judge(header(100, 1, 5, 1)), Err(WireError::Reserved));
    assert_eq!(judge(header(100, 1, 5, 0)), Ok(false), "waits for the rest");
}

#[test]
fn changed_bytes_never_break_anything() {
    let mut dice = Dice::new(5);
    let mut understood = 0;
    for (kind, bytes) in examples().into_iter().filter(|(kind, _)| (*kind as u8) < 0x80) {
        for _ in 0..3_000 {
            let mut archive = bytes[HEADER_BYTES..].to_vec();
            for _ in 0..=dice.roll() % 3 {
                let at = dice.roll() as usize % archive.len();
                archive[at] = dice.roll() as u8;
            }
            if dice.roll().is_multiple_of(8) {
                archive.truncate(dice.roll() as usize % archive.len());
            }
            let raw = RawFrame { kind, request: 1, archive: &archive };
            understood +=
                usize::from(wire::read_commands(raw, PrincipalId(7), &Whose::All, Millis(T0)).is_ok());
            let _ = wire::access::<ArchivedAvailability>(&archive);
            let _ = wire::access::<ArchivedSignIn>(&archive);
        }
    }
    assert!(understood > 1_000, "some changes still make sense: {understood}");
}

#[test]
fn records_that_make_no_command_are_named() {
    let judge = |(kind, bytes): (FrameType, Vec<u8>)| {
        let raw = RawFrame { kind, request: 1, archive: &bytes[HEADER_BYTES..] };
        wire::read_commands(raw, PrincipalId(7), &Whose::All, Millis(T0))
            .map(|_| ())
            .expect_err("refused")
            .to_string()
    };
    let step = TransitionRec { key: 1, issued_at_ms: T0, reservation: 1, verb: 9, ttl_ms: 0, line_count: 0 };
    let text = judge(frame(FrameType::Transitions, &Transitions { transitions: vec![step], lines: vec![] }));
    assert!(text.contains("record 0 of transitions: verb must be"), "{text}");
    let keyless = TransitionRec { key: 0, verb: 1, ..step };
    let text =
        judge(frame(FrameType::Transitions, &Transitions { transitions: vec![keyless], lines: vec![] }));
    assert!(text.contains("key must not be 0"), "{text}");
    let reserve = ReserveRec {
        key: 1,
        issued_at_ms: T0,
        id: 1,
        channel: 0,
        ttl_ms: 1,
        fill: 0,
        customer: 0,
        zone: u16::MAX,
        line_count: 2,
        label_count: 0,
    };
    let line = LineRec { sku: 1, node: 0, group: 0, quantity: 1 };
    let of = |reserve, lines| wire::Reservations {
        reservations: vec![reserve],
        lines,
        ..wire::Reservations::default()
    };
    let text = judge(frame(FrameType::Reserve, &of(reserve, vec![line])));
    assert!(text.contains("line_count reaches beyond"), "{text}");
    let text = judge(frame(FrameType::Reserve, &of(reserve, vec![line; 3])));
    assert!(text.contains("belongs to no reservation"), "{text}");
    let text = judge(frame(FrameType::Reserve, &of(ReserveRec { fill: 2, ..reserve }, vec![line; 2])));
    assert!(text.contains("fill must be 0"), "{text}");
    let many = vec![step; limit::FRAME_COMMANDS_MAX + 1];
    let text = judge(frame(FrameType::Transitions, &Transitions { transitions: many, lines: vec![] }));
    assert!(text.contains("at most 8192"), "{text}");
}

#[test]
fn late_confirmations_with_more_parts_than_a_reply_may_have_are_told_without() {
    let reply = |late: bool, parts: u32| stockline_core::merge::Reply {
        lsn: stockline_core::id::Lsn(1),
        outcome: stockline_core::ledger::Outcome {
            reacquired: late,
            ..stockline_core::ledger::Outcome::of(Code::Ok)
        },
        repeat: false,
        id: 0,
        parts,
    };
    let max = stockline_core::limit::REPLY_PARTS_MAX;
    for (most, due) in [(max - 3, vec![max as u32 - 3, 2, 1]), (max, vec![0, 2, 0])] {
        let part = |line| stockline_core::merge::Part {
            line,
            sku: stockline_core::id::SkuId(1),
            node: stockline_core::id::NodeId(0),
            quantity: 1,
            at: stockline_core::ledger::THERE,
        };
        let mut parts = vec![part(0); most];
        parts.extend([part(1), part(2), part(3)]);
        let mut frame = stockline_core::merge::FrameReply::default();
        frame.replies = vec![reply(true, most as u32), reply(false, 2), reply(true, 1)];
        frame.parts = parts;
        let results = wire::Results::of(&frame);
        let counts: Vec<u32> = results.results.iter().map(|result| result.part_count).collect();
        assert_eq!(counts, due);
        assert_eq!(results.parts.len() as u32, counts.iter().sum::<u32>());
        assert_eq!(results.parts[due[0] as usize].line, 1);
    }
}
