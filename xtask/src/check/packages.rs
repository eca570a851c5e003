//! Metadata and files of the crates that are published.

use std::path::Path;

use serde_json::Value;

/// Keys of `[package]` that every published crate has.
const KEYS: &[&str] = &["description", "license", "readme", "repository"];

/// Files in the directory of every published crate, besides the one that `readme` names.
const FILES: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT"];

/// Returns what the published crates of `cargo metadata` lack.
pub(super) fn problems(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let members = list(&metadata["workspace_members"]);
    let mut problems = Vec::new();
    for package in list(&metadata["packages"]) {
        // An empty list of registries is `publish = false`.
        if !members.contains(&package["id"]) || package["publish"].as_array().is_some_and(Vec::is_empty) {
            continue;
        }
        let name = package["name"].as_str().unwrap_or_default();
        let missing = KEYS.iter().filter(|key| package[**key].as_str().is_none_or(str::is_empty));
        problems.extend(missing.map(|key| format!("crate `{name}` has no `{key}` in its `Cargo.toml`")));
        let dir = Path::new(package["manifest_path"].as_str().unwrap_or_default()).parent().unwrap_or(Path::new("."));
        let files = FILES.iter().copied().chain(package["readme"].as_str());
        // `exists` follows a link, as `cargo package` does.
        let missing = files.filter(|file| !dir.join(file).exists());
        problems.extend(missing.map(|file| format!("crate `{name}` has no file `{file}`")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_published_crate_without_a_key_or_a_file_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        for file in ["Cargo.toml", "LICENSE-APACHE", "READ.me"] {
            std::fs::write(dir.path().join(file), "").expect("a file");
        }
        std::os::unix::fs::symlink("nowhere", dir.path().join("LICENSE-MIT")).expect("a link");
        let package = |name: &str, publish: Value, repository: Value| {
            let path = dir.path().join("Cargo.toml");
            json!({"id": name, "name": name, "publish": publish, "manifest_path": path, "description": "Text", "license": "MIT",
                   "readme": "READ.me", "repository": repository})
        };
        let metadata = json!({
            "workspace_members": ["a", "b"],
            "packages": [
                package("a", Value::Null, Value::Null),
                package("b", json!([]), Value::Null),
                package("foreign", Value::Null, Value::Null),
            ],
        });
        let expected = ["crate `a` has no `repository` in its `Cargo.toml`", "crate `a` has no file `LICENSE-MIT`"];
        assert_eq!(problems(&metadata), expected);
        std::fs::write(dir.path().join("nowhere"), "").expect("a file");
        let whole = json!({"workspace_members": ["a"], "packages": [package("a", Value::Null, json!("https://git.example.com/a"))]});
        assert_eq!(problems(&whole), Vec::<String>::new());
    }
}
