//! The canary hunt: a search for a bottle's secrets in every place of the host and the engine where one could lie.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::{base64, docker, run, scratch};

/// A search for secrets, with its results: a table of place, bytes searched, and secrets found.
#[derive(Debug, Default)]
pub struct Hunt {
    /// Name of each secret, and the forms in which it is searched for.
    secrets: BTreeMap<String, Vec<String>>,
    /// Bytes searched, and the secrets found, by place.
    places: BTreeMap<String, (usize, BTreeSet<String>)>,
}

impl Hunt {
    /// Adds a secret, which is also found in base64.
    pub fn add(&mut self, name: &str, value: &str) {
        assert!(value.len() >= 12, "{name}: a short value is found anywhere");
        let mut forms = vec![value.to_owned()];
        // The first and the last characters depend on what is encoded beside the value.
        for shift in 0..3 {
            let encoded = base64(&format!("{}{value}", &"xx"[..shift.min(2)]));
            let encoded = encoded.trim_end_matches('=');
            forms.push(encoded[4..encoded.len() - 2].to_owned());
        }
        self.secrets.insert(name.to_owned(), forms);
    }

    /// Adds the private keys (PEM) in the files below a directory, under the names of the files.
    pub fn add_keys(&mut self, directory: &Path) {
        for path in files_below(directory) {
            let bytes = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().skip_while(|line| !line.contains("PRIVATE KEY-----")).skip(1);
            // The first lines of two keys of one kind may be equal.
            let own = lines.take_while(|line| !line.starts_with('-')).filter(|line| line.len() >= 24).last();
            if let Some(line) = own {
                let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
                self.secrets.insert(format!("key {name}"), vec![line.to_owned()]);
            }
        }
    }

    /// Returns the number of secrets.
    pub fn count(&self) -> usize {
        self.secrets.len()
    }

    /// Searches bytes of a place. Several pieces of one place are added up.
    pub fn search(&mut self, place: &str, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let holds = |form: &String| contains(bytes, form.as_bytes());
        let found = self.secrets.iter().filter(|(_, forms)| forms.iter().any(holds)).map(|(name, _)| name.clone());
        let found: BTreeSet<String> = found.collect();
        let row = self.places.entry(place.to_owned()).or_default();
        row.0 += bytes.len();
        row.1.extend(found);
    }

    /// Searches every file below a directory. The place is named after the file if it has a secret.
    pub fn directory(&mut self, place: &str, directory: &Path) {
        self.search(place, "");
        for path in files_below(directory) {
            let Ok(bytes) = fs::read(&path) else { continue };
            let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
            let before = self.places.clone();
            self.search(place, &bytes);
            if self.places[place].1 != before[place].1 {
                let found = self.places[place].1.difference(&before[place].1).cloned().collect::<Vec<_>>();
                if let Some(row) = self.places.get_mut(place) {
                    row.1.clone_from(&before[place].1);
                }
                self.places.entry(format!("{place}: {name}")).or_default().1.extend(found);
            }
        }
    }

    /// Searches files of the temporary directories that were written since a time, of at most 4 MiB. The tests' own scratch
    /// directory is left out: it may be in one of them, and is searched as the state directory.
    pub fn temporary(&mut self, since: SystemTime) {
        let mut directories: BTreeSet<_> = ["/tmp", "/var/tmp", "/dev/shm"].map(Into::into).into();
        directories.insert(std::env::temp_dir());
        for directory in directories {
            self.written("temporary directories", &directory, since, &[scratch()]);
        }
    }

    /// Searches the files below a directory that were written since a time, of at most 4 MiB, except those below others.
    pub fn written(&mut self, place: &str, directory: &Path, since: SystemTime, except: &[PathBuf]) {
        self.search(place, "");
        let is_new = |path: &Path| {
            !except.iter().any(|other| path.starts_with(other))
                && path.metadata().and_then(|of| of.modified()).is_ok_and(|at| at >= since)
        };
        for path in files_below(directory).into_iter().filter(|path| is_new(path)) {
            self.search(place, fs::read(&path).unwrap_or_default());
        }
    }

    /// Searches what the engine says of every container, network, volume and image with a label: its description, the
    /// history of the images, and the logs.
    pub fn engine(&mut self, label: &str, slug: &str) {
        let filter = format!("label={label}={slug}");
        let names = |kind: &[&str]| docker(kind.iter().copied().chain(["--filter", &filter])).stdout;
        for name in names(&["ps", "--all", "--format", "{{.Names}}"]).lines() {
            let service = name.replace(slug, "SLUG");
            self.search(&format!("inspect of {service}"), docker(["inspect", "--size", name]).stdout);
            let logs = docker(["logs", name]);
            self.search("logs of the engine", logs.stdout + &logs.stderr);
            let image = docker(["inspect", "--format", "{{.Image}}", name]).stdout;
            self.search("history of the images", docker(["history", "--no-trunc", image.trim()]).stdout);
            self.search("inspect of the images", docker(["image", "inspect", image.trim()]).stdout);
            let top = run(std::process::Command::new("docker").args(["top", name, "-eo", "pid,args"]));
            self.search("processes of the containers", top.stdout);
        }
        for (kind, place) in [("network", "inspect of the networks"), ("volume", "inspect of the volumes")] {
            self.search(place, "");
            for name in names(&[kind, "ls", "--quiet"]).lines() {
                self.search(place, docker([kind, "inspect", name]).stdout);
            }
        }
    }

