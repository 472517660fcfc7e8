//! Reading a request's body, within bounds.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kubefed_apimachinery::status::Status;

/// As Kubernetes: 3 MiB for one request.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// The whole body.
///
/// # Errors
/// 413 above `limit` bytes, 400 if it breaks off.
pub async fn read(body: axum::body::Body, limit: usize) -> Result<Bytes, Status> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Status::too_large(limit))
        }
        Err(error) => {
            Err(Status::bad_request(format!("the body of the request could not be read: {error}")))
        }
    }
}
