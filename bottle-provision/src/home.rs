//! The files in the agent's home directory: prompt, skills, and the configuration of the command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::Path;

use bottle_compose::AGENT_PROMPT;
use bottle_files::tar::Packer;
use bottle_plan::BottlePlan;
use bottle_plan::digest::sha256;
use bottle_plan::manifest::Provider;
use bottle_plan::plan::PromptSource;
use bottle_sidecars::agent;

use crate::error::ProvisionError;
use crate::script::Script;
use crate::target::Target;
use crate::{claude, codex};

/// Path of the checksums of an archive's files, relative to the home directory. The file is removed after the
/// comparison.
const CHECKSUMS: &str = ".bottle/provisioned.sha256";

/// Shell commands that unpack an archive of [`files`] and compare every file with its checksum.
pub(crate) const EXTRACT: &str = "umask 077; cd \"$HOME\"
tar -x -m -o -p -f -
checked=$(sha256sum -c .bottle/provisioned.sha256 2>&1) || { printf '%s\\n' \"$checked\" | grep -v ': OK$' >&2; exit 1; }
rm .bottle/provisioned.sha256";

/// Returns a tar archive of the agent's files, relative to its home directory. It is empty when there is no file.
pub(crate) fn files(target: &Target<'_>, plan: &BottlePlan) -> Result<Vec<u8>, ProvisionError> {
    let what = "pack the agent's files";
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ProvisionError::Read { what, path, source }
    };
    let mut archive = Archive::default();
    match &plan.agent.prompt {
        Some(PromptSource::Text(text)) => archive.add(AGENT_PROMPT, text.as_bytes()).map_err(failed(Path::new("")))?,
        Some(PromptSource::File(path)) => archive.add(AGENT_PROMPT, &read(what, path)?).map_err(failed(path))?,
        None => {}
    }
    for skill in &plan.agent.skills {
        archive.add_skill(skills_directory(plan.agent.provider), skill).map_err(failed(skill))?;
    }
    for (path, content) in configuration(target, plan)? {
        archive.add(path, content.as_bytes()).map_err(failed(Path::new(path)))?;
    }
    archive.finish().map_err(failed(Path::new(CHECKSUMS)))
}

/// Returns true if the plan installs Claude Code in the agent's image.
fn has_claude(plan: &BottlePlan) -> bool {
    plan.agent.provider == Provider::Claude || plan.images.agent.claude_code.is_some()
}

/// Returns true if the plan installs Codex in the agent's image.
pub(crate) fn has_codex(plan: &BottlePlan) -> bool {
    plan.agent.provider == Provider::Codex || plan.images.agent.codex.is_some()
}

/// Reads a file of the host.
pub(crate) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ProvisionError> {
    std::fs::read(path).map_err(|source| ProvisionError::Read { what, path: path.to_owned(), source })
}

/// The directory in which the provider looks for skills.
const fn skills_directory(provider: Provider) -> &'static str {
    match provider {
        Provider::Claude => ".claude/skills",
        Provider::Codex => ".codex/skills",
        Provider::Custom => ".bottle/skills",
    }
}

/// Function that extends a configuration file: takes the image's content and returns the new one.
type Extend = fn(&str, &BottlePlan) -> Result<String, String>;

/// Returns the configuration files of the agent programs in the image, each extended from the image's content.
fn configuration(target: &Target<'_>, plan: &BottlePlan) -> Result<Vec<(&'static str, String)>, ProvisionError> {
    let mut wanted: Vec<(&'static str, Extend)> = Vec::new();
    if has_claude(plan) {
        wanted.extend([(claude::STATE, claude::state as Extend), (claude::SETTINGS, |text, _| claude::settings(text))]);
    }
    if has_codex(plan) {
        wanted.push((codex::CONFIG, codex::config));
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut script = Script::default();
    // Prints each file as its length, path and content.
    let paths: String = wanted.iter().flat_map(|(path, _)| [" ", path]).collect();
    let print = format!("for file in{paths}; do [ ! -e \"$file\" ] || {{ wc -c \"$file\"; cat \"$file\"; }}; done");
    script.add("read the agent's configuration", &print);
    let printed = target.output(agent::USER, &script, Vec::new())?;
    let brought = split(&printed);
    let extended = wanted.into_iter().map(|(path, extend)| {
        let text = brought.get(path).copied().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|error| error.to_string());
        let text = text.and_then(|text| extend(text, plan));
        text.map(|text| (path, text)).map_err(|reason| ProvisionError::Configuration { path, reason })
    });
    extended.collect()
}

/// Splits files that were printed one after the other, each after a line with its length and path.
fn split(mut printed: &[u8]) -> BTreeMap<&str, &[u8]> {
    let mut files = BTreeMap::new();
    while let Some(end) = printed.iter().position(|&byte| byte == b'\n') {
        let (line, rest) = (std::str::from_utf8(&printed[..end]), &printed[end + 1..]);
        let Some((length, path)) = line.ok().and_then(|line| line.trim_start().split_once(' ')) else { break };
        let Some((content, rest)) = length.parse().ok().and_then(|length| rest.split_at_checked(length)) else { break };
        files.insert(path, content);
        printed = rest;
    }
    files
}

/// A tar archive of files in the agent's home directory.
struct Archive(Packer<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(Packer::new(Vec::new()))
    }
}

