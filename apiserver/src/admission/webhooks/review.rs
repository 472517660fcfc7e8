//! What a webhook is sent, and how its answer is read. The answer is not to be believed.
//! After `plugin/webhook/request/admissionreview.go` of `k8s.io/apiserver`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kubefed_apimachinery::gvk::GroupVersion;
use kubefed_apimachinery::patch;
use kubefed_apimachinery::status::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hook::Hook;
use crate::admission::Review;

const GROUP: &str = "admission.k8s.io";

/// What says which object it is: no webhook changes that.
const IDENTITY: &[&str] =
    &["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/uid"];

/// The body of a request to a webhook.
pub(super) struct Request {
    pub(super) body: Bytes,
    uid: String,
    version: &'static str,
}

/// The request that asks `hook`, which sees the kind in `version`.
///
/// # Errors
/// If the webhook reads no version of AdmissionReview that is known here.
pub(super) fn request(
    hook: &Hook,
    review: &Review<'_>,
    version: &GroupVersion,
) -> Result<Request, String> {
    let known = ["v1", "v1beta1"];
    let accepted = hook.versions.iter().find_map(|v| known.into_iter().find(|known| known == v));
    let accepted =
        accepted.ok_or("webhook does not accept known AdmissionReview versions (v1, v1beta1)")?;
    let uid = uuid::Uuid::new_v4().to_string();
    let mut request = review.request(version);
    request["uid"] = json!(uid);
    request["object"] = review.object_in(version).unwrap_or_default();
    request["oldObject"] = review.old_object_in(version).unwrap_or_default();
    let body = json!({
        "kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{accepted}"), "request": request,
    });
    Ok(Request { body: body.to_string().into(), uid, version: accepted })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AdmissionReview {
    kind: String,
    api_version: String,
    response: Option<Answer>,
}

/// What a webhook answers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Answer {
    uid: String,
    pub(super) allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    pub(super) audit_annotations: Option<BTreeMap<String, String>>,
    pub(super) warnings: Option<Vec<String>>,
}

/// Reads the answer to a request.
///
/// # Errors
/// What is wrong with it.
pub(super) fn answer(request: &Request, mutates: bool, body: &[u8]) -> Result<Answer, String> {
    let read: AdmissionReview = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no AdmissionReview: {error}"))?;
    let answer = read.response.ok_or("webhook response was absent")?;
    if request.version == "v1" {
        if answer.uid != request.uid {
            return Err(format!("expected response.uid={:?}, got {:?}", request.uid, answer.uid));
        }
        let (wanted, found) = (format!("{GROUP}/v1"), (&read.api_version, &read.kind));
        if (found.0, found.1.as_str()) != (&wanted, "AdmissionReview") {
            return Err(format!(
                "expected webhook response of {wanted}, Kind=AdmissionReview, got {}, Kind={}",
                found.0, found.1
            ));
        }
    }
    let patch = answer.patch.as_deref().filter(|patch| !patch.is_empty());
    match (mutates, patch, answer.patch_type.as_deref()) {
        (true, Some(_), None) if request.version == "v1" => {
            Err("webhook returned response.patch but not response.patchType".into())
        }
        (true, None, Some(_)) if request.version == "v1" => {
            Err("webhook returned response.patchType but not response.patch".into())
        }
        (true, Some(_), Some(kind)) if kind != "JSONPatch" => {
            Err(format!("webhook returned invalid response.patchType of {kind:?}"))
        }
        (false, Some(_), _) if request.version == "v1" => {
            Err("validating webhook may not return response.patch".into())
        }
        (false, _, Some(_)) if request.version == "v1" => {
            Err("validating webhook may not return response.patchType".into())
        }
        _ => Ok(answer),
    }
}

impl Answer {
    /// The refusal that it is, in the webhook's name.
    pub(super) fn denial(&self, name: &str) -> Status {
        let said = self.status.clone().unwrap_or_default();
        // A status that is none denies all the same.
        let mut status: Status = serde_json::from_value(said).unwrap_or_default();
        let denied = format!("admission webhook {name:?} denied the request");
        status.message = match (status.message.as_str(), status.reason.as_str()) {
            ("", "") => format!("{denied} without explanation"),
            ("", why) | (why, _) => format!("{denied}: {why}"),
        };
        if status.status.is_empty() || status.status == "Success" {
            status.status = "Failure".into();
        }
        status.code = match status.code {
            0..400 => 400,
            code @ 400..600 => code,
            _ => 500,
        };
        status
    }

