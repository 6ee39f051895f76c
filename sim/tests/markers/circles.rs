//! Files take names from each other in no wide circle, and the core takes none from above.
//!
//! A name ties the file that takes it to the one that defines it, whoever passes it on in between. What stands beneath a
//! file (`engine/act.rs` beneath `engine.rs`, and everything beneath the root of its crate) is a part of it, so that
//! what it takes from above ties nothing. Neither does what only tests take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use serde_json::Value;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemUse, Macro, UseTree, Visibility};

/// So many files may take names from each other in a circle.
const FILES_MAX: usize = 4;

/// So many of the lines are shown that tie a file to another one.
const SHOWN: usize = 3;

/// Names that lead to names that lead to names end here.
const DEPTH_MAX: usize = 16;

/// A module, and what it knows by name.
#[derive(Default)]
struct Module {
    file: usize,
    above: Option<usize>,
    beneath: BTreeMap<String, usize>,
    defined: BTreeSet<String>,
    /// By the name under which it is known here: the path, as it stands behind `use`.
    brought: BTreeMap<String, Vec<String>>,
    /// The paths before `::*`.
    all_of: Vec<Vec<String>>,
}

/// A path in the text of a module.
struct Taken {
    by: usize,
    path: Vec<String>,
    line: usize,
}

/// The modules of some crates.
struct Sources<'a> {
    text: &'a dyn Fn(&Path) -> String,
    files: Vec<PathBuf>,
    modules: Vec<Module>,
    /// The root of each library, by the name that others know it by.
    libraries: BTreeMap<String, usize>,
    taken: Vec<Taken>,
}

/// From which file to which; the lines that tie them.
type Ties = BTreeMap<(usize, usize), Vec<String>>;

impl<'a> Sources<'a> {
    fn new(text: &'a dyn Fn(&Path) -> String) -> Self {
        Self { text, files: vec![], modules: vec![], libraries: BTreeMap::new(), taken: vec![] }
    }

    /// Reads a crate from its root; a library has a name.
    fn read(&mut self, root: &Path, library: Option<&str>) {
        let folder = root.parent().expect("a file is in a folder");
        let root = self.read_file(root, None, folder);
        self.libraries.extend(library.map(|name| (name.to_owned(), root)));
    }

    fn read_file(&mut self, path: &Path, above: Option<usize>, folder: &Path) -> usize {
        let parsed = syn::parse_file(&(self.text)(path));
        let parsed = parsed.unwrap_or_else(|reason| panic!("{} is no Rust: {reason}", path.display()));
        self.files.push(path.to_owned());
        self.read_module(self.files.len() - 1, above, &parsed.items, folder)
    }

