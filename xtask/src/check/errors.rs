//! Public errors that no snapshot shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, ItemImpl, ReturnType, Type, Visibility};

use super::circles::imports;
use super::source::{Tree, attributes, is_test};
use crate::process::Result;

/// The file whose tests format every public error and compare the texts with a snapshot.
const SHOWN_IN: &str = "src/report.rs";

/// Returns the errors that the tests of the file construct: `Enum::Variant`, and the names of structs.
pub(super) fn shown(root: &Path) -> Result<BTreeSet<String>> {
    let text =
        fs::read_to_string(root.join(SHOWN_IN)).map_err(|error| format!("failed to read `{SHOWN_IN}`: {error}"))?;
    let shown = constructed(&text).map_err(|error| format!("failed to parse `{SHOWN_IN}`: {error}"))?;
    if shown.is_empty() { Err(format!("the tests of `{SHOWN_IN}` construct nothing").into()) } else { Ok(shown) }
}

fn constructed(text: &str) -> syn::Result<BTreeSet<String>> {
    let mut collector = Constructed::default();
    for item in syn::parse_file(text)?.items.iter().filter(|item| is_test(attributes(item))) {
        collector.visit_item(item);
    }
    Ok(collector.0)
}

/// Returns one problem for each variant of a public error, and for each public error that is a struct, that is not shown.
pub(super) fn problems(name: &str, tree: &Tree, shown: &BTreeSet<String>) -> Vec<String> {
    // A hand-written implementation may be in another module than its type.
    let by_hand: BTreeSet<String> = tree.modules.values().flat_map(|module| implemented(&module.items)).collect();
    let items = tree.modules.values().flat_map(|module| &module.items);
    let missing = items.flat_map(|item| names(item, &by_hand)).filter(|error| !shown.contains(error));
    missing
        .map(|error| {
            format!("crate `{name}` has the error `{error}`, which the tests of `{SHOWN_IN}` do not construct")
        })
        .collect()
}

/// Returns `Enum::Variant` for each variant of a public error, and the name of an error that is a struct.
fn names(item: &Item, by_hand: &BTreeSet<String>) -> Vec<String> {
    let is_error = |visibility: &Visibility, attributes: &[Attribute], name: &syn::Ident| {
        matches!(visibility, Visibility::Public(_))
            && (derives_error(attributes) || by_hand.contains(&name.to_string()))
    };
    match item {
        Item::Enum(item) if is_error(&item.vis, &item.attrs, &item.ident) => {
            item.variants.iter().map(|variant| format!("{}::{}", item.ident, variant.ident)).collect()
        }
        Item::Struct(item) if is_error(&item.vis, &item.attrs, &item.ident) => vec![item.ident.to_string()],
        _ => Vec::new(),
    }
}

fn derives_error(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        let mut found = false;
        // A derive that cannot be read does not compile either.
        let _ = attribute.parse_nested_meta(|meta| {
            found |= meta.path.segments.last().is_some_and(|segment| segment.ident == "Error");
            Ok(())
        });
        found
    })
}

/// Returns the types for which the items of a module implement `std::error::Error`.
fn implemented(items: &[Item]) -> Vec<String> {
    let uses = items.iter().filter_map(|item| if let Item::Use(item) = item { Some(item) } else { None });
    let uses: Vec<_> = uses.flat_map(|item| imports(&item.tree)).collect();
    let is_error = |path: &syn::Path| {
        let mut words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(import) = uses.iter().find(|import| import.name.as_ref() == words.first()) {
            words.splice(..1, import.path.iter().cloned());
        }
        matches!(words.iter().map(String::as_str).collect::<Vec<_>>()[..], ["std" | "core", "error", "Error"])
    };
    let of = |item: &ItemImpl| {
        let (_, path, _) = item.trait_.as_ref()?;
        is_error(path).then(|| named(&item.self_ty))?
    };
    items.iter().filter_map(|item| if let Item::Impl(item) = item { of(item) } else { None }).collect()
}

/// Returns the last word of a type's path.
fn named(kind: &Type) -> Option<String> {
    let Type::Path(path) = kind else { return None };
    path.path.segments.last().map(|segment| segment.ident.to_string())
}

/// Collects what expressions construct. A pattern, a comment or a string constructs nothing.
#[derive(Default)]
struct Constructed(BTreeSet<String>);

