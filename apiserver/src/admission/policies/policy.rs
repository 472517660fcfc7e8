//! A ValidatingAdmissionPolicy and its bindings, compiled; what it says of one object.

use std::time::Instant;

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, ParamKind, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use kube_cel::cel::Value;

use crate::admission::cel::{self, Expression, Inputs, OUT_OF_BUDGET, Scope, Variables, compile};
use crate::admission::matching::Matcher;

/// A longer message is not shown; Kubernetes' bound.
const MESSAGE_MAX: usize = 5 * 1024;

/// A policy, compiled once for each of its revisions.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) matcher: Result<Matcher, String>,
    pub(crate) param_kind: Option<ParamKind>,
    /// Whether any expression wants to know the namespace.
    pub(crate) uses_namespace: bool,
    fails: bool,
    variables: Variables,
    conditions: Vec<Expression>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: Option<String>,
}

/// A binding of a policy.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) name: String,
    pub(crate) policy: String,
    /// `None`: it binds all that the policy is about.
    pub(crate) matcher: Option<Result<Matcher, String>>,
    pub(crate) params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub(crate) actions: Vec<String>,
}

/// A policy with its bindings.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) policy: std::sync::Arc<Policy>,
    pub(crate) bindings: Vec<std::sync::Arc<Binding>>,
}

/// What a policy says of an object.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// For each validation, in their order.
    pub(crate) verdicts: Vec<Verdict>,
    /// What is to be recorded, by key.
    pub(crate) annotations: Vec<(String, String)>,
    /// Why something that was to be recorded is not known. It refuses the request, whatever the binding's actions.
    pub(crate) unknown: Vec<String>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Admit,
    Deny { reason: Option<String>, message: String },
}

impl Binding {
    pub(crate) fn new(binding: &ValidatingAdmissionPolicyBinding) -> Self {
        let spec = binding.spec.clone();
        Binding {
            name: binding.metadata.name.clone().unwrap_or_default(),
            policy: spec.policy_name,
            matcher: spec.match_resources.as_ref().map(Matcher::new),
            params: spec.param_ref,
            actions: spec.validation_actions,
        }
    }
}

impl Policy {
    /// Compiles a policy. That takes a while, and does not belong on the reactor.
    pub(crate) fn new(policy: &ValidatingAdmissionPolicy) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let matcher = |resources: &MatchResources| Matcher::new(resources);
        let required = || "policy contained no match constraints, a required field".to_owned();
        let (conditions, validations) =
            (spec.match_conditions.unwrap_or_default(), spec.validations.unwrap_or_default());
        let annotations = spec.audit_annotations.unwrap_or_default();
        let mut texts: Vec<String> = Vec::new();
        texts.extend(conditions.iter().map(|condition| condition.expression.clone()));
        texts.extend(validations.iter().map(|validation| validation.expression.clone()));
        texts.extend(annotations.iter().map(|annotation| annotation.value_expression.clone()));
        texts.extend(
            validations.iter().filter_map(|validation| validation.message_expression.clone()),
        );
        let variables = spec.variables.unwrap_or_default();
        let variables = variables.into_iter().map(|variable| (variable.name, variable.expression));
        let (variables, expressions) = compile(variables.collect(), texts);
        let uses = |expression: &Expression| expression.names.contains("namespaceObject");
        let uses_namespace =
            expressions.iter().any(uses) || variables.iter().any(|(_, variable)| uses(variable));
        // In the order in which their texts were gathered.
        let mut expressions = expressions.into_iter();
        let conditions = expressions.by_ref().take(conditions.len()).collect();
        let rules: Vec<Expression> = expressions.by_ref().take(validations.len()).collect();
        let values: Vec<Expression> = expressions.by_ref().take(annotations.len()).collect();
        Policy {
            name: policy.metadata.name.clone().unwrap_or_default(),
            matcher: spec.match_constraints.as_ref().ok_or_else(required).and_then(matcher),
            param_kind: spec.param_kind,
            uses_namespace,
            fails: spec.failure_policy.as_deref() != Some("Ignore"),
            variables,
            conditions,
            validations: validations
                .into_iter()
                .zip(rules)
                .map(|(validation, expression)| Validation {
                    expression,
                    message: validation.message.unwrap_or_default().trim().to_owned(),
                    message_expression: validation
                        .message_expression
                        .and_then(|_| expressions.next()),
                    reason: validation.reason,
                })
                .collect(),
            annotations: annotations.into_iter().map(|it| it.key).zip(values).collect(),
        }
    }

    /// What follows from it that the policy could not be evaluated.
    pub(crate) fn failed(&self, message: impl Into<String>) -> Verdict {
        match self.fails {
            true => Verdict::Deny { reason: None, message: message.into() },
            false => Verdict::Admit,
        }
    }

    /// What it says of an object that it is about.
    pub(crate) fn evaluate(&self, inputs: Inputs, deadline: Instant) -> Outcome {
        let scope = Scope::new(inputs, &self.variables, deadline);
        let failed = |why| Outcome { verdicts: vec![self.failed(why)], ..Outcome::default() };
        match cel::hold(&self.conditions, &scope) {
            Ok(true) => {}
            Ok(false) => return Outcome::default(),
            Err(why) => return failed(why),
        }
        let mut outcome = Outcome::default();
        for validation in &self.validations {
            outcome.verdicts.push(match scope.value(&validation.expression) {
                Ok(Value::Bool(true)) => Verdict::Admit,
                Ok(_) => Verdict::Deny {
                    reason: validation.reason.clone(),
                    message: message(validation, &scope),
                },
                Err(why) if why == OUT_OF_BUDGET => return failed(why),
                Err(why) => self.failed(why),
            });
        }
        for (key, expression) in &self.annotations {
            match scope.value(expression) {
                Ok(Value::Null) => {}
                Ok(Value::String(text)) => match text.trim() {
                    "" => {}
                    text => outcome.annotations.push((key.clone(), text.to_owned())),
                },
                Ok(_) => outcome.unknown.push(format!(
                    "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                    expression.text
                )),
                Err(why) if self.fails => outcome.unknown.push(why),
                Err(_) => {}
            }
        }
        outcome
    }
}

