//! Expressions made of PromQL's grammar, over the corpus' metrics; and broken ones.

use crate::corpus::END_SECS;
use crate::dice::Dice;

/// Corners of the language, by kind.
const ODDITIES: &str = include_str!("oddities.txt");
const GAUGES: [&str; 12] = [
    "temperature",
    "odd",
    "huge",
    "up",
    "sparse",
    "wobbly",
    "constant",
    "role",
    "single",
    "job:requests:sum",
    "nothing",
    "cpu_seconds",
];
const COUNTERS: [&str; 4] = ["http_requests_total", "latency_seconds_count", "latency_seconds_bucket", "cpu_seconds"];
const LABELS: [&str; 9] = ["instance", "job", "method", "code", "le", "room", "role", "n", "absent_label"];
const DURATIONS: [&str; 11] = ["30s", "1m", "90s", "2m", "5m", "10m", "17s", "1h", "1m30s", "300", "0x3c"];
const NUMBERS: [&str; 18] = [
    "0", "1", "2", "-1", "0.5", "3", "100", "1e3", "0x10", "NaN", "Inf", "-Inf", "1_000", ".25", "5m", "1e-9", "-0",
    "7",
];
const MATH: [&str; 22] = [
    "abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "sgn", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "rad",
];
const DATES: [&str; 8] =
    ["hour", "minute", "month", "year", "day_of_month", "day_of_week", "day_of_year", "days_in_month"];
const OVER_TIME: [&str; 24] = [
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
    "ts_of_last_over_time",
    "absent_over_time",
    "changes",
    "resets",
    "delta",
    "idelta",
    "deriv",
    "rate",
    "irate",
    "increase",
    "rate",
    "increase",
];

/// A generator of expressions; what it makes depends on the dice only.
pub(crate) struct Generator<'a> {
    pub(crate) dice: &'a mut Dice,
}

