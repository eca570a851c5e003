//! Import circles between the modules of a crate, and between its folders.
//!
//! A module needs another one if it names one of its items, also in an attribute or in the arguments of a macro. A re-export
//! counts as the original: a module that names `crate::Thing` needs the module that defines `Thing`, not the crate root. A
//! folder is a module with its submodules; it needs a sibling if any of its modules does. Tests are exempt.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graphmap::DiGraphMap;
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree};

use super::source::{ModulePath, Tree};

/// Returns one line for each set of modules, and of sibling folders, that all need each other, directly or indirectly.
pub(super) fn problems(name: &str, tree: &Tree) -> Vec<String> {
    let names = Names::of(tree);
    let needs: Needs<'_> = tree.modules.keys().map(|path| (path, names.needs(path))).collect();
    let modules = circles(&needs, |path| Some(path.clone()));
    let parents: BTreeSet<ModulePath> = tree.modules.keys().filter_map(parent).collect();
    let mut folders = Vec::new();
    for above in parents {
        let folder =
            |path: &ModulePath| path.starts_with(&above).then(|| path.get(..=above.len()).map(<[_]>::to_vec))?;
        for circle in circles(&needs, folder) {
            // A circle of modules is one of their folders as well.
            let known =
                |modules: &BTreeSet<ModulePath>| modules.iter().filter_map(folder).collect::<BTreeSet<_>>().len() > 1;
            if !modules.iter().any(known) {
                folders.push(format!("crate `{name}` has a circle of folders: {}", arrows(&needs, &circle, folder)));
            }
        }
    }
    let modules = modules.iter().map(|circle| {
        let arrows = arrows(&needs, circle, |path| Some(path.clone()));
        format!("crate `{name}` has a circle of modules: {arrows}")
    });
    modules.chain(folders).collect()
}

/// For each module, the other modules that it needs.
type Needs<'a> = BTreeMap<&'a ModulePath, BTreeSet<ModulePath>>;

/// Returns the circles between the groups of modules. `group` returns `None` for a module that is in no group.
fn circles(needs: &Needs<'_>, group: impl Fn(&ModulePath) -> Option<ModulePath>) -> Vec<BTreeSet<ModulePath>> {
    let groups: Vec<ModulePath> =
        needs.keys().filter_map(|path| group(path)).collect::<BTreeSet<_>>().into_iter().collect();
    let index = |path: &ModulePath| groups.binary_search(&group(path)?).ok();
    let mut graph = DiGraphMap::<usize, ()>::new();
    for (from, to) in pairs(needs) {
        if let (Some(from), Some(to)) = (index(from), index(to))
            && from != to
        {
            graph.add_edge(from, to, ());
        }
    }
    let circles = petgraph::algo::tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1);
    let mut circles: Vec<BTreeSet<ModulePath>> =
        circles.map(|circle| circle.into_iter().map(|index| groups[index].clone()).collect()).collect();
    circles.sort();
    circles
}

/// Lists what the modules of a circle of groups need in its other groups.
fn arrows(
    needs: &Needs<'_>,
    circle: &BTreeSet<ModulePath>,
    group: impl Fn(&ModulePath) -> Option<ModulePath>,
) -> String {
    let inside = |path| group(path).filter(|group| circle.contains(group));
    let between = pairs(needs).filter(|(from, to)| match (inside(from), inside(to)) {
        (Some(from), Some(to)) => from != to,
        _ => false,
    });
    let words: BTreeSet<String> = between.map(|(from, to)| format!("{} -> {}", shown(from), shown(to))).collect();
    words.into_iter().collect::<Vec<_>>().join(", ")
}

fn pairs<'a>(needs: &'a Needs<'_>) -> impl Iterator<Item = (&'a ModulePath, &'a ModulePath)> {
    needs.iter().flat_map(|(from, needed)| needed.iter().map(|to| (*from, to)))
}

fn shown(path: &ModulePath) -> String {
    if path.is_empty() { "the root".to_owned() } else { path.join("::") }
}

/// Targets of the names in a crate's modules.
struct Names<'a> {
    tree: &'a Tree,
    scopes: BTreeMap<&'a ModulePath, Scope>,
    /// For each macro of the crate, the modules that define one of this name.
    macros: BTreeMap<String, Vec<&'a ModulePath>>,
    /// For each macro with `#[macro_export]`, which makes it an item of the root, the module that defines it.
    exported: BTreeMap<String, &'a ModulePath>,
}

