//! The stages of a pipeline.

use crate::model::Matcher;

use super::super::ParseError;
use super::super::ast::{Conversion, LabelPick, LabelSource, Stage, Unwrap};
use super::super::filters::{IpPattern, LabelFilter, LabelTest, LineFilter, LineTest, Unit, line_regex};
use super::super::lexer::Tok;
use super::super::parsers::{Extraction, PatternParser, RegexpParser};
use super::super::template::Template;
use super::{Parsed, Parser, bad_matcher, match_op};

const LINE_OPS: [&str; 6] = ["|=", "|~", "|>", "!=", "!~", "!>"];

impl Parser {
    pub(super) fn at_stage(&self) -> bool {
        self.is_op("|") || matches!(self.peek(), Tok::Op(op) if LINE_OPS.contains(op))
    }

    /// Reads one stage. `unwrap` is where that stage may go; after it only label filters follow.
    pub(super) fn stage(&mut self, stages: &mut Vec<Stage>, unwrap: Option<&mut Option<Unwrap>>) -> Parsed<()> {
        let line_op = match self.peek() {
            Tok::Op(op) => LINE_OPS.iter().find(|known| *known == op),
            _ => None,
        };
        if let Some(op) = line_op {
            self.advance();
            stages.push(Stage::Line(self.line_filter(op)?));
            return Ok(());
        }
        self.expect_op("|")?;
        if self.is_word("unwrap") {
            let place = self.place();
            let Some(slot) = unwrap.filter(|slot| slot.is_none()) else {
                return Err(ParseError::at(place, "syntax error: unexpected unwrap"));
            };
            self.advance();
            *slot = Some(self.unwrap_stage()?);
            return Ok(());
        }
        if let Some(Some(unwrap)) = unwrap {
            unwrap.post_filters.push(LabelFilter(self.label_test()?));
            return Ok(());
        }
        stages.push(self.pipe_stage()?);
        Ok(())
    }

    fn line_filter(&mut self, op: &'static str) -> Parsed<LineFilter> {
        let mut tests = vec![self.line_test(op)?];
        while self.take_word("or") {
            tests.push(self.line_test(op)?);
        }
        Ok(LineFilter { op, tests })
    }

    fn line_test(&mut self, op: &str) -> Parsed<LineTest> {
        let place = self.place();
        if self.is_word("ip") {
            if !matches!(op, "|=" | "!=") {
                return Err(ParseError::at(place, format!("ip() does not work with {op}")));
            }
            return Ok(LineTest::Ip(self.ip()?));
        }
        let text = self.string()?;
        match op {
            "|~" | "!~" => {
                let regex = line_regex(&text);
                let regex = regex.map_err(|error| ParseError::at(place, format!("error parsing regexp: {error}")))?;
                Ok(LineTest::Matches(Box::new(regex)))
            }
            "|>" | "!>" => {
                let pattern = PatternParser::new(&text).map_err(|message| ParseError::at(place, message))?;
                Ok(LineTest::Pattern(pattern))
            }
            _ => Ok(LineTest::Contains(text)),
        }
    }

    fn ip(&mut self) -> Parsed<IpPattern> {
        self.advance();
        self.expect_op("(")?;
        let place = self.place();
        let text = self.string()?;
        self.expect_op(")")?;
        IpPattern::parse(&text).ok_or_else(|| {
            ParseError::at(place, format!("{text:?} is not an address, a network or a range of addresses"))
        })
    }

    fn pipe_stage(&mut self) -> Parsed<Stage> {
        let Tok::Ident(word) = self.peek().clone() else { return Ok(Stage::Label(LabelFilter(self.label_test()?))) };
        // A word before a comparison is a label, also when it is called like a stage.
        let next = self.tokens.get(self.at + 1).map(|spanned| &spanned.tok);
        if matches!(next, Some(Tok::Op("=" | "!=" | "=~" | "!~" | "==" | ">" | ">=" | "<" | "<="))) {
            return Ok(Stage::Label(LabelFilter(self.label_test()?)));
        }
        let place = self.place();
        self.advance();
        match word.as_str() {
            "json" => Ok(Stage::Json(self.extractions()?)),
            "logfmt" => {
                let (mut strict, mut keep_empty) = (false, false);
                while let Tok::Flag(flag) = *self.peek() {
                    strict |= flag == "--strict";
                    keep_empty |= flag == "--keep-empty";
                    self.advance();
                }
                Ok(Stage::Logfmt { strict, keep_empty, extractions: self.extractions()? })
            }
            "regexp" => {
                let parser = RegexpParser::new(&self.string()?);
                parser.map(Stage::Regexp).map_err(|message| ParseError::at(place, message))
            }
            "pattern" => {
                let parser = PatternParser::new(&self.string()?).map_err(|message| ParseError::at(place, message))?;
                if parser.has_name() {
                    return Ok(Stage::Pattern(parser));
                }
                Err(ParseError::at(place, "at least one capture is required"))
            }
            "unpack" => Ok(Stage::Unpack),
            "decolorize" => Ok(Stage::Decolorize),
            "line_format" => Ok(Stage::LineFormat(self.template()?)),
            "label_format" => Ok(Stage::LabelFormat(self.label_formats()?)),
            "drop" => Ok(Stage::Drop(self.label_picks()?)),
            "keep" => Ok(Stage::Keep(self.label_picks()?)),
            _ => Err(ParseError::at(place, format!("syntax error: unexpected {}", Tok::Ident(word).describe()))),
        }
    }