    fn read_module(&mut self, file: usize, above: Option<usize>, items: &[Item], folder: &Path) -> usize {
        let here = self.modules.len();
        self.modules.push(Module { file, above, ..Module::default() });
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            match item {
                Item::Mod(module) => {
                    let name = name(&module.ident);
                    let folder = folder.join(&name);
                    let beneath = match &module.content {
                        Some((_, items)) => self.read_module(file, Some(here), items, &folder),
                        None => self.read_file(&folder.with_extension("rs"), Some(here), &folder),
                    };
                    self.modules[here].beneath.insert(name, beneath);
                }
                Item::Use(bring) => {
                    let passed_on = !matches!(bring.vis, Visibility::Inherited);
                    self.bring(here, &mut Vec::new(), &bring.tree, passed_on);
                }
                item => {
                    self.modules[here].defined.extend(defined(item).map(name));
                    Names { sources: self, module: here }.visit_item(item);
                }
            }
        }
        here
    }

    /// Notes what `use` brings. What is passed on is taken by whoever uses it.
    fn bring(&mut self, module: usize, path: &mut Vec<String>, tree: &UseTree, passed_on: bool) {
        let (known_as, last) = match tree {
            UseTree::Path(tree) => {
                path.push(name(&tree.ident));
                self.bring(module, path, &tree.tree, passed_on);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.bring(module, path, tree, passed_on));
            }
            UseTree::Glob(glob) => {
                self.modules[module].all_of.push(path.clone());
                if !passed_on {
                    self.take(module, path.clone(), glob.star_token.spans[0]);
                }
                return;
            }
            UseTree::Name(tree) => (&tree.ident, &tree.ident),
            UseTree::Rename(tree) => (&tree.rename, &tree.ident),
        };
        let whole = if last == "self" { path.clone() } else { [&path[..], &[name(last)]].concat() };
        let known_as = if known_as == "self" { path.last().cloned() } else { Some(name(known_as)) };
        if !passed_on {
            self.take(module, whole.clone(), last.span());
        }
        self.modules[module].brought.extend(known_as.map(|name| (name, whole)));
    }

    fn take(&mut self, by: usize, path: Vec<String>, at: Span) {
        self.taken.push(Taken { by, path, line: at.start().line });
    }

    /// The module that defines what a path names in the text of another one, if it is in these crates. What is not
    /// seen to be defined, because a macro makes it, is where it is looked for.
    fn definer(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => {
                let root = core::iter::successors(Some(module), |one| self.modules[*one].above).last()?;
                self.within(root, rest, depth)
            }
            "self" => self.within(module, rest, depth),
            "super" => self.within(self.modules[module].above?, rest, depth),
            _ => self
                .known(module, path, depth)
                .or_else(|| self.within(*self.libraries.get(first)?, rest, depth)),
        }
    }

    fn within(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        match path.split_first() {
            None => Some(module),
            Some((first, rest)) if first == "super" => self.within(self.modules[module].above?, rest, depth),
            Some(_) => Some(self.known(module, path, depth).unwrap_or(module)),
        }
    }

    /// The same for a path that begins with something that the module knows.
    fn known(&self, module: usize, path: &[String], depth: usize) -> Option<usize> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let here = &self.modules[module];
        if let Some(beneath) = here.beneath.get(first) {
            return self.within(*beneath, rest, depth);
        }
        if here.defined.contains(first) {
            return Some(module);
        }
        if let Some(brought) = here.brought.get(first) {
            return self.definer(module, &[brought, rest].concat(), depth);
        }
        here.all_of.iter().find_map(|of| self.known(self.definer(module, of, depth)?, path, depth))
    }

    fn ties(&self) -> Ties {
        let mut ties = Ties::new();
        for Taken { by, path, line } in &self.taken {
            let Some(definer) = self.definer(*by, path, DEPTH_MAX) else { continue };
            let (from, to) = (self.modules[*by].file, self.modules[definer].file);
            if from != to && !self.is_above(to, from) {
                ties.entry((from, to)).or_default().push(format!("{line}: {}", path.join("::")));
            }
        }
        ties
    }

    /// Whether a file is that in which another one is a module, or one in which that is.
    fn is_above(&self, file: usize, other: usize) -> bool {
        let at = self.modules.iter().position(|module| module.file == other);
        core::iter::successors(at, |one| self.modules[*one].above).any(|one| self.modules[one].file == file)
    }

    /// Every circle of more files than there may be, with what ties them.
    fn wide_circles(&self, below: &Path) -> Vec<String> {
        let show = |file: usize| self.files[file].strip_prefix(below).unwrap_or(&self.files[file]).display();
        let ties = self.ties();
        let mut texts = Vec::new();
        for circle in circles(&ties, self.files.len()).iter().filter(|circle| circle.len() > FILES_MAX) {
            let mut text = format!("{} files take names from each other in a circle:\n", circle.len());
            for ((from, to), lines) in &ties {
                if circle.contains(from) && circle.contains(to) {
                    let shown = lines[..lines.len().min(SHOWN)].join(", ");
                    text.push_str(&format!("  {} from {} in {shown}\n", show(*from), show(*to)));
                }
            }
            texts.push(text);
        }
        texts
    }
}

/// The files that reach each other.
fn circles(ties: &Ties, files: usize) -> BTreeSet<BTreeSet<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..files)
        .map(|file| {
            let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
            while let Some(from) = next.pop() {
                let to = ties.range((from, 0)..=(from, files)).map(|((_, to), _)| *to);
                next.extend(to.filter(|to| reached.insert(*to)));
            }
            reached
        })
        .collect();
    let circle = |file: &usize| -> BTreeSet<usize> {
        reached[*file].iter().copied().filter(|to| reached[*to].contains(file)).collect()
    };
    (0..files).filter(|file| reached[*file].contains(file)).map(|file| circle(&file)).collect()
}

/// Notes every path in an item.
struct Names<'s, 'a> {
    sources: &'s mut Sources<'a>,
    module: usize,
}

impl Names<'_, '_> {
    fn note(&mut self, path: &[&Ident]) {
        let Some(first) = path.first() else { return };
        // A variable may be called like a module; a module alone is nothing that an item could use.
        if path.len() > 1 || !self.sources.modules[self.module].beneath.contains_key(&name(first)) {
            let path = path.iter().map(|ident| name(ident)).collect();
            self.sources.take(self.module, path, first.span());
        }
    }

