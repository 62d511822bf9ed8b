//! The control socket: what only those may ask who may write into the data directory.
//!
//! `control.sock` lies in it, for its owner only. One line is asked (`backup DIRECTORY`), one is answered: `ok …`
//! or `error …`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::engine::{AuditEntry, Engine};

const SOCKET: &str = "control.sock";
/// Bytes of a question.
const LINE_MAX: u64 = 8_192;
const PATIENCE: Duration = Duration::from_secs(5);

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

/// Answers one caller after another.
pub async fn serve(listener: UnixListener, engine: Engine) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(read.take(LINE_MAX));
        let asked = tokio::time::timeout(PATIENCE, read.read_line(&mut line)).await;
        if !matches!(asked, Ok(Ok(_))) {
            continue;
        }
        let answer = match line.trim_end().split_once(' ') {
            Some(("backup", to)) => {
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
            _ => "error only `backup DIRECTORY` is known\n".into(),
        };
        // Whoever asked may have gone; the backup lies where it was wanted all the same.
        let _ = write.write_all(answer.as_bytes()).await;
    }
}

/// Asks the server of a data directory; `None` if none is running.
pub async fn ask(data: &Path, question: &str) -> Option<std::io::Result<String>> {
    let mut stream = UnixStream::connect(data.join(SOCKET)).await.ok()?;
    let asked = async {
        stream.write_all(format!("{question}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    Some(asked.await)
}
