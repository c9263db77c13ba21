//! What people do with an incident: take it, give it back, write something down.
//!
//! The row in the state store is the truth about that, and changes in one transaction: what is answered is durable. The
//! judge, which owns the rest of the row, carries it along ([`carry`]), so that neither writes over the other. It hears
//! of changes in the order in which they were made.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::warn;

use crate::model::Timestamp;
use crate::model::incident::{Handling, Incident, IncidentState, Note};
use crate::store::state::tables::INCIDENTS;
use crate::store::state::{StateError, StateStore, WriteTx};

/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 4 << 10;
/// Notes of one incident.
pub const NOTES_MAX: usize = 200;
/// Changes that may wait for the judge.
const HANDLED_MAX: usize = 64;

/// What somebody wants to do with an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Take it, perhaps with a note. Who took it first stays.
    Acknowledge {
        comment: Option<String>,
    },
    /// Give it back.
    GiveBack,
    Note {
        text: String,
    },
}

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    #[error("no incident has the id {0:?}")]
    Unknown(String),
    #[error("the incident has settled: there is nothing to take; write a note instead")]
    Settled,
    #[error("a note must say something")]
    EmptyNote,
    #[error("a note has at most {NOTE_BYTES_MAX} bytes, this one has {0}")]
    LongNote(usize),
    #[error("the incident has {NOTES_MAX} notes already; keep the rest of the story elsewhere")]
    ManyNotes,
    #[error("read incident {id:?}")]
    Unreadable { id: String, source: serde_json::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// What was done with an incident, for the judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    pub incident: String,
    pub handling: Handling,
}

/// Where people write.
#[derive(Debug)]
pub struct Desk {
    state: Arc<StateStore>,
    /// Locked from the transaction until it is told: the judge must hear changes in their order.
    told: Mutex<mpsc::Sender<Handled>>,
}

impl Desk {
    /// A desk, and what the judge listens to.
    pub fn new(state: Arc<StateStore>) -> (Self, mpsc::Receiver<Handled>) {
        let (told, handled) = mpsc::channel(HANDLED_MAX);
        (Self { state, told: Mutex::new(told) }, handled)
    }

    /// Does it, durably; returns the incident as it is then. Blocks.
    pub fn act(&self, id: &str, act: &Act, by: &str, now: Timestamp) -> Result<Incident, HandleError> {
        let told = self.told.lock();
        let incident = self.state.write(|tx| {
            let row: Value = tx.get(&INCIDENTS, id)?.ok_or_else(|| HandleError::Unknown(id.to_owned()))?;
            let mut incident =
                Incident::deserialize(&row).map_err(|source| HandleError::Unreadable { id: id.to_owned(), source })?;
            let handling = done(&incident, act, by, now)?;
            incident.handle(&handling);
            put(tx, &incident)?;
            Ok::<Incident, HandleError>(incident)
        })?;
        let handled = Handled { incident: incident.id.clone(), handling: incident.handling.clone() };
        if let Err(error) = told.try_send(handled) {
            warn!(id, %error, "the judge is busy: it carries what was done with an incident along, and hears of it later");
        }
        Ok(incident)
    }
}

/// What people did, after one more act.
fn done(incident: &Incident, act: &Act, by: &str, now: Timestamp) -> Result<Handling, HandleError> {
    let mut handling = incident.handling.clone();
    if incident.state == IncidentState::Settled && !matches!(act, Act::Note { .. }) {
        return Err(HandleError::Settled);
    }
    match act {
        Act::Acknowledge { comment } => {
            if handling.acknowledged_at.is_none() {
                // An incident that opened in the future, by a clock that was set back, is taken all the same.
                handling.acknowledged_at = Some(now.max(incident.last_opened_at()));
                handling.acknowledged_by = Some(by.to_owned());
            }
            if let Some(comment) = comment.as_deref().filter(|comment| !comment.trim().is_empty()) {
                handling.notes.push(note(&handling, comment, by, now)?);
            }
        }
        Act::GiveBack => {
            handling.acknowledged_at = None;
            handling.acknowledged_by = None;
        }
        Act::Note { text } => handling.notes.push(note(&handling, text, by, now)?),
    }
    Ok(handling)
}

fn note(handling: &Handling, text: &str, by: &str, now: Timestamp) -> Result<Note, HandleError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(HandleError::EmptyNote);
    }
    if text.len() > NOTE_BYTES_MAX {
        return Err(HandleError::LongNote(text.len()));
    }
    if handling.notes.len() >= NOTES_MAX {
        return Err(HandleError::ManyNotes);
    }
    Ok(Note { at: now, by: by.to_owned(), text: text.to_owned() })
}

/// Writes what the judge knows of an incident, with what people did with it meanwhile.
pub fn carry(tx: &WriteTx, incident: &Incident) -> Result<(), StateError> {
    let stored: Option<Value> = tx.get(&INCIDENTS, &incident.id)?;
    // A row that cannot be read tells nothing.
    let Some(handling) = stored.and_then(|row| Handling::deserialize(&row).ok()) else { return put(tx, incident) };
    let mut carried = incident.clone();
    carried.handle(&handling);
    put(tx, &carried)
}

