//! Evidence of attacks, from whatever platform it comes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use bottle::EventLog;
use bottle::exec::{Event, Observer as _, Stream};
use bottle_testing::lab::{Lab, run};
use serde_json::Value;

use crate::secrets::Secrets;

/// Result of an attack as its program reports it: whether it claims a success, whether it finished, and its output.
pub(crate) type Report = (bool, bool, String);

/// Reads the lines of `agent.py`: the number of each attack, and its report.
pub(crate) fn reports(printed: &str) -> Vec<(usize, Report)> {
    let one = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |index: usize| line[index].as_str().map(ToOwned::to_owned);
        Some((text(0)?.parse().ok()?, (line[1].as_bool()?, line[2].as_bool()?, text(3)?)))
    };
    printed.lines().filter_map(one).collect()
}

/// Lets `copy` write what an agent prepared into a directory, and returns what is wrong with it. `copy` returns how it ended.
pub(crate) fn copied(lab: &Lab, nonce: &str, copy: impl FnOnce(&Path) -> String) -> Option<String> {
    let around = lab.root.path().join(format!("out-{nonce}"));
    let into = around.join("in");
    fs::create_dir_all(&into).unwrap();
    // An error is an answer too.
    let ended = copy(&into);
    let found = examined(&around, &into, nonce);
    run(Command::new("chmod").args(["-R", "u+rwX"]).arg(&around));
    fs::remove_dir_all(&around).unwrap();
    found.map(|found| format!("{found} ({ended})"))
}

/// Returns what is wrong in a directory that an agent filled. Nothing may be in `around` but `into`.
pub(crate) fn examined(around: &Path, into: &Path, nonce: &str) -> Option<String> {
    if fs::read_dir(around).unwrap().count() != 1 {
        return Some("a file beside the copy".to_owned());
    }
    if Path::new(&format!("/tmp/ran-{nonce}")).exists() {
        return Some("the host ran a program of the agent's".to_owned());
    }
    let host_name = fs::read("/etc/hostname").unwrap_or_default();
    let (mut directories, mut seen) = (vec![into.to_owned()], 0);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let mode = entry.metadata().map(|metadata| metadata.permissions().mode()).unwrap_or_default();
            seen += 1;
            if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
                return Some(format!("a special file: {}", path.display()));
            }
            if !kind.is_symlink() && mode & 0o6000 != 0 {
                return Some(format!("mode {mode:o}: {}", path.display()));
            }
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() && !host_name.is_empty() && fs::read(&path).is_ok_and(|bytes| bytes == host_name) {
                return Some(format!("a file of the host: {}", path.display()));
            }
        }
    }
    assert!(seen < 10_000, "{seen} files");
    None
}

/// Returns requests that reached the outside host with a secret at a place where it does not belong.
pub(crate) fn misplaced(lab: &Lab, secrets: &Secrets) -> Vec<String> {
    let mut problems = Vec::new();
    for mut event in lab.outside.events() {
        let host = event["host"].as_str().unwrap_or_default().to_owned();
        let target = event["target"].as_str().unwrap_or_default().to_owned();
        let shown = event.to_string();
        if event["tls"] == true
            && let Some(headers) = event["headers"].as_array_mut()
        {
            headers.retain(|pair| !secrets.belongs(&host, &target, pair));
        }
        if let Some(what) = secrets.found_in(&event.to_string()).next() {
            problems.push(format!("{what} arrived where it does not belong: {shown}"));
        }
    }
    problems
}

/// Returns a line of a sidecar's log that has a control character, or that the sidecar did not write.
pub(crate) fn forged(sidecar: &str, log: &str, nonce: &str) -> Option<String> {
    for line in log.lines().filter(|line| line.contains(nonce) || line.contains("forged")) {
        if let Some(odd) = line.chars().find(|character| character.is_control()) {
            return Some(format!("the log of {sidecar} has {odd:?}"));
        }
        let parsed: Option<Value> = serde_json::from_str(line).ok();
        if parsed
            .as_ref()
            .is_none_or(|line| line["event"] == "forged" || sidecar != "pipelock" && line["sidecar"] != sidecar)
        {
            return Some(format!("the log of {sidecar} has the line {line}"));
        }
    }
    None
}

/// Returns a line of what an agent said that counts as an event.
pub(crate) fn spoken(text: &str, log: &Path) -> Option<String> {
    let events = EventLog::new(fs::File::create(log).unwrap());
    assert!(text.contains("forged"), "it says nothing: {text:?}");
    for line in text.lines() {
        events.event(&Event::Output { stream: Stream::Stderr, line: line.to_owned() });
    }
    let written = fs::read_to_string(log).unwrap();
    assert!(written.contains("forged"), "{written}");
    let is_output = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["line"].is_string());
    let odd = written.lines().find(|line| !is_output(line) || line.chars().any(char::is_control));
    odd.map(|line| format!("the event {line:?}"))
}

/// Returns why one of these proposals would mislead a person.
pub(crate) fn misleading(proposals: &[String]) -> Option<String> {
    if proposals.len() > 20 {
        return Some(format!("{} proposals wait", proposals.len()));
    }
    proposals.iter().find_map(|text| {
        let proposal: Value = serde_json::from_str(text).ok()?;
        let host = proposal["change"]["host"].as_str().unwrap_or("a");
        let is_plain =
            |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || ".-*".contains(character);
        let mut strings = Vec::new();
        collect_strings(&proposal, &mut strings);
        let is_odd = |character: char| {
            (character.is_control() && !"\n\t".contains(character))
                || "\u{200b}\u{202e}\u{2028}\u{feff}\u{ad}".contains(character)
        };
        match () {
            () if text.len() > 64 << 10 => Some("a proposal of more than 64 KiB".to_owned()),
            () if !host.chars().all(is_plain) || host.parse::<std::net::IpAddr>().is_ok() || host.ends_with('.') => {
                Some(format!("the host {host:?}"))
            }
            () if strings.iter().any(|text| text.chars().any(is_odd)) => Some(format!("an odd character: {text:?}")),
            () => None,
        }
    })
}

fn collect_strings(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_strings(item, into)),
        Value::Object(items) => items.values().for_each(|item| collect_strings(item, into)),
        _ => {}
    }
}

/// Returns a setting of the host that has changed, or a mount or module that an attack has made.
pub(crate) fn changed(settings: &BTreeMap<&'static str, String>, nonce: &str) -> Option<String> {
    let changed = settings.iter().find(|(path, before)| fs::read_to_string(path).unwrap_or_default() != **before);
    if let Some((path, _)) = changed {
        return Some(format!("`{path}` of the host has changed"));
    }
    let has = |path: &str| fs::read_to_string(path).unwrap_or_default().contains(nonce);
    (has("/proc/modules") || has("/proc/self/mounts")).then(|| "the host has a new mount or module".to_owned())
}

/// Returns the settings of the host that no container may change.
pub(crate) fn settings() -> BTreeMap<&'static str, String> {
    SETTINGS.iter().map(|path| (*path, fs::read_to_string(path).unwrap_or_default())).collect()
}

/// Settings of the host that no container may change.
const SETTINGS: [&str; 8] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/fs/protected_symlinks",
    "/proc/sys/vm/overcommit_memory",
];