    /// What looks like a path among the words that a macro is given.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut path: Vec<&Ident> = Vec::new();
        let is = |at: usize, c| matches!(tokens.get(at), Some(TokenTree::Punct(one)) if one.as_char() == c);
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(ident) => {
                    let is_field = at > 0 && (is(at - 1, '.') || is(at - 1, '$'));
                    if !is_field {
                        path.push(ident);
                    }
                    if !(is(at + 1, ':') && is(at + 2, ':')) {
                        self.note(&path);
                        path.clear();
                    }
                }
                TokenTree::Group(group) => {
                    path.clear();
                    self.note_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names<'_, '_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(&path.segments.iter().map(|segment| &segment.ident).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.note_tokens(call.tokens.clone());
    }

    fn visit_item_use(&mut self, bring: &'ast ItemUse) {
        self.sources.bring(self.module, &mut Vec::new(), &bring.tree, false);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

/// The name that an item defines.
fn defined(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
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
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether something is compiled for tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |condition: syn::Result<syn::Path>| condition.is_ok_and(|path| path.is_ident("test"));
    attributes.iter().any(|one| one.path().is_ident("cfg") && is_test(one.parse_args()))
}

/// A name without the mark that lets it be a keyword.
fn name(ident: &Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the simulator is a folder of the workspace")
}

/// What cargo knows of the packages of the workspace.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo answers in JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn files_take_names_from_each_other_in_no_wide_circle() {
    let read = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|reason| panic!("{}: {reason}", path.display()))
    };
    let mut sources = Sources::new(&read);
    for target in packages().iter().flat_map(|package| list(&package["targets"])) {
        let kinds: Vec<&str> = list(&target["kind"]).map(text).collect();
        let library = kinds.contains(&"lib").then(|| text(&target["name"]));
        if library.is_some() || kinds.contains(&"bin") {
            sources.read(Path::new(text(&target["src_path"])), library);
        }
    }
    let ties = sources.ties();
    let file = |path: &str| sources.files.iter().position(|one| one == &root().join(path));
    for (from, to) in [
        ("sim/src/main.rs", "sim/src/cli.rs"),
        ("sim/src/simulated/paths.rs", "sim/src/network/model.rs"),
        ("sim/src/engine.rs", "scenarios/src/verbs.rs"),
        ("scenarios/src/env.rs", "scenarios/src/reader.rs"),
    ] {
        let pair = (file(from).expect("it is read"), file(to).expect("it is read"));
        assert!(ties.contains_key(&pair), "the search does not find that {from} takes names from {to}");
    }
    let circles = sources.wide_circles(root());
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn the_core_depends_on_nothing_above_it() {
    let core = root().join("core");
    let packages = packages();
    let of_the_core: Vec<_> = packages
        .iter()
        .filter(|package| Path::new(text(&package["manifest_path"])).starts_with(&core))
        .collect();
    assert!(of_the_core.len() >= 2, "the protocol and the node are in the core");
    for package in of_the_core {
        for path in list(&package["dependencies"]).filter_map(|one| one["path"].as_str()) {
            assert!(Path::new(path).starts_with(&core), "{} depends on {path}", text(&package["name"]));
        }
    }
}

/// The wide circles among some files of one crate.
fn wide_circles(files: &[(&str, &str)]) -> Vec<String> {
    let texts: BTreeMap<PathBuf, &str> = files.iter().map(|(path, text)| (path.into(), *text)).collect();
    let read = |path: &Path| texts.get(path).expect("every module has a text").to_string();
    let mut sources = Sources::new(&read);
    sources.read(Path::new("src/lib.rs"), Some("sample"));
    sources.wide_circles(Path::new("src"))
}

const FIVE: [(&str, &str); 6] = [
    ("src/lib.rs", "mod a; mod b; mod c; mod d; mod e; pub use e::Last;"),
    ("src/a.rs", "use crate::b::B;\npub struct A(B);"),
    ("src/b.rs", "use super::c;\npub struct B(c::C);"),
    ("src/c.rs", "pub struct C;\nfn f() { println!(\"{}\", crate::d::D) }"),
    ("src/d.rs", "pub const D: u8 = 0;\nfn f() -> sample::Last { panic!() }"),
    ("src/e.rs", "pub struct Last;\nimpl From<super::a::A> for Last {}"),
];

#[test]
fn a_wide_circle_is_found_however_names_are_taken() {
    let circles = wide_circles(&FIVE);
    assert_eq!(circles.len(), 1, "{circles:?}");
    for line in [
        "a.rs from b.rs in 1: crate::b::B",
        "b.rs from c.rs in 1: super::c",
        "c.rs from d.rs in 2: crate::d::D",
        "d.rs from e.rs in 2: sample::Last",
        "e.rs from a.rs in 2: super::a::A",
    ] {
        assert!(circles[0].contains(line), "{line} is missing in {}", circles[0]);
    }
}

#[test]
fn a_circle_ends_where_a_name_is_taken_by_tests_only_or_from_above() {
    for (file, text) in [
        ("src/c.rs", "pub struct C;\n#[cfg(test)] mod tests { fn f() -> u8 { crate::d::D } }"),
        ("src/d.rs", "pub const D: u8 = 0;"),
        ("src/lib.rs", "mod a; mod b; mod c; mod d; mod e; pub struct Last;"),
    ] {
        let files = FIVE.map(|(path, old)| (path, if path == file { text } else { old }));
        assert_eq!(wide_circles(&files), Vec::<String>::new(), "{text}");
    }
}
