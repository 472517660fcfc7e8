//! Behind a host: the host's front proxy says who it is, else a client certificate of the host, else the host reviews
//! the token.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use aws_lc_rs::hmac;
use http::HeaderMap;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::Api;
use kubefed_apimachinery::status::Status;
use moka::future::Cache;

use super::front_proxy::Trust;
use super::{Authenticator, bearer_token};
use crate::host::reviews;
use crate::listener::ConnectionInfo;
use crate::user::UserInfo;

/// How many answers are kept.
const TOKENS: u64 = 4096;

/// Identities by what a host trusts.
pub struct Delegated {
    pub trust: Arc<ArcSwap<Trust>>,
    pub tokens: TokenReviews,
    pub clock: fn() -> Timestamp,
}

#[async_trait]
impl Authenticator for Delegated {
    async fn authenticate(
        &self,
        connection: Option<&ConnectionInfo>,
        headers: &HeaderMap,
    ) -> Result<UserInfo, Status> {
        let certificate = connection.and_then(|connection| connection.certificate.as_deref());
        if let Some(certificate) = certificate {
            let trust = self.trust.load_full();
            let now = (self.clock)().as_second();
            if let Some(user) = trust.user(certificate, headers, now) {
                return Ok(user);
            }
        }
        match bearer_token(headers)? {
            Some(token) => self.tokens.review(token).await,
            // A certificate that nobody vouches for is a bad credential, not the lack of one.
            None if certificate.is_some() => Err(Status::unauthorized()),
            None => Ok(UserInfo::anonymous()),
        }
    }
}

/// Tokens as the host sees them.
pub struct TokenReviews {
    host: Api<TokenReview>,
    /// By a keyed hash: no token stays in memory.
    known: Cache<[u8; 32], Option<UserInfo>>,
    key: hmac::Key,
}

impl TokenReviews {
    /// # Errors
    /// If the system has no random bytes.
    pub fn new(host: kube::Client) -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("there are no random bytes"))?;
        let known = Cache::builder().max_capacity(TOKENS).time_to_live(reviews::REMEMBERED).build();
        Ok(TokenReviews { host: Api::all(host), known, key })
    }

    /// 401 for a token that is not good, and when the host cannot be asked.
    async fn review(&self, token: &str) -> Result<UserInfo, Status> {
        let mut key = [0; 32];
        key.copy_from_slice(hmac::sign(&self.key, token.as_bytes()).as_ref());
        match self.known.try_get_with(key, self.ask(token)).await {
            Ok(user) => user.ok_or_else(Status::unauthorized),
            Err(why) => {
                tracing::error!(%why, "the host cannot review a token");
                Err(Status::unauthorized())
            }
        }
    }

    async fn ask(&self, token: &str) -> Result<Option<UserInfo>, String> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = reviews::ask(&self.host, &review).await?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        Ok(user.and_then(|user| {
            let name = user.username.filter(|name| !name.is_empty())?;
            Some(UserInfo {
                uid: user.uid.unwrap_or_default(),
                extra: user.extra.unwrap_or_else(BTreeMap::new),
                ..UserInfo::authenticated(name, user.groups.unwrap_or_default())
            })
        }))
    }
}
