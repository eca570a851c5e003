//! The open ports of a bottle, in its journal.

use std::sync::Arc;

use bottle_exec::{Event, Observer, chain};

use crate::journal::{JournalError, JournalFile, OpenForward};
use crate::owner::Owner;

/// An observer of forwards that records those of this process in the journal, and passes each event on.
pub(crate) struct RecordForwards {
    /// `None` if the journal is lost.
    pub(crate) journal: Option<Arc<JournalFile>>,
    pub(crate) other: Arc<dyn Observer>,
}

impl RecordForwards {
    fn change(&self, change: impl FnOnce(&mut Vec<OpenForward>)) -> Result<(), JournalError> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.change_forwards(change))
    }
}

impl Observer for RecordForwards {
    fn event(&self, event: &Event) {
        let owner = || Owner::of_process(std::process::id());
        let recorded = match event {
            Event::ForwardOpened { port, address } => {
                self.change(|open| open.push(OpenForward { port: *port, address: address.clone(), owner: owner() }))
            }
            Event::ForwardClosed { address, .. } => {
                let own = owner();
                self.change(|open| open.retain(|it| it.address != *address || it.owner != own))
            }
            _ => Ok(()),
        };
        self.other.event(event);
        if let Err(error) = recorded {
            let message = format!("failed to record an open port in the journal: {}", chain(&error));
            self.other.event(&Event::Warning { message });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bottle_plan::{Names, Prefix, StateRoot};

    use super::*;
    use crate::journal::{Journal, Status};

    #[test]
    fn open_ports_of_every_process_are_in_the_journal_until_they_close() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(Prefix::default(), "demo".parse().unwrap());
        let layout = StateRoot::at(dir.path().join("state")).bottle(names.slug());
        let journal = Journal::new(&names, "dev".parse().unwrap(), Owner::of_process(std::process::id()), "docker");
        let own = Arc::new(JournalFile::create(&layout, journal.clone().with_created("a")).unwrap());
        own.set_status(Status::Ready).unwrap();
        let seen: Arc<Mutex<Vec<Event>>> = Arc::default();
        let tell = Arc::clone(&seen);
        let observer: Arc<dyn Observer> = Arc::new(move |event: &Event| tell.lock().unwrap().push(event.clone()));
        let record = |journal| RecordForwards { journal: Some(journal), other: Arc::clone(&observer) };
        let launcher = record(Arc::clone(&own));
        let attached = record(Arc::new(JournalFile::open(&layout).unwrap()));
        let opened = |port| Event::ForwardOpened { port, address: format!("127.0.0.1:4{port}") };
        let closed = |port| Event::ForwardClosed { port, address: format!("127.0.0.1:4{port}"), connections: 0 };
        let open = || {
            let ports = JournalFile::open(&layout).unwrap().journal().forwards;
            ports.into_iter().map(|it| it.port).collect::<Vec<_>>()
        };
        attached.event(&opened(3000));
        launcher.event(&opened(3001));
        assert_eq!(open(), [3000, 3001]);
        // The launcher's other changes keep what it did not know.
        own.set_status(Status::Kept).unwrap();
        assert_eq!(open(), [3000, 3001]);
        attached.event(&closed(3000));
        assert_eq!((open(), seen.lock().unwrap().len()), (vec![3001], 3));
        // The journal of a later bottle of that name is left alone.
        JournalFile::create(&layout, journal.with_created("b")).unwrap().set_status(Status::Ready).unwrap();
        launcher.event(&closed(3001));
        attached.event(&opened(3002));
        let later = JournalFile::open(&layout).unwrap().journal();
        assert_eq!((later.created.as_str(), later.forwards), ("b", vec![]));
    }
}
