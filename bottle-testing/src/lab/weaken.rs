//! Weakened bottles: a Compose file, or the command for the internal network, that is changed on its way to the engine.

use std::sync::Arc;

use bottle::exec::{Backend, Command, Control, ExecError, Output};
use bottle::plan::Service;

/// Weakened part of a bottle.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// A service in the Compose file.
    Service(Service),
    /// The volumes of the Compose file.
    Volumes,
    /// The command that creates the internal network.
    Network,
}

/// Backend that replaces a text in a part of the Compose file before Compose reads it, or an argument of the command that
/// creates the internal network.
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
        if let Part::Network = self.part {
            if words[..2] == ["network", "create"] && words.iter().any(|word| word == self.from) {
                let words = words.iter().map(|word| word.replace(self.from, &self.to)).filter(|word| !word.is_empty());
                return self.backend.run(&Command::new(command.program()).with_args(words), control);
            }
        } else if words.iter().any(|word| word == "compose") && words.iter().any(|word| word == "create") {
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
        let service = match self.part {
            Part::Service(service) => service,
            Part::Volumes => {
                let volumes = text.find("\nvolumes:\n").unwrap();
                assert!(text[volumes..].contains(self.from), "{}", &text[volumes..]);
                return [&text[..volumes], &text[volumes..].replacen(self.from, &self.to, 1)].concat();
            }
            Part::Network => return text.to_owned(),
        };
        let title = format!("\n  {}:\n", service.as_str());
        let start = text.find(&title).unwrap();
        let after = start + title.len();
        let is_title = |line: &str| line.starts_with("  ") && !line.starts_with("   ");
        let length: usize =
            text[after..networks].split_inclusive('\n').take_while(|line| !is_title(line)).map(str::len).sum();
        let end = (after + length).min(networks);
        let part = &text[start..end];
        assert!(part.contains(self.from), "{:?} has no {:?}:\n{part}", self.part, self.from);
        [&text[..start], &part.replacen(self.from, &self.to, 1), &text[end..]].concat()
    }
}