    /// What its patch makes of `object`; `None` if that is the same.
    ///
    /// # Errors
    /// If the patch is none, has no place in the object, or makes another object of it.
    pub(super) fn patched(
        &self,
        name: &str,
        object: Option<&Value>,
    ) -> Result<Option<Value>, Status> {
        let Some(patch) = self.patch.as_deref().filter(|patch| !patch.is_empty()) else {
            return Ok(None);
        };
        let refuse = |why: &dyn std::fmt::Display| {
            Status::internal(format!("admission webhook {name:?} {why}"))
        };
        let patch = BASE64_STANDARD
            .decode(patch)
            .map_err(|error| refuse(&format!("sent a patch that is not in base64: {error}")))?;
        let operations: Vec<patch::json::Operation> = serde_json::from_slice(&patch)
            .map_err(|error| refuse(&format!("sent a patch that is none: {error}")))?;
        if operations.is_empty() {
            return Ok(None);
        }
        let Some(object) = object else {
            return Err(refuse(
                &"attempted to modify the object, which is not supported for this operation",
            ));
        };
        let mut patched = object.clone();
        patch::json::apply_operations(&mut patched, &operations)
            .map_err(|error| refuse(&format!("sent a patch that does not fit: {error}")))?;
        for field in IDENTITY {
            if patched.pointer(field) != object.pointer(field) {
                let field = field[1..].replace('/', ".");
                return Err(refuse(&format!(
                    "attempted to change {field}, which says which object it is"
                )));
            }
        }
        if !patched["metadata"].is_object() {
            return Err(refuse(&"attempted to make something of the object that is none"));
        }
        Ok((patched != *object).then_some(patched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mutates: bool, response: Value) -> Result<Answer, String> {
        let request = Request { body: Bytes::new(), uid: "u".into(), version: "v1" };
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        answer(&request, mutates, review.to_string().as_bytes())
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_refused() {
        for (mutates, response, wanted) in [
            (true, json!({"uid": "u", "allowed": true}), ""),
            (false, json!({"uid": "u", "allowed": true}), ""),
            (
                true,
                json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}),
                "",
            ),
            (true, json!(null), "absent"),
            (true, json!({"uid": "v", "allowed": true}), "expected response.uid=\"u\", got \"v\""),
            (true, json!({"uid": "u", "patch": "W10="}), "but not response.patchType"),
            (true, json!({"uid": "u", "patchType": "JSONPatch"}), "but not response.patch"),
            (true, json!({"uid": "u", "patch": "W10=", "patchType": "Merge"}), "invalid"),
            (false, json!({"uid": "u", "patch": "W10="}), "may not return response.patch"),
            (false, json!({"uid": "u", "patchType": "x"}), "may not return response.patchType"),
            (true, json!({"uid": "u", "allowed": "yes"}), "no AdmissionReview"),
        ] {
            let found = read(mutates, response.clone()).err().unwrap_or_default();
            assert!(
                found.contains(wanted) && found.is_empty() == wanted.is_empty(),
                "{response}: {found}"
            );
        }
        let request = Request { body: Bytes::new(), uid: "u".into(), version: "v1" };
        let other = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "u"}});
        let found = answer(&request, true, other.to_string().as_bytes())
            .expect_err("it is another version");
        assert!(found.starts_with("expected webhook response of admission.k8s.io/v1,"), "{found}");
    }

    #[test]
    fn a_denial_says_who_and_why_and_is_never_a_success() {
        let denied = "admission webhook \"w\" denied the request";
        for (status, code, message) in [
            (json!(null), 400, format!("{denied} without explanation")),
            (json!("no"), 400, format!("{denied} without explanation")),
            (json!({"message": "no"}), 400, format!("{denied}: no")),
            (json!({"reason": "Forbidden", "code": 403}), 403, format!("{denied}: Forbidden")),
            (
                json!({"message": "no", "code": 200, "status": "Success"}),
                400,
                format!("{denied}: no"),
            ),
            (json!({"message": "no", "code": 9999}), 500, format!("{denied}: no")),
        ] {
            let answer = Answer { status: Some(status.clone()), ..Answer::default() };
            let found = answer.denial("w");
            assert_eq!(
                (found.code, found.message, found.status.as_str()),
                (code, message, "Failure"),
                "{status}"
            );
        }
    }

    #[test]
    fn a_patch_changes_an_object_but_not_which_one_it_is() {
        let object = json!({
            "apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}}, "spec": {},
        });
        let patched = |patch: &Value| {
            let patch = Some(BASE64_STANDARD.encode(patch.to_string()));
            Answer { patch, ..Answer::default() }
                .patched("w", Some(&object))
                .map_err(|s| (s.code, s.message))
        };
        let set = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
        let good = patched(&set("/spec/a", json!(1))).expect("it fits").expect("it is a change");
        assert_eq!(good["spec"], json!({"a": 1}));
        for nothing in [json!([]), set("/metadata/labels/x", json!("y"))] {
            assert_eq!(patched(&nothing), Ok(None), "{nothing}");
        }
        for (patch, wanted) in [
            (set("/metadata/name", json!("b")), "metadata.name"),
            (set("/metadata/namespace", json!("other")), "metadata.namespace"),
            (set("/metadata/uid", json!("u")), "metadata.uid"),
            (set("/kind", json!("Secret")), "kind"),
            (set("/apiVersion", json!("v1")), "apiVersion"),
            (set("", json!({"apiVersion": "g/v1", "kind": "K"})), "metadata.name"),
            (set("", json!("x")), "apiVersion"),
            (set("/metadata", json!([])), "metadata.name"),
            (json!([{"op": "remove", "path": "/metadata/name"}]), "metadata.name"),
            (json!([{"op": "remove", "path": "/spec/nothing"}]), "does not fit"),
            (json!({"spec": 1}), "a patch that is none"),
        ] {
            let (code, message) = patched(&patch).expect_err("it is refused");
            assert!(
                code == 500 && message.contains("\"w\"") && message.contains(wanted),
                "{patch}: {message}"
            );
        }
        let garbage = Answer { patch: Some("%".into()), ..Answer::default() };
        assert!(garbage.patched("w", Some(&object)).is_err());
        let gone = Answer {
            patch: Some(BASE64_STANDARD.encode("[{\"op\":\"add\",\"path\":\"/a\",\"value\":1}]")),
            ..Answer::default()
        };
        assert!(
            gone.patched("w", None)
                .is_err_and(|s| s.message.contains("not supported for this operation"))
        );
    }
}
