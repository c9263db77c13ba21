//! Regular expressions as Go writes them, for the `regex` crate.
//!
//! Both are RE2's children and differ in corners: classes such as `\d` are ASCII in Go, a brace that repeats nothing is
//! itself, `\Q...\E` quotes, repetitions are bounded. A pattern that Go refuses is refused, in Go's words.

/// Go refuses to repeat more often, nested repetitions multiplied.
const REPEAT_MAX: u32 = 1000;

/// Why Go would not compile a pattern, in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: `{excerpt}`")]
pub struct GoRegexError {
    problem: &'static str,
    excerpt: String,
}

/// Classes such as `[:alpha:]`.
const CLASS_NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// What stands before a repetition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing that could be repeated.
    Nothing,
    /// Something that its own repetitions make this many times as large.
    Atom(u32),
    /// A repetition, which began at this byte.
    Repetition(usize, u32),
}

/// The pattern in the syntax of the `regex` crate.
pub fn translate(pattern: &str) -> Result<String, GoRegexError> {
    let translator = Translator {
        pattern,
        at: 0,
        out: String::with_capacity(pattern.len() + 8),
        groups: Vec::new(),
        names: Vec::new(),
    };
    translator.run()
}

struct Translator<'a> {
    pattern: &'a str,
    at: usize,
    out: String,
    /// The largest repetition in each group that is open.
    groups: Vec<u32>,
    names: Vec<&'a str>,
}

type Step<T> = Result<T, GoRegexError>;

impl<'a> Translator<'a> {
    fn rest(&self) -> &'a str {
        self.pattern.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn error<T>(&self, problem: &'static str, from: usize) -> Step<T> {
        Err(GoRegexError { problem, excerpt: self.pattern.get(from..self.at).unwrap_or_default().to_owned() })
    }

    fn whole<T>(&self, problem: &'static str) -> Step<T> {
        Err(GoRegexError { problem, excerpt: self.pattern.to_owned() })
    }

    fn run(mut self) -> Step<String> {
        let mut before = Before::Nothing;
        let mut largest = 1;
        while let Some(c) = self.peek() {
            let start = self.at;
            match c {
                '(' => {
                    self.next();
                    if self.group(start)? {
                        self.groups.push(largest);
                        (largest, before) = (1, Before::Nothing);
                    }
                    continue;
                }
                ')' => {
                    self.next();
                    let Some(outer) = self.groups.pop() else { return self.whole("unexpected )") };
                    self.out.push(')');
                    before = Before::Atom(largest);
                    largest = largest.max(outer);
                    continue;
                }
                '|' => {
                    self.next();
                    self.out.push('|');
                    before = Before::Nothing;
                    continue;
                }
                '*' | '+' | '?' => before = self.repetition(before, None)?,
                '{' => {
                    if let Some(counts) = self.counts() {
                        before = self.repetition(before, Some(counts))?;
                    } else {
                        self.next();
                        self.out.push_str("\\{");
                        before = Before::Atom(1);
                    }
                }
                '[' => {
                    self.next();
                    self.class(start)?;
                    before = Before::Atom(1);
                }
                '\\' => {
                    if self.escape()? {
                        before = Before::Atom(1);
                    }
                }
                other => {
                    self.next();
                    // These two are only special where they close something.
                    self.out.push_str(if matches!(other, '}' | ']') { "\\" } else { "" });
                    self.out.push(other);
                    before = Before::Atom(1);
                }
            }
            if let Before::Repetition(_, size) = before {
                largest = largest.max(size);
            }
        }
        if self.groups.is_empty() { Ok(self.out) } else { self.whole("missing closing )") }
    }