/// Names of one module.
#[derive(Default)]
struct Scope {
    /// Names that it imports, each with its path.
    imported: BTreeMap<String, Vec<String>>,
    /// Paths that it imports with `*`.
    globs: Vec<Vec<String>>,
    /// Items that it defines, without modules and macros.
    defined: BTreeSet<String>,
}

/// Target of a name.
enum Found {
    Module(ModulePath),
    /// An item, by the module that defines it.
    Item(ModulePath),
    /// A name of another crate, which this crate exports again.
    Foreign,
}

/// Longest chain of imports that is followed. Imports may lead in a circle.
const DEEPEST: u8 = 8;

impl<'a> Names<'a> {
    fn of(tree: &'a Tree) -> Self {
        let mut this = Self { tree, scopes: BTreeMap::new(), macros: BTreeMap::new(), exported: BTreeMap::new() };
        for (path, module) in &tree.modules {
            let mut scope = Scope::default();
            for item in &module.items {
                match item {
                    Item::Use(item) => {
                        for Import { path, name } in imports(&item.tree) {
                            match name {
                                Some(name) => drop(scope.imported.insert(name, path)),
                                None => scope.globs.push(path),
                            }
                        }
                    }
                    Item::Macro(item) => {
                        let Some(name) = item.ident.as_ref().map(ToString::to_string) else { continue };
                        if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
                            this.exported.insert(name.clone(), path);
                        }
                        this.macros.entry(name).or_default().push(path);
                    }
                    other => scope.defined.extend(defined(other)),
                }
            }
            this.scopes.insert(path, scope);
        }
        this
    }

    /// Returns the other modules whose items a module names.
    fn needs(&self, path: &ModulePath) -> BTreeSet<ModulePath> {
        let mut collector = Mentions::default();
        for item in self.tree.modules.get(path).into_iter().flat_map(|module| &module.items) {
            collector.visit_item(item);
        }
        let paths = collector.paths.iter().filter_map(|words| match self.resolve(path, words, 0)? {
            Found::Module(path) | Found::Item(path) => Some(path),
            Found::Foreign => None,
        });
        let names = collector.names.iter().filter_map(|name| self.by_glob(path, name, 0));
        // A single name never means a module.
        let names = names.filter_map(|found| match found {
            Found::Item(path) => Some(path),
            Found::Module(_) | Found::Foreign => None,
        });
        let imported = |name: &&String| self.scopes.get(path).is_some_and(|scope| scope.imported.contains_key(*name));
        let macros = collector.macros.iter().filter(|name| !imported(name)).filter_map(|name| self.by_text(path, name));
        paths.chain(names).chain(macros).filter(|other| other != path).collect()
    }

    /// Returns the target of a path. `None` if it is not in this crate.
    fn resolve(&self, from: &ModulePath, words: &[String], depth: u8) -> Option<Found> {
        let (first, mut rest) = words.split_first()?;
        let mut found = match first.as_str() {
            "crate" => Found::Module(ModulePath::new()),
            "self" => Found::Module(from.clone()),
            "super" => Found::Module(parent(from)?),
            // The name of another crate is found nowhere.
            _ => self.lookup(from, first, depth)?,
        };
        // Behind an item are its variants and associated items, which are in the same module.
        while let (Found::Module(at), Some((next, others))) = (&found, rest.split_first()) {
            found = match next.as_str() {
                "super" => Found::Module(parent(at)?),
                // What a macro defines is not known by name.
                _ => self.lookup(at, next, depth).unwrap_or_else(|| Found::Item(at.clone())),
            };
            rest = others;
        }
        Some(found)
    }

    /// Returns the target of a name in a module.
    fn lookup(&self, at: &ModulePath, name: &str, depth: u8) -> Option<Found> {
        if depth > DEEPEST {
            return None;
        }
        let scope = self.scopes.get(at)?;
        let below = child(at, name);
        if self.tree.modules.contains_key(&below) {
            return Some(Found::Module(below));
        }
        if scope.defined.contains(name) {
            return Some(Found::Item(at.clone()));
        }
        if let Some(path) = scope.imported.get(name) {
            // `use name;` imports a macro or another crate.
            let is_itself = path.len() == 1 && path[0] == name;
            let found =
                if is_itself { self.by_text(at, name).map(Found::Item) } else { self.resolve(at, path, depth + 1) };
            return Some(found.unwrap_or(Found::Foreign));
        }
        if at.is_empty()
            && let Some(path) = self.exported.get(name)
        {
            return Some(Found::Item((*path).clone()));
        }
        self.by_glob(at, name, depth)
    }

    /// Returns the target of a name that a module imports with `*`.
    fn by_glob(&self, at: &ModulePath, name: &str, depth: u8) -> Option<Found> {
        let scope = self.scopes.get(at)?;
        if depth > DEEPEST || scope.defined.contains(name) || scope.imported.contains_key(name) {
            return None;
        }
        let is_here = |first: &String| {
            ["crate", "self", "super"].contains(&first.as_str())
                || scope.imported.contains_key(first)
                || self.tree.modules.contains_key(&child(at, first))
        };
        let globs = scope.globs.iter().filter(|glob| glob.first().is_some_and(is_here));
        globs.into_iter().find_map(|glob| match self.resolve(at, glob, depth + 1)? {
            Found::Module(target) if target != *at => self.lookup(&target, name, depth + 1),
            // The variants of an enum.
            _ => None,
        })
    }

    /// Returns the module of a macro that is called without a path: its own, one above, which it can see because its
    /// `mod` comes after the macro, or another one with `#[macro_use]`.
    fn by_text(&self, at: &ModulePath, name: &str) -> Option<ModulePath> {
        let modules = self.macros.get(name)?;
        let above = modules.iter().filter(|module| at.starts_with(module)).max_by_key(|module| module.len());
        above.or_else(|| modules.first()).map(|module| (*module).clone())
    }
}

