//! Fuzzes the input of users: manifests, and plans as JSON, up to every file that a launch would write. Run by
//! `cargo xtask fuzz`. An example and no module of the task, because it uses the unpublished test support.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bottle_compose::{Sidecar, render};
use bottle_plan::{BottlePlan, HostFacts, Manifest, PlanRequest, UserIds};
use bottle_posture::Posture;
use bottle_sidecars::{egress, git_gate, pipelock};
use clap::Parser;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Directories of the files that inputs are made from. Every file is also tried unchanged.
const CORPUS: [&str; 4] = ["bottle-testing/fuzz", "bottle-plan/tests/good", "bottle-plan/tests/bad", "examples"];

/// An input that takes longer counts as a failure.
const TOO_LONG: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Parser)]
struct Arguments {
    /// Stop after this many seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after this many inputs.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    inputs: u64,
    /// The seed. The same seed gives the same inputs.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Try only this file.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let message = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&message);
    panic::set_hook(Box::new(move |info| {
        if let Ok(mut message) = told.lock() {
            *message = info.to_string();
        }
    }));
    let mut fuzzer = Fuzzer::new(message)?;
    if let Some(path) = &arguments.input {
        let input = fs::read_to_string(path)?;
        return fuzzer.attempt(&input);
    }
    let start = Instant::now();
    for input in fuzzer.corpus.clone() {
        fuzzer.attempt(&input)?;
    }
    let mut random = Random(arguments.seed);
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&arguments.seed.to_le_bytes());
    let runner = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), runner);
    let manifests = bottle_testing::random::manifest();
    while start.elapsed() < Duration::from_secs(arguments.seconds) && fuzzer.inputs < arguments.inputs {
        let fresh = random.below(8) == 0;
        let mut input = if fresh {
            let manifest = manifests.new_tree(&mut runner).map_err(|reason| reason.to_string())?.current();
            bottle_compose::to_plain_yaml(&manifest, &[])
        } else if let Some(plan) = fuzzer.plans.last().filter(|_| random.below(8) == 0) {
            plan.clone()
        } else {
            let good = random.below(4) > 0;
            random.pick(if good { &fuzzer.good } else { &fuzzer.corpus }).clone()
        };
        if fresh && random.below(2) == 0 {
            fuzzer.attempt(&input)?;
        }
        for _ in 0..=random.below(3) {
            input = mutate(&input, &fuzzer.corpus, &mut random);
        }
        fuzzer.attempt(&input)?;
    }
    let _ = panic::take_hook();
    println!(
        "{} inputs in {} s, seed {}: {} refused, {} planned, {} rendered, 0 panics",
        fuzzer.inputs,
        start.elapsed().as_secs(),
        arguments.seed,
        fuzzer.refused,
        fuzzer.planned,
        fuzzer.rendered
    );
    Ok(())
}

struct Fuzzer {
    corpus: Vec<String>,
    /// Manifests of the corpus.
    good: Vec<String>,
    /// Plans as JSON, which are mutated like manifests.
    plans: Vec<String>,
    host: HostFacts,
    sidecars: Vec<Arc<dyn Sidecar>>,
    /// Message of the last panic.
    message: Arc<Mutex<String>>,
    /// File with the current input. It remains if the process dies.
    current: PathBuf,
    inputs: u64,
    refused: u64,
    planned: u64,
    rendered: u64,
}

impl Fuzzer {
    fn new(message: Arc<Mutex<String>>) -> Result<Self> {
        let mut corpus = Vec::new();
        for dir in CORPUS {
            let files = fs::read_dir(root().join(dir))?.collect::<std::io::Result<Vec<_>>>()?;
            let mut paths: Vec<_> = files.iter().map(fs::DirEntry::path).collect();
            paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
            paths.sort();
            corpus.extend(paths.iter().filter_map(|path| fs::read_to_string(path).ok()));
        }
        let good = corpus.iter().filter(|text| Manifest::parse(text).is_ok()).cloned().collect();
        let dir = root().join("target/fuzz");
        fs::create_dir_all(&dir)?;
        Ok(Self {
            corpus,
            good,
            plans: Vec::new(),
            host: HostFacts { home: "/home/me".into(), cwd: "/src".into(), user: UserIds { uid: 1000, gid: 1000 } },
            sidecars: bottle_sidecars::all().to_vec(),
            message,
            current: dir.join("current"),
            inputs: 0,
            refused: 0,
            planned: 0,
            rendered: 0,
        })
    }