impl Generator<'_> {
    /// An expression as a user could send it, now and then a broken one.
    pub(crate) fn query(&mut self) -> String {
        let depth = 1 + self.dice.below(3);
        let text = match self.dice.below(20) {
            0 => self.scalar(depth),
            1 => self.matrix(1),
            2 => self.ordered(depth),
            3 => "\"a string\"".to_owned(),
            _ => self.vector(depth),
        };
        match self.dice.below(20) {
            0..=2 => self.broken(&text),
            3 => self.dressed(&text),
            4 => self.oddity(),
            _ => text,
        }
    }

    /// The same text with other spaces, comments and cases.
    fn dressed(&mut self, text: &str) -> String {
        match self.dice.below(4) {
            0 => text.replace(' ', "\n\t "),
            1 => format!("# first\n {text} # last"),
            2 => ["sum", "by", "offset", "and", "or", "bool", "on", "group_left"]
                .iter()
                .fold(text.to_owned(), |text, word| {
                    text.replace(&format!("{word} "), &format!("{} ", word.to_uppercase()))
                }),
            // Prometheus 3.5 stumbles over a string in parentheses.
            _ if text.contains("a string") || text.contains('[') => format!(" {text} "),
            _ => format!("( ( {text} ) )"),
        }
    }

    /// Corners of the language.
    fn oddity(&mut self) -> String {
        match self.dice.below(9) {
            0 => self.odd("numbers").to_owned(),
            1 => self.odd("strings").to_owned(),
            2 => format!("up{{instance{}\"{}\"}}", self.dice.pick(&["=~", "!~"]), self.odd("regexes")),
            3 => self.odd("names").to_owned() + self.odd("endings"),
            4 => format!("sum by ({}) (up)", self.odd("names")),
            5 => {
                let template = self.odd("templates");
                format!("label_replace(up, \"x\", \"{template}\", \"instance\", \"(?P<name>.)(.*)\")")
            }
            6 => format!("up{{{}}}", self.odd("matchers")),
            7 => format!("up{}", self.odd("suffixes")),
            _ => self.odd("queries").to_owned(),
        }
    }

    /// A line of a section of `oddities.txt`.
    fn odd(&mut self, section: &str) -> &'static str {
        let (_, rest) = ODDITIES.split_once(&format!("== {section}\n")).expect("the section exists");
        let lines: Vec<&str> = rest.split("\n== ").next().unwrap_or_default().split('\n').collect();
        self.dice.pick(&lines)
    }

    fn name(&mut self) -> &'static str {
        if self.dice.chance(30) { self.dice.pick(&COUNTERS) } else { self.dice.pick(&GAUGES) }
    }

    fn matchers(&mut self) -> String {
        let choices = [
            "",
            "",
            "",
            "{job=\"api\"}",
            "{job!=\"api\"}",
            "{instance=~\"a.*\"}",
            "{instance!~\"a:1|b:1\"}",
            "{instance=\"a:1\",job=~\".+\"}",
            "{absent_label=\"\"}",
            "{absent_label!=\"\"}",
            "{'job'=`web`,}",
            "{instance=~\"[ab]:\\\\d\"}",
            "{job=~\"\"}",
            "{}",
        ];
        self.dice.pick(&choices).to_owned()
    }

    fn selector(&mut self) -> String {
        match self.dice.below(30) {
            0 => "{\"dotted.metric\"}".to_owned(),
            1 => "{\"dotted.metric\",\"k8s.pod\"=\"a-1\"}".to_owned(),
            2 => "{__name__=~\"up|role\"}".to_owned(),
            3 => "{job=\"api\",__name__=~\"t.*\"}".to_owned(),
            4 => "ties".to_owned(),
            5 => "target_info".to_owned(),
            _ => format!("{}{}", self.name(), self.matchers()),
        }
    }

    fn modifiers(&mut self) -> String {
        let offset = |dice: &mut Dice| {
            let choices = ["1m", "-1m", "5m", "1h", "-30s", "+2m", "60", "0s"];
            format!(" offset {}", dice.pick(&choices))
        };
        let at = |dice: &mut Dice| {
            let late = format!("{}", END_SECS - 600);
            let odd = format!("{}.567", END_SECS - 1234);
            let choices = [late.as_str(), odd.as_str(), "start()", "end()", "0", "1.69999e9"];
            format!(" @ {}", dice.pick(&choices))
        };
        match self.dice.below(12) {
            0 => offset(self.dice),
            1 => at(self.dice),
            2 => offset(self.dice) + &at(self.dice),
            3 => at(self.dice) + &offset(self.dice),
            _ => String::new(),
        }
    }

    fn duration(&mut self) -> String {
        if self.dice.chance(4) {
            let choices = ["1m+30s", "2*1m", "5m/2", "(1m+1m)*2", "5m-1m", "7m%2m", "1m^1"];
            return self.dice.pick(&choices).to_owned();
        }
        self.dice.pick(&DURATIONS).to_owned()
    }

    fn matrix(&mut self, depth: usize) -> String {
        if depth > 0 && self.dice.chance(25) {
            let inner = self.vector(depth - 1);
            let inner = if self.dice.chance(50) { format!("({inner})") } else { inner };
            let range = self.dice.pick(&["5m", "10m", "2m", "1h"]).to_owned();
            let step = self.dice.pick(&["", "1m", "30s", "17s", "45", "2m"]).to_owned();
            return format!("{inner}[{range}:{step}]{}", self.modifiers());
        }
        let selector = self.selector();
        format!("{selector}[{}]{}", self.duration(), self.modifiers())
    }

    fn scalar(&mut self, depth: usize) -> String {
        match if depth == 0 { self.dice.below(6) } else { self.dice.below(12) } {
            0..=4 => self.dice.pick(&NUMBERS).to_owned(),
            5 => self.dice.pick(&["time()", "pi()"]).to_owned(),
            6 | 7 => format!("scalar({})", self.vector(depth - 1)),
            8 => format!("-{}", self.scalar(depth - 1)),
            9 => format!("({})", self.scalar(depth - 1)),
            _ => {
                let operators = [
                    "+", "-", "*", "/", "%", "^", "atan2", "== bool", "!= bool", "> bool", "< bool", ">= bool",
                    "<= bool",
                ];
                let operator = self.dice.pick(&operators);
                format!("{} {operator} {}", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector() + &self.modifiers();
        }
        let depth = depth - 1;
        match self.dice.below(24) {
            0 | 1 => self.selector() + &self.modifiers(),
            2 => format!("-{}", self.vector(depth)),
            3 => format!("({})", self.vector(depth)),
            4 => format!("+{}", self.vector(depth)),
            5..=7 => self.binary(depth),
            8 | 9 => self.vector_scalar(depth),
            10..=13 => self.aggregate(depth),
            14..=18 => self.over_time(depth),
            _ => self.call(depth),
        }
    }

    fn labels(&mut self) -> String {
        let count = self.dice.below(3);
        let names: Vec<&str> = (0..count).map(|_| *self.dice.pick(&LABELS.each_ref())).collect();
        names.join(self.dice.pick(&[",", ", "]))
    }

    fn binary(&mut self, depth: usize) -> String {
        let arithmetic = ["+", "-", "*", "/", "%", "^", "atan2"];
        let comparisons = ["==", "!=", ">", "<", ">=", "<=", "== bool", "> bool", "<= bool"];
        let operator = match self.dice.below(10) {
            0..=3 => self.dice.pick(&arithmetic),
            4..=6 => self.dice.pick(&comparisons),
            _ => self.dice.pick(&["and", "or", "unless"]),
        };
        let is_set = matches!(operator, "and" | "or" | "unless");
        let mut left = self.vector(depth);
        let mut right = match self.dice.below(4) {
            0 => left.clone(),
            1 => "role".to_owned(),
            _ => self.vector(depth),
        };
        let matching = match self.dice.below(8) {
            0 => format!(" on({})", self.labels()),
            1 => format!(" ignoring({})", self.labels()),
            2 => " on(instance)".to_owned(),
            3 => " on(instance,job)".to_owned(),
            4 => " ignoring(role,room,method,code)".to_owned(),
            _ => String::new(),
        };
        let grouping = match self.dice.below(6) {
            _ if matching.is_empty() || is_set => "",
            0 => " group_left",
            1 => " group_left(role)",
            2 => " group_right(version,role)",
            3 => " group_right",
            _ => "",
        };
        if grouping.starts_with(" group_left") && self.dice.chance(60) {
            self.dice.pick(&["role", "up", "target_info"]).clone_into(&mut right);
        }
        if grouping.starts_with(" group_right") && self.dice.chance(60) {
            self.dice.pick(&["role", "up", "target_info"]).clone_into(&mut left);
        }
        format!("{left} {operator}{matching}{grouping} {right}")
    }

    fn vector_scalar(&mut self, depth: usize) -> String {
        let operators =
            ["+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "> bool", "== bool", "and"];
        let operator = self.dice.pick(&operators);
        let (vector, scalar) = (self.vector(depth), self.scalar(depth));
        if self.dice.chance(50) {
            format!("{vector} {operator} {scalar}")
        } else {
            format!("{scalar} {operator} {vector}")
        }
    }

    fn aggregate(&mut self, depth: usize) -> String {
        let plain = ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"];
        let op = if self.dice.chance(70) {
            self.dice.pick(&plain)
        } else {
            self.dice.pick(&["topk", "bottomk", "quantile", "count_values", "limitk", "limit_ratio"])
        };
        let parameter = match op {
            "topk" | "bottomk" | "limitk" => self.dice.pick(&["1, ", "2, ", "3, ", "0, ", "100, ", "-1, ", "2.7, "]),
            "quantile" => self.dice.pick(&["0.5, ", "0.9, ", "0, ", "1, ", "-1, ", "2, ", "NaN, "]),
            "count_values" => self.dice.pick(&["\"value\", ", "\"job\", ", "\"a b\", ", "\"\", "]),
            "limit_ratio" => self.dice.pick(&["0.5, ", "-0.5, ", "0.3, ", "-0.7, ", "1.5, ", "0, ", "-2, "]),
            _ => "",
        };
        // Which of equal values are picked depends on an order that only plain selectors have.
        let picks = matches!(op, "topk" | "bottomk" | "limitk");
        let inner = if picks { self.vector(0) } else { self.vector(depth) };
        let grouping = match self.dice.below(5) {
            0 => format!(" by ({}) ", self.labels()),
            1 => format!(" without ({}) ", self.labels()),
            2 => " by (job)".to_owned(),
            _ => String::new(),
        };
        if self.dice.chance(60) {
            format!("{op}{grouping}({parameter}{inner})")
        } else {
            format!("{op}({parameter}{inner}){grouping}")
        }
    }

    fn over_time(&mut self, depth: usize) -> String {
        match self.dice.below(10) {
            0 => format!("quantile_over_time({}, {})", self.dice.pick(&["0.5", "0.99", "-1", "2"]), self.matrix(depth)),
            1 => format!("predict_linear({}, {})", self.matrix(depth), self.scalar(depth.min(1))),
            2 => {
                let (a, b) = (self.dice.pick(&["0.5", "0.1", "0.9", "1"]), self.dice.pick(&["0.5", "0.3", "0"]));
                format!("double_exponential_smoothing({}, {a}, {b})", self.matrix(depth))
            }
            _ => format!("{}({})", self.dice.pick(&OVER_TIME), self.matrix(depth)),
        }
    }

    fn call(&mut self, depth: usize) -> String {
        let inner = self.vector(depth);
        match self.dice.below(22) {
            0..=4 => {
                // What turns the last digit into the first one is compared on samples only: processors differ there.
                let function = self.dice.pick(&MATH);
                let inner = if matches!(function, "sin" | "cos" | "tan") { self.selector() } else { inner };
                format!("{function}({inner})")
            }
            5 => format!("{}({inner})", self.dice.pick(&DATES)),
            6 => format!("{}()", self.dice.pick(&DATES)),
            7 => format!("clamp({inner}, {}, {})", self.scalar(0), self.scalar(0)),
            8 => format!("{}({inner}, {})", self.dice.pick(&["clamp_min", "clamp_max"]), self.scalar(depth)),
            9 => format!("round({inner})"),
            10 => format!("round({inner}, {})", self.dice.pick(&["0.1", "5", "0", "-1", "1e-3"])),
            11 => format!("timestamp({inner})"),
            12 => format!("absent({inner})"),
            13 => format!("vector({})", self.scalar(depth)),
            14 => self.label_call(&inner),
            15 | 16 => self.histogram_call(),
            17 => format!("deg({inner})"),
            18 => self.info_call(),
            19 => format!("timestamp({}{})", self.selector(), self.modifiers()),
            20 => format!("scalar({inner}) + {inner}"),
            _ => format!(
                "{}({inner})",
                self.dice.pick(&["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev"])
            ),
        }
    }

    fn label_call(&mut self, inner: &str) -> String {
        let choices = [
            r#"label_replace(X, "short", "$1", "instance", "(.):.*")"#,
            r#"label_replace(X, "job", "", "instance", ".*")"#,
            r#"label_replace(X, "__name__", "renamed", "job", "api")"#,
            r#"label_replace(X, "short", "${1}-$2", "instance", "(.):(.)")"#,
            r#"label_replace(X, "instance", "x", "", "")"#,
            r#"label_replace(X, "", "x", "job", ".*")"#,
            r#"label_replace(X, "a", "x", "job", "(")"#,
            r#"label_replace(X, "a b", "x$job", "job", "(?P<job>.*)")"#,
            r#"label_join(X, "joined", "-", "job", "instance")"#,
            r#"label_join(X, "joined", ",")"#,
            r#"label_join(X, "job", "", "instance")"#,
            r#"label_join(X, "joined", "-", "")"#,
        ];
        self.dice.pick(&choices).replace('X', inner)
    }

    fn histogram_call(&mut self) -> String {
        let buckets = [
            "latency_seconds_bucket",
            "rate(latency_seconds_bucket[5m])",
            "sum by (le) (rate(latency_seconds_bucket[5m]))",
            "sum by (job, le) (increase(latency_seconds_bucket[10m]))",
            "strange_bucket",
            "strange_bucket{kind=\"falling\"}",
            "strange_bucket{kind!=\"falling\"}",
            "up",
            "sum(latency_seconds_bucket) by (le)",
        ];
        let buckets = self.dice.pick(&buckets).to_owned();
        if self.dice.chance(75) {
            let q = self.dice.pick(&["0.5", "0.99", "0", "1", "-1", "2", "NaN", "0.1"]);
            return format!("histogram_quantile({q}, {buckets})");
        }
        // Prometheus 3.5 knows no fraction of the lowest bucket, later ones do: no finite bound lies in it here.
        let buckets = buckets.replace("strange_bucket", "latency_seconds_bucket");
        let bounds = self.dice.pick(&["-Inf, Inf", "1, 0", "0.5, 0.5", "NaN, 1"]);
        format!("histogram_fraction({bounds}, {buckets})")
    }

    fn info_call(&mut self) -> String {
        // Prometheus 3.5 confuses series here where some are missing at a step, and loses those with neither instance nor
        // job where the name is matched; later ones do not.
        let inner = self.dice.pick(&["role", "constant", "temperature", "latency_seconds_sum", "-constant"]);
        let choices = [
            "info(X)",
            "info(X, {version=~\".+\"})",
            "info(X, {env=\"prod\"})",
            "info(X, {version=~\".*\"})",
            "info(X, {__name__=\"build_info\"})",
            "info(X, {__name__=~\".+_info\",version=\"1.0\"})",
            "info(X, {nothing=~\".+\"})",
        ];
        self.dice.pick(&choices).replace('X', inner)
    }

    /// An expression whose result has an order.
    fn ordered(&mut self, depth: usize) -> String {
        match self.dice.below(5) {
            0 => format!("sort({})", self.vector(depth.min(1))),
            1 => format!("sort_desc({})", self.vector(depth.min(1))),
            2 => format!(
                "sort_by_label({}, \"n\", \"instance\")",
                self.dice.pick(&["ties", "temperature", "up", "ties > 2"])
            ),
            3 => format!("sort_by_label_desc({}, \"job\")", self.dice.pick(&["ties", "temperature", "up"])),
            _ => format!("topk({}, temperature)", self.dice.pick(&["2", "3", "10"])),
        }
    }

    /// The text with something wrong in it, most of the time.
    fn broken(&mut self, text: &str) -> String {
        let characters: Vec<char> = text.chars().collect();
        let at = self.dice.below(characters.len() + 1);
        let (before, after) = characters.split_at(at);
        let (before, after): (String, String) = (before.iter().collect(), after.iter().collect());
        let pieces = [
            "(",
            ")",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\"",
            "'",
            " ",
            "+",
            "-",
            "*",
            "=",
            "!",
            "~",
            ":",
            "@",
            "offset",
            "by",
            "on",
            "sum",
            "5m",
            "1",
            "_",
            "#",
            " and ",
            "bool ",
            "[5m]",
            " offset 1m",
            " @ 1",
            "{a=\"b\"}",
            "é",
            "\\",
            "\n",
            "<",
            ">",
            "group_left",
            "without",
            "atan2 ",
            ".",
            "e",
            "x",
            "0",
        ];
        match self.dice.below(4) {
            0 => before + &after.chars().skip(1).collect::<String>(),
            1 => before,
            2 => after,
            _ => format!("{before}{}{after}", self.dice.pick(&pieces)),
        }
    }
}
