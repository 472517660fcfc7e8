//! A CEL expression, made ready to be evaluated within bounds.
//!
//! The interpreter knows no cost, and is laxer than Kubernetes' in places. Both are mended in the tree: each step of a
//! loop and each function that makes a text longer is counted, and a field is looked up in the way that fails where
//! there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use kube_cel::cel::parser::Parser;

/// No expression that a person wrote is longer.
const MAX: usize = 10 * 1024;
/// How deep a tree may be, with the variables that it uses. The parser bounds brackets; this bounds chains, for they
/// are evaluated by recursion.
const DEPTH: usize = 256;
/// A chain has to be read before its depth is known.
const STACK: usize = 256 << 20;

/// Functions of the tree that no text can name.
pub(super) const STEP: &str = "@step";
pub(super) const VARIABLE: &str = "@variable";
pub(super) const ADD: &str = "@add";

/// An expression, or why there is none.
#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) text: String,
    pub(super) tree: Result<IdedExpr, String>,
    /// The names that it mentions: of what is given to it, and of its own loops.
    pub(crate) names: BTreeSet<String>,
    depth: usize,
}

/// The variables of a policy by name, each of which may use those before it.
pub(crate) type Variables = Arc<Vec<(String, Expression)>>;

/// Reads the variables of a policy, and the expressions that may use them.
///
/// `authorizer` is not known here: an expression that uses it does not compile, and the failure policy decides.
pub(crate) fn compile(
    variables: Vec<(String, String)>,
    texts: Vec<String>,
) -> (Variables, Vec<Expression>) {
    let read_all = || {
        let mut known: Vec<(String, Expression)> = Vec::new();
        for (name, text) in &variables {
            let expression = read(text, &known);
            known.push((name.clone(), expression));
        }
        let read = texts.iter().map(|text| read(text, &known)).collect();
        (Arc::new(known), read)
    };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("cel-parser".into()).stack_size(STACK);
        let reading = reader.spawn_scoped(scope, read_all).map_err(|error| error.to_string());
        let read =
            reading.and_then(|reading| reading.join().map_err(|_| "the parser failed".into()));
        read.unwrap_or_else(|why| {
            let failed = |text: &String| Expression::failed(text, why.clone());
            let variables = variables.iter().map(|(name, text)| (name.clone(), failed(text)));
            (Arc::new(variables.collect()), texts.iter().map(failed).collect())
        })
    })
}

impl Expression {
    fn failed(text: &str, why: String) -> Self {
        Expression { text: text.to_owned(), tree: Err(why), names: BTreeSet::new(), depth: 0 }
    }
}

fn read(text: &str, variables: &[(String, Expression)]) -> Expression {
    let (mut tree, mut names) = match parse(text) {
        Ok(tree) => (tree, BTreeSet::new()),
        Err(why) => return Expression::failed(text, why),
    };
    for name in tree.references().variables() {
        names.insert(name.to_owned());
    }
    if names.contains("authorizer") {
        let why = "undeclared reference to 'authorizer': this server does not have it";
        return Expression::failed(text, why.into());
    }
    let depth = match bound(&mut tree, variables) {
        Ok(depth) if depth <= DEPTH => depth,
        Ok(_) => {
            let why = format!("the expression is nested deeper than {DEPTH} levels");
            return Expression::failed(text, why);
        }
        Err(why) => return Expression::failed(text, why),
    };
    Expression { text: text.to_owned(), tree: Ok(tree), names, depth }
}

fn parse(text: &str) -> Result<IdedExpr, String> {
    if text.len() > MAX {
        return Err(format!("the expression is longer than {MAX} bytes"));
    }
    let parser = Parser::new().enable_optional_syntax(true);
    parser.parse(text).map_err(|errors| errors.to_string())
}

/// The direct parts of an expression.
fn parts(tree: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    use kube_cel::cel::common::ast::EntryExpr;
    match &mut tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Comprehension(each) => vec![
            &mut each.iter_range,
            &mut each.accu_init,
            &mut each.loop_cond,
            &mut each.loop_step,
            &mut each.result,
        ],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Select(select) => vec![&mut *select.operand],
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .flat_map(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
                EntryExpr::StructField(field) => vec![&mut field.value],
            })
            .collect(),
        Expr::Struct(_) => Vec::new(),
    }
}

/// Puts the bounds into a tree, from the leaves up. Returns how deep it is, with the variables that it uses.
fn bound(tree: &mut IdedExpr, variables: &[(String, Expression)]) -> Result<usize, String> {
    if let Some(index) = variable(tree, variables)? {
        let has = matches!(&tree.expr, Expr::Select(select) if select.test);
        let number = i64::try_from(index).unwrap_or(i64::MAX);
        tree.expr = match has {
            true => Expr::Literal(LiteralValue::Boolean(true.into())),
            false => call(VARIABLE, vec![literal(LiteralValue::Int(number.into()))]),
        };
        return Ok(2 + variables[index].1.depth);
    }
    let mut depth = 0;
    for part in parts(tree) {
        depth = depth.max(bound(part, variables)?);
    }
    match &mut tree.expr {
        Expr::Unspecified => return Err("there is no expression".into()),
        Expr::Struct(_) => return Err("messages are not known here".into()),
        Expr::Ident(name) if name == "variables" => {
            return Err("variables are used as variables.NAME".into());
        }
        // A field of what is no map would be false, where Kubernetes fails.
        Expr::Select(select) if !select.test => {
            let operand = std::mem::take(&mut *select.operand);
            let field = LiteralValue::String(select.field.as_str().into());
            tree.expr = call(operators::INDEX, vec![operand, literal(field)]);
        }
        // `a.?b` would fail where there is no b; `a[?"b"]` does not.
        Expr::Call(select) if select.func_name == operators::OPT_SELECT => {
            operators::OPT_INDEX.clone_into(&mut select.func_name);
        }
        Expr::Call(add) if add.func_name == operators::ADD && !grows(add) => {
            ADD.clone_into(&mut add.func_name);
        }
        Expr::Comprehension(each) => {
            let cond = std::mem::take(&mut each.loop_cond);
            each.loop_cond.expr = call(
                operators::LOGICAL_AND,
                vec![IdedExpr { id: 0, expr: call(STEP, Vec::new()) }, cond],
            );
        }
        _ => {}
    }
    Ok(1 + depth)
}

/// Whether this is the step of a loop that gathers its results; as a step, it is counted.
fn grows(add: &CallExpr) -> bool {
    matches!(add.args.first(), Some(IdedExpr { expr: Expr::Ident(name), .. }) if name.starts_with('@'))
}

/// Which variable of the policy this is, if it is one.
fn variable(tree: &IdedExpr, variables: &[(String, Expression)]) -> Result<Option<usize>, String> {
    let Expr::Select(select) = &tree.expr else { return Ok(None) };
    if !matches!(&select.operand.expr, Expr::Ident(name) if name == "variables") {
        return Ok(None);
    }
    let known = variables.iter().position(|(name, _)| *name == select.field);
    known.map(Some).ok_or_else(|| format!("undeclared variable 'variables.{}'", select.field))
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.into(), target: None, args })
}

fn literal(value: LiteralValue) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(value) }
}