    /// Tries one input. A panic, a slow run or a value that does not survive its round trip is an error that names the file
    /// with the input.
    fn attempt(&mut self, input: &str) -> Result<()> {
        self.inputs += 1;
        fs::write(&self.current, input)?;
        let start = Instant::now();
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.follow(input)));
        let elapsed = start.elapsed();
        let problem = match outcome {
            Ok(Ok(())) if elapsed <= TOO_LONG => return Ok(()),
            Ok(Ok(())) => format!("it took {elapsed:?}"),
            Ok(Err(problem)) => problem,
            Err(_) => self.message.lock().map(|message| message.clone()).unwrap_or_default(),
        };
        let path = self.current.with_file_name(format!("failure-{}.yaml", self.inputs));
        fs::write(&path, input)?;
        let shown: String = input.chars().take(4000).collect();
        Err(format!("input {}: {problem}\nsaved as {}:\n{shown}", self.inputs, path.display()).into())
    }

    /// Runs an input through everything that a launch does with it.
    fn follow(&mut self, input: &str) -> std::result::Result<(), String> {
        if input.starts_with("{\"names\"") {
            if let Ok(plan) = serde_json::from_str::<BottlePlan>(input) {
                self.render(plan)?;
            }
            return Ok(());
        }
        let manifest = match Manifest::parse(input) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.refused += 1;
                if error.mistakes.is_empty()
                    || [error.to_string(), error.drawn(false), error.drawn(true)].contains(&String::new())
                {
                    return Err("an error says nothing".into());
                }
                return Ok(());
            }
        };
        let written = bottle_compose::to_plain_yaml(&manifest, &[]);
        if Manifest::parse(&written).map_err(|error| format!("written and read again: {error}"))? != manifest {
            return Err("the manifest is another when it is written and read again".into());
        }
        for agent in manifest.agents.keys() {
            let request =
                PlanRequest { agent: Some(agent), slug: None, ..PlanRequest::new(&self.host, [1, 2, 3, 4, 5]) };
            let plan = manifest.plan(request).map_err(|error| format!("a checked manifest gives no plan: {error}"))?;
            self.planned += 1;
            let json = serde_json::to_string(&plan).map_err(|error| error.to_string())?;
            let read: BottlePlan = serde_json::from_str(&json).map_err(|error| format!("the plan as JSON: {error}"))?;
            if read != plan {
                return Err("the plan is another when it is written and read again".into());
            }
            if self.plans.len() < 1000 {
                self.plans.push(json);
            }
            self.render(plan)?;
        }
        Ok(())
    }

    /// Renders every file of a plan.
    fn render(&mut self, plan: BottlePlan) -> std::result::Result<(), String> {
        let posture = Posture::of(&plan);
        let _ = (posture.to_string(), posture.diff(&posture).changes.len(), plan.wanted_variables());
        let _ = (pipelock::config(&plan, None), bottle_compose::agent_argv(&plan));
        let _ = egress::routes(&plan);
        if let Some(plan) = &plan.git_gate {
            let _ = (git_gate::upstreams(plan), git_gate::known_hosts(plan), git_gate::agent_git_config(plan));
        }
        // The plan refuses a path that is not absolute or not UTF-8.
        let facts = bottle_testing::plans::facts(&plan, Path::new("/state"));
        let Ok(resolved) = plan.resolve(facts) else { return Ok(()) };
        let sidecars: Vec<&dyn Sidecar> = self.sidecars.iter().map(|sidecar| &**sidecar).collect();
        let document = render(&resolved, &sidecars).map_err(|error| format!("render: {error}"))?;
        if document.to_yaml().lines().count() < 20 {
            return Err("the document is empty".into());
        }
        self.rendered += 1;
        Ok(())
    }
}

/// `SplitMix64`, by Vigna: a small generator whose whole state is the seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`, which must not be zero.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Values that some parser may misread.
const VALUES: &[&str] = &[
    "",
    "~",
    "null",
    "true",
    "no",
    "0",
    "-1",
    "1.5",
    "1e999",
    "18446744073709551616",
    "0x1f",
    "017",
    "[]",
    "{}",
    "[[[]]]",
    "{a: b}",
    "''",
    "\"\"",
    "\"\\0\"",
    "\"\\x1b[31m\"",
    "\"\\u202e\"",
    "'$X'",
    "$HOME",
    "${HOME}",
    "${HOME}/x",
    "$$",
    "$",
    "&a x",
    "*a",
    "!t x",
    "<<",
    "? x",
    "- x",
    "|",
    ">",
    "openai_key_v2",
    "My_Key_v2_Production_2024_abcdefgh",
    "gitlab_t1",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "aB3dE5fG7hI9jK1lM3nO5pQ7",
    "sk-x",
    "*.example.com",
    "example.com",
    "*.com",
    "1.2.3.4",
    "https://u:p@h/x",
    "git@h.example:a/b.git",
    "ssh://h:0/x",
    "https://h.example/x",
    "/",
    "/workspace",
    "~/x",
    "../..",
    "/a/../b",
    "{forward: true}",
    "{forward: X}",
    "{placeholder: true}",
    "{forward: false, placeholder: 1}",
    "10.0.0.0/8",
    "10.99.0.0/28",
    "0.0.0.0/0",
    "1TiB",
    "99999999999TiB",
    "7d",
    "0s",
    "9999999d",
    "claude",
    "codex",
    "custom",
    "copy",
    "bind-rw",
    "external",
    "connection",
    "content",
    "ünï多😀",
    "a b",
    "a: b",
    "#",
    "'",
    "\"",
    "%",
    "@",
    "`",
];

