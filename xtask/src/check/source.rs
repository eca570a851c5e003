//! The modules of a crate, read from its source files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{Attribute, Item};

use crate::process::Result;

/// Path of a module in its crate. Empty for the root.
pub(super) type ModulePath = Vec<String>;

/// A module without its tests.
#[derive(Default)]
pub(super) struct Module {
    /// Items of the module, without its submodules.
    pub(super) items: Vec<Item>,
}

/// All modules of a crate, without test modules.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) modules: BTreeMap<ModulePath, Module>,
    lines: usize,
}

impl Tree {
    /// Reads the modules that `root`, a `lib.rs` or `main.rs`, declares.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let dir = root.parent().unwrap_or(root);
        tree.read_file(root, dir, ModulePath::new())?;
        Ok(tree)
    }

    /// Returns the number of lines in its files, without test modules.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Reads one file. `dir` is the directory of the submodules that the file declares.
    fn read_file(&mut self, file: &Path, dir: &Path, path: ModulePath) -> Result<()> {
        let text = fs::read_to_string(file).map_err(|error| format!("failed to read `{}`: {error}", file.display()))?;
        let parsed =
            syn::parse_file(&text).map_err(|error| format!("failed to parse `{}`: {error}", file.display()))?;
        self.lines += text.lines().count();
        let mut module = Module::default();
        self.add(parsed.items, &mut module, file, dir, &path)?;
        self.modules.insert(path, module);
        Ok(())
    }

    /// Adds the items of a module, and its submodules.
    fn add(&mut self, items: Vec<Item>, module: &mut Module, file: &Path, dir: &Path, path: &ModulePath) -> Result<()> {
        for item in items {
            if is_test(attributes(&item)) {
                self.lines -= lines_of(&item);
                continue;
            }
            let Item::Mod(declared) = item else {
                let mut included = Included::default();
                included.visit_item(&item);
                module.items.push(item);
                for name in included.0 {
                    self.include(&file.with_file_name(name), module, dir, path)?;
                }
                continue;
            };
            let name = declared.ident.to_string();
            let (child, below) = ([path.clone(), vec![name.clone()]].concat(), dir.join(&name));
            match declared.content {
                Some((_, items)) => {
                    let mut inner = Module::default();
                    self.add(items, &mut inner, file, &below, &child)?;
                    self.modules.insert(child, inner);
                }
                None => self.read_file(&file_of(&below), &below, child)?,
            }
        }
        Ok(())
    }

    /// Adds a file that is included into a module: items, or an expression, of which only the lines count.
    fn include(&mut self, file: &Path, module: &mut Module, dir: &Path, path: &ModulePath) -> Result<()> {
        let text = fs::read_to_string(file).map_err(|error| format!("failed to read `{}`: {error}", file.display()))?;
        self.lines += text.lines().count();
        match syn::parse_file(&text) {
            Ok(parsed) => self.add(parsed.items, module, file, dir, path),
            Err(_) => Ok(()),
        }
    }
}

/// The files that `include!` names, relative to the file that includes them. A file that a build generates is not ours.
#[derive(Default)]
struct Included(Vec<String>);

impl<'ast> Visit<'ast> for Included {
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if called.path.segments.last().is_some_and(|name| name.ident == "include")
            && let Ok(name) = called.parse_body::<syn::LitStr>()
        {
            self.0.push(name.value());
        }
    }
}

fn file_of(below: &Path) -> PathBuf {
    let (flat, nested) = (below.with_extension("rs"), below.join("mod.rs"));
    if nested.exists() { nested } else { flat }
}

/// Returns the number of lines of the item, including attributes and doc comments.
fn lines_of(item: &Item) -> usize {
    let (span, first) = (item.span(), attributes(item).first().map(Spanned::span));
    let start = first.map_or_else(|| span.start(), |first| first.start());
    span.end().line + 1 - start.line
}

/// Returns true if the item is compiled for tests only.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// Returns the attributes of the item. Empty for a kind of item that no check looks at.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a crate with these files.
    pub(in crate::check) fn tree(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        Tree::read(&dir.path().join("lib.rs")).expect("a crate that parses")
    }

    #[test]
    fn included_files_count() {
        let tree = tree(&[
            ("lib.rs", "include!(\"text/items.rs\");\nfn f() -> u8 {\n    include!(\"text/number.rs\")\n}\nmod a;\n"),
            ("text/items.rs", "/// Text.\nfn g() {}\n#[cfg(test)]\nmod tests {\n}\ninclude!(\"deeper.rs\");\n"),
            ("text/deeper.rs", "fn h() {}\n"),
            ("text/number.rs", "{\n7\n}\n"),
            ("a.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\n"),
        ]);
        assert_eq!(tree.lines(), 5 + 3 + 1 + 3 + 1);
        let functions =
            |path: &ModulePath| tree.modules[path].items.iter().filter(|item| matches!(item, Item::Fn(_))).count();
        assert_eq!((functions(&Vec::new()), functions(&vec!["a".to_owned()])), (3, 0));
    }

    #[test]
    fn modules_are_read_from_files_and_braces_without_tests() {
        let tree = tree(&[
            ("lib.rs", "mod a;\nmod b;\nmod c { pub mod d; }\n\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n"),
            ("a.rs", "//! Text.\nmod deep;\n#[cfg(test)]\nmod tests;\n"),
            ("a/deep.rs", "fn f() {}\n"),
            ("a/tests.rs", "fn f() {}\n\n\n\n"),
            ("b/mod.rs", "mod e;\n"),
            ("b/e.rs", "/// Text.\nfn f() {}\n/// Text.\n#[cfg(test)]\nfn g() {\n}\n"),
            ("c/d.rs", "\n"),
        ]);
        let paths: Vec<String> = tree.modules.keys().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["", "a", "a::deep", "b", "b::e", "c", "c::d"]);
        assert_eq!(tree.lines(), 4 + 2 + 1 + 1 + 2 + 1);
    }
}
