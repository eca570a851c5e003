//! Phrases that the house style bans, and doc comments that begin with a question, in every text file that git tracks.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Result;

/// The list, which is the only file that may contain the phrases. Each line is a phrase; a line that starts with `#` is
/// a comment. A phrase with a capital letter is searched with its case, any other without. `…` stands for a few words.
const LIST: &str = "xtask/src/check/words.txt";

/// Files whose text is not ours.
const LEFT_OUT: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

/// Words that no doc comment begins with. It begins with a noun phrase, or with a verb as in "Returns".
const QUESTIONS: &[&str] = &["How", "What", "Where", "Whether", "Who"];

/// Returns every problem in `files`, which are relative to `root`.
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
        problems.extend(questions(&text).map(|(line, word)| {
            format!("{}:{line}: a doc comment begins with \"{word}\"; say what it is or does", file.display())
        }));
    }
    Ok(problems)
}

fn phrases(list: &str) -> impl Iterator<Item = String> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(ToOwned::to_owned)
}

/// Returns line numbers and phrases, as whole words. A phrase may continue on the next line of a comment or a string.
fn said<'a>(phrases: &'a [String], text: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let mut words = String::new();
    // Offset in `words` at which each line of the text starts.
    let mut begins = Vec::new();
    for line in text.lines() {
        begins.push(words.len());
        for word in content(line).split_whitespace() {
            words.push_str(word);
            words.push(' ');
        }
    }
    // ASCII only, because a lower-case letter of another length would shift the offsets.
    let lower = words.to_ascii_lowercase();
    let mut found = Vec::new();
    for phrase in phrases {
        let words = if phrase.chars().any(char::is_uppercase) { &words } else { &lower };
        let parts: Vec<&str> = phrase.split('…').map(str::trim).collect();
        for (at, _) in words.match_indices(parts[0]) {
            if continues(&words[at..], &parts) && !words[..at].ends_with(is_part_of_a_word) {
                found.push((begins.partition_point(|begin| *begin <= at), phrase.as_str()));
            }
        }
    }
    found.sort_unstable();
    found.into_iter()
}

/// Most bytes that `…` stands for.
const GAP: usize = 40;

/// Returns true if the text starts with the first part, and the others follow in the same sentence.
fn continues(text: &str, parts: &[&str]) -> bool {
    let Some((first, others)) = parts.split_first() else { return true };
    let Some(rest) = text.strip_prefix(first).filter(|rest| !rest.starts_with(is_part_of_a_word)) else { return false };
    let Some(next) = others.first() else { return true };
    rest.match_indices(next)
        .take_while(|(at, _)| *at <= GAP && !rest[..*at].contains(['.', ':', ';']))
        .any(|(at, _)| !rest[..at].ends_with(is_part_of_a_word) && continues(&rest[at..], others))
}

fn is_part_of_a_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns a line without what marks it as a part of a comment, a list or a string.
fn content(line: &str) -> &str {
    let line = line.trim().trim_start_matches(['/', '!', '#', '*', '-', '>', '|', ' ']);
    let line = ["f\"", "r\"", "b\"", "\""].iter().find_map(|quote| line.strip_prefix(quote)).unwrap_or(line);
    line.trim_end_matches(['\\', '"', '|', ' '])
}

/// Returns line numbers and first words of the doc comments that begin with a question.
fn questions(text: &str) -> impl Iterator<Item = (usize, &'static str)> {
    let mut earlier = "";
    text.lines().enumerate().filter_map(move |(index, line)| {
        let marker =
            ["///", "//!", "\"\"\""].into_iter().find(|marker| line.trim_start().starts_with(marker)).unwrap_or("");
        let is_first = marker != std::mem::replace(&mut earlier, marker) || marker == "\"\"\"";
        let first = line.trim_start().strip_prefix(marker).filter(|_| is_first && !marker.is_empty())?;
        let first = first.split(|character: char| !character.is_alphanumeric()).find(|word| !word.is_empty())?;
        QUESTIONS.iter().find(|question| **question == first).map(|question| (index + 1, *question))
    })
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
    fn a_phrase_is_found_across_the_lines_of_strings_comments_and_lists() {
        let phrases = ["odd old phrase".to_owned()];
        for text in [
            "let a = \"an odd old \\\n         phrase\";",
            "x = (\n    \"odd \"\n    f\"old \"\n    \"phrase\"\n)",
            "# It is odd\n#   old phrase\n",
            "/* odd old\n * phrase */",
            "- an odd   old\n  phrase",
            "> odd\n> old phrase",
            "| odd old |\n| phrase |",
        ] {
            assert_eq!(said(&phrases, text).count(), 1, "{text}");
        }
        assert_eq!(said(&phrases, "odd\noldphrase, odd. old phrase, an odd_old phrase").count(), 0);
    }

    #[test]
    fn a_phrase_can_have_a_gap_within_a_sentence() {
        let phrases = ["odd a … is phrase".to_owned()];
        let found = |text: &str| said(&phrases, text).count();
        assert_eq!(found("Odd a bottle is phrase\n`a`. Odd a very small thing is\n// phrase"), 2);
        assert_eq!(found("odd a bottle. It is phrase, odd a bottle is, odd a is_phrase"), 0);
        assert_eq!(found(&format!("odd a {} is phrase", "long ".repeat(10))), 0);
    }

    #[test]
    fn a_doc_comment_that_begins_with_a_question_is_found() {
        let rust = "//! What it is.\n//! How long.\n\n/// Whether `a`.\nfn a() {}\n    /// `How` it ends.\n// Who\n/// Returns it.";
        let text = format!("{rust}\n/// Where it is.\n\"\"\"How it is.\"\"\"\n\"\"\"Howl.\"\"\"\n/// However.\n");
        let found: Vec<_> = questions(&text).collect();
        assert_eq!(found, [(1, "What"), (4, "Whether"), (6, "How"), (10, "How")]);
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
        write("b.py", "\"\"\"Who it is.\"\"\"\nno odd. phrase\n");
        let files = [LIST, "a/README.md", "b.py", "gone.rs"].map(PathBuf::from);
        let phrase = format!("a/README.md:2: \"odd phrase\" is not the house style; see {LIST}");
        let question = "b.py:1: a doc comment begins with \"Who\"; say what it is or does";
        assert_eq!(problems(root.path(), &files).expect("it reads"), [phrase.as_str(), question]);

        write(LIST, "# nothing\n");
        assert!(problems(root.path(), &files).is_err());
    }
}
