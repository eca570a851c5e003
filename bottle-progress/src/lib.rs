//! The steps of a launch for a person who watches. [`StepDisplay`] is an observer that shows a spinner for each step on a
//! terminal. Elsewhere, [`StepDisplay::follow`] prints a line when nothing was printed for some time.
//!
//! ```no_run
//! use std::sync::Arc;
//! use bottle_progress::StepDisplay;
//!
//! let steps = Arc::new(StepDisplay::new(false));
//! let followed = Arc::clone(&steps);
//! std::thread::spawn(move || followed.follow(|line| followed.print(line)));
//! // `Bottles::with_observer(steps)` then shows each launch.
//! ```

use std::fmt;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bottle_exec::{Event, Observer};
use indicatif::{MultiProgress, ProgressBar};

/// Observer that shows the steps that are under way on standard error.
pub struct StepDisplay {
    bars: Option<MultiProgress>,
    state: Mutex<Steps>,
}

struct Steps {
    running: Vec<(String, Instant, Option<ProgressBar>)>,
    /// Latest line of the progress of a step.
    line: String,
    printed: Instant,
}

impl fmt::Debug for StepDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepDisplay").field("is_terminal", &self.bars.is_some()).finish_non_exhaustive()
    }
}

impl StepDisplay {
    /// Longest time without a line, and the time between two looks.
    const SILENCE: Duration = Duration::from_millis(1500);
    const LOOK: Duration = Duration::from_millis(250);

    /// Returns a display. `is_terminal` must be true exactly when standard error is a terminal.
    pub fn new(is_terminal: bool) -> Self {
        let state = Steps { running: Vec::new(), line: String::new(), printed: Instant::now() };
        Self { bars: is_terminal.then(MultiProgress::new), state: Mutex::new(state) }
    }

    /// Prints a line to standard error, above the spinners. A closed standard error is no failure.
    pub fn print(&self, line: &str) {
        self.steps().printed = Instant::now();
        // `MultiProgress::suspend` panics when the terminal was closed, and a hidden display prints nothing.
        match self.bars.as_ref().filter(|bars| !bars.is_hidden()) {
            Some(bars) => drop(bars.println(line)),
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    /// Calls `print` with a line about the step that is under way whenever nothing was printed for one and a half seconds. It
    /// never returns where there is no terminal, and at once where the spinners tell the same.
    pub fn follow(&self, print: impl Fn(&str)) {
        while self.bars.is_none() {
            std::thread::sleep(Self::LOOK);
            if let Some(line) = self.overdue() {
                print(&line);
            }
        }
    }

    fn overdue(&self) -> Option<String> {
        let steps = self.steps();
        let (name, began, _) = steps.running.last()?;
        let text = if steps.line.is_empty() { name } else { &steps.line };
        (steps.printed.elapsed() >= Self::SILENCE).then(|| format!("[{:>5} s …] {text}", began.elapsed().as_secs()))
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, step: &str) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner().with_message(step.to_owned()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        self.steps().running.push((step.to_owned(), Instant::now(), bar));
    }

    fn progress(&self, step: &str, done: Option<u32>, total: Option<u32>, line: &str) {
        let count = done.zip(total).map_or(String::new(), |(done, total)| format!(" ({done}/{total})"));
        let mut steps = self.steps();
        steps.line = format!("{step}{count}: {line}");
        // A wait is announced before its step.
        let found = steps.running.iter().rev().find(|(name, ..)| name == step).or(steps.running.last());
        if let Some((.., Some(bar))) = found {
            bar.set_message(steps.line.clone());
        }
    }

    fn finish(&self, step: &str) {
        let mut steps = self.steps();
        steps.line.clear();
        let Some(at) = steps.running.iter().rposition(|(name, ..)| name == step) else { return };
        if let (.., Some(bar)) = steps.running.remove(at) {
            bar.finish_and_clear();
        }
    }
}

impl Observer for StepDisplay {
    fn event(&self, event: &Event) {
        match event {
            Event::StepStarted { step } => self.start(step),
            Event::Progress { step, done, total, line } => self.progress(step, *done, *total, line),
            Event::StepFinished { step, .. } => self.finish(step),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bottle_exec::Outcome;

    use super::*;

    #[test]
    fn a_step_that_takes_long_is_told_with_its_latest_progress_until_it_ends() {
        let display = StepDisplay::new(false);
        let step = || "build image agent".to_owned();
        let late = || {
            display.steps().printed -= StepDisplay::SILENCE;
            display.overdue()
        };
        assert_eq!(late(), None, "no step is under way");
        display.event(&Event::StepStarted { step: step() });
        assert_eq!(late().as_deref(), Some("[    0 s …] build image agent"));
        let line = "RUN apt-get update".to_owned();
        display.event(&Event::Progress { step: step(), done: Some(2), total: Some(5), line });
        assert_eq!(late().as_deref(), Some("[    0 s …] build image agent (2/5): RUN apt-get update"));
        display.print("something");
        assert_eq!(display.overdue(), None, "a line was printed");
        let duration = Duration::from_secs(1);
        display.event(&Event::StepFinished { step: step(), duration, outcome: Outcome::Done });
        assert_eq!(late(), None);
    }
}
