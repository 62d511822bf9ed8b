//! What is around every HTTP call of the real binary: TLS, HTTP/2, limits, ids, metrics, logs, configuration, drain.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::binary::{check, program, run, serve, text};

/// Sends bytes as they are and reads until the server closes.
fn raw(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    // What was sent and not read makes some systems reset the connection.
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

fn get(address: &str, path: &str, headers: &str) -> String {
    raw(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").as_bytes())
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn bearer(data: &Path) -> String {
    let token = std::fs::read_to_string(data.join("admin.token")).expect("a token");
    format!("authorization: Bearer {}\r\n", token.trim())
}

async fn over_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
) -> Response<String> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request =
        Request::get(format!("http://localhost{path}")).body(Empty::<Bytes>::new()).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("answered").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    Response::from_parts(head, text(&body))
}

#[tokio::test]
async fn http2_is_spoken_and_tls_where_others_could_listen() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = serve(&data, &[]);
    let stream = tokio::net::TcpStream::connect(&server.http).await.expect("connected");
    let answer = over_http2(stream, "/readyz").await;
    assert_eq!((answer.version(), answer.status().as_u16()), (Version::HTTP_2, 200));
    assert!(answer.body().contains("\"ready\""), "{answer:?}");
    let stream = tokio::net::TcpStream::connect(&server.http).await.expect("connected");
    let answer = over_http2(stream, "/v1/nothing").await;
    assert!(answer.status() == 404 && answer.body().contains("NOT_FOUND"), "{answer:?}");
    server.terminate();

    // The last flag of a kind counts.
    let mut arguments = vec!["serve", "--data", data.to_str().expect("plain"), "--quic", "127.0.0.1:0"];
    arguments.extend(["--http", "0.0.0.0:0"]);
    let mut child = Command::new(program("stockline"))
        .args(&arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let port = line.trim().rsplit(':').next().expect("a port");
    let address = format!("127.0.0.1:{port}");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(data.join("ca.pem")).expect("a file") {
        roots.add(certificate.expect("a certificate")).expect("sound");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    for protocol in ["h2", "http/1.1"] {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = tokio::net::TcpStream::connect(&address).await.expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        if protocol == "h2" {
            assert_eq!(over_http2(stream, "/livez").await.body(), "alive\n");
        }
    }
    // Nobody is answered who does not encrypt.
    let plain = tokio::task::spawn_blocking(move || get(&address, "/livez", "")).await.expect("done");
    assert!(!plain.contains("alive"), "{plain}");
    child.kill().expect("killed");
    child.wait().expect("ends");
}

#[test]
fn calls_have_ids_limits_and_problems() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let server = serve(&data, &["--http-rate", "1"]);
    let address = &*server.http;
    let named = get(address, "/livez", "x-request-id: order-4711/2\r\n");
    assert_eq!(header(&named, "x-request-id"), Some("order-4711/2"), "{named}");
    for unfit in ["x-request-id: two words\r\n", ""] {
        let answer = get(address, "/livez", unfit);
        let id = header(&answer, "x-request-id").expect("an id");
        assert!(id.len() == 36 && id.split('-').count() == 5, "a new one: {id}");
        assert_ne!(header(&get(address, "/livez", unfit), "x-request-id"), Some(id));
    }
    // A token that asks more than once a second is told to wait; nobody else is.
    let bearer = bearer(&data);
    let ask = || get(address, "/v1/allocations?sku=A", &bearer);
    let first = ask();
    assert!(first.starts_with("HTTP/1.1 404"), "{first}");
    assert_eq!(header(&first, "ratelimit-policy"), Some("\"token\";q=1;w=1"));
    assert_eq!(header(&first, "ratelimit"), Some("\"token\";r=0;t=1"));
    let limited = (0..100).map(|_| ask()).find(|answer| answer.starts_with("HTTP/1.1 429")).expect("a limit");
    assert!(limited.contains("\"code\":\"RATE_LIMITED\""), "{limited}");
    assert_eq!(header(&limited, "retry-after"), Some("1"));
    assert!(get(address, "/livez", &bearer).starts_with("HTTP/1.1 200"));
    drop(server);

    let server = serve(&data, &[]);
    let address = &*server.http;
    let long = format!("x-long: {}\r\n", "a".repeat(400_000));
    // The answer is lost where the connection is reset for what was not read.
    let refused = get(address, "/livez", &long);
    assert!(refused.starts_with("HTTP/1.1 431") || refused.is_empty(), "headers are bounded: {refused}");
    let send = |head: &str, body: &str| {
        let head = format!("POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{bearer}{head}");
        raw(address, format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())
    };
    let json = "content-type: application/json\r\n";
    let large = send(json, &format!("{{\"events\": [], \"x\": \"{}\"}}", "a".repeat(4 << 20)));
    assert!(large.starts_with("HTTP/1.1 413") && large.contains("BODY_TOO_LARGE"), "{large}");
    let xml = send("content-type: text/xml\r\n", "<events/>");
    assert!(xml.starts_with("HTTP/1.1 415") && xml.contains("UNSUPPORTED_MEDIA_TYPE"), "{xml}");
    let none = send(json, "{\"events\": []}");
    assert!(none.starts_with("HTTP/1.1 200") && header(&none, "ratelimit").is_none(), "{none}");
    assert!(raw(address, b"BREW /pot HTCPCP/1.0\r\n\r\n").starts_with("HTTP/1.1 400"));

    // What was asked is counted, and what was refused.
    let reserve = r#"{"channel":"web","ttl_ms":1000,"lines":[{"sku":"A","quantity":1}]}"#;
    let keyed = "idempotency-key: one\r\n";
    let wanted =
        format!("POST /v1/reservations HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{bearer}{json}{keyed}");
    let post =
        |body: &str| raw(address, format!("{wanted}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let profile = data.join("client.toml");
    let profile = profile.to_str().expect("plain");
    check("stockline", &["define", "node", "n", "--profile", profile], 0, "n changed");
    check("stockline", &["define", "channel", "web", "--profile", profile], 0, "web changed");
    let event = "{\"events\":[{\"id\":\"1\",\"source\":\"s\",\"type\":\"count\",\"occurred_at\":\"2026-01-01T00:00:00Z\",\
                 \"sku\":\"A\",\"node\":\"n\",\"quantity\":0}]}";
    assert!(send(json, event).contains("applied"));
    let short = post(reserve);
    assert!(short.starts_with("HTTP/1.1 409"), "{short}");
    let told = get(address, "/metrics", "");
    assert_eq!(header(&told, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(told.contains("# TYPE stockline_refusals_total counter\n"), "{told}");
    let told = get(address, "/metrics", "accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(told.contains("# TYPE stockline_refusals counter\n") && told.ends_with("# EOF\n"), "{told}");
    assert_eq!(
        header(&told, "content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let body = told.split("\r\n\r\n").nth(1).expect("a body");
    for line in [
        "stockline_refusals_total{code=\"INSUFFICIENT_STOCK\"} 1",
        "stockline_http_responses_total{status=\"409\"} 1",
        "stockline_request_duration_seconds_count{face=\"http\",operation=\"reserve\"} 1",
        "stockline_request_duration_seconds_count{face=\"quic\",operation=\"define\"} 2",
        "stockline_source_events_total{principal=\"admin\",source=\"s\"} 1",
        "stockline_source_exceptions_total{principal=\"admin\",source=\"s\"} 1",
        "stockline_batch_commands_bucket{le=\"+Inf\"}",
        "stockline_connections{face=\"http\"} 1",
    ] {
        assert!(body.contains(line), "{line} is not in {body}");
    }
    server.terminate();
}

#[test]
fn log_lines_are_json_where_asked_and_tell_who_was_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let arguments = ["serve", "--data", data.to_str().expect("plain"), "--quic", "127.0.0.1:0"];
    let mut child = Command::new(program("stockline"))
        .args(arguments)
        .args(["--http", "127.0.0.1:0", "--log-format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.trim().rsplit('=').next().expect("an address").to_owned();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let from = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\nx-request-id: r1\r\n");
    assert!(get(&address, "/v1/changes", &from).starts_with("HTTP/1.1 401"));
    // A stream that follows does not keep the server from stopping.
    let mut following = TcpStream::connect(&address).expect("connected");
    let follow = format!("GET /v1/changes HTTP/1.1\r\nhost: x\r\n{}\r\n", bearer(&data));
    following.write_all(follow.as_bytes()).expect("sent");
    let mut first = [0; 12];
    following.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    let mut told = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    assert_eq!(child.wait().expect("ends").code(), Some(0));
    let lines: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let audit: Vec<&Value> = lines.iter().filter(|line| line["target"] == "audit").collect();
    assert_eq!(audit.len(), 1, "{told}");
    let refused = audit[0];
    assert_eq!((&refused["status"], &refused["code"]), (&401.into(), &"UNAUTHENTICATED".into()), "{refused}");
    assert_eq!((&refused["trace"], &refused["request"]), (&trace.into(), &"r1".into()), "{refused}");
    let messages = lines.iter().filter_map(|line| line["message"].as_str());
    assert!(messages.clone().any(|message| message.starts_with("recovered last_lsn=0")), "{told}");
    assert!(messages.clone().any(|message| message.starts_with("stopped last_lsn=")), "{told}");
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("stockline.toml");
    let file = file.to_str().expect("plain");
    std::fs::write(file, "shards = 2\nhttp-rate = 7\nlog = \"warn\"\nretain-journal = true\n")
        .expect("written");
    let printed = |environment: &[(&str, &str)], flags: &[&str]| {
        let mut command = Command::new(program("stockline"));
        command.args(["serve", "--config", file, "--print-config"]).args(flags);
        let output = command.envs(environment.iter().copied()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let plain = printed(&[], &[]);
    for line in
        ["shards = 2", "http-rate = 7", "log = \"warn\"", "retain-journal = true", "log-format = \"text\""]
    {
        assert!(plain.contains(line), "{plain}");
    }
    let environment =
        [("STOCKLINE_SHARDS", "3"), ("STOCKLINE_HTTP_RATE", "8"), ("STOCKLINE_RETAIN_JOURNAL", "false")];
    let over = printed(&environment, &["--shards", "4"]);
    for line in ["shards = 4", "http-rate = 8", "retain-journal = false", "log = \"warn\""] {
        assert!(over.contains(line), "{over}");
    }
    // What is printed is a file that says the same.
    let again = dir.path().join("again.toml");
    std::fs::write(&again, &over).expect("written");
    let again = again.to_str().expect("plain");
    assert_eq!(text(&run("stockline", &["serve", "--config", again, "--print-config"]).stdout), over);
    check("stockline", &["serve", "--config", again, "--check-config"], 0, "the configuration is sound");
    let wrong = |flags: &[&str], says: &str| {
        check("stockline", &[&["serve", "--check-config"], flags].concat(), 2, says);
    };
    wrong(&["--log", "everything=please=now"], "say error, warn, info or debug");
    wrong(&["--log-format", "xml"], "possible values: text, json");
    std::fs::write(file, "http_rate = 7\n").expect("written");
    wrong(&["--config", file], "unknown field `http_rate`");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_its_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = serve(&dir.path().join("data"), &[]);
    let connect = || async {
        let stream = tokio::net::TcpStream::connect(&server.http).await.expect("connected");
        let mut builder = h2::client::Builder::new();
        // It lets nothing be sent, and goes on to answer signs of life.
        builder.initial_window_size(0);
        let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.expect("HTTP/2");
        (sender, tokio::spawn(connection))
    };
    let (mut stalls, stalled) = connect().await;
    let request = Request::get("http://localhost/metrics").body(()).expect("a request");
    let (answer, _) = stalls.send_request(request, true).expect("sent");
    let answer = answer.await.expect("a head");
    assert_eq!(answer.status(), 200);
    // Who takes what is told is left alone for as long as nothing is: a stream of changes.
    let stream = tokio::net::TcpStream::connect(&server.http).await.expect("connected");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let follows = tokio::spawn(connection);
    let token = std::fs::read_to_string(dir.path().join("data/admin.token")).expect("a token");
    let request = Request::get("http://localhost/v1/changes")
        .header("authorization", format!("Bearer {}", token.trim()));
    let (told, _) = sender.send_request(request.body(()).expect("a request"), true).expect("sent");
    let mut told = told.await.expect("a head").into_body();
    let taken = tokio::spawn(async move {
        while let Some(Ok(bytes)) = told.data().await {
            told.flow_control().release_capacity(bytes.len()).expect("released");
        }
    });
    tokio::time::timeout(Duration::from_secs(90), stalled).await.expect("it is ended").expect("a task").ok();
    assert!(!follows.is_finished() && !taken.is_finished());
}

/// Base64: as PEM has it, or as JWTs have it.
fn base64(bytes: &[u8], url: bool) -> String {
    let alphabet = format!("{}{}", ["A-Z", "a-z", "0-9"].map(range).concat(), if url { "-_" } else { "+/" });
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, at| word << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for at in 0..=chunk.len() {
            text.push(char::from(alphabet.as_bytes()[(word >> (18 - 6 * at) & 63) as usize]));
        }
        text.push_str(if url { "" } else { &"=="[..3 - chunk.len()] });
    }
    text
}

fn range(text: &str) -> String {
    (text.as_bytes()[0]..=text.as_bytes()[2]).map(char::from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_stands_for_a_principal_that_is_known_until_it_ends() {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let (signer, other) = ([7u8; 32], [8u8; 32]);
    let pair = |seed: &[u8; 32]| Ed25519KeyPair::from_seed_unchecked(seed).expect("a key");
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend(pair(&signer).public_key().as_ref());
    let pem = dir.path().join("jwt.pem");
    let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(&der, false));
    std::fs::write(&pem, text).expect("written");
    let key = pem.to_str().expect("plain");
    check("stockline", &["serve", "--check-config", "--jwt-key", key], 2, "given together");
    let server = serve(&data, &["--jwt-key", key, "--jwt-audience", "stockline"]);
    let profile = data.join("client.toml");
    let profile = profile.to_str().expect("plain");
    check("stockline", &["define", "channel", "web", "--profile", profile], 0, "web changed");
    let token = ["token", "shop", "--role", "channel", "--channel", "web", "--profile", profile];
    check("stockline", &token, 0, "token");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    let sign = |seed: &[u8; 32], head: &str, claims: Value| {
        let signed =
            format!("{}.{}", base64(head.as_bytes(), true), base64(claims.to_string().as_bytes(), true));
        format!("{signed}.{}", base64(pair(seed).sign(signed.as_bytes()).as_ref(), true))
    };
    let head = r#"{"alg":"EdDSA","typ":"JWT"}"#;
    let claims = |sub: &str, aud: &str, exp: u64| serde_json::json!({ "sub": sub, "aud": aud, "exp": exp });
    let address = server.http.clone();
    let ask = |token: &str| get(&address, "/v1/me", &format!("authorization: Bearer {token}\r\n"));
    let good = sign(&signer, head, claims("shop", "stockline", now + 3_600));
    let answer = ask(&good);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"role\":\"channel\""), "{answer}");
    let none = format!(
        "{}.",
        sign(&signer, r#"{"alg":"none"}"#, claims("shop", "stockline", now + 3_600))
            .rsplit_once('.')
            .expect("parts")
            .0
    );
    let changed = good.replacen(
        &base64(claims("shop", "stockline", now + 3_600).to_string().as_bytes(), true),
        &base64(claims("admin", "stockline", now + 3_600).to_string().as_bytes(), true),
        1,
    );
    for (why, wrong) in [
        ("another's key", sign(&other, head, claims("shop", "stockline", now + 3_600))),
        ("for somebody else", sign(&signer, head, claims("shop", "elsewhere", now + 3_600))),
        ("its time is over", sign(&signer, head, claims("shop", "stockline", now - 60))),
        ("no end", sign(&signer, head, serde_json::json!({ "sub": "shop", "aud": "stockline" }))),
        (
            "not yet",
            sign(
                &signer,
                head,
                serde_json::json!({ "sub": "shop", "aud": "stockline", "exp": now + 99, "nbf": now + 90 }),
            ),
        ),
        ("nobody known", sign(&signer, head, claims("nobody", "stockline", now + 3_600))),
        ("another algorithm", sign(&signer, r#"{"alg":"HS256"}"#, claims("shop", "stockline", now + 3_600))),
        ("no signature", none),
        ("changed", changed),
        ("no JWT", "a.b.c".to_owned()),
    ] {
        assert!(ask(&wrong).starts_with("HTTP/1.1 401"), "{why}");
    }
    // Over QUIC too; and what is open ends with it.
    let connect = |token: &str| {
        let mut profile = stockline_client::Profile::load(Path::new(profile)).expect("a profile");
        profile.token = token.to_owned();
        async move { stockline_client::Client::connect(&profile).await }
    };
    let kind = stockline_core::catalogue::NameKind::Channel;
    let short = sign(&signer, head, claims("shop", "stockline", now + 1));
    let (stays, ends) = (connect(&good).await.expect("connected"), connect(&short).await.expect("connected"));
    let stream = TcpStream::connect(&address).expect("connected");
    (&stream)
        .write_all(
            format!("GET /v1/changes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {short}\r\n\r\n")
                .as_bytes(),
        )
        .expect("sent");
    ends.resolve(kind, &["web"], false).await.expect("its time is not over");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.take(200).any(|line| line.contains("UNAUTHENTICATED")), "the stream says that it ends");
    let over = ends.resolve(kind, &["web"], false).await;
    assert!(matches!(over, Err(stockline_client::ClientError::SignIn(_))), "{over:?}");
    stays.resolve(kind, &["web"], false).await.expect("its time is not over");
    // Who is revoked here is revoked with every token.
    check("stockline", &[&token[..], &["--revoke"]].concat(), 0, "shop changed");
    assert!(ask(&good).starts_with("HTTP/1.1 401"));
    assert!(stays.resolve(kind, &["web"], false).await.is_err());
    server.terminate();
}
