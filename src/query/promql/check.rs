//! Type checks of nodes, with Prometheus' error texts.

use super::ast::{Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, Span, ValueType};

type Checked = Result<(), (Span, String)>;

fn fail(span: Span, message: impl Into<String>) -> Checked {
    Err((span, message.into()))
}

fn expect_type(expr: &Expr, wanted: ValueType, context: &str) -> Checked {
    let found = expr.value_type();
    if found == wanted {
        return Ok(());
    }
    fail(expr.span, format!("expected type {} in {context}, got {}", wanted.describe(), found.describe()))
}

pub(super) fn unary(expr: &Expr) -> Checked {
    match expr.value_type() {
        ValueType::Scalar | ValueType::Vector => Ok(()),
        other => {
            let message = "unary expression only allowed on expressions of type scalar or instant vector, got";
            fail(expr.span, format!("{message} {:?}", other.describe()))
        }
    }
}

pub(super) fn binary(binary: &Binary) -> Checked {
    let span = Span { start: binary.left.span.start, end: binary.right.span.end };
    let (left, right) = (binary.left.value_type(), binary.right.value_type());
    let op = binary.op;
    if binary.returns_bool && !op.is_comparison() {
        return fail(span, "bool modifier can only be used on comparison operators");
    }
    for (side, kind) in [(&binary.left, left), (&binary.right, right)] {
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return fail(side.span, "binary expression must contain only scalar and instant vector types");
        }
    }
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if scalars && op.is_comparison() && !binary.returns_bool {
        return fail(span, "comparisons between scalars must use BOOL modifier");
    }
    let matching = &binary.matching;
    let grouped = matches!(matching.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany);
    if left != ValueType::Vector || right != ValueType::Vector {
        if matching.on || !matching.labels.is_empty() || grouped {
            return fail(span, "vector matching only allowed between instant vectors");
        }
        if op.is_set() {
            return fail(span, format!("set operator {:?} not allowed in binary scalar expression", op.symbol()));
        }
        return Ok(());
    }
    if op.is_set() && grouped {
        return fail(span, format!("no grouping allowed for {:?} operation", op.symbol()));
    }
    let twice = matching.include.iter().find(|label| matching.on && matching.labels.contains(label));
    match twice {
        Some(label) => fail(span, format!("label {label:?} must not occur in ON and GROUP clause at once")),
        None => Ok(()),
    }
}

pub(super) fn aggregate(aggregate: &Aggregate) -> Checked {
    expect_type(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
    let Some(parameter) = &aggregate.parameter else { return Ok(()) };
    let wanted = if aggregate.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
    expect_type(parameter, wanted, "aggregation parameter")
}

pub(super) fn call(call: &Call, span: Span) -> Checked {
    let function = call.function;
    let (most, given) = (function.args.len(), call.args.len());
    let least = most - function.optional - usize::from(function.repeats);
    let complain = |amount: &str, count: usize| {
        fail(span, format!("expected {amount}{count} argument(s) in call to {:?}, got {given}", function.name))
    };
    if function.optional == 0 && !function.repeats && given != most {
        return complain("", most);
    }
    if given < least {
        return complain("at least ", least);
    }
    if given > most && !function.repeats {
        return complain("at most ", most);
    }
    let Some(repeated) = function.args.last() else { return Ok(()) };
    for (index, arg) in call.args.iter().enumerate() {
        let wanted = function.args.get(index).unwrap_or(repeated);
        expect_type(arg, *wanted, &format!("call to function {:?}", function.name))?;
    }
    Ok(())
}