impl Constructed {
    /// Adds `Enum::Variant`, or a struct, which may have a module before it or a function behind it.
    fn add(&mut self, path: &syn::Path) {
        let mut words = path.segments.iter().rev().map(|segment| segment.ident.to_string());
        let Some(last) = words.next() else { return };
        match words.next().filter(|before| before.starts_with(char::is_uppercase)) {
            Some(kind) => self.0.extend([format!("{kind}::{last}"), kind]),
            None => self.0.extend([last]),
        }
    }
}

impl<'ast> Visit<'ast> for Constructed {
    fn visit_expr(&mut self, expression: &'ast Expr) {
        match expression {
            Expr::Struct(expression) => self.add(&expression.path),
            Expr::Path(expression) => self.add(&expression.path),
            _ => {}
        }
        visit::visit_expr(self, expression);
    }

    /// Adds the type that a function or a closure returns, for an error that only the parser of another type constructs.
    fn visit_return_type(&mut self, output: &'ast ReturnType) {
        if let ReturnType::Type(_, kind) = output {
            self.0.extend(named(kind));
        }
    }

    /// Visits the arguments of macros such as `vec!`, which are expressions. Those of `matches!` are patterns.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if called.path.segments.last().is_some_and(|name| name.ident.to_string().ends_with("matches")) {
            return;
        }
        let parse = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
        for expression in called.parse_body_with(parse).into_iter().flatten() {
            self.visit_expr(&expression);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::tree;
    use super::*;

    fn missing(files: &[(&str, &str)], tests: &str) -> Vec<String> {
        let shown =
            constructed(&format!("fn f() {{ AError::Four }}\n#[cfg(test)]\nmod tests {{ fn f() {{\n{tests}\n}} }}"));
        let problems = problems("a", &tree(files), &shown.expect("it parses"));
        let (before, after) = ("crate `a` has the error `", "`, which the tests of `src/report.rs` do not construct");
        problems.iter().map(|text| text.replace(before, "").replace(after, "")).collect()
    }

    #[test]
    fn an_error_that_no_test_constructs_is_found() {
        let text = "#[derive(Debug, thiserror::Error)]\npub enum AError { One, Two { x: u8 }, Three(u8), Four }\n\
                    #[derive(Debug, thiserror::Error)]\nenum Private { One }\n\
                    #[derive(Debug, Error)]\npub struct BError;\n#[derive(Debug)]\npub enum NoError { One }\n";
        let files = [("lib.rs", text)];
        let all = ["AError::One", "AError::Two", "AError::Three", "AError::Four", "BError"];
        for nothing in [
            "// AError::One, AError::Two, AError::Three(7), AError::Four, BError",
            "let text = \"AError::One AError::Two AError::Three AError::Four BError\";",
            "let AError::Two { x } = y else { return };\nmatches!(y, AError::One | AError::Three(_) | AError::Four);",
            "AError::OneMore; AError::TwoMore { x }; Other::Four; Other::BError; CError",
        ] {
            assert_eq!(missing(&files, nothing), all, "{nothing}");
        }
        let most = "let a = vec![AError::One, Box::new(b::AError::Two { x: 7 })]; let b = AError::Three; AError::Four.to_string();";
        assert_eq!(missing(&files, most), ["BError"]);
        for construction in ["BError", "b::BError", "BError { x }", "BError::new(7)", "let b = || -> BError { x };"] {
            assert_eq!(missing(&files, &format!("{most}\n{construction}")), Vec::<String>::new(), "{construction}");
        }
    }

    #[test]
    fn a_hand_written_error_counts_whatever_its_trait_is_called_there() {
        for (imported, name) in [
            ("", "std::error::Error"),
            ("", "core::error::Error"),
            ("use std::error::Error;", "Error"),
            ("use std::error::Error as StdError;", "StdError"),
            ("use std::{error, fmt};", "error::Error"),
            ("use core::error::{self as e};", "e::Error"),
        ] {
            let a = format!(
                "{imported}\nimpl {name} for super::AError {{}}\nimpl serde::de::Error for super::NoError {{}}\n"
            );
            let root = "mod a;\npub enum AError { One, Two }\npub struct NoError;\nimpl Error for NoError {}";
            let found = missing(&[("lib.rs", root), ("a.rs", &a)], "AError::One");
            assert_eq!(found, ["AError::Two"], "{imported} {name}");
        }
    }
}
