//! The ports of an agent as ports of the host's loopback, without a route into or out of the bottle.
//!
//! A [`Forward`] listens on 127.0.0.1. All of its connections go over the standard input and output of one command,
//! the program `forward` of the seal's image. An engine runs it in the namespace that the seal owns and the agent joined, a
//! cluster in a container of the agent's Pod. It runs as a user without capabilities and ends with its standard input, so it
//! also ends when the process that started it is killed. It listens nowhere and connects only to the agent's loopback: the
//! agent can answer a connection of the host, and open none.
//!
//! A page from there is as untrusted as the agent: the browser that shows it runs the agent's program.

mod frame;
mod tunnel;

use std::fmt;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bottle_engine::{Engine, EngineError, Exec};
use bottle_exec::{Child, Event, Observer, chain};

use tunnel::Tunnel;

/// Number of connections at once. For a further one, the one that has been idle longest is ended, if that is at least
/// [`IDLE`]. Otherwise it waits until one of them ends or becomes idle.
pub const CONNECTIONS: usize = 100;
/// Time without a byte after which a connection may be ended for a further one.
pub const IDLE: Duration = Duration::from_secs(5);

/// User and group of the program, which own nothing.
const NOBODY: &str = "65534:65534";
/// Time that the program gets to start.
const START: Duration = Duration::from_secs(20);
/// Time that the connections get to end when a forward is closed.
const FAREWELL: Duration = Duration::from_secs(2);
/// Interval at which idle connections are looked for while a further one waits.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after the operating system refused to accept a connection, for example because there are too many files.
const PAUSE: Duration = Duration::from_millis(100);

/// A port of the agent's loopback, and the port of the host's loopback where it is seen.
///
/// As text `PORT` or `LOCAL:PORT`, in the order of `docker run --publish`. Without a local port, or with 0, a free one is
/// chosen.
///
/// ```
/// use bottle_forward::ForwardSpec;
/// let spec: ForwardSpec = "8080:3000".parse()?;
/// assert_eq!((spec.local(), spec.port()), (8080, 3000));
/// assert_eq!("3000".parse::<ForwardSpec>()?, ForwardSpec::from(3000));
/// assert!("0".parse::<ForwardSpec>().is_err());
/// # Ok::<(), bottle_forward::ForwardSpecError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardSpec {
    local: u16,
    port: u16,
}

/// A text that is no [`ForwardSpec`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("parse the forwarded port `{0}`; accepted: `PORT` or `LOCAL:PORT`, a port is a number from 1 to 65535")]
pub struct ForwardSpecError(String);

impl ForwardSpec {
    /// Sets the port of the host's loopback. 0 is a free one.
    #[must_use]
    pub const fn with_local(mut self, local: u16) -> Self {
        self.local = local;
        self
    }

    /// Returns the port of the host's loopback.
    pub const fn local(&self) -> u16 {
        self.local
    }

    /// Returns the agent's port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// The agent's port, at a free port of the host.
impl From<u16> for ForwardSpec {
    fn from(port: u16) -> Self {
        Self { local: 0, port }
    }
}

impl FromStr for ForwardSpec {
    type Err = ForwardSpecError;

