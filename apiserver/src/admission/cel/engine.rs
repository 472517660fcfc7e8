//! Evaluates expressions for one request, within a budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use parking_lot::Mutex;

use super::expression::{ADD, Expression, STEP, VARIABLE, Variables};

/// Steps of loops for one binding: as many as Kubernetes' budget pays for the cheapest ones.
const STEPS: u64 = 1_000_000;
/// Bytes that texts and lists may grow by, for one binding.
const BYTES: u64 = 16 << 20;
/// Of a thread that evaluates: room for the deepest expression, in a debug build too. Only what is used is taken.
pub(super) const STACK: usize = 64 << 20;
/// Kubernetes' text.
pub(crate) const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What one evaluation may still spend.
struct Budget {
    steps: AtomicU64,
    bytes: AtomicU64,
    deadline: Instant,
}

impl Budget {
    fn step(&self) -> Result<(), ExecutionError> {
        if Instant::now() >= self.deadline {
            self.steps.store(0, Ordering::Relaxed);
        }
        take(&self.steps, 1)
    }

    fn grow(&self, bytes: usize) -> Result<(), ExecutionError> {
        take(&self.bytes, bytes as u64)
    }

    fn is_spent(&self) -> bool {
        self.steps.load(Ordering::Relaxed) == 0 || self.bytes.load(Ordering::Relaxed) == 0
    }
}

fn take(from: &AtomicU64, amount: u64) -> Result<(), ExecutionError> {
    let left = from.load(Ordering::Relaxed).saturating_sub(amount);
    from.store(left, Ordering::Relaxed);
    match left {
        0 => Err(ExecutionError::function_error(STEP, OUT_OF_BUDGET)),
        _ => Ok(()),
    }
}

/// What expressions know: `object`, `oldObject`, `request` and so on.
pub(crate) type Inputs = BTreeMap<&'static str, Value>;

/// The world of one evaluation of a policy.
pub(crate) struct Scope {
    context: Context<'static>,
    budget: Arc<Budget>,
}

impl Scope {
    /// A world with these inputs, and with variables that are evaluated when they are first used.
    pub(crate) fn new(inputs: Inputs, variables: &Variables, deadline: Instant) -> Self {
        let budget = Arc::new(Budget {
            steps: AtomicU64::new(STEPS),
            bytes: AtomicU64::new(BYTES),
            deadline,
        });
        let mut context = Context::default().with_all();
        bounded(&mut context, &budget);
        let variables = Arc::clone(variables);
        let known: Mutex<HashMap<i64, Result<Value, ExecutionError>>> = Mutex::default();
        context.add_function(VARIABLE, move |call: &FunctionContext<'_, '_>, index: i64| {
            if let Some(value) = known.lock().get(&index) {
                return value.clone();
            }
            let (name, expression) = &variables[usize::try_from(index).unwrap_or(usize::MAX)];
            let value = resolve(expression, root(call.ptx)).map_err(|why| {
                let text = format!("composited variable {name:?} fails to evaluate: {why}");
                ExecutionError::function_error(VARIABLE, text)
            });
            known.lock().insert(index, value.clone());
            value
        });
        for (name, value) in inputs {
            context.add_variable_from_value(name, value);
        }
        Scope { context, budget }
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// Why there is none, in Kubernetes' words where it has some.
    pub(crate) fn value(&self, expression: &Expression) -> Result<Value, String> {
        let value = resolve(expression, &self.context);
        // A loop may have swallowed that it was stopped.
        if self.budget.is_spent() || Instant::now() >= self.budget.deadline {
            return Err(OUT_OF_BUDGET.into());
        }
        match &expression.tree {
            Ok(_) => value.map_err(|why| {
                format!("expression '{}' resulted in error: {why}", expression.text)
            }),
            Err(_) => value,
        }
    }
}

fn resolve(expression: &Expression, context: &Context<'_>) -> Result<Value, String> {
    let tree = expression.tree.as_ref().map_err(|why| format!("compilation error: {why}"))?;
    Value::resolve(tree, context).map_err(|error| text(&error))
}

/// Variables know nothing of the loop that uses them.
fn root<'a>(mut context: &'a Context<'a>) -> &'a Context<'a> {
    while let Context::Child { parent, .. } = context {
        context = parent;
    }
    context
}

/// An error in the words of `cel-go`. Values are left out: they may be long, and secret.
fn text(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        ExecutionError::FunctionError { function, message } if function.starts_with('@') => {
            message.clone()
        }
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::DivisionByZero(_) => "division by zero".into(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".into(),
        ExecutionError::Overflow(..) => "integer overflow".into(),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".into(),
        _ => "no such overload".into(),
    }
}

