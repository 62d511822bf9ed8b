//! The document of what is told without being asked (AsyncAPI 3.0), made from the types that are sent.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::changes::Ended;
use super::cloud_event::CloudEvent;
use super::happened::{Change, Gap, Notice, Redefined, Snapshot};
use super::stock::Events;

fn message<T: JsonSchema>(generator: &mut SchemaGenerator, name: &str, summary: &str) -> Value {
    let payload = generator.subschema_for::<T>();
    json!({ "name": name, "title": name, "summary": summary, "contentType": "application/json", "payload": payload })
}

pub(super) fn document() -> String {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let told_of = [
        generator.subschema_for::<Notice>(),
        generator.subschema_for::<Change>(),
        generator.subschema_for::<Redefined>(),
        generator.subschema_for::<Snapshot>(),
        generator.subschema_for::<Gap>(),
    ];
    let messages = json!({
        "reservation": message::<Notice>(&mut generator, "reservation", "Something happened to a reservation"),
        "change": message::<Change>(&mut generator, "change", "A channel is told another number or status of a sku"),
        "redefined": message::<Redefined>(&mut generator, "redefined", "Any sku may be told another number: ask anew"),
        "snapshot": message::<Snapshot>(&mut generator, "snapshot", "What is offered has been told, whole"),
        "problem": message::<Ended>(&mut generator, "problem", "Why nothing more comes"),
        "events": message::<Events>(&mut generator, "events", "Stock events, up to 8,192 together"),
        "delivery": {
            "name": "delivery",
            "title": "delivery",
            "summary": "What is POSTed to a webhook's address: `stockline.changes`, or `stockline.test` without changes; with \
                        `envelope` cloudevents a batch of envelopes of CloudEvents 1.0 instead, one for each change",
            "contentType": "application/json",
            "headers": {
                "type": "object",
                "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
                "properties": {
                    "webhook-id": { "type": "string", "description": "The same however often it is sent" },
                    "webhook-timestamp": { "type": "string", "description": "Seconds since 1970" },
                    "webhook-signature": { "type": "string", "description": "`v1,` and the HMAC-SHA256 in base64, one for each secret that holds" },
                },
            },
            "payload": {
                "type": "object",
                "required": ["type", "timestamp", "data"],
                "properties": {
                    "type": { "type": "string", "enum": ["stockline.changes", "stockline.test"] },
                    "timestamp": { "type": "string", "format": "date-time" },
                    "data": {
                        "type": "object",
                        "required": ["webhook"],
                        "properties": {
                            "webhook": { "type": "string" },
                            "changes": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["type", "id", "data"],
                                    "properties": {
                                        "type": { "type": "string" },
                                        "id": { "type": "string" },
                                        "data": { "anyOf": told_of },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
        "cloud_event": message::<CloudEvent>(&mut generator, "cloud_event", "A stock event in an envelope of CloudEvents 1.0"),
        "envelope": {
            "name": "envelope",
            "title": "envelope",
            "summary": "A change in an envelope of CloudEvents 1.0, where that is asked for",
            "contentType": "application/json",
            "payload": {
                "type": "object",
                "required": ["specversion", "id", "source", "type", "datacontenttype", "data"],
                "properties": {
                    "specversion": { "type": "string", "enum": ["1.0"] },
                    "id": { "type": "string", "description": "Once in the world, together with `source`" },
                    "source": { "type": "string" },
                    "type": { "type": "string", "description": "The change's, behind `stockline.`" },
                    "time": { "type": "string", "format": "date-time", "description": "When it happened, where one moment can be said" },
                    "datacontenttype": { "type": "string", "enum": ["application/json"] },
                    "data": { "anyOf": told_of },
                },
            },
        },
    });
    let of = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/messages/{name}") })))
            .collect()
    };
    let refs = |channel: &str, names: &[&str]| -> Value {
        names.iter().map(|name| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") })).collect()
    };
    let (told, taken) = (
        ["reservation", "change", "redefined", "snapshot", "problem", "envelope"],
        ["events", "cloud_event"],
    );
    let sent = ["delivery", "envelope"];
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Stockline",
            "version": "1",
            "description": "Server-sent events of `GET /v1/changes`, each named by its `event` line, and stock events as they are \
                            taken by `POST /v1/events`. An `id` is a cursor: `Last-Event-ID` goes on behind it and misses nothing.",
        },
        "channels": {
            "changes": { "address": "/v1/changes", "messages": of(&told) },
            "webhook": {
                "address": null,
                "description": "POSTs of Standard Webhooks to the address of a webhook, up to 250 changes in each.",
                "messages": of(&sent),
            },
            "events": { "address": "/v1/events", "messages": of(&taken) },
        },
        "operations": {
            "follow": { "action": "send", "channel": { "$ref": "#/channels/changes" }, "messages": refs("changes", &told) },
            "send": { "action": "send", "channel": { "$ref": "#/channels/webhook" }, "messages": refs("webhook", &sent) },
            "tell": { "action": "receive", "channel": { "$ref": "#/channels/events" }, "messages": refs("events", &taken) },
        },
        "components": { "messages": messages, "schemas": generator.take_definitions(true) },
    })
    .to_string()
}
