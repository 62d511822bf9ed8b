//! What the command line can do, one file a command. Each answers with an exit code of [`crate::exit`].

pub mod allocation;
pub mod backup;
pub mod define;
mod demo;
pub mod explain;
pub mod follow;
pub mod import;
pub mod query;
pub mod restore;
pub mod serve;
pub mod token;
pub mod verify;

use std::path::PathBuf;

use stockline_client::{Client, ClientError, Profile};
use stockline_core::catalogue::NameKind;

use crate::err;
use crate::exit;

/// Which server to talk to.
#[derive(Clone, Debug, clap::Args)]
pub struct ProfileOption {
    /// Profile of the server and who is asking, as `serve` writes it into its data directory
    #[arg(long, value_name = "FILE", default_value = "stockline-data/client.toml")]
    pub profile: PathBuf,
}

/// Says what is wrong and answers the exit code for it.
fn complain(error: &ClientError) -> i32 {
    err!("stockline: {error}");
    match error {
        ClientError::Profile { .. } => exit::USAGE,
        ClientError::SignIn(_) | ClientError::Unreachable(_) | ClientError::Protocol(_) => exit::UNREACHABLE,
        ClientError::Refused { .. } => exit::FAILED,
    }
}

/// The id behind a name; `None` where it is not known, which is said.
async fn id(client: &Client, kind: NameKind, name: &str) -> Result<Option<u32>, ClientError> {
    let found = client.resolve(kind, &[name], false).await?;
    let id = found.first().and_then(|found| found.ok());
    if id.is_none() {
        err!("stockline: no {} {name:?}", kind.name());
    }
    Ok(id)
}

/// Connects with a profile and runs `work` in a small runtime.
fn with_client(
    option: &ProfileOption,
    work: impl AsyncFnOnce(Client, Profile) -> Result<i32, ClientError>,
) -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            err!("stockline: cannot start: {error}");
            return exit::FAILED;
        }
    };
    let done = runtime.block_on(async {
        let profile = Profile::load(&option.profile)?;
        let client = Client::connect(&profile).await?;
        work(client, profile).await
    });
    done.unwrap_or_else(|error| complain(&error))
}