/// Returns a text with one random change.
fn mutate(text: &str, corpus: &[String], random: &mut Random) -> String {
    let mut lines: Vec<String> = text.split('\n').map(ToOwned::to_owned).collect();
    let line = random.below(lines.len());
    match random.below(13) {
        0 => drop(lines.remove(line)),
        1 => lines.insert(line, lines[line].clone()),
        2 => {
            let other = random.below(lines.len());
            lines.swap(line, other);
        }
        // Replace the value after a colon, or an item of a list.
        3..=5 => {
            let value = *random.pick(VALUES);
            let starts: Vec<usize> = lines[line].match_indices([':', '[', ',']).map(|(at, _)| at + 1).collect();
            if let Some(at) = (!starts.is_empty()).then(|| *random.pick(&starts)) {
                let rest = &lines[line][at..];
                let end = rest.find([',', '}', ']']).map_or(lines[line].len(), |end| at + end);
                lines[line].replace_range(at..end, &format!(" {value}"));
            }
        }
        6 => {
            let other = random.pick(corpus).split('\n').map(ToOwned::to_owned).collect::<Vec<_>>();
            let from = random.below(other.len());
            let count = random.below(4) + 1;
            lines.splice(line..line, other.into_iter().skip(from).take(count));
        }
        7 => {
            let indent = " ".repeat(random.below(12));
            lines[line] = format!("{indent}{}", lines[line].trim_start());
        }
        // Replace a word by another word.
        8..=10 => {
            let words: Vec<_> = words(&lines[line]);
            if let Some(word) = (!words.is_empty()).then(|| random.pick(&words).clone()) {
                let other = identifier(random);
                lines[line].replace_range(word, &other);
            }
        }
        11 => {
            let at = place(&lines[line], random);
            lines[line].insert_str(at, random.pick::<&str>(VALUES));
        }
        _ => {
            let (one, other) = (place(&lines[line], random), place(&lines[line], random));
            lines[line].replace_range(one.min(other)..one.max(other), "");
        }
    }
    let mut text = lines.join("\n");
    // Limit the growth of documents.
    if text.len() > 64 << 10 {
        let end = (0..=32 << 10).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Returns the ranges of the words of a line.
fn words(line: &str) -> Vec<std::ops::Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
        match (c.is_ascii_alphanumeric() || c == '_', start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                words.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// Returns a name in one of the usual spellings.
fn identifier(random: &mut Random) -> String {
    const PARTS: &[&str] = &[
        "api", "API", "key", "Key", "token", "TOKEN", "v2", "t1", "x", "dev", "openai", "gitlab", "2024", "Prod", "a",
        "Z9", "example",
    ];
    let join = *random.pick(&["_", "-", ".", ""]);
    let count = random.below(5) + 1;
    (0..count).map(|_| *random.pick(PARTS)).collect::<Vec<_>>().join(join)
}

/// Returns a random offset between two characters.
fn place(text: &str, random: &mut Random) -> usize {
    let at = random.below(text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_and_the_corpus_passes() {
        let inputs = |seed| {
            let mut random = Random(seed);
            let corpus = ["a: 1\nb: [x, y]\n".to_owned(), "c: {d: ü}\n".to_owned()];
            (0..200).map(|_| mutate(random.pick(&corpus).as_str(), &corpus, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let mut fuzzer = Fuzzer::new(Arc::default()).unwrap();
        for input in fuzzer.corpus.clone() {
            fuzzer.attempt(&input).unwrap();
        }
        assert!(
            fuzzer.refused > 100 && fuzzer.planned > 5 && fuzzer.rendered > 5,
            "{} {}",
            fuzzer.refused,
            fuzzer.planned
        );
    }
}