    /// What follows an opening parenthesis; false when it only sets flags.
    fn group(&mut self, start: usize) -> Step<bool> {
        if !self.take('?') {
            self.out.push('(');
            return Ok(true);
        }
        let rest = self.rest();
        if let Some(named) = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<')) {
            let Some((name, _)) = named.split_once('>') else { return self.whole("invalid named capture") };
            self.at += rest.len() - named.len() + name.len() + 1;
            let is_word = |c: char| c == '_' || c.is_alphanumeric();
            if name.is_empty() || !name.chars().all(is_word) {
                return self.error("invalid named capture", start);
            }
            // A name that was there before names nothing more.
            let is_new = !self.names.contains(&name) && !name.starts_with(|c: char| c.is_ascii_digit());
            self.names.push(name);
            if is_new {
                self.out.extend(["(?P<", name, ">"]);
            } else {
                self.out.push('(');
            }
            return Ok(true);
        }
        let mut flags = String::from("(?");
        let (mut negated, mut any) = (false, false);
        loop {
            let c = self.next();
            match c {
                Some('i' | 'm' | 's' | 'U') => any = true,
                Some('-') if !negated => (negated, any) = (true, false),
                Some(':' | ')') if any || !negated => {
                    let opens = c == Some(':');
                    // Flags that are none are no syntax here.
                    if flags != "(?" || opens {
                        flags.extend(c);
                        self.out.push_str(&flags);
                    }
                    return Ok(opens);
                }
                _ => return self.error("invalid or unsupported Perl syntax", start),
            }
            flags.extend(c);
        }
    }

    /// The numbers of a repetition in braces and its end, if it is one.
    fn counts(&self) -> Option<(u32, Option<u32>, usize)> {
        let body = self.rest().strip_prefix('{')?;
        let (inside, _) = body.split_once('}')?;
        let number = |text: &str| {
            let fits =
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            fits.then(|| text.parse().unwrap_or(u32::MAX))
        };
        let end = self.at + inside.len() + 2;
        match inside.split_once(',') {
            None => number(inside).map(|n| (n, Some(n), end)),
            Some((min, "")) => Some((number(min)?, None, end)),
            Some((min, max)) => Some((number(min)?, Some(number(max)?), end)),
        }
    }

    fn repetition(&mut self, before: Before, counts: Option<(u32, Option<u32>, usize)>) -> Step<Before> {
        let start = self.at;
        match counts {
            Some((_, _, end)) => self.at = end,
            None => {
                self.next();
            }
        }
        let own_end = self.at;
        self.take('?');
        let size = match before {
            Before::Nothing => {
                self.at = own_end;
                return self.error("missing argument to repetition operator", start);
            }
            Before::Repetition(first, _) => return self.error("invalid nested repetition operator", first),
            Before::Atom(size) => size,
        };
        let repeated = match counts {
            Some((min, max, _)) => {
                let most = max.unwrap_or(min);
                let product = size.saturating_mul(most.max(1));
                if most > REPEAT_MAX || min > REPEAT_MAX || max.is_some_and(|max| min > max) || product > REPEAT_MAX {
                    self.at = own_end;
                    return self.error("invalid repeat count", start);
                }
                product
            }
            None => size,
        };
        self.out.push_str(self.pattern.get(start..self.at).unwrap_or_default());
        Ok(Before::Repetition(start, repeated))
    }

    /// An escape outside of a class; false when it stands for nothing.
    fn escape(&mut self) -> Step<bool> {
        let start = self.at;
        self.next();
        let Some(c) = self.next() else {
            return Err(GoRegexError { problem: "trailing backslash at end of expression", excerpt: String::new() });
        };
        match c {
            'Q' => {
                let (quoted, end) = match self.rest().split_once("\\E") {
                    Some((quoted, _)) => (quoted, self.at + quoted.len() + 2),
                    None => (self.rest(), self.pattern.len()),
                };
                self.out.push_str(&regex::escape(quoted));
                self.at = end;
                return Ok(!quoted.is_empty());
            }
            'A' | 'z' | 'B' => self.out.extend(['\\', c]),
            'b' => self.out.push_str("(?-u:\\b)"),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let negated = if c.is_ascii_uppercase() { "^" } else { "" };
                self.out.extend(["[", negated, perl_class(c), "]"]);
            }
            'p' | 'P' => {
                let class = self.unicode_class(start)?;
                self.out.push_str(&class);
            }
            _ => {
                let c = self.escaped_char(c, start)?;
                self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            }
        }
        Ok(true)
    }

    /// `\pN`, `\p{Greek}`, `\P{^Greek}`; the `p` has been read.
    fn unicode_class(&mut self, start: usize) -> Step<String> {
        if self.take('{') {
            let Some((name, _)) = self.rest().split_once('}') else {
                self.at = self.pattern.len();
                return self.error("invalid character class range", start);
            };
            self.at += name.len() + 1;
        } else {
            self.next();
        }
        let text = self.pattern.get(start..self.at).unwrap_or_default();
        if text.contains(['=', ':']) || regex::Regex::new(text).is_err() {
            return self.error("invalid character class range", start);
        }
        Ok(text.to_owned())
    }

    /// The character that an escape stands for; what follows the backslash has been read.
    fn escaped_char(&mut self, c: char, start: usize) -> Step<char> {
        let code = match c {
            'a' => return Ok('\x07'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            '0'..='7' => {
                let is_octal = |c: Option<char>| c.is_some_and(|c| ('0'..='7').contains(&c));
                if c != '0' && !is_octal(self.peek()) {
                    return self.error("invalid escape sequence", start);
                }
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.next();
                    code = code * 8 + digit;
                }
                code
            }
            'x' => {
                let digits = if self.take('{') {
                    let Some((digits, _)) = self.rest().split_once('}') else {
                        self.at = self.pattern.len();
                        return self.error("invalid escape sequence", start);
                    };
                    self.at += digits.len() + 1;
                    digits
                } else {
                    let digits = self.rest().get(..2).unwrap_or_default();
                    self.at += digits.len();
                    digits
                };
                match u32::from_str_radix(digits, 16) {
                    Ok(code) if digits.len() > 1 || self.pattern.get(..self.at).is_some_and(|p| p.ends_with('}')) => {
                        code
                    }
                    _ => return self.error("invalid escape sequence", start),
                }
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(c),
            _ => return self.error("invalid escape sequence", start),
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.error("invalid escape sequence", start),
        }
    }

    /// The rest of a class whose bracket has been read.
    fn class(&mut self, start: usize) -> Step<()> {
        self.out.push('[');
        if self.take('^') {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if self.peek() == Some(']') && !first {
                self.next();
                self.out.push(']');
                return Ok(());
            }
            // A dash is itself only at the ends.
            let dash = self.at;
            if self.peek() == Some('-') && !first && self.rest().chars().nth(1) != Some(']') {
                self.next();
                self.next();
                return self.error("invalid character class range", dash);
            }
            first = false;
            if self.named_class()? {
                continue;
            }
            let item = self.at;
            let Some(low) = self.class_char(start)? else { continue };
            let rest = self.rest();
            let is_range = rest.starts_with('-') && !rest.starts_with("-]") && rest.len() > 1;
            if !is_range {
                self.push_class_char(low);
                continue;
            }
            self.next();
            let high = self.class_char(start)?;
            match high {
                Some(high) if high >= low => {
                    self.push_class_char(low);
                    self.out.push('-');
                    self.push_class_char(high);
                }
                _ => return self.error("invalid character class range", item),
            }
        }
    }

    /// `[:alpha:]` inside of a class.
    fn named_class(&mut self) -> Step<bool> {
        let start = self.at;
        let Some((name, _)) = self.rest().strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else {
            return Ok(false);
        };
        self.at += name.len() + 4;
        let text = self.pattern.get(start..self.at).unwrap_or_default();
        if !CLASS_NAMES.contains(&name.trim_start_matches('^')) {
            return self.error("invalid character class range", start);
        }
        self.out.push_str(text);
        Ok(true)
    }

    /// One character of a class, or `None` when a class of its own was written.
    fn class_char(&mut self, start: usize) -> Step<Option<char>> {
        let at = self.at;
        match self.next() {
            None => self.error("missing closing ]", start),
            Some('\\') => match self.next() {
                None => {
                    Err(GoRegexError { problem: "trailing backslash at end of expression", excerpt: String::new() })
                }
                Some(c @ ('d' | 's' | 'w')) => {
                    self.out.push_str(perl_class(c));
                    Ok(None)
                }
                Some(c @ ('D' | 'S' | 'W')) => {
                    self.out.extend(["[^", perl_class(c), "]"]);
                    Ok(None)
                }
                Some('p' | 'P') => {
                    let class = self.unicode_class(at)?;
                    self.out.push_str(&class);
                    Ok(None)
                }
                Some(c) => self.escaped_char(c, at).map(Some),
            },
            Some(c) => Ok(Some(c)),
        }
    }

    fn push_class_char(&mut self, c: char) {
        if matches!(c, '[' | ']' | '\\' | '^' | '-' | '&' | '~') {
            self.out.push('\\');
        }
        self.out.push(c);
    }
}

