//! Who is it? By a client certificate, a token, or the word of a host's front proxy; who shows nothing is anonymous.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, header};
use jiff::Timestamp;
use kubefed_apimachinery::status::Status;

use crate::listener::ConnectionInfo;
use crate::user::UserInfo;

pub mod delegated;
pub mod front_proxy;
pub mod tokens;

/// Finds out who makes a request.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// # Errors
    /// 401 when a credential is shown that is not good: it is never passed over for another identity.
    async fn authenticate(
        &self,
        connection: Option<&ConnectionInfo>,
        headers: &HeaderMap,
    ) -> Result<UserInfo, Status>;
}

/// The standalone server's own: a verified client certificate, else a token that this server signed.
pub struct Standalone {
    pub tokens: Option<Arc<tokens::Tokens>>,
    pub clock: fn() -> Timestamp,
}

#[async_trait]
impl Authenticator for Standalone {
    async fn authenticate(
        &self,
        connection: Option<&ConnectionInfo>,
        headers: &HeaderMap,
    ) -> Result<UserInfo, Status> {
        let certificate = connection.and_then(|connection| connection.certificate.as_deref());
        if let Some(certificate) = certificate.filter(|certificate| certificate.is_verified)
            && let Some(identity) = &certificate.identity
        {
            if certificate.ends < (self.clock)().as_second() {
                return Err(Status::unauthorized());
            }
            return Ok(UserInfo::authenticated(
                identity.common_name.clone(),
                identity.organizations.clone(),
            ));
        }
        match (bearer_token(headers)?, &self.tokens) {
            (None, _) => Ok(UserInfo::anonymous()),
            (Some(token), Some(tokens)) => {
                tokens.verify(token, &[]).await.ok_or_else(Status::unauthorized)
            }
            (Some(_), None) => Err(Status::unauthorized()),
        }
    }
}

/// The token that a request shows; 401 for another kind of credential.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let Some(authorization) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = authorization.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    token.map(Some).ok_or_else(Status::unauthorized)
}