    /// Returns every place that has a secret, with the secrets.
    pub fn found(&self) -> BTreeMap<&str, Vec<&str>> {
        let places = self.places.iter().filter(|(_, (_, found))| !found.is_empty());
        places.map(|(place, (_, found))| (place.as_str(), found.iter().map(String::as_str).collect())).collect()
    }

    /// Returns the number of bytes that were searched in a place.
    pub fn bytes(&self, place: &str) -> usize {
        self.places.get(place).map_or(0, |(bytes, _)| *bytes)
    }

    /// Returns the table: place, bytes searched, secrets found.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (place, (bytes, found)) in &self.places {
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
            let _ = writeln!(text, "{place:48} {bytes:>10} {found}");
        }
        text
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    // A scan for the first byte is fast enough for some hundred megabytes.
    let Some((&first, rest)) = wanted.split_first() else { return false };
    let mut bytes = bytes;
    while let Some(at) = bytes.iter().position(|&byte| byte == first) {
        bytes = &bytes[at + 1..];
        if bytes.starts_with(rest) {
            return true;
        }
    }
    false
}

/// Returns the regular files below a directory, of at most 4 MiB, without following links. It stays on the directory's
/// file system: a `/proc` that someone mounted below it has files whose reading never ends.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let device = |path: &Path| path.symlink_metadata().map(|of| of.dev()).ok();
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() && device(&path) == device(directory) {
            files.extend(files_below(&path));
        } else if kind.is_file() && entry.metadata().is_ok_and(|metadata| metadata.len() <= 4 << 20) {
            files.push(path);
        }
    }
    files
}

/// Samples the command lines and environments of all processes of the host, a hundred times a second.
pub struct Processes {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<BTreeSet<(String, Vec<u8>)>>,
}

impl Processes {
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let (mut seen, own) = (BTreeSet::new(), std::process::id().to_string());
            let own_namespace = fs::read_link("/proc/self/ns/mnt").ok();
            while !stopped.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let (path, name) = (entry.path(), entry.file_name());
                    if !name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
                        continue;
                    }
                    let Ok(argv) = fs::read(path.join("cmdline")) else { continue };
                    if argv.is_empty() {
                        continue;
                    }
                    let environment = fs::read(path.join("environ")).unwrap_or_default();
                    let is_inside = fs::read_link(path.join("ns/mnt")).ok() != own_namespace;
                    let words: Vec<&[u8]> = argv.split(|&byte| byte == 0).collect();
                    // A process that has just become another program is looked at the next time.
                    if fs::read(path.join("cmdline")).ok().as_ref() != Some(&argv) {
                        continue;
                    }
                    let program = String::from_utf8_lossy(words[0]).rsplit('/').next().unwrap_or_default().to_owned();
                    let has = |word: &[u8]| words.contains(&word);
                    let place = match program.as_str() {
                        _ if *name == *own => "environment of the launcher".to_owned(),
                        _ if is_inside => "environments of processes in containers".to_owned(),
                        "docker" | "docker-compose" if has(b"compose") => "environment of docker compose".to_owned(),
                        // The engine's client asks each of its plugins what it is.
                        _ if has(b"docker-cli-plugin-metadata") => "environment of docker compose".to_owned(),
                        // What the engine runs to start a process in a container.
                        "runc" | "runsc" | "containerd-shim-runc-v2" => {
                            "environment of the engine's runtime".to_owned()
                        }
                        other => format!("environments of processes `{other}`"),
                    };
                    seen.insert((place, environment));
                    seen.insert(("command lines of all processes".to_owned(), argv));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        Self { stop, watcher }
    }

    /// Ends the sampling, and searches what was seen.
    pub fn search(self, hunt: &mut Hunt) {
        self.stop.store(true, Ordering::Relaxed);
        for (place, bytes) in self.watcher.join().unwrap() {
            hunt.search(&place, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form_and_where_it_lies() {
        let mut hunt = Hunt::default();
        hunt.add("token", "a-token-of-some-length");
        hunt.search("plain", "x a-token-of-some-length y");
        for shift in 0..3 {
            let text = format!("{}a-token-of-some-length-and-more", "abc".repeat(shift).split_at(shift).0);
            hunt.search(&format!("base64 {shift}"), base64(&text));
        }
        hunt.search("nothing", "a-token-of-some-lengt");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "a-token-of-some-length").unwrap();
        hunt.directory("directory", dir.path());
        let places: Vec<&str> = hunt.found().into_keys().collect();
        assert_eq!(places, ["base64 0", "base64 1", "base64 2", "directory: file", "plain"]);
        assert_eq!((hunt.bytes("nothing"), hunt.bytes("directory")), (21, 22));
        assert!(hunt.table().lines().any(|line| line.starts_with("nothing ") && line.ends_with(" none")));
    }

    #[test]
    fn a_search_stays_on_its_file_system() {
        let (outer, inner) = (Path::new("/dev"), Path::new("/dev/shm"));
        let Ok(file) = tempfile::NamedTempFile::new_in(inner) else { return };
        let is_other = outer.metadata().unwrap().dev() != inner.metadata().unwrap().dev();
        assert!(files_below(inner).contains(&file.path().to_owned()));
        assert_eq!(files_below(outer).contains(&file.path().to_owned()), !is_other);
    }
}
