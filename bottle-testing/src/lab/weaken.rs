//! Weakened bottles: a Compose file that is changed between the launch and Compose.

use std::sync::Arc;

use bottle::exec::{Backend, Command, Control, ExecError, Output};
use bottle::plan::Service;

/// Part of a Compose file.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    Service(Service),
    Networks,
}

/// Backend that replaces a text in one part of the Compose file before Compose reads it.
#[derive(Debug)]
pub struct Changing {
    pub backend: Arc<dyn Backend>,
    pub part: Part,
    pub from: &'static str,
    pub to: String,
}

impl Backend for Changing {
    fn run(&self, command: &Command, control: &Control) -> Result<Output, ExecError> {
        let words: Vec<String> = command.args().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if words.iter().any(|word| word == "compose") && words.iter().any(|word| word == "create") {
            let file = words.iter().find(|word| word.ends_with("docker-compose.yml")).unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            std::fs::write(file, self.changed(&text)).unwrap();
        }
        self.backend.run(command, control)
    }
}

impl Changing {
    fn changed(&self, text: &str) -> String {
        let networks = text.find("\nnetworks:\n").unwrap();
        let (start, end) = match self.part {
            Part::Networks => (networks, text.len()),
            Part::Service(service) => {
                let title = format!("\n  {}:\n", service.as_str());
                let start = text.find(&title).unwrap();
                let after = start + title.len();
                let is_title = |line: &str| line.starts_with("  ") && !line.starts_with("   ");
                let length: usize =
                    text[after..networks].split_inclusive('\n').take_while(|line| !is_title(line)).map(str::len).sum();
                (start, (after + length).min(networks))
            }
        };
        let part = &text[start..end];
        assert!(part.contains(self.from), "{:?} has no {:?}:\n{part}", self.part, self.from);
        [&text[..start], &part.replacen(self.from, &self.to, 1), &text[end..]].concat()
    }
}
