//! Progress of an image build, from the builder's output.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bottle_exec::{OutputSink, Stream};

/// Progress of an image build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildProgress {
    /// Instructions of the Dockerfile's current stage that were begun, if known.
    pub done: Option<u32>,
    /// Instructions of that stage, if known.
    pub total: Option<u32>,
    /// Latest line of the output.
    pub line: String,
}

/// Shortest time between two reports. A builder prints hundreds of lines in a second.
const PAUSE: Duration = Duration::from_millis(200);

/// Longest line that is reported, in characters.
const LONGEST: usize = 200;

/// A sink that reports the latest line of a build.
pub(crate) struct Reporting<F> {
    report: F,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rest: Vec<u8>,
    steps: Option<(u32, u32)>,
    last: Option<Instant>,
}

impl<F: Fn(BuildProgress)> Reporting<F> {
    pub(crate) fn new(report: F) -> Self {
        Self { report, state: Mutex::default() }
    }
}

impl<F: Fn(BuildProgress) + Send + Sync> OutputSink for Reporting<F> {
    fn write(&self, _: Stream, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rest.extend_from_slice(bytes);
        let Some(end) = state.rest.iter().rposition(|&byte| byte == b'\n') else { return };
        let lines: Vec<u8> = state.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&lines);
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut latest = None;
        for line in lines.by_ref() {
            state.steps = steps(line).or(state.steps);
            latest = Some(line);
        }
        let Some(line) = latest.filter(|_| state.last.is_none_or(|last| last.elapsed() >= PAUSE)) else { return };
        state.last = Some(Instant::now());
        let (done, total) = state.steps.unzip();
        let line = line.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
        (self.report)(BuildProgress { done, total, line });
    }
}

/// Returns the numbers in a line such as `#7 [stage-1 2/5] RUN apt-get update`, or `Step 2/5 : RUN apt-get update`.
fn steps(line: &str) -> Option<(u32, u32)> {
    let words = match line.strip_prefix("Step ").or_else(|| line.strip_prefix("STEP ")) {
        Some(rest) => rest.split([' ', ':']).next()?,
        None => line.strip_prefix('#')?.split_once('[')?.1.split_once(']')?.0.rsplit(' ').next()?,
    };
    let (done, total) = words.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_of_a_build_is_read_from_what_each_builder_prints() {
        let read = [
            "#7 [stage-1 2/5] RUN apt-get update",
            "#12 [cli 3/3] RUN set -eu",
            "#5 [2/4] COPY a b",
            "Step 2/5 : RUN true",
            "STEP 1/2: FROM debian",
            "#7 [internal] load build definition",
            "#9 1.234 [notice] 2/5",
            "plain",
        ];
        assert_eq!(
            read.map(steps),
            [Some((2, 5)), Some((3, 3)), Some((2, 4)), Some((2, 5)), Some((1, 2)), None, None, None]
        );
    }

    #[test]
    fn the_latest_whole_line_is_reported_with_the_step_before_it() {
        let seen = Mutex::new(Vec::new());
        let sink = Reporting::new(|progress| seen.lock().unwrap().push(progress));
        sink.write(Stream::Stderr, b"#7 [stage-1 2/5] RUN apt-get up");
        sink.write(Stream::Stderr, b"date\n#7 0.5 Get:1 \x1b[2Khttp\npart");
        sink.write(Stream::Stderr, b" of a line\n");
        let seen = seen.into_inner().unwrap();
        let line = "#7 0.5 Get:1 [2Khttp".to_owned();
        assert_eq!(seen, [BuildProgress { done: Some(2), total: Some(5), line }]);
    }
}
