//! A server in a process of its own, and who talks to it over HTTP: every reply is held against the document.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use crate::binary::{Serving, serve};
use crate::document;

fn agent() -> Agent {
    let config = Agent::config_builder().http_status_as_error(false);
    Agent::new_with_config(config.timeout_global(Some(Duration::from_secs(60))).build())
}

/// A server and who talks to it.
pub(crate) struct Shop {
    pub(crate) serving: Serving,
    pub(crate) agent: Agent,
    pub(crate) token: String,
}

impl Shop {
    pub(crate) fn open(data: &Path, more: &[&str]) -> Shop {
        Shop::around(serve(data, more), data)
    }

    /// Around a server that runs.
    pub(crate) fn around(serving: Serving, data: &Path) -> Shop {
        let token = std::fs::read_to_string(data.join("admin.token")).expect("a token");
        Shop { serving, agent: agent(), token: token.trim().to_owned() }
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Response<Body> {
        let mut request =
            Request::builder().method(method).uri(format!("http://{}{path}", self.serving.http));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.unwrap_or_default().to_owned()).expect("a request");
        self.agent.run(request).expect("answered")
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> (u16, Value) {
        let mut response = self.send(method, path, headers, body);
        let text = response.body_mut().read_to_string().expect("text");
        let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let status = response.status().as_u16();
        let kind =
            response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        document::check(|path| self.document(path), (method, path), (status, kind), &body);
        (status, body)
    }

    /// A document of the server.
    fn document(&self, path: &str) -> Value {
        let bearer = format!("Bearer {}", self.token);
        let mut response = self.send("GET", path, &[("authorization", &bearer)], None);
        serde_json::from_str(&response.body_mut().read_to_string().expect("text")).expect("JSON")
    }

    /// Has what comes from now on held against the documents.
    pub(crate) fn read_documents(&self) {
        document::read(|path| self.document(path));
    }

    /// Something that a stream told is what the document says.
    #[track_caller]
    pub(crate) fn check_message(&self, name: &str, payload: &Value) {
        document::check_message(|path| self.document(path), name, payload);
    }

    /// As a principal with a token.
    pub(crate) fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let text = body.to_string();
        let body = (!body.is_null()).then_some(text.as_str());
        self.ask(method, path, &[("authorization", &bearer)], body)
    }

    /// The same, as the administrator, and all goes well.
    pub(crate) fn put(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(&self.token, method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {answer}");
        answer
    }
}
