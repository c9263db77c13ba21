//! What was found out about the files, in words.

use crate::model::Timestamp;

use super::clocks::zone_text;
use super::{Certainty, LogPart, MemberClock, Survey};

impl Survey {
    /// Times of the first and the last record that are read.
    pub fn range(&self) -> (Timestamp, Timestamp) {
        let taken = || self.parts.iter();
        let first = taken().map(|part| part.first_at).min().unwrap_or_default().max(self.window.0);
        let last = taken().map(|part| part.last_at).max().unwrap_or_default().min(self.window.1);
        (first, last.max(first))
    }
}

impl LogPart {
    /// `n1 postgresql (csvlog, 40 records) n1.csv`
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}: {} {} ({}, {} records, {})",
            self.path.display(),
            self.member.value,
            self.source,
            self.format,
            self.records,
            certainty(self.member.certainty)
        );
        if let Some(zone) = &self.zone {
            text = format!("{text}, times in {} ({})", zone_text(i64::from(zone.value)), certainty(zone.certainty));
        }
        match &self.left_out {
            Some(why) => format!("{text}; left out: {why}"),
            None => text,
        }
    }

    /// What about it is only assumed.
    pub fn doubt(&self) -> Option<String> {
        let zone = self.zone.as_ref().filter(|zone| zone.certainty == Certainty::Assumed);
        if self.member.certainty == Certainty::Assumed {
            return Some(format!(
                "{}: whose log it is: {} ({})",
                self.path.display(),
                self.member.value,
                self.member.why
            ));
        }
        zone.map(|zone| {
            let value = zone_text(i64::from(zone.value));
            format!("{}: the zone of its times: {value} ({})", self.path.display(), zone.why)
        })
    }
}

impl MemberClock {
    /// What is not known of the clock, or was corrected.
    pub fn doubt(&self) -> Option<String> {
        let member = &self.member;
        match self.error_seconds {
            _ if self.corrected => {
                let error = self.error_seconds.unwrap_or(0.0);
                let ahead = self.ahead_seconds;
                Some(format!("{member}'s clock was {ahead:+.1} s off (±{error:.1} s) and was corrected: {}", self.why))
            }
            None => Some(format!("{member}'s clock: {}", self.why)),
            Some(error) if error > 1.0 => Some(format!("{member}'s clock may be ±{error:.1} s off: {}", self.why)),
            Some(_) => None,
        }
    }
}

const fn certainty(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Assumed => "assumed",
        Certainty::Likely => "likely",
        Certainty::Certain => "certain",
        Certainty::Given => "given",
    }
}
