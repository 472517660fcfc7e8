//! The patches of the Kubernetes API.

use crate::status::Status;

pub mod json;
pub mod merge;
pub mod strategic;

/// Why a patch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The patch itself is no patch.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object.
    #[error("{0}")]
    DoesNotFit(String),
    /// The patch asks for more than the server does for one request.
    #[error("{0}")]
    TooLarge(String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Malformed(text) => Status::bad_request(text),
            Error::TooLarge(text) => Status::too_large_object(text),
            Error::DoesNotFit(text) => {
                let mut status = Status::bad_request(format!(
                    "the server rejected our request due to an error in our request: {text}"
                ));
                status.code = 422;
                status.reason = "Invalid".into();
                status
            }
        }
    }
}