    fn from_str(text: &str) -> Result<Self, ForwardSpecError> {
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let spec = match text.split_once(':') {
            Some((local, port)) => number(local).zip(number(port)).map(|(local, port)| Self { local, port }),
            None => number(text).map(Self::from),
        };
        spec.filter(|spec| spec.port != 0).ok_or_else(|| ForwardSpecError(text.to_owned()))
    }
}

/// An error of a forward.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The port of the agent is 0.
    #[error("forward port `0`; accepted: a number from 1 to 65535")]
    Port,
    /// The port of the host cannot be used.
    #[error("listen on `127.0.0.1:{local}`")]
    Listen {
        /// The port.
        local: u16,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The program did not start in the seal's container.
    #[error("forward port `{port}`: the program `forward` did not start in `{container}`: {reason}")]
    Start {
        /// The agent's port.
        port: u16,
        /// Name of the seal's container.
        container: String,
        /// Message of the engine or the program.
        reason: String,
    },
    /// The engine's client cannot be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A port of the agent that is open on the host's loopback until this is dropped. Its connections then end too.
#[derive(Debug)]
pub struct Forward {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// Starts the program with its arguments, and returns its client.
type Start = Box<dyn Fn(&[String]) -> Result<Child, ForwardError> + Send + Sync>;

struct Shared {
    start: Start,
    container: String,
    port: u16,
    observer: Arc<dyn Observer>,
    running: Mutex<Option<Running>>,
    open: Mutex<usize>,
    fewer: Condvar,
    accepted: AtomicU64,
    is_closed: AtomicBool,
}

/// The command that carries the connections.
struct Running {
    tunnel: Arc<Tunnel>,
    /// Dropping it stops the client, and with that the program.
    _client: Child,
}

impl Forward {
    /// Opens a port. `container` is the one whose image has the program and whose network namespace is the agent's.
    ///
    /// # Errors
    ///
    /// Returns an error when the port of the host is taken, or the program cannot be started.
    pub fn open(
        engine: &Engine,
        container: impl Into<String>,
        spec: impl Into<ForwardSpec>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ForwardError> {
        let (engine, container) = (engine.clone(), container.into());
        let name = container.clone();
        let start = move |argv: &[String]| {
            let exec = Exec::new(argv.to_vec()).with_user(NOBODY);
            Ok(engine.spawn_bare(&container, &exec)?)
        };
        Self::open_with(start, name, spec, observer)
    }

    /// Opens a port of an agent that another program than an engine's client reaches. `start` runs its arguments in a
    /// container of the seal's image with the agent's loopback, as a user without capabilities, and returns the client with
    /// a pipe for each stream. The command ends with its standard input. `container` names the container in errors.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(
        start: impl Fn(&[String]) -> Result<Child, ForwardError> + Send + Sync + 'static,
        container: impl Into<String>,
        spec: impl Into<ForwardSpec>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ForwardError> {
        let ForwardSpec { local, port } = spec.into();
        if port == 0 {
            return Err(ForwardError::Port);
        }
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local))?;
            Ok((listener.local_addr()?, listener))
        };
        let (local_addr, listener) = listen().map_err(|source| ForwardError::Listen { local, source })?;
        let shared = Arc::new(Shared {
            start: Box::new(start),
            container: container.into(),
            port,
            observer,
            running: Mutex::default(),
            open: Mutex::default(),
            fewer: Condvar::new(),
            accepted: AtomicU64::default(),
            is_closed: AtomicBool::default(),
        });
        shared.tunnel()?;
        shared.observer.event(&Event::ForwardOpened { port, address: local_addr.to_string() });
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.accept(&listener))
        };
        Ok(Self { local_addr, shared, accepting: Some(accepting) })
    }

    /// Returns the address on the host: 127.0.0.1 and a port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the agent's port.
    pub fn port(&self) -> u16 {
        self.shared.port
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.is_closed.store(true, Ordering::SeqCst);
        shared.fewer.notify_all();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.local_addr));
        if let Some(accepting) = self.accepting.take() {
            _ = accepting.join();
        }
        if let Some(running) = shared.running().take() {
            running.tunnel.reset_all();
        }
        _ = shared.fewer.wait_timeout_while(shared.open(), FAREWELL, |open| *open > 0);
        let (port, address) = (shared.port, self.local_addr.to_string());
        let connections = shared.accepted.load(Ordering::SeqCst);
        shared.observer.event(&Event::ForwardClosed { port, address, connections });
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            self.make_room();
            if self.is_closed() {
                return;
            }
            let Ok((socket, _)) = accepted else {
                thread::sleep(PAUSE);
                continue;
            };
            let tunnel = match self.tunnel() {
                Ok(tunnel) => tunnel,
                Err(error) => {
                    let message = format!("a connection to port {} was closed: {}", self.port, chain(&error));
                    self.observer.event(&Event::Warning { message });
                    continue;
                }
            };
            self.accepted.fetch_add(1, Ordering::SeqCst);
            *self.open() += 1;
            let this = Arc::clone(self);
            thread::spawn(move || {
                tunnel.carry(socket);
                *this.open() -= 1;
                this.fewer.notify_all();
            });
        }
    }

    /// Waits until there is room for one more connection. Ends one that is idle for it.
    fn make_room(&self) {
        let is_full = |open: &mut usize| *open >= CONNECTIONS && !self.is_closed();
        let mut open = self.open();
        while is_full(&mut open) {
            drop(open);
            let tunnel = self.running().as_ref().map(|running| Arc::clone(&running.tunnel));
            _ = tunnel.is_some_and(|tunnel| tunnel.end_idle(IDLE));
            open = self.fewer.wait_timeout_while(self.open(), LOOK, is_full).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns the tunnel. Starts the program if it does not run, or has ended with its container.
    fn tunnel(&self) -> Result<Arc<Tunnel>, ForwardError> {
        let mut running = self.running();
        if let Some(Running { tunnel, .. }) = running.as_ref().filter(|running| !running.tunnel.is_over()) {
            return Ok(Arc::clone(tunnel));
        }
        *running = None;
        let mut client = (self.start)(&["/forward".to_owned(), self.port.to_string()])?;
        let failed = |reason: String| {
            let (port, container) = (self.port, self.container.clone());
            ForwardError::Start { port, container, reason }
        };
        let streams = client.stdin.take().zip(client.stdout.take());
        let (input, output) = streams.ok_or_else(|| failed("it has no streams".into()))?;
        let (tunnel, runs) = Tunnel::start(Box::new(input), Box::new(output));
        if let Err(error) = runs.recv_timeout(START) {
            _ = client.kill();
            let mut said = String::new();
            if let Some(stderr) = client.stderr.take() {
                _ = stderr.take(4096).read_to_string(&mut said);
            }
            let silent = match error {
                RecvTimeoutError::Timeout => format!("no answer within {} s", START.as_secs()),
                RecvTimeoutError::Disconnected => "it ended without a message".to_owned(),
            };
            let said = said.trim();
            return Err(failed(if said.is_empty() { silent } else { said.to_owned() }));
        }
        *running = Some(Running { tunnel: Arc::clone(&tunnel), _client: client });
        Ok(tunnel)
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, port, .. } = self;
        f.debug_struct("Shared").field("container", container).field("port", port).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
