//! The documents of HTTP against what is really answered: every reply that a test of HTTP gets, and every event of a
//! stream or of a webhook, is held against its schema, and has nothing that the schema does not name.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

/// Schemas of one document by where they stand in it, made when they are needed.
pub(crate) struct Document {
    document: Value,
    made: Mutex<HashMap<String, &'static Validator>>,
}

impl Document {
    fn new(mut document: Value) -> Document {
        close(&mut document);
        Document { document, made: Mutex::default() }
    }

    /// What is wrong with a value, by the schema at a place of the document.
    fn wrong(&self, pointer: &str, value: &Value) -> Option<String> {
        let mut made = self.made.lock().expect("no test panics here");
        let validator = *made.entry(pointer.to_owned()).or_insert_with(|| {
            let mut schema = self.document.pointer(pointer).expect("a schema").clone();
            let members = schema.as_object_mut().expect("an object");
            members.insert("components".into(), self.document["components"].clone());
            Box::leak(Box::new(jsonschema::validator_for(&schema).expect("a valid schema")))
        });
        validator
            .validate(value)
            .err()
            .map(|error| format!("{} at {:?}", error, error.instance_path().as_str()))
    }

    /// The path of the document that a path is one of.
    fn template(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap_or_default();
        let fits = |template: &str| {
            let (mut parts, mut given) = (template.split('/'), path.split('/'));
            loop {
                match (parts.next(), given.next()) {
                    (None, None) => return true,
                    (Some(part), Some(given)) if part == given || part.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        let paths = self.document["paths"].as_object().expect("paths");
        // One without parameters goes first.
        let mut found: Vec<&str> = paths.keys().map(String::as_str).filter(|path| fits(path)).collect();
        found.sort_unstable_by_key(|path| path.matches('{').count());
        found.first().copied()
    }
}

/// Has every object of a schema have only what is named, but where it says otherwise, or is a part of another.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_part = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|of| members.contains_key(*of));
            if members.get("properties").is_some_and(Value::is_object)
                && members.get("type").is_some_and(|kind| kind.is_string() || kind.is_array())
                && !members.contains_key("additionalProperties")
                && !is_part
            {
                members.insert("additionalProperties".into(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Pointers have slashes of their own.
fn escaped(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

static OPENAPI: OnceLock<Document> = OnceLock::new();
static ASYNCAPI: OnceLock<Document> = OnceLock::new();

/// Reads what messages are held against.
pub(crate) fn read(fetch: impl FnOnce(&str) -> Value) {
    ASYNCAPI.get_or_init(|| Document::new(fetch("/v1/asyncapi.json")));
}

/// A reply is what the document says of its call.
#[track_caller]
pub(crate) fn check(
    fetch: impl FnOnce(&str) -> Value,
    (method, path): (&str, &str),
    (status, kind): (u16, &str),
    body: &Value,
) {
    if !path.starts_with("/v1/") || path.ends_with(".json") {
        return;
    }
    let document = OPENAPI.get_or_init(|| Document::new(fetch("/v1/openapi.json")));
    let Some(template) = document.template(path) else { return };
    let operation = &document.document["paths"][template][method.to_lowercase()];
    if operation.is_null() {
        assert_eq!(status, 405, "{method} {path} is not in the document");
        return;
    }
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let content = &operation["responses"][status.to_string()]["content"][kind];
    assert!(
        content["schema"].is_object(),
        "{method} {path}: the document has no answer {status} {kind}: {body}"
    );
    let pointer = format!(
        "/paths/{}/{}/responses/{status}/content/{}/schema",
        escaped(template),
        method.to_lowercase(),
        escaped(kind)
    );
    if let Some(wrong) = document.wrong(&pointer, body) {
        panic!("{method} {path}: {status} is not what the document says: {wrong}: {body}");
    }
}

/// What a stream or a webhook tells is what the document says of such a message.
#[track_caller]
pub(crate) fn check_message(fetch: impl FnOnce(&str) -> Value, name: &str, payload: &Value) {
    read(fetch);
    check_known_message(name, payload);
}

/// The same where the document was read.
#[track_caller]
pub(crate) fn check_known_message(name: &str, payload: &Value) {
    let document = ASYNCAPI.get().expect("it was read");
    let pointer = format!("/components/messages/{}/payload", escaped(name));
    assert!(document.document.pointer(&pointer).is_some(), "the document has no message {name:?}: {payload}");
    if let Some(wrong) = document.wrong(&pointer, payload) {
        panic!("{name} is not what the document says: {wrong}: {payload}");
    }
}
