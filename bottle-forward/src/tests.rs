use std::io::Write as _;
use std::time::Instant;

use bottle_engine::EngineChoice;
use bottle_exec::{Backend, Command, Control, ExecError, ExitStatus, Output, RecordingBackend, TerminalSize};

use super::*;
use crate::frame::{Frame, Kind, PAYLOAD, WINDOW};
use crate::tunnel::Connection;

/// A backend whose live command is a thread with the program's behaviour: it echoes, and misbehaves where it is told to.
#[derive(Debug)]
struct Stage {
    inner: RecordingBackend,
    started: AtomicU64,
}

#[derive(Debug)]
struct Thread;

impl bottle_exec::ChildProcess for Thread {
    fn wait(&mut self) -> Result<ExitStatus, ExecError> {
        Ok(ExitStatus::Code(0))
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(Some(ExitStatus::Code(0)))
    }

    fn kill(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    fn resize(&mut self, _: TerminalSize) -> Result<(), ExecError> {
        Ok(())
    }
}

impl Backend for Stage {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        self.inner.run(command, control)
    }

    fn spawn(&self, command: &Command, _: &Control) -> Result<Child, ExecError> {
        let line = command.to_string();
        assert!(line.starts_with("docker exec --interactive --user 65534:65534 the-seal /forward 3000"), "{line}");
        self.started.fetch_add(1, Ordering::SeqCst);
        let ((theirs, input), (output, ours)) = (io::pipe().unwrap(), io::pipe().unwrap());
        thread::spawn(move || echo(theirs, ours));
        let (input, output) = (std::os::fd::OwnedFd::from(input), std::os::fd::OwnedFd::from(output));
        Ok(Child::new(Some(input.into()), Some(output.into()), None, Box::new(Thread)))
    }
}

fn echo(mut input: io::PipeReader, mut output: io::PipeWriter) -> io::Result<()> {
    frame::write(&mut output, 0, Kind::Open, 0, &[])?;
    loop {
        let Frame { id, kind, length, payload } = frame::read(&mut input)?;
        match kind {
            Kind::Data if payload == b"garbage" => output.write_all(&[0xff; 64])?,
            Kind::Data if payload == b"refuses" => frame::write(&mut output, id, Kind::Reset, 0, &[])?,
            Kind::Data => frame::write(&mut output, id, Kind::Data, length, &payload)?,
            // What came back has arrived, so that never more than the window is on the way.
            Kind::Credit => frame::write(&mut output, id, Kind::Credit, length, &[])?,
            Kind::End => frame::write(&mut output, id, Kind::End, 0, &[])?,
            Kind::Open | Kind::Reset => {}
        }
    }
}

fn forward() -> (Forward, Arc<Stage>, Arc<Mutex<Vec<String>>>) {
    let stage = Arc::new(Stage { inner: bottle_engine::rehearsal(), started: AtomicU64::default() });
    let engine = Engine::detect(stage.clone(), &EngineChoice::Auto, Control::default()).unwrap();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = Arc::clone(&told);
    let observer = Arc::new(move |event: &Event| tell.lock().unwrap().push(serde_text(event)));
    (Forward::open(&engine, "the-seal", 3000, observer).unwrap(), stage, told)
}

fn serde_text(event: &Event) -> String {
    match event {
        Event::ForwardOpened { port, .. } => format!("opened {port}"),
        Event::ForwardClosed { port, connections, .. } => format!("closed {port} after {connections}"),
        other => format!("{other:?}"),
    }
}

/// Sends bytes while it reads, and returns what came back until the end.
fn exchange(forward: &Forward, bytes: &[u8]) -> Vec<u8> {
    let socket = TcpStream::connect(forward.local_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // A connection that was ended meanwhile fails here. What came back tells.
            _ = (&socket).write_all(bytes).and_then(|()| socket.shutdown(std::net::Shutdown::Write));
        });
        let mut back = Vec::new();
        _ = (&socket).read_to_end(&mut back);
        back
    })
}

