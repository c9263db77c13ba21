//! Renders a parsed template.

use super::format::format_value;
use super::functions::call;
use super::parse::{Node, Operand, Pipeline};
use super::value::Value;
use super::{Template, TemplateContext, TemplateError};

/// Nodes and function calls per rendering.
const STEPS_MAX: usize = 100_000;
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Depth of templates that call templates.
const CALLS_MAX: usize = 30;

enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) struct Exec<'a> {
    template: &'a Template,
    context: &'a TemplateContext<'a>,
    output: String,
    variables: Vec<(String, Value)>,
    steps: usize,
    calls: usize,
    line: usize,
}

impl<'a> Exec<'a> {
    pub(super) fn new(template: &'a Template, context: &'a TemplateContext<'a>) -> Self {
        let mut variables: Vec<(String, Value)> = vec![(String::new(), context.dot.clone())];
        variables.extend(context.variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Self { template, context, output: String::new(), variables, steps: 0, calls: 0, line: 1 }
    }

    pub(super) fn run(mut self) -> Result<String, TemplateError> {
        let template = self.template;
        let dot = self.context.dot.clone();
        self.nodes(&template.root, &dot).map_err(|message| TemplateError { line: self.line, message })?;
        Ok(self.output)
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > STEPS_MAX { Err(format!("more than {STEPS_MAX} steps")) } else { Ok(()) }
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        if self.output.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(format!("output is longer than {OUTPUT_BYTES_MAX} bytes"));
        }
        self.output.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, String> {
        for node in nodes {
            self.step()?;
            let flow = self.node(node, dot)?;
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Output { line, pipeline } => {
                self.line = *line;
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.targets.is_empty() {
                    self.write(&format_value(&value))?;
                }
            }
            Node::If { line, pipeline, then, otherwise } => {
                self.line = *line;
                let known = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let flow = self.nodes(if value.is_true() { then } else { otherwise }, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::With { line, pipeline, then, otherwise } => {
                self.line = *line;
                let known = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let flow = if value.is_true() { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? };
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range { line, pipeline, body, otherwise } => {
                self.line = *line;
                let known = self.variables.len();
                let flow = self.range(pipeline, body, otherwise, dot)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Template { line, name, argument } => {
                self.line = *line;
                let value = argument.as_ref().map_or(Ok(Value::Nil), |pipeline| self.pipeline(pipeline, dot))?;
                self.call_template(name, &value)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn call_template(&mut self, name: &str, dot: &Value) -> Result<(), String> {
        let template = self.template;
        let Some(body) = template.defined.get(name) else { return Err(format!("template {name:?} not defined")) };
        self.calls += 1;
        if self.calls > CALLS_MAX {
            return Err(format!("templates call each other deeper than {CALLS_MAX}"));
        }
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), dot.clone())]);
        self.nodes(body, dot)?;
        self.variables = outer;
        self.calls -= 1;
        Ok(())
    }

    fn range(
        &mut self,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value,
    ) -> Result<Flow, String> {
        let over = self.commands(pipeline, dot)?;
        let items: Vec<(Value, Value)> = match over {
            Value::List(items) => (0..).map(Value::Int).zip(items).collect(),
            Value::Map(_, entries) => entries.into_iter().map(|(key, value)| (Value::Str(key), value)).collect(),
            Value::Int(count) if count <= 100_000 => (0..count).map(|i| (Value::Int(i), Value::Int(i))).collect(),
            Value::Nil => Vec::new(),
            other => return Err(format!("range can't iterate over {}", format_value(&other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        self.steps += items.len();
        let known = self.variables.len();
        for (key, value) in items {
            self.step()?;
            self.variables.truncate(known);
            match pipeline.targets.as_slice() {
                [] => {}
                [one] => self.set(one, value.clone(), pipeline.declares),
                [first, second, ..] => {
                    self.set(first, key, pipeline.declares);
                    self.set(second, value.clone(), pipeline.declares);
                }
            }
            match self.nodes(body, &value)? {
                Flow::Break => break,
                Flow::Next | Flow::Continue => {}
            }
        }
        Ok(Flow::Next)
    }

    fn set(&mut self, name: &str, value: Value, declares: bool) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        match known {
            Some((_, slot)) if !declares => *slot = value,
            _ => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        if let Some(target) = pipeline.targets.first() {
            self.set(target, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            self.step()?;
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &'a [Operand], dot: &Value, piped: Option<Value>) -> Result<Value, String> {
        let Some((first, rest)) = command.split_first() else { return Ok(Value::Nil) };
        let Operand::Function(name) = first else {
            if !rest.is_empty() || piped.is_some() {
                return Err("can't give argument to non-function".to_owned());
            }
            return self.operand(first, dot);
        };
        if name == "and" || name == "or" {
            return self.short_circuit(name == "or", rest, dot, piped);
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        call(name, &arguments, self.context).map_err(|message| format!("error calling {name}: {message}"))
    }

    /// `and` and `or` stop at the first argument that decides.
    fn short_circuit(
        &mut self,
        stops_at: bool,
        operands: &'a [Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, String> {
        let mut last = None;
        for operand in operands {
            let value = self.operand(operand, dot)?;
            if value.is_true() == stops_at {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| "wrong number of args: want at least 1 got 0".to_owned())
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Result<Value, String> {
        let (value, fields) = match operand {
            Operand::Dot(fields) => (dot.clone(), fields.as_slice()),
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = found.map(|(_, value)| value.clone());
                (value.ok_or_else(|| format!("undefined variable ${name}"))?, fields.as_slice())
            }
            Operand::Paren(pipeline, fields) => (self.pipeline(pipeline, dot)?, fields.as_slice()),
            Operand::Function(name) => {
                let value =
                    call(name, &[], self.context).map_err(|message| format!("error calling {name}: {message}"))?;
                (value, &[][..])
            }
            Operand::Text(text) => (Value::Str(text.clone()), &[][..]),
            Operand::Int(value) => (Value::Int(*value), &[][..]),
            Operand::Float(value) => (Value::Float(*value), &[][..]),
            Operand::Bool(value) => (Value::Bool(*value), &[][..]),
            Operand::Nil => (Value::Nil, &[][..]),
        };
        fields.iter().try_fold(value, |value, name| value.field(name))
    }
}
