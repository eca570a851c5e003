//! Phrases that the house style bans, in every text file that git tracks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Result;

/// The list, which is the only file that may contain the phrases. Each line is a phrase; a line that starts with `#` is
/// a comment. A phrase with a capital letter is searched with its case, any other without.
const LIST: &str = "xtask/src/check/words.txt";

/// Files whose text is not ours.
const LEFT_OUT: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

/// Returns every occurrence of a phrase in `files`, which are relative to `root`.
pub(super) fn problems(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let list = fs::read_to_string(root.join(LIST))?;
    let phrases: Vec<String> = phrases(&list).collect();
    if phrases.is_empty() {
        return Err(format!("`{LIST}` has no phrase").into());
    }
    let mut problems = Vec::new();
    for file in files {
        if file == Path::new(LIST) || LEFT_OUT.iter().any(|other| file == Path::new(other)) {
            continue;
        }
        // Skip files that are deleted in the working tree or are not text.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        problems.extend(said(&phrases, &text).map(|(line, phrase)| {
            format!("{}:{line}: \"{phrase}\" is not the house style; see {LIST}", file.display())
        }));
    }
    Ok(problems)
}

fn phrases(list: &str) -> impl Iterator<Item = String> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(ToOwned::to_owned)
}

/// Returns line numbers and phrases, as whole words. A phrase may continue on the next line of a comment.
fn said<'a>(phrases: &'a [String], text: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let mut words = String::new();
    // Offset in `words` at which each line of the text starts.
    let mut begins = Vec::new();
    for line in text.lines() {
        begins.push(words.len());
        words.push_str(line.trim().trim_start_matches(['/', '!', '#', '*']).trim_start());
        words.push(' ');
    }
    // ASCII only, because a lower-case letter of another length would shift the offsets.
    let lower = words.to_ascii_lowercase();
    let mut found = Vec::new();
    for phrase in phrases {
        let words = if phrase.chars().any(char::is_uppercase) { &words } else { &lower };
        for (at, _) in words.match_indices(phrase.as_str()) {
            let is_part =
                |character: Option<char>| character.is_some_and(|found| found.is_alphanumeric() || found == '_');
            let (before, after) = (words[..at].chars().next_back(), words[at + phrase.len()..].chars().next());
            if !is_part(before) && !is_part(after) {
                found.push((begins.partition_point(|begin| *begin <= at), phrase.as_str()));
            }
        }
    }
    found.sort_unstable();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_found_as_whole_words_in_any_case_and_across_lines() {
        let phrases: Vec<String> = phrases("# comment\n\nodd old phrase\noddity\nQuirk\n").collect();
        assert_eq!(phrases, ["odd old phrase", "oddity", "Quirk"]);
        let text = "/// There is Odd Old\n/// phrase.\nfn oddity() {}\nfn oddities() {}\nfn oddity_two() {}\n// Oddity: quirk, Quirk!\n";
        let found: Vec<_> = said(&phrases, text).collect();
        assert_eq!(found, [(1, "odd old phrase"), (3, "oddity"), (6, "Quirk"), (6, "oddity")]);
    }

    #[test]
    fn every_file_except_the_list_is_checked() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write(LIST, "odd phrase\n");
        write("a/README.md", "One\nodd phrase\n");
        write("b.py", "no odd  phrase\n");
        let files = [LIST, "a/README.md", "b.py", "gone.rs"].map(PathBuf::from);
        let expected = format!("a/README.md:2: \"odd phrase\" is not the house style; see {LIST}");
        assert_eq!(problems(root.path(), &files).expect("it reads"), [expected]);

        write(LIST, "# nothing\n");
        assert!(problems(root.path(), &files).is_err());
    }
}
