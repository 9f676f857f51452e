//! A recording by whole transactions: a call with what the model learnt and what came of it.

use super::format::{Access, Answer, Call, Entry, FormatError, Header, Learnt, Outcome, Reader, Start};
use std::io::Read;

/// A part of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A section starts.
    Start(Box<Start>),
    /// A model was called.
    Transaction(Box<Transaction>),
    /// The bus answered by itself.
    Bus(Box<(Access, Answer)>),
    /// The recording ended in order, at this time of the host.
    End(u64),
}

/// A call of a model and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Counted from 1.
    pub number: u64,
    /// The call.
    pub call: Call,
    /// What the model learnt in it.
    pub learnt: Vec<Learnt>,
    /// What came of it; `None` when the process died in it.
    pub outcome: Option<Outcome>,
}

/// Reads a recording by its parts.
pub struct Items<R> {
    reader: Reader<R>,
    ahead: Option<Entry>,
    count: u64,
}

impl<R: Read> Items<R> {
    /// Starts to read.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn new(source: R) -> Result<(Self, Header), FormatError> {
        let (reader, header) = Reader::new(source)?;
        Ok((Self { reader, ahead: None, count: 0 }, header))
    }

    /// Whether the file ended in the middle of an entry.
    pub fn is_cut(&self) -> bool {
        self.reader.is_cut()
    }

    /// The next part; `None` at the end, and where the file is cut off.
    ///
    /// # Errors
    /// [`FormatError`].
    #[expect(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> Result<Option<Item>, FormatError> {
        let entry = match self.ahead.take() {
            Some(entry) => Some(entry),
            None => self.reader.next()?,
        };
        Ok(Some(match entry {
            None => return Ok(None),
            Some(Entry::Start(start)) => Item::Start(start),
            Some(Entry::Bus(access, answer)) => Item::Bus(Box::new((access, answer))),
            Some(Entry::End { host_nanos }) => Item::End(host_nanos),
            Some(Entry::Call(call)) => {
                self.count += 1;
                let mut learnt = Vec::new();
                let outcome = loop {
                    match self.reader.next()? {
                        Some(Entry::Learnt(more)) => learnt.push(more),
                        Some(Entry::Outcome(outcome)) => break Some(outcome),
                        other => {
                            self.ahead = other;
                            break None;
                        }
                    }
                };
                Item::Transaction(Box::new(Transaction { number: self.count, call, learnt, outcome }))
            }
            Some(Entry::Header(_) | Entry::Learnt(_) | Entry::Outcome(_)) => {
                let what = "an entry is where none can be".into();
                return Err(FormatError::Damaged { at: self.reader.whole(), what });
            }
        }))
    }
}
