//! Many connections over the two streams of one command.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use crate::frame::{self, Frame, Kind, PAYLOAD, WINDOW};

/// The host's side of the tunnel. It ends when the command does.
pub(crate) struct Tunnel {
    input: Mutex<Box<dyn Write + Send>>,
    connections: Mutex<Connections>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Connections {
    last: u32,
    open: HashMap<u32, Arc<Connection>>,
}

/// A connection of the host. One thread reads its socket, another one writes it.
pub(crate) struct Connection {
    id: u32,
    socket: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Bytes that the agent has sent and the host has not taken, at most [`WINDOW`] bytes.
    received: VecDeque<Vec<u8>>,
    waiting: usize,
    /// Number of bytes that the agent's side still takes.
    credit: usize,
    /// True once the agent sends nothing more.
    has_ended: bool,
    /// True once the connection has ended in both directions.
    is_reset: bool,
    /// The last time at which a byte was passed on in one of the directions.
    active: Instant,
}

impl Tunnel {
    /// Returns the tunnel over the streams of a command. The receiver gets a message once the program runs, and is
    /// disconnected if it ends before.
    pub(crate) fn start(
        input: Box<dyn Write + Send>,
        mut output: Box<dyn Read + Send>,
    ) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (connections, is_over) = (Mutex::default(), AtomicBool::default());
        let tunnel = Arc::new(Self { input: Mutex::new(input), connections, is_over });
        let (runs, told) = mpsc::channel();
        let this = Arc::clone(&tunnel);
        // This thread never writes to the command and never waits for a socket, so that the command can always write.
        thread::spawn(move || {
            let mut runs = Some(runs);
            while let Ok(frame) = frame::read(&mut *output) {
                if frame.kind == Kind::Open {
                    // Nobody listens if the start took too long.
                    runs.take().map(|runs| runs.send(()).ok());
                } else if let Some(connection) = this.find(frame.id)
                    && !connection.take(frame)
                {
                    break;
                }
            }
            this.is_over.store(true, Ordering::SeqCst);
            this.connections().open.values().for_each(|connection| connection.reset());
        });
        (tunnel, told)
    }

    /// Returns true once the command has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Ends every connection.
    pub(crate) fn reset_all(&self) {
        for connection in self.connections().open.values() {
            connection.reset();
            _ = connection.socket.shutdown(Shutdown::Both);
        }
    }

    /// Ends the connection that has been idle longest. Returns false if none has been idle for that long.
    pub(crate) fn end_idle(&self, least: Duration) -> bool {
        let open: Vec<_> = self.connections().open.values().cloned().collect();
        let longest =
            open.iter().map(|connection| (connection.state().active, connection)).min_by_key(|(since, _)| *since);
        let Some((_, connection)) = longest.filter(|(since, _)| since.elapsed() >= least) else { return false };
        self.abort(connection);
        true
    }

    /// Carries a connection to its end.
    pub(crate) fn carry(&self, socket: TcpStream) {
        _ = socket.set_nodelay(true);
        let connection = {
            let mut connections = self.connections();
            connections.last = connections.last.wrapping_add(1);
            let connection = Arc::new(Connection::new(connections.last, socket));
            connections.open.insert(connection.id, Arc::clone(&connection));
            connection
        };
        // Unless the command ended before the connection was in the list.
        if !self.is_over() && self.send(connection.id, Kind::Open, 0, &[]).is_ok() {
            thread::scope(|scope| {
                scope.spawn(|| self.attempt(&connection, Self::upload));
                self.attempt(&connection, Self::download);
            });
        }
        if connection.state().is_reset {
            // Closing the socket then resets it, so that the client does not take what it has read for everything.
            _ = set_socket_linger(&connection.socket, Some(Duration::ZERO));
        } else {
            _ = connection.socket.shutdown(Shutdown::Both);
        }
        self.connections().open.remove(&connection.id);
    }

    /// Runs one direction. Its failure ends the other one too, and the agent's connection.
    fn attempt(&self, connection: &Connection, direction: fn(&Self, &Connection) -> io::Result<()>) {
        if direction(self, connection).is_err() {
            self.abort(connection);
        }
    }

    /// Ends both directions of a connection at once, and the agent's connection.
    fn abort(&self, connection: &Connection) {
        connection.reset();
        _ = connection.socket.shutdown(Shutdown::Both);
        _ = self.send(connection.id, Kind::Reset, 0, &[]);
    }

    /// Sends what the host's client writes, until its end or a reset.
    fn upload(&self, connection: &Connection) -> io::Result<()> {
        let mut buffer = [0; PAYLOAD];
        loop {
            let credit = {
                let mut state = connection.wait_while(|state| state.credit == 0 && !state.is_reset);
                if state.is_reset {
                    return Ok(());
                }
                std::mem::take(&mut state.credit)
            };
            let count = (&connection.socket).read(&mut buffer[..credit.min(PAYLOAD)])?;
            let mut state = connection.state();
            state.credit += credit - count;
            state.active = Instant::now();
            if state.is_reset {
                return Ok(());
            }
            drop(state);
            if count == 0 {
                return self.send(connection.id, Kind::End, 0, &[]);
            }
            self.send(connection.id, Kind::Data, count, &buffer[..count])?;
        }
    }

    /// Writes what the agent sends, until its end or a reset.
    fn download(&self, connection: &Connection) -> io::Result<()> {
        loop {
            let bytes = {
                let mut state =
                    connection.wait_while(|state| state.received.is_empty() && !state.has_ended && !state.is_reset);
                match state.received.pop_front() {
                    Some(bytes) => bytes,
                    None if state.is_reset => return Ok(()),
                    None => return connection.socket.shutdown(Shutdown::Write),
                }
            };
            (&connection.socket).write_all(&bytes)?;
            {
                let mut state = connection.state();
                state.waiting -= bytes.len();
                state.active = Instant::now();
            }
            self.send(connection.id, Kind::Credit, bytes.len(), &[])?;
        }
    }

    fn send(&self, id: u32, kind: Kind, length: usize, payload: &[u8]) -> io::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        frame::write(&mut **input, id, kind, length, payload)
    }

    fn find(&self, id: u32) -> Option<Arc<Connection>> {
        self.connections().open.get(&id).cloned()
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    pub(crate) fn new(id: u32, socket: TcpStream) -> Self {
        let state = State {
            received: VecDeque::new(),
            waiting: 0,
            credit: WINDOW,
            has_ended: false,
            is_reset: false,
            active: Instant::now(),
        };
        Self { id, socket, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes a frame of the agent's side. Returns false if it breaks the rules.
    pub(crate) fn take(&self, frame: Frame) -> bool {
        let mut state = self.state();
        match frame.kind {
            Kind::Open => return false,
            Kind::Data if state.waiting + frame.length > WINDOW => return false,
            Kind::Data => {
                state.waiting += frame.length;
                state.received.push_back(frame.payload);
            }
            Kind::Credit => state.credit = (state.credit + frame.length).min(WINDOW),
            Kind::End => state.has_ended = true,
            Kind::Reset => {
                drop(state);
                self.reset();
                return true;
            }
        }
        self.changed.notify_all();
        true
    }

    /// Ends both directions. What was received is still written, and then the client's connection is reset.
    fn reset(&self) {
        self.state().is_reset = true;
        self.changed.notify_all();
        // Wakes the thread that reads.
        _ = self.socket.shutdown(Shutdown::Read);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.state(), |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }
}