fn put(tx: &WriteTx, incident: &Incident) -> Result<(), StateError> {
    // Plain values of ours always serialise.
    tx.put(&INCIDENTS, &incident.id, &serde_json::to_value(incident).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

    struct Bed {
        _dir: tempfile::TempDir,
        state: Arc<StateStore>,
        desk: Desk,
        handled: mpsc::Receiver<Handled>,
    }

    fn incident(id: &str, state: &str) -> Incident {
        let settled_at = (state == "settled").then_some(NOW);
        let row = json!({
            "id": id, "cluster": "demo", "title": "t", "subject": "s", "severity": "critical", "state": state,
            "opened_at": NOW - Duration::from_mins(1), "settled_at": settled_at,
        });
        serde_json::from_value(row).unwrap()
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = Arc::new(StateStore::open(dir.path(), NOW).unwrap());
            let (desk, handled) = Desk::new(Arc::clone(&state));
            let bed = Self { _dir: dir, state, desk, handled };
            bed.judge_writes(&incident("demo-1", "open"));
            bed.judge_writes(&incident("demo-0", "settled"));
            bed
        }

        fn judge_writes(&self, incident: &Incident) {
            self.state.write(|tx| carry(tx, incident)).unwrap();
        }

        fn stored(&self, id: &str) -> Incident {
            serde_json::from_value(self.state.read().unwrap().get(&INCIDENTS, id).unwrap().unwrap()).unwrap()
        }

        fn act(&self, id: &str, act: &Act) -> Result<Incident, HandleError> {
            self.desk.act(id, act, "anna", NOW)
        }
    }

    fn acknowledge(comment: Option<&str>) -> Act {
        Act::Acknowledge { comment: comment.map(str::to_owned) }
    }

    fn write(text: &str) -> Act {
        Act::Note { text: text.to_owned() }
    }

    #[test]
    fn who_took_it_first_stays_until_it_is_given_back() {
        let mut bed = Bed::new();
        let taken = bed.act("demo-1", &acknowledge(Some(" on my way \n"))).unwrap();
        assert_eq!(
            (taken.state, taken.handling.acknowledged_by.as_deref()),
            (IncidentState::Acknowledged, Some("anna"))
        );
        assert_eq!(taken.handling.notes, [Note { at: NOW, by: "anna".to_owned(), text: "on my way".to_owned() }]);
        assert_eq!(bed.stored("demo-1"), taken);
        let later = NOW + Duration::from_secs(9);
        let again = bed.desk.act("demo-1", &acknowledge(Some("me too")), "ben", later).unwrap();
        assert_eq!(again.handling.acknowledged_by.as_deref(), Some("anna"));
        assert_eq!(again.handling.notes.len(), 2);
        let back = bed.act("demo-1", &Act::GiveBack).unwrap();
        assert_eq!((back.state, back.handling.acknowledged_at), (IncidentState::Open, None));
        assert_eq!(bed.act("demo-1", &Act::GiveBack).unwrap(), back, "giving back what nobody has changes nothing");
        let heard: Vec<Handling> =
            std::iter::from_fn(|| bed.handled.try_recv().ok()).map(|handled| handled.handling).collect();
        let done = [taken.handling, again.handling, back.handling.clone(), back.handling];
        assert_eq!(heard, done, "the judge hears it in its order");
    }

    #[test]
    fn what_cannot_be_done_is_said_and_changes_nothing() {
        let bed = Bed::new();
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        for (id, act, expected) in [
            ("demo-7", acknowledge(None), "no incident has the id \"demo-7\""),
            ("demo-0", acknowledge(None), "the incident has settled: there is nothing to take; write a note instead"),
            ("demo-0", Act::GiveBack, "the incident has settled: there is nothing to take; write a note instead"),
            ("demo-1", write(" \n"), "a note must say something"),
            ("demo-1", write(&long), "a note has at most 4096 bytes, this one has 4097"),
            ("demo-1", acknowledge(Some(&long)), "a note has at most 4096 bytes, this one has 4097"),
        ] {
            assert_eq!(bed.act(id, &act).unwrap_err().to_string(), expected);
        }
        assert_eq!(bed.stored("demo-1").handling, Handling::default());
        for number in 0..NOTES_MAX {
            bed.act("demo-0", &write(&number.to_string())).unwrap();
        }
        assert!(matches!(bed.act("demo-0", &write("one more")), Err(HandleError::ManyNotes)));
        assert_eq!(bed.stored("demo-0").handling.notes.len(), NOTES_MAX);
    }

    #[test]
    fn neither_judge_nor_people_write_over_the_other() {
        let bed = Bed::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..100 {
                    // The judge knows nothing of the notes.
                    bed.judge_writes(&Incident { title: format!("title {number}"), ..incident("demo-1", "open") });
                }
            });
            for author in ["anna", "ben"] {
                let desk = &bed.desk;
                scope.spawn(move || {
                    for number in 0..50 {
                        desk.act("demo-1", &write(&number.to_string()), author, NOW).unwrap();
                    }
                });
            }
        });
        let stored = bed.stored("demo-1");
        assert_eq!((stored.title.as_str(), stored.handling.notes.len()), ("title 99", 100));
    }

    #[test]
    fn an_acknowledgement_ends_when_the_incident_comes_back_and_not_when_it_settles() {
        let bed = Bed::new();
        bed.act("demo-1", &acknowledge(Some("mine"))).unwrap();
        let mut judged = incident("demo-1", "settled");
        bed.judge_writes(&judged);
        let settled = bed.stored("demo-1");
        assert_eq!((settled.state, settled.handling.acknowledged_at), (IncidentState::Settled, Some(NOW)));
        judged.reopen(NOW + Duration::from_secs(100));
        bed.judge_writes(&judged);
        let back = bed.stored("demo-1");
        assert_eq!(
            (back.state, back.handling.acknowledged_at, back.handling.notes.len()),
            (IncidentState::Open, None, 1)
        );
    }
}
