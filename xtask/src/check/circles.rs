//! Import circles between the modules of a crate.
//!
//! A module needs another one if it names one of its items. A re-export counts as the original: a module that names
//! `crate::Thing` needs the module that defines `Thing`, not the crate root. Tests are exempt.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graphmap::DiGraphMap;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

use super::source::{ModulePath, Tree};

/// Returns one line for each set of modules that all need each other, directly or indirectly.
pub(super) fn problems(name: &str, tree: &Tree) -> Vec<String> {
    let crate_of = Names::of(tree);
    let paths: Vec<&ModulePath> = tree.modules.keys().collect();
    let mut graph = DiGraphMap::<usize, ()>::new();
    for (index, path) in paths.iter().enumerate() {
        for needed in crate_of.needs(path) {
            if let Ok(other) = paths.binary_search(&&needed) {
                graph.add_edge(index, other, ());
            }
        }
    }
    let circles = petgraph::algo::tarjan_scc(&graph);
    let mut circles: Vec<Vec<usize>> = circles.into_iter().filter(|circle| circle.len() > 1).collect();
    for circle in &mut circles {
        circle.sort_unstable();
    }
    circles.sort();
    let arrows = |circle: &[usize]| {
        let inside = graph.all_edges().filter(|(from, to, ())| circle.contains(from) && circle.contains(to));
        let mut words: Vec<String> =
            inside.map(|(from, to, ())| format!("{} -> {}", shown(paths[from]), shown(paths[to]))).collect();
        words.sort();
        words.join(", ")
    };
    circles.iter().map(|circle| format!("crate `{name}` has a circle of modules: {}", arrows(circle))).collect()
}

fn shown(path: &ModulePath) -> String {
    if path.is_empty() { "the root".to_owned() } else { path.join("::") }
}

/// Targets of the names in a crate's modules.
struct Names<'a> {
    tree: &'a Tree,
    /// For each module, the names that it imports, each with its path.
    imported: BTreeMap<&'a ModulePath, BTreeMap<String, Vec<String>>>,
    /// For each module, the paths that it imports with `*`.
    globs: BTreeMap<&'a ModulePath, Vec<Vec<String>>>,
}

impl<'a> Names<'a> {
    fn of(tree: &'a Tree) -> Self {
        let mut this = Self { tree, imported: BTreeMap::new(), globs: BTreeMap::new() };
        for (path, module) in &tree.modules {
            let (mut names, mut globs) = (BTreeMap::new(), Vec::new());
            for item in &module.items {
                if let Item::Use(item) = item {
                    for Import { path, name } in imports(&item.tree) {
                        match name {
                            Some(name) => drop(names.insert(name, path)),
                            None => globs.push(path),
                        }
                    }
                }
            }
            this.imported.insert(path, names);
            this.globs.insert(path, globs);
        }
        this
    }

    /// Returns the other modules whose items a module names.
    fn needs(&self, path: &ModulePath) -> BTreeSet<ModulePath> {
        let mut collector = Paths::default();
        for item in self.tree.modules.get(path).into_iter().flat_map(|module| &module.items) {
            match item {
                Item::Use(item) => collector.paths.extend(imports(&item.tree).into_iter().map(|import| import.path)),
                other => collector.visit_item(other),
            }
        }
        let found = collector.paths.iter().filter_map(|words| self.resolve(path, words, 0));
        found.filter(|other| other != path).collect()
    }

    /// Returns the module that defines the last name of a path. `None` if it is not in this crate.
    fn resolve(&self, from: &ModulePath, words: &[String], depth: u8) -> Option<ModulePath> {
        if depth > 16 {
            return None;
        }
        let (mut at, mut rest) = match words.split_first()? {
            (first, rest) if first == "crate" => (ModulePath::new(), rest),
            (first, rest) if first == "self" => (from.clone(), rest),
            (first, rest) if first == "super" => (parent(from)?, rest),
            (first, _) if self.tree.modules.contains_key(&child(from, first)) => (from.clone(), words),
            // Imported names were followed above. All others are local or belong to other crates.
            _ => return None,
        };
        while let Some((first, others)) = rest.split_first() {
            if first == "super" {
                at = parent(&at)?;
            } else if self.tree.modules.contains_key(&child(&at, first)) {
                at = child(&at, first);
            } else if let Some(target) = self.imported.get(&at).and_then(|names| names.get(first)) {
                let target = [target, others].concat();
                return self.resolve(&at, &target, depth + 1).or_else(|| self.in_child(&at, &target, depth));
            } else if let Some(found) = self.by_glob(&at, first, depth) {
                return Some(found);
            } else {
                return Some(at);
            }
            rest = others;
        }
        Some(at)
    }

    /// The first name of a `use` path may itself be imported by another `use`.
    fn in_child(&self, at: &ModulePath, words: &[String], depth: u8) -> Option<ModulePath> {
        let target = self.imported.get(at)?.get(words.first()?)?;
        if target.as_slice() == words {
            return None;
        }
        self.resolve(at, &[target, &words[1..]].concat(), depth + 1)
    }