/// The functions that count, and those that could make much of little, with a bound.
fn bounded(context: &mut Context<'_>, budget: &Arc<Budget>) {
    let counter = Arc::clone(budget);
    context.add_function(STEP, move || -> Result<Value, ExecutionError> {
        counter.step().map(|()| Value::Bool(true))
    });
    let counter = Arc::clone(budget);
    context.add_function(ADD, move |a: Value, b: Value| -> Result<Value, ExecutionError> {
        counter.grow(size(&a).saturating_add(size(&b)))?;
        a + b
    });
    let counter = Arc::clone(budget);
    context.add_function(
        "replace",
        move |call: &FunctionContext<'_, '_>,
              This(this): This<Arc<String>>,
              from: Arc<String>,
              to: Arc<String>| {
            let limit = match call.args.get(2).map(|limit| Value::resolve(limit, call.ptx)) {
                None => usize::MAX,
                // Below zero: all of them.
                Some(Ok(Value::Int(limit))) => usize::try_from(limit).unwrap_or(usize::MAX),
                Some(Ok(_)) => return Err(ExecutionError::NoSuchOverload),
                Some(Err(error)) => return Err(error),
            };
            let found = this.matches(from.as_str()).take(limit).count();
            counter.grow(this.len().saturating_add(found.saturating_mul(to.len())))?;
            Ok(Value::String(Arc::new(this.replacen(from.as_str(), &to, limit))))
        },
    );
    let counter = Arc::clone(budget);
    context.add_function(
        "join",
        move |call: &FunctionContext<'_, '_>, This(this): This<Arc<Vec<Value>>>| {
            let separator = match call.args.first().map(|text| Value::resolve(text, call.ptx)) {
                None => Arc::default(),
                Some(Ok(Value::String(separator))) => separator,
                Some(Ok(_)) => return Err(ExecutionError::NoSuchOverload),
                Some(Err(error)) => return Err(error),
            };
            let mut texts = Vec::with_capacity(this.len());
            for item in this.iter() {
                let Value::String(text) = item else { return Err(ExecutionError::NoSuchOverload) };
                counter.grow(text.len().saturating_add(separator.len()))?;
                texts.push(text.as_str());
            }
            Ok(Value::String(Arc::new(texts.join(&separator))))
        },
    );
    context.add_function("dyn", |value: Value| -> Result<Value, ExecutionError> { Ok(value) });
}

/// About how much memory a copy of a value takes.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len().saturating_mul(16),
        _ => 0,
    }
}

