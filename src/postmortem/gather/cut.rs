//! A stream of bytes to records with the line they begin at.

use std::io::{self, Read};
use std::ops::ControlFlow;

use crate::collect::logs::assemble::{Assembler, RawRecord};
use crate::collect::logs::format::Format;
use crate::collect::logs::prefix::Prefix;

const BUFFER_BYTES: usize = 128 << 10;

/// Cuts all of it. `visit` gets the line number, from 1.
pub(super) fn cut(
    mut bytes: impl Read,
    format: Format,
    prefix: Option<Prefix>,
    visit: &mut dyn FnMut(u64, RawRecord) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut cutter = Cutter { assembler: Assembler::new(format, prefix, 0), line: 1, started: None };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match bytes.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for piece in buffer.get(..count).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            if cutter.feed(piece, visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(cutter.finish(visit))
}

struct Cutter {
    assembler: Assembler,
    /// The line that is being fed.
    line: u64,
    /// Where the record that is held began.
    started: Option<u64>,
}

impl Cutter {
    /// A line or a part of one.
    fn feed(&mut self, piece: &[u8], visit: &mut dyn FnMut(u64, RawRecord) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut started = self.started.unwrap_or(self.line);
        let mut records = Vec::new();
        // One line never gives more than the record before it and its own.
        self.assembler.feed(piece, &mut records, usize::MAX);
        let has_records = !records.is_empty();
        for record in records {
            visit(started, record)?;
            started = self.line;
        }
        self.started =
            if self.assembler.is_empty() { None } else { Some(if has_records { self.line } else { started }) };
        self.line += u64::from(piece.ends_with(b"\n"));
        ControlFlow::Continue(())
    }

    fn finish(mut self, visit: &mut dyn FnMut(u64, RawRecord) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut records = Vec::new();
        self.assembler.flush_all(&mut records);
        let mut started = self.started.unwrap_or(self.line);
        for record in records {
            visit(started, record)?;
            started = self.line;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_numbers_are_those_of_the_file() {
        let patroni = "x\n\n2026-11-23 05:46:38,252 INFO: a\nTraceback\n  more\n2026-11-23 05:46:39,252 INFO: b\n\n\
            2026-11-23 05:46:40,252 INFO: c";
        let etcd = "{}\n\n{\"a\":1}\n";
        for (format, text, expected) in [
            (
                Format::Patroni,
                patroni,
                vec![
                    (1, "x\n"),
                    (3, "2026-11-23 05:46:38,252 INFO: a\nTraceback\n  more"),
                    (6, "2026-11-23 05:46:39,252 INFO: b\n"),
                    (8, "2026-11-23 05:46:40,252 INFO: c"),
                ],
            ),
            (Format::Etcd, etcd, vec![(1, "{}"), (3, "{\"a\":1}")]),
        ] {
            let mut found = Vec::new();
            let flow = cut(text.as_bytes(), format, None, &mut |line, record| {
                found.push((line, String::from_utf8(record.text).unwrap()));
                ControlFlow::Continue(())
            });
            assert!(flow.unwrap().is_continue());
            let expected: Vec<_> = expected.into_iter().map(|(line, text)| (line, text.to_owned())).collect();
            assert_eq!(found, expected);
        }
    }
}
