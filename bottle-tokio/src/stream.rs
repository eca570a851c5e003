//! The pipes and the terminal of a live command as streams.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bottle_exec::{ChildInput, ChildOutput};
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// The write end of a command's standard input. Dropping it is the end of file.
#[derive(Debug)]
pub struct ChildStdin(
    /// `None` after a shutdown.
    Option<AsyncFd<ChildInput>>,
);

/// The read end of one of a command's outputs.
#[derive(Debug)]
pub struct ChildStdout(AsyncFd<ChildOutput>);

impl ChildStdin {
    pub(crate) fn new(input: ChildInput) -> io::Result<Self> {
        Ok(Self(Some(registered(input, Interest::WRITABLE)?)))
    }
}

impl ChildStdout {
    pub(crate) fn new(output: ChildOutput) -> io::Result<Self> {
        Ok(Self(registered(output, Interest::READABLE)?))
    }
}

/// Makes a stream non-blocking and registers it with the runtime.
#[allow(deprecated, reason = "its replacement is unsafe; the streams own their descriptor for as long as they exist")]
fn registered<T: AsFd + AsRawFd>(stream: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    let flags = rustix::fs::fcntl_getfl(&stream)?;
    rustix::fs::fcntl_setfl(&stream, flags | OFlags::NONBLOCK)?;
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for ChildStdout {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready_mut(context))?;
            match ready.try_io(|output| output.get_mut().read(buffer.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(input) = &mut self.0 else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        loop {
            let mut ready = ready!(input.poll_write_ready_mut(context))?;
            match ready.try_io(|input| input.get_mut().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use bottle_exec::{Backend as _, Child, Command, Control, Subprocess, TerminalSize};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::runtime::Builder;

    use super::*;

    fn spawn(command: &Command) -> Child {
        #[expect(clippy::disallowed_methods, reason = "the backend of a test")]
        Subprocess::new(std::env::vars_os()).spawn(command, &Control::default()).unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn one_thread_moves_bytes_both_ways_through_many_commands() {
        block_on(async {
            let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
            let mut tasks = Vec::new();
            for _ in 0..4 {
                let (mut child, bytes) = (spawn(&Command::new("cat")), bytes.clone());
                let mut stdin = ChildStdin::new(child.stdin.take().unwrap()).unwrap();
                let mut stdout = ChildStdout::new(child.stdout.take().unwrap()).unwrap();
                let written = bytes.clone();
                let writing = tokio::spawn(async move {
                    stdin.write_all(&written).await.unwrap();
                    stdin.shutdown().await.unwrap();
                    stdin.write_all(b"more").await.unwrap_err().kind()
                });
                tasks.push(tokio::spawn(async move {
                    let mut back = Vec::new();
                    stdout.read_to_end(&mut back).await.unwrap();
                    assert!(back == bytes, "{} bytes came back, or others", back.len());
                    assert_eq!(writing.await.unwrap(), io::ErrorKind::BrokenPipe);
                    child.kill().unwrap();
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn the_end_of_a_terminal_is_the_end_of_file() {
        block_on(async {
            let mut child = spawn(&Command::new("echo").with_arg("done").with_terminal(TerminalSize::default()));
            let mut shown = String::new();
            let mut stdout = ChildStdout::new(child.stdout.take().unwrap()).unwrap();
            stdout.read_to_string(&mut shown).await.unwrap();
            assert_eq!(shown, "done\r\n");
        });
    }
}