/// A JSON value as CEL has it. Names are as they are: Kubernetes escapes none here, for it does not know the types.
pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(bool) => Value::Bool(*bool),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(items) => {
            Value::List(Arc::new(items.iter().map(from_json).collect()))
        }
        serde_json::Value::Object(fields) => {
            let field = |(name, value): (&String, &serde_json::Value)| {
                (Key::String(Arc::new(name.clone())), from_json(value))
            };
            Value::Map(Map { map: Arc::new(fields.iter().map(field).collect()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::admission::cel::expression::compile;

    fn evaluate_with(variables: &[(&str, &str)], text: &str) -> Result<Value, String> {
        let own = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let (own, mut read) = compile(own.collect(), vec![text.to_owned()]);
        let object = json!({
            "metadata": {"name": "a", "labels": {"app.io/x": "y"}, "namespace": "n"},
            "spec": {"replicas": 3, "list": (0..1000).collect::<Vec<_>>(), "text": "x".repeat(100_000)},
        });
        let inputs = Inputs::from([("object", from_json(&object)), ("oldObject", Value::Null)]);
        let deadline = Instant::now() + Duration::from_secs(5);
        let expression = read.remove(0);
        let value = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || Scope::new(inputs, &own, deadline).value(&expression));
        value.expect("a thread").join().expect("it does not panic")
    }

    fn evaluate(text: &str) -> Result<Value, String> {
        evaluate_with(&[], text)
    }

    #[test]
    fn expressions_have_the_values_that_kubernetes_gives_them() {
        for text in [
            "object.spec.replicas == 3",
            "object.metadata.namespace == 'n'",
            "object.metadata.labels['app.io/x'] == 'y'",
            "has(object.spec) && !has(object.spec.nothing)",
            "oldObject == null",
            "object.spec.list.all(x, x < 1000) && object.spec.list.exists(x, x == 7)",
            "object.spec.list.filter(x, x > 997).map(x, x + 1) == [999, 1000]",
            "'a-b'.replace('-', '+') == 'a+b' && 'aaa'.replace('a', 'b', 2) == 'bba'",
            "['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'",
            "'a' + 'b' == 'ab' && 1 + 2 == 3 && [1] + [2] == [1, 2]",
            "'%s has %d'.format([object.metadata.name, object.spec.replicas]) == 'a has 3'",
            "quantity('1Gi').isGreaterThan(quantity('1M'))",
            "object.?spec.?replicas.orValue(1) == 3",
            "object.?spec.?nothing.orValue(1) == 1",
            "object.metadata.name.matches('^[a-z]$')",
            "object.spec.replicas > 5 || object.metadata.name.startsWith('a')",
            "dyn(object.spec.replicas) == 3",
        ] {
            assert_eq!(evaluate(text), Ok(Value::Bool(true)), "{text}");
        }
    }

    #[test]
    fn what_fails_in_kubernetes_fails_here() {
        for (text, why) in [
            ("object.spec.nothing == 1", "no such key: nothing"),
            ("oldObject.spec != 1", "no such overload"),
            ("object.metadata.name.first != 'x'", "no such overload"),
            ("nothing == 1", "undeclared reference to 'nothing'"),
            ("1 / 0 == 1", "division by zero"),
        ] {
            let wanted = format!("expression '{text}' resulted in error: {why}");
            assert_eq!(evaluate(text), Err(wanted), "{text}");
        }
        for (text, why) in [
            ("object.spec.", "compilation error: "),
            ("authorizer.group('').check('get').allowed()", "'authorizer'"),
            ("variables.x == 1", "undeclared variable 'variables.x'"),
            (&format!("1{} > 0", " + 1".repeat(500)), "nested deeper"),
            (&format!("object{}", ".a".repeat(500)), "nested deeper"),
            (&format!("'{}' == ''", "x".repeat(20_000)), "longer than"),
        ] {
            let found = evaluate(text).expect_err("it does not compile");
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn an_expression_as_deep_as_allowed_has_room_on_the_stack() {
        for text in [
            format!("1{} > 0", " + 1".repeat(240)),
            format!("{}1{} > 0", "(".repeat(80), ")".repeat(80)),
            format!("{}true{}", "[1].all(x, ".repeat(20), ")".repeat(20)),
        ] {
            assert_eq!(evaluate(&text), Ok(Value::Bool(true)), "{text}");
        }
    }

    #[test]
    fn variables_are_evaluated_once_and_only_when_used() {
        let variables = [
            ("wrong", "object.nothing"),
            ("double", "object.spec.replicas * 2"),
            ("more", "variables.double + 1"),
        ];
        let found = evaluate_with(&variables, "variables.more == 7 && has(variables.more)");
        assert_eq!(found, Ok(Value::Bool(true)));
        let found =
            evaluate_with(&variables, "object.spec.list.all(object, variables.double == 6)");
        assert_eq!(found, Ok(Value::Bool(true)), "a loop does not change what a variable sees");
        let why = evaluate_with(&variables, "variables.wrong == 1").expect_err("it is wrong");
        assert!(
            why.contains(r#"composited variable "wrong" fails to evaluate: no such key"#),
            "{why}"
        );
        let chain: Vec<(String, String)> = (0..200)
            .map(|n| {
                (
                    format!("v{n}"),
                    if n == 0 { "1".into() } else { format!("variables.v{} + 1", n - 1) },
                )
            })
            .collect();
        let chain: Vec<(&str, &str)> =
            chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let deep = evaluate_with(&chain, "variables.v199 == 200").expect_err("it is too deep");
        assert!(deep.contains("nested deeper"), "{deep}");
        let early = evaluate_with(&[("a", "variables.b"), ("b", "1")], "variables.a == 1");
        assert!(early.expect_err("b comes later").contains("undeclared variable"));
    }

    #[test]
    fn what_costs_too_much_is_stopped() {
        let began = Instant::now();
        let lists =
            "object.spec.list.all(a, object.spec.list.all(b, object.spec.list.all(c, c >= 0)))";
        let swallowed = format!("true || {lists}").replacen("true", "object.spec.replicas == 4", 1);
        for text in [
            lists,
            &swallowed,
            "object.spec.text.replace('x', object.spec.text) == ''",
            "object.spec.list.map(x, 'x').join(object.spec.text) == ''",
        ] {
            assert_eq!(evaluate(text), Err(OUT_OF_BUDGET.into()), "{text}");
        }
        let names: Vec<String> = (0..40).map(|n| format!("v{n}")).collect();
        let texts: Vec<String> = (0..40)
            .map(|n| {
                if n == 0 {
                    "'xx'".into()
                } else {
                    format!("variables.v{0} + variables.v{0}", n - 1)
                }
            })
            .collect();
        let variables: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
        let last = evaluate_with(&variables, "variables.v39 == ''");
        assert_eq!(last, Err(OUT_OF_BUDGET.into()));
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
