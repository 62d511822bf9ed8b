//! The control socket: what only those may ask who may write into the data directory.
//!
//! `control.sock` lies in it, for its owner only. One line is asked (`backup DIRECTORY`), one is answered: `ok …`
//! or `error …`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::engine::{AuditEntry, Engine};

const SOCKET: &str = "control.sock";
/// Bytes of a question.
const LINE_MAX: u64 = 8_192;
const PATIENCE: Duration = Duration::from_secs(5);
/// Callers that are answered at once; more wait.
const CALLERS_MAX: usize = 256;

/// Listens; the data directory is this process's alone, so a socket that lies there is nobody's.
pub fn listen(data: &Path) -> std::io::Result<UnixListener> {
    let path = data.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // The directory is for its owner only already; this says so of the socket too.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Answers callers, each by itself: one that says nothing keeps nobody waiting.
pub async fn serve(listener: UnixListener, engine: Engine) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let engine = engine.clone();
        tokio::spawn(async move {
            answer(stream, &engine).await;
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, engine: &Engine) {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(LINE_MAX));
    let asked = tokio::time::timeout(PATIENCE, read.read_until(b'\n', &mut line)).await;
    let answer = match (asked, std::str::from_utf8(&line)) {
        (Err(_), _) => format!("error nothing was asked within {} s\n", PATIENCE.as_secs()),
        (Ok(Err(_)), _) => return,
        (Ok(Ok(_)), _) if line.last() != Some(&b'\n') && line.len() as u64 >= LINE_MAX => {
            format!("error the question is longer than {LINE_MAX} bytes: give a shorter path\n")
        }
        (Ok(Ok(_)), Err(_)) => "error the question is no UTF-8\n".into(),
        (Ok(Ok(_)), Ok(line)) => match line.trim_end_matches('\n').split_once(' ') {
            Some(("backup", to)) => backup(engine, to).await,
            _ => "error only `backup DIRECTORY` is known\n".into(),
        },
    };
    // Whoever asked may have gone; the backup lies where it was wanted all the same.
    let _ = tokio::time::timeout(PATIENCE, write.write_all(answer.as_bytes())).await;
}

async fn backup(engine: &Engine, to: &str) -> String {
    let made = engine.backup(PathBuf::from(to)).await;
    let entry = AuditEntry {
        face: "control".into(),
        code: made.as_ref().err().cloned().unwrap_or_default(),
        ..AuditEntry::of(&format!("backup {to}"))
    };
    let place = engine.trail().tell(engine.clock().now(), entry);
    engine.trail().written(place).await;
    match made {
        Ok(anchor) => format!("ok anchor={anchor}\n"),
        Err(reason) => format!("error {reason}\n"),
    }
}

/// Asks the server of a data directory; `None` if none is running.
pub async fn ask(data: &Path, question: &str) -> Option<std::io::Result<String>> {
    let mut stream = UnixStream::connect(data.join(SOCKET)).await.ok()?;
    let asked = async {
        // The server answers what is too long before it has read all of it.
        let written = stream.write_all(format!("{question}\n").as_bytes()).await;
        if written.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
            written?;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    Some(asked.await)
}
