//! The text form of a selector, refused in the words of Kubernetes.

use super::{Operator, Requirement};
use crate::names;

/// What a text is made of. `in` and `notin` are words that only their place makes operators.
#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    End,
    Word(&'a str),
    /// One of `( ) , ! = == != > <`.
    Symbol(&'static str),
}

/// Longer symbols come before their beginnings.
const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

impl<'a> Token<'a> {
    fn starts_requirement(self) -> bool {
        matches!(self, Token::Word(_) | Token::Symbol("!"))
    }

    fn text(self) -> &'a str {
        match self {
            Token::End => "",
            Token::Word(text) | Token::Symbol(text) => text,
        }
    }
}

fn expected(token: Token<'_>, wanted: &str) -> String {
    format!("found '{}', expected: {wanted}", token.text())
}

/// Reads every requirement of `text`.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser::new(text);
    let mut requirements = Vec::new();
    loop {
        match parser.next {
            Token::End => return Ok(requirements),
            token if token.starts_requirement() => {}
            token => return Err(expected(token, "!, identifier, or 'end of string'")),
        }
        let requirement = parser.requirement();
        requirements
            .push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
        match parser.take() {
            Token::End => return Ok(requirements),
            Token::Symbol(",") if parser.next.starts_requirement() => {}
            Token::Symbol(",") => return Err(expected(parser.next, "identifier after ','")),
            token => return Err(expected(token, "',' or 'end of string'")),
        }
    }
}

struct Parser<'a> {
    next: Token<'a>,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut parser = Parser { next: Token::End, rest: text };
        parser.take();
        parser
    }

    fn take(&mut self) -> Token<'a> {
        let rest = self.rest.trim_start_matches(is_space);
        let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
        let end = rest.find(|c| is_space(c) || "=!(),><".contains(c)).unwrap_or(rest.len());
        let (next, length) = match symbol {
            Some(symbol) => (Token::Symbol(symbol), symbol.len()),
            None if rest.is_empty() => (Token::End, 0),
            None => (Token::Word(&rest[..end]), end),
        };
        self.rest = &rest[length..];
        std::mem::replace(&mut self.next, next)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.next == Token::Symbol("!");
        if negated {
            self.take();
        }
        let key = match self.take() {
            Token::Word(key) => key,
            token => return Err(expected(token, "identifier")),
        };
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", problems.join("; ")));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.next, Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let (operator, values) = match self.take() {
            Token::Word("in") => (Operator::In, self.values()?),
            Token::Word("notin") => (Operator::NotIn, self.values()?),
            Token::Symbol("=" | "==") => (Operator::In, vec![self.value()?]),
            Token::Symbol("!=") => (Operator::NotIn, vec![self.value()?]),
            Token::Symbol(">") => (Operator::Greater, vec![self.value()?]),
            Token::Symbol("<") => (Operator::Less, vec![self.value()?]),
            token => return Err(expected(token, "in, notin, =, ==, !=, gt, lt")),
        };
        Requirement::new(key, operator, values)
    }

    /// One value, which may be empty: `a=,b`.
    fn value(&mut self) -> Result<&'a str, String> {
        if matches!(self.next, Token::End | Token::Symbol(",")) {
            return Ok("");
        }
        match self.take() {
            Token::Word(value) => Ok(value),
            token => Err(expected(token, "identifier")),
        }
    }

    /// Values in parentheses, any of which may be empty: `(a,,b)`, `()`.
    fn values(&mut self) -> Result<Vec<&'a str>, String> {
        match self.take() {
            Token::Symbol("(") => {}
            token => return Err(format!("found '{}' expected: '('", token.text())),
        }
        let mut values = Vec::new();
        loop {
            match self.next {
                Token::Word(value) => {
                    values.push(value);
                    self.take();
                }
                Token::Symbol("," | ")") => values.push(""),
                token if values.is_empty() => {
                    return Err(expected(token, "',', ')' or identifier"));
                }
                token => return Err(expected(token, "',', or identifier")),
            }
            match self.take() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                token => return Err(expected(token, "',' or ')'")),
            }
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
