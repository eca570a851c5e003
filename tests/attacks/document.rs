//! `docs/attacks.md`: the table of the attacks and their results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::site::Fate;
use crate::table::{Attack, attacks};
use crate::{cluster, weakened};

const START: &str = include_str!("start.md");

/// Both runtimes write the same file.
static FILE: Mutex<()> = Mutex::new(());

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/attacks.md")
}

/// A column of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// A container engine with runc.
    Runc,
    /// A container engine with gVisor.
    Gvisor,
    /// A cluster with runc.
    Cluster,
    /// A cluster with gVisor.
    ClusterGvisor,
}

/// Writes the results of a column into the table. Returns true if they differ from those that were there.
pub(crate) fn record(column: Column, fates: &BTreeMap<&'static str, Fate>) -> bool {
    let _lock = FILE.lock().unwrap();
    let before = fs::read_to_string(path()).unwrap_or_default();
    let mut results = results(&before);
    for attack in attacks() {
        let row = results.entry(attack.name.to_owned()).or_default();
        let fate = &fates[attack.name];
        row.results[column as usize] = outcome(fate);
        if column == Column::Runc {
            row.recorded =
                if fate.through.is_empty() { "nothing".to_owned() } else { fate.through.join("; ").replace('|', " ") };
        }
    }
    let after = rendered(&results);
    if after == before {
        return false;
    }
    fs::create_dir_all(path().parent().unwrap()).unwrap();
    fs::write(path(), after).unwrap();
    true
}

fn outcome(fate: &Fate) -> String {
    match fate {
        fate if !fate.through.is_empty() => "**not blocked**".to_owned(),
        Fate { not_applicable: Some(why), .. } => format!("n/a: {why}"),
        Fate { is_contained: true, .. } => "own kernel".to_owned(),
        _ => "blocked".to_owned(),
    }
}

/// Result of one row.
#[derive(Debug, Clone, Default, PartialEq)]
struct Row {
    recorded: String,
    /// By [`Column`].
    results: [String; 4],
}

/// Reads the results of a table.
fn results(text: &str) -> BTreeMap<String, Row> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let &[_, name, recorded, runc, gvisor, cluster, cluster_gvisor] = fields.as_slice() else { return None };
        let results = [runc, gvisor, cluster, cluster_gvisor].map(ToOwned::to_owned);
        Some((name.to_owned(), Row { recorded: recorded.to_owned(), results }))
    };
    text.lines().filter_map(row).collect()
}

fn rendered(results: &BTreeMap<String, Row>) -> String {
    let all = attacks();
    let mut groups: BTreeMap<_, usize> = BTreeMap::new();
    for attack in &all {
        *groups.entry(attack.group).or_default() += 1;
    }
    let counts: Vec<String> = groups.iter().map(|(group, count)| format!("{group} {count}")).collect();
    let mut text = START.replace("{COUNT}", &all.len().to_string()).replace("{GROUPS}", &counts.join(", "));
    text.push_str("\n| group | attack | recorded | runc | runsc | cluster, runc | cluster, runsc |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    for Attack { group, name, .. } in all {
        let Row { recorded, results } = results.get(name).cloned().unwrap_or_default();
        let results = results.map(|result| if result.is_empty() { "not run".to_owned() } else { result });
        let _ = writeln!(text, "| {group} | {name} | {recorded} | {} |", results.join(" | "));
    }
    text.push_str(&weak());
    text
}

/// Returns the list of the weakened bottles.
fn weak() -> String {
    let mut text = format!(
        "\n## Weakened bottles\n\nEach of these {} weaknesses lets the attacks through that are named beside it. The tests check that they do.\n\n\
         | weakness | attacks that get through |\n| --- | --- |\n",
        weakened::weaknesses().count() + weakened::HOST.len() + cluster::WEAK.len()
    );
    for weakness in weakened::weaknesses() {
        let _ = writeln!(text, "| {} | {} |", weakness.what, weakness.caught_by.join("; "));
    }
    for (what, attack) in weakened::HOST {
        let _ = writeln!(text, "| {what} | {attack} |");
    }
    for (what, caught_by) in cluster::WEAK {
        let _ = writeln!(text, "| {what} | {} |", caught_by.join("; "));
    }
    text
}

#[test]
fn the_table_has_every_attack_and_no_other() {
    let text = fs::read_to_string(path()).unwrap();
    let found = results(&text);
    let mut names: Vec<&str> = attacks().iter().map(|attack| attack.name).collect();
    assert!(names.len() >= 150, "{} attacks", names.len());
    assert_eq!(rendered(&found), text, "run the attacks again: `cargo xtask e2e --all-attacks no_attack_gets_through`");
    for (name, row) in &found {
        if name != "attack" && name != "---" {
            let [runc, others @ ..] = &row.results;
            let is_held = |result: &String| {
                ["blocked", "own kernel", "not run"].contains(&result.as_str()) || result.starts_with("n/a: ")
            };
            assert!(runc == "blocked" && others.iter().all(is_held), "{name}: {row:?}");
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), attacks().len(), "two attacks have the same name");
}
