//! Somebody who is called over HTTP: receivers of webhooks, collectors of traces.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// A call as it came, with what was answered.
pub(crate) struct Came {
    pub(crate) path: String,
    headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) answered: u16,
}

impl Came {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// Answers each call with what `answer` says of its body and of how many came before; 0: not at all.
pub(crate) fn receive(
    answer: impl Fn(usize, &[u8]) -> u16 + Send + Sync + 'static,
) -> (String, Receiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, came) = channel();
    let answer = Arc::new(answer);
    let count = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (tell, answer, count) = (tell.clone(), answer.clone(), count.clone());
            std::thread::spawn(move || {
                serve(stream, &tell, |body| answer(count.fetch_add(1, Ordering::SeqCst), body))
            });
        }
    });
    (url, came)
}

fn serve(stream: TcpStream, tell: &Sender<Came>, answer: impl Fn(&[u8]) -> u16) {
    let mut writer = stream.try_clone().expect("a stream");
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut headers) = (String::new(), HashMap::new());
        for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            match line.split_once(": ") {
                Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
                None => path = line.split(' ').nth(1).unwrap_or_default().to_owned(),
            }
        }
        let Some(length) = headers.get("content-length").and_then(|text| text.parse().ok()) else { return };
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let answered = answer(&body);
        if tell.send(Came { path, headers, body, answered }).is_err() {
            return;
        }
        if answered == 0 {
            std::thread::park();
        }
        if write!(writer, "HTTP/1.1 {answered} so\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}