/// The members of a class such as `\d`, which are ASCII.
fn perl_class(c: char) -> &'static str {
    match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => "\\t\\n\\x0C\\r ",
        _ => "0-9A-Za-z_",
    }
}

/// Fills a template with what a match captured, as Go's `Expand` does: `$name`, `${name}`, `$$`; the longest name counts.
pub fn expand(template: &str, captures: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{');
        let body = braced.unwrap_or(after);
        let len = body.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(body.len());
        let (name, behind) = body.split_at_checked(len).unwrap_or((body, ""));
        let behind = if braced.is_some() { behind.strip_prefix('}') } else { Some(behind) };
        let (Some(behind), false) = (behind, name.is_empty()) else {
            // What is no variable is text.
            out.push('$');
            rest = after;
            continue;
        };
        let number = name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse::<usize>().ok()).flatten();
        let found = number.map_or_else(|| captures.name(name), |number| captures.get(number));
        out.push_str(found.map_or("", |found| found.as_str()));
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_the_same() {
        for (pattern, matching, other) in [
            (r"\d+", "12", "١"),
            (r"[\d\-x]", "-", "y"),
            (r"[\D]", "x", "1"),
            ("a{", "a{", "a"),
            ("a{1,", "a{1,", "a"),
            ("x{2,3}", "xxx", "x"),
            (r"\Qa.b*\E", "a.b*", "axb"),
            (r"[]a]", "]", "b"),
            (r"[^]a]", "b", "]"),
            (r"[a&&b]", "&", "c"),
            (r"[[a]", "[", "b"),
            (r"\<a", "<a", "a"),
            (r"\x{e9}|\101", "é", "B"),
            ("(?i:A)b", "ab", "aB"),
            ("[[:alpha:]]", "x", "1"),
            (r"\pL", "é", "1"),
            (r"a}", "a}", "a"),
            ("(?P<n>a)(?P<n>b)", "ab", "a"),
        ] {
            let regex = regex::Regex::new(&format!("^(?s:{})$", translate(pattern).unwrap())).unwrap();
            assert!(regex.is_match(matching), "{pattern} {matching}");
            assert!(!regex.is_match(other), "{pattern} {other}");
        }
    }

    #[test]
    fn errors_are_gos() {
        for (pattern, text) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("a|{2}", "missing argument to repetition operator: `{2}`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*??", "invalid nested repetition operator: `*??`"),
            ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{5,2}", "invalid repeat count: `{5,2}`"),
            ("(x{100}){11}", "invalid repeat count: `{11}`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            (r"\8", r"invalid escape sequence: `\8`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            ("\\", "trailing backslash at end of expression: ``"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[a--b]", "invalid character class range: `a--`"),
            (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ] {
            assert_eq!(translate(pattern).unwrap_err().to_string(), text, "{pattern}");
        }
    }

    #[test]
    fn templates() {
        let regex = regex::Regex::new("(?P<name>.)(.)").unwrap();
        let captures = regex.captures("ab").unwrap();
        for (template, text) in [
            ("$1", "a"),
            ("${1}x", "ax"),
            ("$1x", ""),
            ("$$1", "$1"),
            ("$name-$2", "a-b"),
            ("$", "$"),
            ("${", "${"),
            ("${1", "${1"),
            ("$é|", "|"),
            ("$3", ""),
        ] {
            assert_eq!(expand(template, &captures), text, "{template}");
        }
    }
}