    fn template(&mut self) -> Parsed<Template> {
        let place = self.place();
        let text = self.string()?;
        Template::parse(&text).map_err(|message| ParseError::at(place, format!("invalid template: {message}")))
    }

    fn extractions(&mut self) -> Parsed<Vec<Extraction>> {
        let mut extractions = Vec::new();
        while let Tok::Ident(name) = self.peek().clone() {
            self.advance();
            let path = if self.take_op("=") { self.string()? } else { name.clone() };
            extractions.push(Extraction { name, path });
            if !self.take_op(",") {
                break;
            }
        }
        Ok(extractions)
    }

    fn label_formats(&mut self) -> Parsed<Vec<(String, LabelSource)>> {
        let mut formats = Vec::new();
        loop {
            let name = self.identifier()?;
            self.expect_op("=")?;
            let source = if matches!(self.peek(), Tok::Str(_)) {
                LabelSource::Template(self.template()?)
            } else {
                LabelSource::Label(self.identifier()?)
            };
            formats.push((name, source));
            if !self.take_op(",") {
                return Ok(formats);
            }
        }
    }

    fn label_picks(&mut self) -> Parsed<Vec<LabelPick>> {
        let mut picks = Vec::new();
        loop {
            let name = self.identifier()?;
            let place = self.place();
            let op = match self.peek() {
                Tok::Op(op) => match_op(op),
                _ => None,
            };
            picks.push(match op {
                None => LabelPick::Name(name),
                Some(op) => {
                    self.advance();
                    let matcher = Matcher::new(name, op, self.string()?);
                    LabelPick::Matching(matcher.map_err(|error| bad_matcher(&error, place))?)
                }
            });
            if !self.take_op(",") {
                return Ok(picks);
            }
        }
    }

    fn unwrap_stage(&mut self) -> Parsed<Unwrap> {
        let word = self.identifier()?;
        let conversion = match word.as_str() {
            "duration" | "duration_seconds" => Conversion::Duration,
            "bytes" => Conversion::Bytes,
            _ => Conversion::Number,
        };
        let label = if conversion != Conversion::Number && self.take_op("(") {
            let label = self.identifier()?;
            self.expect_op(")")?;
            return Ok(Unwrap { label, conversion, post_filters: Vec::new() });
        } else {
            word
        };
        Ok(Unwrap { label, conversion: Conversion::Number, post_filters: Vec::new() })
    }

    /// `a or b`, where `a` is `x and y`, `x, y` or `x y`.
    fn label_test(&mut self) -> Parsed<LabelTest> {
        let mut test = self.label_conjunction()?;
        while self.take_word("or") {
            test = LabelTest::Or(Box::new(test), Box::new(self.label_conjunction()?));
        }
        Ok(test)
    }

    fn label_conjunction(&mut self) -> Parsed<LabelTest> {
        let mut test = self.label_atom()?;
        loop {
            let joined = self.take_word("and") || self.take_op(",");
            let beside = matches!(self.peek(), Tok::Ident(word) if word != "or") || self.is_op("(");
            if !joined && !beside {
                return Ok(test);
            }
            test = LabelTest::And(Box::new(test), Box::new(self.label_atom()?));
        }
    }

    fn label_atom(&mut self) -> Parsed<LabelTest> {
        if self.take_op("(") {
            let inner = self.nested(Self::label_test)?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.identifier()?;
        let place = self.place();
        let Tok::Op(op @ ("=" | "!=" | "=~" | "!~" | "==" | ">" | ">=" | "<" | "<=")) = *self.peek() else {
            return self.unexpected("a comparison");
        };
        self.advance();
        if self.is_word("ip") && matches!(op, "=" | "!=") {
            return Ok(LabelTest::Ip { name, negated: op == "!=", pattern: self.ip()? });
        }
        if let (Tok::Str(value), Some(op)) = (self.peek().clone(), match_op(op)) {
            self.advance();
            return Matcher::new(name, op, value).map(LabelTest::Text).map_err(|error| bad_matcher(&error, place));
        }
        let sign = if self.take_op("-") { -1.0 } else { 1.0 };
        let (value, unit) = match *self.peek() {
            Tok::Number(value) => (value, Unit::Plain),
            Tok::Duration(value) => (value, Unit::Duration),
            Tok::Bytes(value) => (value, Unit::Bytes),
            _ => return self.unexpected("STRING, NUMBER, DURATION or BYTES"),
        };
        if matches!(op, "=~" | "!~") {
            return self.unexpected("STRING");
        }
        self.advance();
        Ok(LabelTest::Number { name, op, value: sign * value, unit })
    }
}
