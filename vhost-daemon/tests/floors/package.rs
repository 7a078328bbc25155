//! The files of a package and the arrows between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{self, Source};

/// A package of the repository.
#[derive(Debug, Default)]
pub struct Package {
    pub name: String,
    /// Files by the path of their module: `hca::qp`; `lib`, `main` or the name of a binary for a root.
    pub files: BTreeSet<String>,
    /// Imports from file to file.
    pub arrows: BTreeMap<(String, String), Place>,
}

/// Place of an import in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: usize,
}

/// A crate root and the files of its modules.
#[derive(Debug, Default)]
struct Tree {
    root: String,
    /// Module paths without the root's name, which is their prefix for binaries in `bin/`.
    modules: BTreeMap<Vec<String>, (PathBuf, Source)>,
}

/// Finds the packages below a directory, except where builds and fuzz targets are.
pub fn find(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if directory.join("Cargo.toml").exists() && directory.join("src").exists() {
        found.push(directory.to_owned());
    }
    let mut below: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    below.sort();
    for path in below {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') && !matches!(name.as_str(), "target" | "fuzz" | "src") {
            found.extend(find(&path));
        }
    }
    found
}

impl Package {
    /// Reads the package in a directory of the repository.
    pub fn read(directory: &Path, repository: &Path) -> Self {
        let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let name = manifest
            .lines()
            .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .expect("a package has a name");
        let source = directory.join("src");
        let mut roots = vec![
            ("lib".to_owned(), source.join("lib.rs")),
            ("main".to_owned(), source.join("main.rs")),
        ];
        for entry in fs::read_dir(source.join("bin")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            roots.push((name, if path.is_dir() { path.join("main.rs") } else { path }));
        }
        let library = name.replace('-', "_");
        let trees = roots
            .into_iter()
            .filter(|(_, path)| path.exists())
            .map(|(root, path)| Tree::read(root, &path, &library, &|path| fs::read_to_string(path).ok()))
            .collect();
        let mut package = Self::new(name, trees);
        for place in package.arrows.values_mut() {
            if let Ok(within) = Path::new(&place.file).strip_prefix(repository) {
                place.file = within.to_string_lossy().into_owned();
            }
        }
        package
    }

    fn new(name: &str, trees: Vec<Tree>) -> Self {
        let mut package = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        let library_name = name.replace('-', "_");
        let library = trees.iter().find(|tree| tree.root == "lib");
        for tree in &trees {
            for (module, (path, source)) in &tree.modules {
                let from = tree.file(module);
                package.files.insert(from.clone());
                for used in &source.paths {
                    let base = [module.as_slice(), &used.scope].concat();
                    let to = match library {
                        Some(library) if used.segments[0] == library_name => {
                            let target = library.walk(Vec::new(), &used.segments[1..], 0);
                            target.map(|target| library.file(&target))
                        }
                        // A module and its children are one room, so imports between them do not count. Only a
                        // binary's root is a room by itself.
                        _ => {
                            let target = tree.resolve(&base, &used.segments, 0);
                            let target = target.filter(|target| {
                                (module.is_empty() && tree.root != "lib") || !target.starts_with(module)
                            });
                            target.map(|target| tree.file(&target))
                        }
                    };
                    if let Some(to) = to.filter(|to| *to != from) {
                        let file = path.to_string_lossy().into_owned();
                        let place = Place { file, line: used.line };
                        package.arrows.entry((from.clone(), to)).or_insert(place);
                    }
                }
            }
        }
        // A library's root that only lists its modules has no floor.
        if !package.arrows.keys().any(|(from, to)| from == "lib" || to == "lib") {
            package.files.remove("lib");
        }
        package
    }

    /// Reads a package of one crate from texts, named by the paths of their modules.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let text = |path: &Path| {
            let name = path.to_str()?.strip_suffix(".rs")?.replace('/', "::");
            files
                .iter()
                .find(|(file, _)| *file == name)
                .map(|(_, text)| (*text).to_owned())
        };
        let tree = Tree::read("lib".to_owned(), Path::new("lib.rs"), "the_crate", &text);
        Self::new("the-crate", vec![tree])
    }
}

impl Tree {
    fn read(root: String, path: &Path, library: &str, text: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut tree = Self {
            root,
            modules: BTreeMap::new(),
        };
        tree.add(Vec::new(), path, library, text);
        tree
    }

    fn add(&mut self, module: Vec<String>, path: &Path, library: &str, text: &dyn Fn(&Path) -> Option<String>) {
        let source = source::read(&text(path).unwrap(), library);
        let directory = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "main" | "mod") => path.with_file_name(""),
            _ if module.is_empty() => path.with_file_name(""),
            _ => path.with_extension(""),
        };
        for child in &source.modules {
            let mut module = module.clone();
            module.push(child.clone());
            let path = [
                directory.join(format!("{child}.rs")),
                directory.join(child).join("mod.rs"),
            ]
            .into_iter()
            .find(|path| text(path).is_some());
            let path = path.unwrap_or_else(|| panic!("module {} has no file", module.join("::")));
            self.add(module, &path, library, text);
        }
        self.modules.insert(module, (path.to_owned(), source));
    }

    /// Returns the name of a module's file.
    fn file(&self, module: &[String]) -> String {
        let in_bin = !matches!(self.root.as_str(), "lib" | "main");
        match module {
            [] => self.root.clone(),
            _ if in_bin => format!("{}::{}", self.root, module.join("::")),
            _ => module.join("::"),
        }
    }

    /// Returns the module whose file defines the item that a path names, as seen from a module; `None` for items of
    /// other crates.
    fn resolve(&self, base: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let (first, mut at) = (path.first()?, base.to_vec());
        match first.as_str() {
            "crate" => at.clear(),
            "self" | "super" => {}
            // A child module, or another crate.
            _ => drop(self.modules.get(&[base, std::slice::from_ref(first)].concat())?),
        }
        let mut segments = path.iter().peekable();
        while let Some(anchor) = segments.next_if(|segment| matches!(segment.as_str(), "crate" | "self" | "super")) {
            if anchor == "super" {
                at.pop();
            }
        }
        let rest: Vec<String> = segments.cloned().collect();
        self.walk(at, &rest, depth)
    }

    /// Follows modules, and names that a module imports, as far as they lead.
    fn walk(&self, mut at: Vec<String>, path: &[String], depth: usize) -> Option<Vec<String>> {
        // An inline module is in the file of the nearest module around it.
        while !self.modules.contains_key(&at) {
            at.pop();
        }
        for (index, segment) in path.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(segment)].concat();
            if self.modules.contains_key(&child) {
                at = child;
                continue;
            }
            let imports = &self.modules[&at].1.paths;
            let import = imports
                .iter()
                .find(|import| import.scope.is_empty() && import.binds.as_ref() == Some(segment));
            return match import {
                Some(import) if depth < 16 => {
                    let rest = [&import.segments[..], &path[index + 1..]].concat();
                    self.resolve(&at, &rest, depth + 1)
                }
                _ => Some(at),
            };
        }
        Some(at)
    }
}