impl Archive {
    /// Adds a file that only the agent may read. An absolute path must be inside the home directory.
    fn add(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = path.strip_prefix(agent::HOME).unwrap_or(path).trim_start_matches('/');
        self.0.add_bytes(Path::new(path), content, 0o600)
    }

    /// Adds a skill's directory with the modes that its files have on the host.
    fn add_skill(&mut self, directory: &str, skill: &Path) -> io::Result<()> {
        let name = skill.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
        // The skill may be a link to where it is kept. In it, links stay links.
        let skipped = self.0.add_tree(&skill.canonicalize()?, &Path::new(directory).join(name))?;
        skipped.warning().map_or(Ok(()), |warning| Err(io::Error::other(warning)))
    }

    /// Returns the archive with the checksums of its files, or nothing when it has no file.
    fn finish(mut self) -> io::Result<Vec<u8>> {
        let checksums = checksums(self.0.get_ref())?;
        if checksums.is_empty() {
            return Ok(Vec::new());
        }
        self.add(CHECKSUMS, checksums.as_bytes())?;
        self.0.finish()
    }
}

/// Returns the checksums of an archive's files in the format of `sha256sum`, which escapes names with a line break or a
/// backslash.
fn checksums(archive: &[u8]) -> io::Result<String> {
    let mut lines = String::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let escaped = path.replace('\\', "\\\\").replace('\n', "\\n");
            let mark = if escaped == path { "" } else { "\\" };
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{mark}{}  {escaped}", sha256(content));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::{Command, Output, Stdio};

    use super::*;

    fn extract(home: &Path, archive: &[u8]) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-euc", EXTRACT]).env("HOME", home).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // A shell that fails early does not read all of its input.
        let _ = child.stdin.take().unwrap().write_all(archive);
        child.wait_with_output().unwrap()
    }

    fn archive(skill: &Path) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.add(AGENT_PROMPT, b"Be brief.\n").unwrap();
        archive.add_skill(".claude/skills", skill).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn an_archive_is_unpacked_with_its_modes_and_nothing_else() {
        let (home, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let skill = host.path().join("greet");
        fs::create_dir_all(skill.join("deep")).unwrap();
        fs::write(skill.join("deep/odd \\ name"), "x").unwrap();
        fs::write(skill.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(skill.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("run", skill.join("link")).unwrap();
        let done = extract(home.path(), &archive(&skill));
        assert!(done.status.success(), "{done:?}");
        assert_eq!(fs::read_to_string(home.path().join(".bottle/prompt.md")).unwrap(), "Be brief.\n");
        let placed = home.path().join(".claude/skills/greet");
        assert_eq!(fs::read_to_string(placed.join("deep/odd \\ name")).unwrap(), "x");
        assert_eq!(fs::read_link(placed.join("link")).unwrap(), Path::new("run"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&placed.join("run")), mode(&home.path().join(".bottle/prompt.md"))), (0o750, 0o600));
        assert!(!home.path().join(CHECKSUMS).exists());
    }

    #[test]
    fn a_file_that_arrives_changed_is_named() {
        let (home, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let skill = host.path().join("greet");
        fs::create_dir(&skill).unwrap();
        fs::write(skill.join("SKILL.md"), "how to greet").unwrap();
        let mut changed = archive(&skill);
        let at = changed.windows(12).position(|window| window == b"how to greet").unwrap();
        changed[at] = b'H';
        let done = extract(home.path(), &changed);
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && stderr.contains(".claude/skills/greet/SKILL.md: FAILED"), "{stderr}");
        assert!(!stderr.contains("OK"), "{stderr}");
        assert!(!extract(home.path(), b"").status.success(), "an empty archive is accepted");
    }

    #[test]
    fn printed_files_are_split_by_their_length() {
        let printed = b" 4 /a\n1 2\n0 /b\n3 /c d\nxyz";
        let files: Vec<_> = split(printed).into_iter().collect();
        assert_eq!(files, [("/a", &b"1 2\n"[..]), ("/b", b""), ("/c d", b"xyz")]);
        assert!(split(b"9 /cut\nxyz").is_empty() && split(b"no length\n").is_empty());
    }
}
