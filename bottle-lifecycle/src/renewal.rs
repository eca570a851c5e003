//! New values of credentials, handed to the sidecars of a running bottle before the old ones expire.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bottle_engine::Engine;
use bottle_exec::{Event, Observer, chain};
use bottle_plan::Secrets;
use bottle_plan::value::EnvName;

use crate::hand_over::hand_over;
use crate::secret_source::{Secret, SecretSource};

/// Shortest pause between two questions to a source, also after a failure.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longest pause after a failure.
const LONGEST: Duration = Duration::from_secs(60);

/// A credential that is renewed while a bottle runs.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Name of the variable that the manifest gives, for messages.
    pub name: String,
    /// Source of the values.
    pub source: Arc<dyn SecretSource>,
    /// End of the validity of the value that the sidecars have.
    pub expires: SystemTime,
    /// Directory of the credentials in the sidecars.
    pub directory: String,
    /// Containers that need it, each with the slots that take the value.
    pub sidecars: Vec<(String, Vec<EnvName>)>,
}

impl Renewal {
    /// Returns the pause before the source is asked: two thirds of the time that is left.
    fn pause(&self) -> Duration {
        let left = self.expires.duration_since(SystemTime::now()).unwrap_or_default();
        left * 2 / 3
    }

    /// Asks the source and gives the sidecars its value. Returns the end of its validity, or `None` once the source has nothing that
    /// expires.
    fn renew(&mut self, engine: &Engine) -> Result<Option<SystemTime>, String> {
        // Asked again later, like one that fails. The panic's message is on standard error.
        let asked = panic::catch_unwind(AssertUnwindSafe(|| self.source.value()));
        let secret = asked.map_err(|_| "its source panicked".to_owned())?.map_err(|error| chain(&*error))?;
        if !secret.is_usable() {
            return Err(format!("its source {}", Secret::UNUSABLE));
        }
        let Secret { value, expires } = secret;
        let slots = self.sidecars.iter().flat_map(|(_, slots)| slots);
        let mut values = Secrets::default();
        slots.for_each(|slot| values.insert(slot.clone(), value.clone()));
        hand_over(engine, &self.directory, &self.sidecars, &values).map_err(|error| chain(&error))?;
        Ok(expires)
    }
}

/// Threads that renew credentials, one for each source, so that a slow one delays no other. They end when this is dropped,
/// one whose source is just being asked after that.
#[derive(Debug)]
pub(crate) struct Renewing {
    /// A thread ends when its sender is gone.
    _senders: Vec<Sender<()>>,
}

impl Renewing {
    pub(crate) fn start(engine: &Engine, renewals: Vec<Renewal>, observer: &Arc<dyn Observer>) -> Self {
        let start = |mut renewal: Renewal| {
            let (engine, observer) = (engine.clone(), Arc::clone(observer));
            let (sender, dropped) = mpsc::channel();
            thread::spawn(move || {
                // A value that expired during the launch is replaced at once.
                let mut pause = renewal.pause();
                let mut failed_for = SHORTEST;
                while dropped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    let asked = Instant::now();
                    match renewal.renew(&engine) {
                        Ok(Some(expires)) => {
                            let is_later = expires > std::mem::replace(&mut renewal.expires, expires);
                            // Some sources give the same value until shortly before its end.
                            if is_later {
                                let time = asked.elapsed().as_millis();
                                let message = format!("renewed `{}` in {time} ms", renewal.name);
                                observer.event(&Event::Note { message });
                            }
                            (pause, failed_for) = (renewal.pause().max(SHORTEST), SHORTEST);
                        }
                        Ok(None) => return,
                        Err(error) => {
                            let message = format!("the credential `{}` was not renewed: {error}", renewal.name);
                            observer.event(&Event::Warning { message });
                            (pause, failed_for) = (failed_for, (failed_for * 2).min(LONGEST));
                        }
                    }
                }
            });
            sender
        };
        Self { _senders: renewals.into_iter().map(start).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use bottle_engine::{EngineChoice, rehearsal};
    use bottle_exec::{Control, RecordingBackend, Stdin};

    use super::*;
    use crate::secret_source::CallbackSource;

    #[test]
    fn a_value_is_replaced_before_it_expires_and_a_failure_is_told_and_repeated() {
        let backend: Arc<RecordingBackend> = Arc::new(rehearsal());
        let engine = Engine::detect(backend.clone(), &EngineChoice::Auto, Control::default()).unwrap();
        backend.clear();
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let source = CallbackSource(move || match count.fetch_add(1, Ordering::Relaxed) {
            0 => Err("the server is busy".into()),
            1 => Ok(Secret::new("a-value\r\nX-Other: b", Some(Duration::from_secs(2)))),
            2 => panic!("a source that panics"),
            3 => Ok(Secret::new("second-value", Some(Duration::from_secs(2)))),
            _ => Ok(Secret::new("third-value", None)),
        });
        let renewal = Renewal {
            name: "TOKEN".into(),
            source: Arc::new(source),
            expires: SystemTime::now() + Duration::from_secs(1),
            directory: "/run/credentials".into(),
            sidecars: vec![("egress".into(), vec!["SLOT".parse().unwrap()])],
        };
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let tell = Arc::clone(&told);
        let observer: Arc<dyn Observer> =
            Arc::new(move |event: &Event| tell.lock().unwrap().push(format!("{event:?}")));
        let renewing = Renewing::start(&engine, vec![renewal], &observer);
        let until = Instant::now() + Duration::from_secs(20);
        while backend.commands().len() < 2 && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        let given: Vec<Vec<u8>> = backend
            .commands()
            .iter()
            .map(|command| match command.stdin() {
                Stdin::Bytes(bytes) => bytes.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(given, [b"second-value\n".to_vec(), b"third-value\n".to_vec()]);
        // Nothing expires any more.
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        let told = told.lock().unwrap().join("\n");
        assert!(told.contains("the credential `TOKEN` was not renewed: the server is busy"), "{told}");
        let unusable = "`TOKEN` was not renewed: its source gave an empty value, or one that no header can carry";
        assert!(told.contains(unusable), "{told}");
        assert!(told.contains("the credential `TOKEN` was not renewed: its source panicked"), "{told}");
        assert!(told.contains("renewed `TOKEN`") && !told.contains("value\"") && !told.contains("a-value"), "{told}");
        drop(renewing);
    }
}
