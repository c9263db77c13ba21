//! Builds the tree of a template and checks its names.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::functions::is_function;
use super::lex::{Piece, Spaced, Token, pieces};
use super::{Template, TemplateError};

/// Blocks and parentheses nest this deep at most.
const DEPTH_MAX: usize = 50;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Output { line: usize, pipeline: Pipeline },
    If { line: usize, pipeline: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { line: usize, pipeline: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { line: usize, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
    Template { line: usize, name: String, argument: Option<Pipeline> },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// Variables that take the result.
    pub(super) targets: Vec<String>,
    /// Whether the variables are new (`:=`).
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Dot(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Paren(Pipeline, Vec<String>),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
}

/// How a list of nodes ended.
enum Stop {
    Text,
    Closed,
    Else { line: usize, rest: Vec<Spaced> },
}

pub(super) fn parse(text: &str, variables: &[&str]) -> Result<Template, TemplateError> {
    let mut parser = Parser {
        pieces: pieces(text)?.into_iter(),
        scope: variables.iter().map(|name| (*name).to_owned()).chain([String::new()]).collect(),
        defined: BTreeMap::new(),
        called: Vec::new(),
        depth: 0,
        loops: 0,
        line: 1,
    };
    let (root, end) = parser.nodes()?;
    match end {
        Stop::Text => {}
        Stop::Closed => return Err(parser.error("unexpected {{end}}")),
        Stop::Else { .. } => return Err(parser.error("unexpected {{else}}")),
    }
    if let Some((line, name)) = parser.called.iter().find(|(_, name)| !parser.defined.contains_key(name)) {
        return Err(TemplateError { line: *line, message: format!("template {name:?} not defined") });
    }
    Ok(Template { root, defined: parser.defined })
}

struct Parser {
    pieces: IntoIter<Piece>,
    /// Names of the variables that can be used here.
    scope: Vec<String>,
    defined: BTreeMap<String, Vec<Node>>,
    called: Vec<(usize, String)>,
    depth: usize,
    loops: usize,
    line: usize,
}

type Tokens = Peekable<IntoIter<Spaced>>;

impl Parser {
    fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError { line: self.line, message: message.into() }
    }

    fn enter(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.error(format!("nested deeper than {DEPTH_MAX}"))) } else { Ok(()) }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        self.enter()?;
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (line, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { line, tokens } => (line, tokens),
            };
            self.line = line;
            let mut tokens = tokens.into_iter().peekable();
            let keyword = match tokens.peek().map(|spaced| &spaced.token) {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "end" => {
                    self.depth -= 1;
                    return Ok((nodes, Stop::Closed));
                }
                "else" => {
                    tokens.next();
                    self.depth -= 1;
                    return Ok((nodes, Stop::Else { line, rest: tokens.collect() }));
                }
                "if" | "with" | "range" => {
                    tokens.next();
                    nodes.push(self.block(&keyword, line, tokens)?);
                }
                "define" => self.define(tokens)?,
                "template" => nodes.push(self.template_call(line, tokens)?),
                "break" | "continue" => {
                    if self.loops == 0 {
                        return Err(self.error(format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                    }
                    nodes.push(if keyword == "break" { Node::Break } else { Node::Continue });
                }
                _ => {
                    let pipeline = self.pipeline(&mut tokens, false)?;
                    self.no_more(&mut tokens)?;
                    nodes.push(Node::Output { line, pipeline });
                }
            }
        }
        self.depth -= 1;
        Ok((nodes, Stop::Text))
    }

    fn block(&mut self, keyword: &str, line: usize, mut tokens: Tokens) -> Result<Node, TemplateError> {
        let known = self.scope.len();
        let pipeline = self.pipeline(&mut tokens, keyword == "range")?;
        self.no_more(&mut tokens)?;
        self.loops += usize::from(keyword == "range");
        let (then, end) = self.nodes()?;
        self.loops -= usize::from(keyword == "range");
        let otherwise = match end {
            Stop::Text => {
                return Err(TemplateError { line, message: format!("{{{{{keyword}}}}} without {{{{end}}}}") });
            }
            Stop::Closed => Vec::new(),
            Stop::Else { rest, .. } if rest.is_empty() => {
                let (otherwise, end) = self.nodes()?;
                match end {
                    Stop::Closed => otherwise,
                    _ => return Err(self.error("expected {{end}}")),
                }
            }
            Stop::Else { line, rest } => {
                let mut rest = rest.into_iter().peekable();
                match rest.next().map(|spaced| spaced.token) {
                    Some(Token::Word(word)) if word == keyword && keyword != "range" => {
                        self.enter()?;
                        let chained = self.block(keyword, line, rest)?;
                        self.depth -= 1;
                        vec![chained]
                    }
                    _ => return Err(self.error("unexpected token after {{else}}")),
                }
            }
        };
        self.scope.truncate(known);
        Ok(match keyword {
            "if" => Node::If { line, pipeline, then, otherwise },
            "with" => Node::With { line, pipeline, then, otherwise },
            _ => Node::Range { line, pipeline, body: then, otherwise },
        })
    }

    fn define(&mut self, mut tokens: Tokens) -> Result<(), TemplateError> {
        tokens.next();
        let Some(Token::Text(name)) = tokens.next().map(|spaced| spaced.token) else {
            return Err(self.error("expected a name after define"));
        };
        self.no_more(&mut tokens)?;
        // A defined template sees no variables of the place where it stands.
        let outer = std::mem::replace(&mut self.scope, vec![String::new()]);
        let (body, end) = self.nodes()?;
        self.scope = outer;
        if !matches!(end, Stop::Closed) {
            return Err(self.error("{{define}} without {{end}}"));
        }
        self.defined.insert(name, body);
        Ok(())
    }

    fn template_call(&mut self, line: usize, mut tokens: Tokens) -> Result<Node, TemplateError> {
        tokens.next();
        let Some(Token::Text(name)) = tokens.next().map(|spaced| spaced.token) else {
            return Err(self.error("expected a name after template"));
        };
        let argument = if tokens.peek().is_some() { Some(self.pipeline(&mut tokens, false)?) } else { None };
        self.no_more(&mut tokens)?;
        self.called.push((line, name.clone()));
        Ok(Node::Template { line, name, argument })
    }

    fn no_more(&self, tokens: &mut Tokens) -> Result<(), TemplateError> {
        match tokens.next() {
            None => Ok(()),
            Some(extra) => Err(self.error(format!("unexpected {:?}", extra.token))),
        }
    }

    fn pipeline(&mut self, tokens: &mut Tokens, in_range: bool) -> Result<Pipeline, TemplateError> {
        self.enter()?;
        let (targets, declares) = self.targets(tokens, in_range)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command(tokens)?;
            if command.is_empty() {
                return Err(self.error("missing value for command"));
            }
            if !commands.is_empty() && !matches!(command.first(), Some(Operand::Function(_))) {
                return Err(self.error("non executable command in pipeline"));
            }
            commands.push(command);
            if tokens.next_if(|spaced| spaced.token == Token::Pipe).is_none() {
                break;
            }
        }
        if declares {
            self.scope.extend(targets.iter().cloned());
        } else if let Some(unknown) = targets.iter().find(|name| !self.scope.contains(name)) {
            return Err(self.error(format!("undefined variable \"${unknown}\"")));
        }
        self.depth -= 1;
        Ok(Pipeline { targets, declares, commands })
    }

    /// `$a :=`, `$a =`, or in a range also `$i, $a :=`.
    fn targets(&self, tokens: &mut Tokens, in_range: bool) -> Result<(Vec<String>, bool), TemplateError> {
        let mut ahead = tokens.clone();
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = ahead.next().map(|spaced| spaced.token) {
            names.push(name);
            match ahead.next().map(|spaced| spaced.token) {
                Some(Token::Comma) if in_range && names.len() < 2 => {}
                Some(Token::Declare) => {
                    *tokens = ahead;
                    return Ok((names, true));
                }
                Some(Token::Assign) => {
                    *tokens = ahead;
                    return Ok((names, false));
                }
                Some(Token::Comma) => return Err(self.error("too many declarations")),
                _ => break,
            }
        }
        Ok((Vec::new(), false))
    }

    fn command(&mut self, tokens: &mut Tokens) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        while let Some(spaced) =
            tokens.next_if(|spaced| !matches!(spaced.token, Token::Pipe | Token::Close | Token::Comma))
        {
            operands.push(self.operand(spaced, tokens)?);
        }
        Ok(operands)
    }

    fn operand(&mut self, spaced: Spaced, tokens: &mut Tokens) -> Result<Operand, TemplateError> {
        Ok(match spaced.token {
            Token::Dot => Operand::Dot(Vec::new()),
            Token::Field(name) => Operand::Dot(std::iter::once(name).chain(fields(tokens)).collect()),
            Token::Variable(name) => {
                if !self.scope.contains(&name) {
                    return Err(self.error(format!("undefined variable \"${name}\"")));
                }
                Operand::Variable(name, fields(tokens))
            }
            Token::Text(text) => Operand::Text(text),
            Token::Int(value) => Operand::Int(value),
            Token::Float(value) => Operand::Float(value),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                _ if is_function(&word) => Operand::Function(word),
                _ => return Err(self.error(format!("function {word:?} not defined"))),
            },
            Token::Open => {
                let pipeline = self.pipeline(tokens, false)?;
                if tokens.next_if(|spaced| spaced.token == Token::Close).is_none() {
                    return Err(self.error("unclosed left paren"));
                }
                Operand::Paren(pipeline, fields(tokens))
            }
            token => return Err(self.error(format!("unexpected {token:?} in operand"))),
        })
    }
}

/// `.a.b` directly behind an operand.
fn fields(tokens: &mut Tokens) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(spaced) = tokens.next_if(|spaced| !spaced.after_space && matches!(spaced.token, Token::Field(_))) {
        if let Token::Field(name) = spaced.token {
            names.push(name);
        }
    }
    names
}
