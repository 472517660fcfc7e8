//! Who is it? Client certificates and service-account tokens; who shows neither is anonymous.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, header};
use jiff::Timestamp;
use kubefed_apimachinery::status::Status;

use crate::listener::ConnectionInfo;
use crate::user::UserInfo;

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
        if let Some((connection, identity)) =
            connection.and_then(|connection| Some((connection, connection.certificate.as_ref()?)))
        {
            let now = (self.clock)().as_second();
            if connection.certificate_ends.is_none_or(|end| end < now) {
                return Err(Status::unauthorized());
            }
            return Ok(UserInfo::authenticated(
                identity.common_name.clone(),
                identity.organizations.clone(),
            ));
        }
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return Ok(UserInfo::anonymous());
        };
        let token = authorization.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match (token, &self.tokens) {
            (Some(token), Some(tokens)) => {
                tokens.verify(token, &[]).await.ok_or_else(Status::unauthorized)
            }
            _ => Err(Status::unauthorized()),
        }
    }
}
