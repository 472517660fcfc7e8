//! Service-account tokens: signed and verified with one ES256 key (`kubernetes.io` claims as Kubernetes has them).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kubefed_apimachinery::status::Status;
use kubefed_storage::cacher::At;
use serde::{Deserialize, Serialize};

use crate::registry::Registry;
use crate::user::UserInfo;

/// The issuer and default audience of tokens, as Kubernetes' default.
pub const ISSUER: &str = "https://kubernetes.default.svc";
/// Clocks may differ by this much, seconds.
const LEEWAY: u64 = 10;

/// Signs and verifies.
pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    registry: Weak<Registry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    iat: i64,
    nbf: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
}

/// An object that a token is bound to: when it goes, the token is no longer good.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// What a token is to say.
pub struct Grant<'a> {
    pub namespace: &'a str,
    pub service_account: Reference,
    /// The secret that the token is kept in, if any.
    pub secret: Option<Reference>,
    /// Empty: the server's own.
    pub audiences: Vec<String>,
    /// Seconds since 1970.
    pub now: i64,
    /// Seconds from now; `None`: for as long as what it is bound to.
    pub lifetime: Option<i64>,
}

impl Tokens {
    /// # Errors
    /// If the PEMs are no ES256 keys.
    pub fn new(
        private_pem: &[u8],
        public_pem: &[u8],
        registry: &Arc<Registry>,
    ) -> Result<Self, String> {
        // The library panics at its first use without this; a second call finds it installed.
        let _installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let wrong = |error| format!("the service-account key can't be used: {error}");
        Ok(Tokens {
            signing: EncodingKey::from_ec_pem(private_pem).map_err(wrong)?,
            verifying: DecodingKey::from_ec_pem(public_pem).map_err(wrong)?,
            registry: Arc::downgrade(registry),
        })
    }

    /// Signs a token.
    pub fn issue(&self, grant: Grant<'_>) -> Result<String, Status> {
        let claims = Claims {
            iss: ISSUER.into(),
            sub: format!(
                "system:serviceaccount:{}:{}",
                grant.namespace, grant.service_account.name
            ),
            aud: if grant.audiences.is_empty() { vec![ISSUER.into()] } else { grant.audiences },
            iat: grant.now,
            nbf: grant.now,
            exp: grant.lifetime.map(|lifetime| grant.now + lifetime),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Kubernetes {
                namespace: grant.namespace.into(),
                serviceaccount: grant.service_account,
                secret: grant.secret,
            },
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing)
            .map_err(Status::internal)
    }

    /// The user of a token that is signed here, in time, for one of `audiences` (empty: the server's own), and whose
    /// service account and secret are still there.
    pub async fn verify(&self, token: &str, audiences: &[String]) -> Option<UserInfo> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        // A token in a secret has no end of its own; one that has an end is held to it.
        validation.required_spec_claims.clear();
        validation.set_issuer(&[ISSUER]);
        if audiences.is_empty() {
            validation.set_audience(&[ISSUER]);
        } else {
            validation.set_audience(audiences);
        }
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation).ok()?.claims;
        if claims.iss != ISSUER || (claims.exp.is_none() && claims.kubernetes.secret.is_none()) {
            return None;
        }
        let registry = self.registry.upgrade()?;
        let namespace = &claims.kubernetes.namespace;
        let bound = std::iter::once(("serviceaccounts", &claims.kubernetes.serviceaccount))
            .chain(claims.kubernetes.secret.iter().map(|secret| ("secrets", secret)));
        for (plural, reference) in bound {
            let resource = registry.resource("", plural)?;
            let holds = async |at| {
                let object = resource.get(namespace, &reference.name, at).await.ok()?;
                let same = *object.index.uid == *reference.uid;
                (same && object.index.deletion_timestamp.is_none()).then_some(())
            };
            // Another server may have made it a moment ago.
            if holds(At::Any).await.is_none() {
                holds(At::Latest).await?;
            }
        }
        let account = &claims.kubernetes.serviceaccount;
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
        let mut user = UserInfo::authenticated(
            format!("system:serviceaccount:{namespace}:{}", account.name),
            groups,
        );
        user.uid.clone_from(&account.uid);
        user.extra = BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".into(),
            vec![format!("JTI={}", claims.jti)],
        )]);
        Some(user)
    }
}
