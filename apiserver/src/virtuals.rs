//! Kinds that are asked, not stored: the reviews of the authentication and authorization groups.

/// The group version of token requests and reviews.
pub(crate) const AUTHENTICATION: &str = "authentication.k8s.io/v1";

/// A kind that answers a POST and keeps nothing.
pub struct Virtual {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

const fn of(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Virtual {
    Virtual { group, version: "v1", plural, kind, namespaced }
}

/// What a server answers that authenticates and authorizes by itself.
pub(crate) static REVIEWS: &[Virtual] = &[
    of("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", false),
    of("authentication.k8s.io", "tokenreviews", "TokenReview", false),
    of("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    of("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    of("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    of("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", false),
];
