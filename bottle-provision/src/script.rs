//! Shell scripts that run several named tasks in one command and say which of them failed.

use std::fmt::Write as _;

/// A shell script of named tasks, which run in order until one fails.
#[derive(Debug, Default)]
pub(crate) struct Script {
    tasks: Vec<&'static str>,
    commands: String,
}

impl Script {
    /// Adds a task. Its commands run in a subshell with `set -eu`; the first task gets the standard input.
    pub(crate) fn add(&mut self, task: &'static str, commands: &str) {
        let number = self.tasks.len();
        // Writing to a string cannot fail.
        let _ = write!(self.commands, "task={number}\n(\n{commands}\n)\n");
        self.tasks.push(task);
    }

    /// Returns the script for `sh -c`. When a task fails, the last line of standard error is its number.
    pub(crate) fn text(&self) -> String {
        let trap = "trap 'status=$?; [ $status -eq 0 ] || echo \"task $task\" >&2' EXIT";
        format!("set -eu\nexport HOME={}\n{trap}\n{}", bottle_sidecars::agent::HOME, self.commands)
    }

    pub(crate) fn first_task(&self) -> &'static str {
        self.tasks.first().copied().unwrap_or_default()
    }

    /// Returns the task that failed and the lines of standard error that are its own.
    pub(crate) fn failed_task(&self, stderr: &str) -> (&'static str, String) {
        let (lines, last) = stderr.rsplit_once('\n').unwrap_or(("", stderr));
        let number = last.strip_prefix("task ").and_then(|number| number.parse::<usize>().ok());
        match number.and_then(|number| self.tasks.get(number)) {
            Some(task) => (task, lines.to_owned()),
            // The shell itself did not start.
            None => (self.first_task(), stderr.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_task_that_fails_is_named_and_no_later_one_runs() {
        let mut script = Script::default();
        script.add("say hello", "trap 'echo cleaned up' EXIT; cat; echo hello");
        script.add("look", "echo looking for it >&2; false; echo not reached");
        script.add("say goodbye", "echo goodbye");
        let output = Command::new("sh").args(["-c", &script.text()]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\ncleaned up\n");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(script.failed_task(stderr.trim_end()), ("look", "looking for it".to_owned()));
        assert_eq!(script.failed_task("sh: not found"), ("say hello", "sh: not found".to_owned()));
    }
}