/// Returns the name of the item. `None` for modules, imports and macros.
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
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
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// `None` for an import with `*`.
    pub(super) name: Option<String>,
}

/// Returns every name that a `use` imports.
pub(super) fn imports(tree: &UseTree) -> Vec<Import> {
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

/// Collects every name in the code of a module.
#[derive(Default)]
struct Mentions {
    /// Paths of at least two words, and the paths of imports.
    paths: Vec<Vec<String>>,
    /// Names without a path.
    names: BTreeSet<String>,
    /// Macros that are called without a path.
    macros: BTreeSet<String>,
    /// Number of modules within functions around the code.
    inner: usize,
}

impl Mentions {
    fn add(&mut self, mut words: Vec<String>) {
        // In a module within a function, `super` first leads out of the function's inner modules.
        for _ in 0..self.inner {
            match words.first().map(String::as_str) {
                Some("self") => return,
                Some("super") if words.get(1).is_some_and(|word| word == "super") => drop(words.remove(0)),
                Some("super") => "self".clone_into(&mut words[0]),
                _ => break,
            }
        }
        match <[String; 1]>::try_from(words) {
            Ok([name]) => drop(self.names.insert(name)),
            Err(words) => self.paths.push(words),
        }
    }

    fn add_tokens(&mut self, tokens: TokenStream) {
        let (mut words, mut colons): (Vec<String>, usize) = (Vec::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if colons == 2 && !words.is_empty() => {
                    words.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    let words_before = std::mem::take(&mut words);
                    let is_called = matches!(&other, TokenTree::Punct(punct) if punct.as_char() == '!');
                    match <[String; 1]>::try_from(words_before) {
                        Ok([name]) if is_called => drop(self.macros.insert(name)),
                        Ok(name) => self.add(name.into()),
                        Err(words) if words.is_empty() => {}
                        Err(words) => self.add(words),
                    }
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) => words.push(ident.to_string()),
                        TokenTree::Group(group) => self.add_tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
        }
        if !words.is_empty() {
            self.add(words);
        }
    }

    /// Adds the types and functions that an attribute names in strings, as in `#[serde(with = "crate::text")]`.
    fn add_strings(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.add_strings(group.stream()),
                TokenTree::Literal(literal) => {
                    let text = syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|text| text.value());
                    if let Ok(named) = text.and_then(|text| syn::parse_str::<syn::Type>(&text)) {
                        self.visit_type(&named);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Mentions {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in crate::a)` names nothing.
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // `use module::*` needs what is named through it. `pub use module::*` needs the module.
        let is_private = matches!(item.vis, syn::Visibility::Inherited);
        if item.leading_colon.is_none() {
            for import in imports(&item.tree).into_iter().filter(|import| import.name.is_some() || !is_private) {
                // `use name;` imports a crate or a module, as a path does.
                if import.path.len() == 1 { self.paths.push(import.path) } else { self.add(import.path) }
            }
        }
    }

    /// Visits a module within a function. The others are modules of the tree.
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inner += 1;
        visit::visit_item_mod(self, item);
        self.inner -= 1;
    }

    /// Finds paths in a macro's arguments too, although the parser does not know their syntax.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        match called.path.get_ident() {
            Some(name) => drop(self.macros.insert(name.to_string())),
            None => self.visit_path(&called.path),
        }
        self.add_tokens(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.visit_path(attribute.path());
        if let syn::Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
            self.add_strings(list.tokens.clone());
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
            // In strings of attributes.
            ("#[serde(with = \"crate::b\")]\npub struct A;", "pub struct B(crate::A);"),
            (
                "pub struct A {\n    #[serde(default, skip_serializing_if = \"super::b::no\")]\n    a: u8,\n}",
                "pub struct B(crate::A);",
            ),
            (
                "pub struct A(super::b::B);",
                "use crate::a;\n#[cfg_attr(x, serde(try_from = \"Vec<a::A>\"))]\npub struct B;",
            ),
            // Names that `*` imports.
            ("use crate::*;\npub struct A(B);", "pub struct B(super::a::A);"),
            ("use crate::*;\npub struct A(b::B);", "use super::*;\npub struct B(A);"),
            ("use super::*;\npub struct A;\nfn f() { vec![B] }", "pub struct B(crate::Renamed);"),
            // Modules in braces, also within functions.
            ("pub mod c {\n    pub use crate::b::B;\n}\nfn f(_: c::B) {}\npub struct A;", "pub struct B(crate::A);"),
            (
                "pub struct A;\nfn f() {\n    mod g {\n        use super::super::b::B;\n    }\n}",
                "pub struct B(crate::A);",
            ),
            // Macros: exported, imported, and visible to all modules behind them.
            (
                "pub struct A;\nfn f() { crate::make!() }",
                "#[macro_export]\nmacro_rules! make { () => { $crate::a::A } }",
            ),
            ("pub struct A;\nfn f() { make!() }", "macro_rules! make { () => { crate::a::A } }"),
            (
                "pub struct A;\nuse crate::b::make;\nfn f() { make!() }",
                "macro_rules! make { () => { $crate::a::A } }\npub(crate) use make;",
            ),
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
    fn sibling_folders_that_need_each_other_through_their_modules_are_found() {
        let files = [
            ("lib.rs", "mod up;"),
            ("up/mod.rs", "mod a;\nmod b;\nmod c;"),
            ("up/a/mod.rs", "mod one;\npub mod two;"),
            ("up/a/one.rs", "use crate::up::b::three::Three;"),
            ("up/a/two.rs", "pub struct Two;"),
            ("up/b/mod.rs", "pub mod three;\nmod four;"),
            ("up/b/three.rs", "pub struct Three;"),
            ("up/b/four.rs", "use super::super::a::two::Two;"),
            ("up/c.rs", "use super::a::two;\nuse super::b;"),
        ];
        let arrows = "up::a::one -> up::b::three, up::b::four -> up::a::two";
        assert_eq!(found(&files), [format!("crate `a` has a circle of folders: {arrows}")]);
    }

    #[test]
    fn a_folder_that_uses_what_its_submodules_define_is_no_circle() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub struct Root;"),
            ("a/mod.rs", "mod one;\nmod two;\npub use one::One;\nuse crate::b;"),
            ("a/one.rs", "use super::two::Two;\npub struct One;"),
            ("a/two.rs", "use crate::Root;\nuse crate::b::B;\npub struct Two;"),
            ("b.rs", "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::One;\n}"),
        ];
        assert_eq!(found(&files), Vec::<String>::new());
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