#[test]
fn many_connections_share_one_command_and_each_gets_its_own_bytes() {
    let (forward, stage, told) = forward();
    assert!(forward.local_addr().ip().is_loopback());
    thread::scope(|scope| {
        for number in 0..8_u32 {
            let forward = &forward;
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..200_000).flat_map(|at: u32| (at ^ number << 24).to_le_bytes()).collect();
                assert!(exchange(forward, &bytes) == bytes, "connection {number}");
            });
        }
    });
    // One that is still open ends with the forward.
    let mut open = TcpStream::connect(forward.local_addr()).unwrap();
    open.write_all(b"x").unwrap();
    open.read_exact(&mut [0]).unwrap();
    let address = forward.local_addr();
    drop(forward);
    assert_eq!(open.read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(stage.started.load(Ordering::SeqCst), 1);
    assert_eq!(*told.lock().unwrap(), ["opened 3000", "closed 3000 after 9"]);
}

#[test]
fn a_connection_that_nobody_reads_holds_up_no_other() {
    let (forward, _, _) = forward();
    let stuck = TcpStream::connect(forward.local_addr()).unwrap();
    stuck.set_nonblocking(true).unwrap();
    let (mut sent, until) = (0, Instant::now() + Duration::from_secs(20));
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(300) && Instant::now() < until {
        match (&stuck).write(&vec![0; 65_536]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!(sent > WINDOW, "{sent}");
    assert_eq!(exchange(&forward, b"hello"), b"hello");
}

#[test]
fn connections_that_nobody_reads_make_room_for_further_ones() {
    let (forward, stage, _) = forward();
    let idle: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let socket = TcpStream::connect(forward.local_addr()).unwrap();
            (&socket).write_all(&[0; 1000]).unwrap();
            socket
        })
        .collect();
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(exchange(&forward, b"hello"), b"hello");
    }
    assert!(began.elapsed() < IDLE * 3, "{:?}", began.elapsed());
    // Those that were idle longest have ended.
    let ended = idle.iter().filter(|socket| {
        socket.set_nonblocking(true).unwrap();
        let mut socket = *socket;
        let read: io::Result<u64> = io::copy(&mut socket, &mut io::sink());
        read.map_or_else(|error| error.kind() != io::ErrorKind::WouldBlock, |_| true)
    });
    assert!((1..=3).contains(&ended.count()));
    assert_eq!(stage.started.load(Ordering::SeqCst), 1);
}

#[test]
fn a_program_that_breaks_the_rules_ends_its_connections_and_is_started_again() {
    for (words, starts) in [(b"garbage", 2), (b"refuses", 1)] {
        let (forward, stage, _) = forward();
        assert_eq!(exchange(&forward, words), b"");
        assert_eq!(exchange(&forward, b"hello"), b"hello");
        assert_eq!(stage.started.load(Ordering::SeqCst), starts);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = Connection::new(1, TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let data = || Frame { id: 1, kind: Kind::Data, length: PAYLOAD, payload: vec![0; PAYLOAD] };
    assert!((0..WINDOW / PAYLOAD).all(|_| connection.take(data())));
    assert!(!connection.take(data()), "more than the window was taken");
}

#[test]
fn a_connection_that_the_agent_resets_is_reset_and_one_that_it_ends_is_ended() {
    let (forward, _, _) = forward();
    let last = |words: &[u8]| {
        let mut socket = TcpStream::connect(forward.local_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(words).unwrap();
        let mut back = vec![0; words.len()];
        if words == b"hello" {
            socket.read_exact(&mut back).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        socket.read(&mut back).map_err(|error| error.kind())
    };
    assert_eq!(last(b"refuses"), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(last(b"hello"), Ok(0));
}

#[test]
fn a_text_that_is_no_port_and_a_port_that_is_taken_are_refused() {
    for text in ["", "0", "3000:0", "65536", "+1", "a:1", "1:2:3"] {
        let error = text.parse::<ForwardSpec>().unwrap_err();
        assert!(error.to_string().starts_with(&format!("parse the forwarded port `{text}`; accepted:")), "{error}");
    }
    let engine = Engine::detect(Arc::new(bottle_engine::rehearsal()), &EngineChoice::Auto, Control::default()).unwrap();
    let open = |spec: ForwardSpec| Forward::open(&engine, "the-seal", spec, Arc::new(|_: &Event| {})).unwrap_err();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = taken.local_addr().unwrap().port();
    assert!(
        matches!(open(ForwardSpec::from(3000).with_local(local)), ForwardError::Listen { local: port, .. } if port == local)
    );
    assert!(matches!(open(0.into()), ForwardError::Port));
    let ended = open(3000.into()).to_string();
    assert!(ended.ends_with("did not start in `the-seal`: it ended without a message"), "{ended}");
}
