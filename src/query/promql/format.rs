//! Numbers as Prometheus writes them.

/// Go's `strconv.FormatFloat(v, 'f', -1, 64)`, as in labels that `count_values` makes.
pub fn decimal(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        // Rust prints the shortest digits that read back, without an exponent, and "-0".
        value.to_string()
    }
}

/// As in the JSON API: decimal, but with an exponent of at least two digits below 1e-6 and from 1e21 on.
pub fn api_number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || !magnitude.is_finite() || (1e-6..1e21).contains(&magnitude) {
        return decimal(value);
    }
    exponential(value)
}

/// Go's `strconv.FormatFloat(v, 'g', -1, 64)` with the exponent from 1e21 on, as in expressions.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || !magnitude.is_finite() || (1e-4..1e21).contains(&magnitude) {
        return decimal(value);
    }
    exponential(value)
}

fn exponential(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_like_prometheus() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e-7, "1e-07"),
            (1.5e-6, "0.0000015"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1.25e300, "1.25e+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(api_number(value), text);
        }
    }
}
