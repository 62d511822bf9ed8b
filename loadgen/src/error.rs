//! What ends a run before its audit.

use stockline_client::ClientError;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The input file or a flag is wrong; the text says where.
    #[error("{0}")]
    Input(String),
    /// The server is not in the state the scenario needs.
    #[error("{0}")]
    Server(String),
    #[error("floor: {0}")]
    Floor(String),
}
