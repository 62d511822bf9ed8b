//! What can go wrong, by what the caller should do about it.

use stockline_core::outcome::Code;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// Correct the profile.
    #[error("profile {path}: {reason}")]
    Profile { path: String, reason: String },
    /// Get a valid token.
    #[error("the server does not accept the token: {0}")]
    SignIn(String),
    /// Try again later; what was sent may or may not have been executed, and the same keys find out.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// Correct the request: the server turned the whole frame away.
    #[error("{name}: {text}", name = code.name())]
    Refused { code: Code, text: String },
    /// The server speaks another version, or what answers is no Stockline server.
    #[error("the server's answer cannot be read: {0}")]
    Protocol(String),
}

impl ClientError {
    /// Whether sending the same again may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, ClientError::Unreachable(_))
            || matches!(self, ClientError::Refused { code: Code::Overloaded | Code::ShuttingDown, .. })
    }
}