/// What a client is told: what the expression for it says, else the given text, else what did not hold.
fn message(validation: &Validation, scope: &Scope) -> String {
    let said = validation.message_expression.as_ref().and_then(|it| scope.value(it).ok());
    let said = match &said {
        Some(Value::String(said)) => said.trim(),
        _ => "",
    };
    if !said.is_empty() && said.len() <= MESSAGE_MAX && !said.contains('\n') {
        return said.to_owned();
    }
    match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.expression.text.trim()),
        message => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::admission::cel::from_json;

    fn outcome(spec: serde_json::Value) -> Outcome {
        let policy = json!({"metadata": {"name": "p"}, "spec": spec});
        let policy = Policy::new(&serde_json::from_value(policy).expect("a policy"));
        let object = json!({"metadata": {"name": "a"}, "spec": {"replicas": 7}});
        let inputs = Inputs::from([("object", from_json(&object)), ("params", Value::Null)]);
        policy.evaluate(inputs, Instant::now() + Duration::from_secs(5))
    }

    fn deny(message: &str) -> Vec<Verdict> {
        vec![Verdict::Deny { reason: None, message: message.into() }]
    }

    #[test]
    fn each_validation_has_its_verdict_and_message() {
        for (validation, wanted) in [
            (json!({"expression": "object.spec.replicas == 7"}), vec![Verdict::Admit]),
            (
                json!({"expression": " object.spec.replicas < 5 "}),
                deny("failed expression: object.spec.replicas < 5"),
            ),
            (json!({"expression": "1", "message": " one line \n"}), deny("one line")),
            (
                json!({"expression": "false", "message": "given", "messageExpression": "'got ' + string(object.spec.replicas)"}),
                deny("got 7"),
            ),
            (
                json!({"expression": "false", "message": "given", "messageExpression": "object.nothing"}),
                deny("given"),
            ),
            (
                json!({"expression": "false", "message": "given", "messageExpression": "'a\\nb'"}),
                deny("given"),
            ),
            (
                json!({"expression": "false", "message": "no", "reason": "Forbidden"}),
                vec![Verdict::Deny { reason: Some("Forbidden".into()), message: "no".into() }],
            ),
            (
                json!({"expression": "object.nothing"}),
                deny("expression 'object.nothing' resulted in error: no such key: nothing"),
            ),
            (
                json!({"expression": "authorizer.path('/x').check('get').allowed()"}),
                deny(
                    "compilation error: undeclared reference to 'authorizer': this server does not have it",
                ),
            ),
        ] {
            assert_eq!(
                outcome(json!({"validations": [validation]})).verdicts,
                wanted,
                "{validation}"
            );
        }
    }

    #[test]
    fn failures_are_ignored_if_the_policy_says_so_and_only_failures() {
        let spec = |expression: &str| json!({"failurePolicy": "Ignore", "validations": [{"expression": expression, "message": "m"}]});
        assert_eq!(outcome(spec("object.nothing")).verdicts, [Verdict::Admit]);
        assert_eq!(outcome(spec("object.")).verdicts, [Verdict::Admit]);
        assert_eq!(outcome(spec("false")).verdicts, deny("m"));
    }

    #[test]
    fn conditions_decide_whether_a_policy_is_evaluated() {
        for (conditions, wanted) in [
            (vec!["true", "object.spec.replicas > 5"], deny("m")),
            (vec!["true", "object.spec.replicas > 50"], vec![]),
            (vec!["object.nothing", "false"], vec![]),
            (
                vec!["object.nothing", "true"],
                deny("expression 'object.nothing' resulted in error: no such key: nothing"),
            ),
        ] {
            let named = conditions.iter().map(|text| json!({"name": "x", "expression": text}));
            let spec = json!({"matchConditions": named.collect::<Vec<_>>(), "validations": [{"expression": "false", "message": "m"}]});
            assert_eq!(outcome(spec).verdicts, wanted, "{conditions:?}");
        }
    }

    #[test]
    fn what_is_to_be_recorded_is_a_text_or_nothing() {
        let annotation = |key: &str, text: &str| json!({"key": key, "valueExpression": text});
        let found = outcome(json!({
            "variables": [{"name": "n", "expression": "object.metadata.name"}],
            "auditAnnotations": [
                annotation("text", "'it is ' + variables.n"), annotation("null", "null"),
                annotation("empty", "' '"), annotation("number", "1"), annotation("wrong", "object.nothing"),
            ],
        }));
        assert_eq!(found.annotations, [("text".to_owned(), "it is a".to_owned())]);
        assert_eq!(found.unknown.len(), 2, "{:?}", found.unknown);
    }
}