    fn by_glob(&self, at: &ModulePath, name: &str, depth: u8) -> Option<ModulePath> {
        self.globs.get(at)?.iter().find_map(|glob| {
            let target = self.resolve(at, glob, depth + 1)?;
            self.defines(&target, name).then_some(target)
        })
    }

    fn defines(&self, path: &ModulePath, name: &str) -> bool {
        let names = |item: &Item| match item {
            Item::Const(item) => Some(item.ident.to_string()),
            Item::Enum(item) => Some(item.ident.to_string()),
            Item::Fn(item) => Some(item.sig.ident.to_string()),
            Item::Static(item) => Some(item.ident.to_string()),
            Item::Struct(item) => Some(item.ident.to_string()),
            Item::Trait(item) => Some(item.ident.to_string()),
            Item::Type(item) => Some(item.ident.to_string()),
            _ => None,
        };
        self.tree.modules.get(path).is_some_and(|module| module.items.iter().filter_map(names).any(|own| own == name))
    }
}

fn parent(path: &ModulePath) -> Option<ModulePath> {
    path.split_last().map(|(_, parent)| parent.to_vec())
}

fn child(path: &ModulePath, name: &str) -> ModulePath {
    let mut child = path.clone();
    child.push(name.to_owned());
    child
}

/// One imported name.
struct Import {
    path: Vec<String>,
    /// `None` for an import with `*`.
    name: Option<String>,
}

fn imports(tree: &UseTree) -> Vec<Import> {
    fn walk(tree: &UseTree, path: &[String], found: &mut Vec<Import>) {
        let with = |name: &dyn ToString| {
            let name = name.to_string();
            if name == "self" { path.to_vec() } else { [path, &[name]].concat() }
        };
        match tree {
            UseTree::Path(tree) => walk(&tree.tree, &[path, &[tree.ident.to_string()]].concat(), found),
            UseTree::Name(tree) => {
                let path = with(&tree.ident);
                found.push(Import { name: path.last().cloned(), path });
            }
            UseTree::Rename(tree) => {
                found.push(Import { path: with(&tree.ident), name: Some(tree.rename.to_string()) });
            }
            UseTree::Glob(_) => found.push(Import { path: path.to_vec(), name: None }),
            UseTree::Group(tree) => tree.items.iter().for_each(|tree| walk(tree, path, found)),
        }
    }
    let mut found = Vec::new();
    walk(tree, &[], &mut found);
    found
}

/// Collects every path in the code.
#[derive(Default)]
struct Paths {
    paths: Vec<Vec<String>>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::a)` names nothing.
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.paths.extend(imports(&item.tree).into_iter().map(|import| import.path));
    }

    /// Finds paths in a macro's arguments too, although the parser does not know their syntax.
    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.visit_path(&invoked.path);
        self.paths_of(invoked.tokens.clone());
    }
}

impl Paths {
    fn paths_of(&mut self, tokens: TokenStream) {
        let (mut words, mut colons): (Vec<String>, usize) = (Vec::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if colons == 2 && !words.is_empty() => {
                    words.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.end(&mut words);
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) => words.push(ident.to_string()),
                        TokenTree::Group(group) => self.paths_of(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
        }
        self.end(&mut words);
    }

    fn end(&mut self, words: &mut Vec<String>) {
        let words = std::mem::take(words);
        if words.len() > 1 {
            self.paths.push(words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::tree;
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        problems("a", &tree(files))
    }

    #[test]
    fn modules_that_name_each_other_are_found() {
        for (a, b) in [
            ("use crate::b::B;\npub struct A;", "pub struct B;\nfn f(_: super::a::A) {}"),
            ("use super::b;\npub fn a() {}", "pub fn b() { let _ = vec![crate::a::a()]; }"),
            ("pub use super::b::*;\npub struct A;", "use crate::{a::{self as other}};\npub struct B(other::A);"),
            ("use crate::B;\npub struct A;", "use crate::Renamed;\npub struct B;"),
            ("pub struct A;\nfn f() {\n    use crate::b::B;\n}", "use super::A;\npub struct B;"),
        ] {
            let root = "mod a;\nmod b;\npub use a::A;\npub use a::A as Renamed;\npub use b::*;\n";
            let found = found(&[("lib.rs", root), ("a.rs", a), ("b.rs", b)]);
            assert_eq!(found, ["crate `a` has a circle of modules: a -> b, b -> a"], "{a}\n{b}");
        }
    }

    #[test]
    fn a_module_and_its_parent_can_be_a_circle() {
        let files =
            [("lib.rs", "mod a;\npub struct Root;\nfn f() { a::f() }"), ("a.rs", "pub fn f(_: crate::Root) {}")];
        assert_eq!(found(&files), ["crate `a` has a circle of modules: a -> the root, the root -> a"]);
    }

    #[test]
    fn layers_re_exports_tests_and_other_crates_are_no_circles() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;\n"),
            (
                "a.rs",
                "use std::io;\nuse b::Other;\npub struct A;\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n",
            ),
            ("b.rs", "use crate::A;\npub struct B(A);\n"),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
    }
}
