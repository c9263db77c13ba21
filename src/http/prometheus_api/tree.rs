//! A syntax tree as `parse_query` shows it, in Prometheus' form.

use serde_json::{Value, json};

use crate::query::promql::ast::{
    Aggregate, At, Binary, BinaryOp, Call, Cardinality, Duration, Expr, ExprKind, Selector, Subquery, ValueType,
};
use crate::query::promql::format::decimal;

/// The tree below an expression.
pub(super) fn tree(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number { value, .. } => json!({"type": "numberLiteral", "val": decimal(*value)}),
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text}),
        ExprKind::Selector(selector) => selection("vectorSelector", selector, None),
        ExprKind::Range { selector, range } => selection("matrixSelector", selector, Some(range)),
        ExprKind::Subquery(inner) => subquery(inner),
        ExprKind::Call(inner) => call(inner),
        ExprKind::Aggregate(inner) => aggregate(inner),
        ExprKind::Binary(inner) => binary(inner),
        ExprKind::Unary { negate, expr } => {
            json!({"type": "unaryExpr", "op": if *negate { "-" } else { "+" }, "expr": tree(expr)})
        }
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": tree(inner)}),
    }
}

/// The fixed time and the word of an `@`.
fn at_parts(at: Option<At>) -> (Value, Value) {
    match at {
        None => (Value::Null, Value::Null),
        Some(At::Ms(ms)) => (json!(ms), Value::Null),
        Some(At::Start) => (Value::Null, json!("start")),
        Some(At::End) => (Value::Null, json!("end")),
    }
}

/// Milliseconds of a duration; 0 where it is computed, as in Prometheus.
fn written_ms(duration: &Duration) -> i64 {
    if duration.computed.is_some() { 0 } else { duration.ms }
}

fn selection(kind: &str, selector: &Selector, range: Option<&Duration>) -> Value {
    let matchers = selector.matchers.iter();
    let matchers: Vec<Value> =
        matchers.map(|m| json!({"name": m.name, "value": m.value, "type": m.op.symbol()})).collect();
    let (timestamp, start_or_end) = at_parts(selector.at);
    let mut value = json!({
        "type": kind,
        "name": selector.name.as_deref().unwrap_or(""),
        "offset": written_ms(&selector.offset),
        "matchers": matchers,
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    });
    if let (Some(range), Some(fields)) = (range, value.as_object_mut()) {
        fields.insert("range".to_owned(), json!(written_ms(range)));
    }
    value
}

fn subquery(subquery: &Subquery) -> Value {
    let (timestamp, start_or_end) = at_parts(subquery.at);
    json!({
        "type": "subquery",
        "expr": tree(&subquery.expr),
        "range": written_ms(&subquery.range),
        "offset": written_ms(&subquery.offset),
        "step": subquery.step.as_ref().map_or(0, written_ms),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

fn call(call: &Call) -> Value {
    let function = call.function;
    let args: Vec<&str> = function.args.iter().map(|arg| arg.api_name()).collect();
    json!({
        "type": "call",
        "func": {
            "name": function.name,
            "argTypes": args,
            "variadic": function.variadic(),
            "returnType": function.returns.api_name(),
        },
        "args": call.args.iter().map(tree).collect::<Vec<_>>(),
    })
}

fn aggregate(aggregate: &Aggregate) -> Value {
    json!({
        "type": "aggregation",
        "op": aggregate.op.name(),
        "expr": tree(&aggregate.expr),
        "param": aggregate.parameter.as_ref().map_or(Value::Null, tree),
        "grouping": aggregate.grouping,
        "without": aggregate.without,
    })
}

fn binary(binary: &Binary) -> Value {
    let matching = &binary.matching;
    let vectors = [&binary.left, &binary.right].iter().all(|side| side.value_type() == ValueType::Vector);
    let card = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    let matching = if vectors {
        json!({"card": card, "labels": matching.labels, "on": matching.on, "include": matching.include})
    } else {
        Value::Null
    };
    let op: BinaryOp = binary.op;
    json!({
        "type": "binaryExpr",
        "op": op.symbol(),
        "lhs": tree(&binary.left),
        "rhs": tree(&binary.right),
        "matching": matching,
        "bool": binary.returns_bool,
    })
}
