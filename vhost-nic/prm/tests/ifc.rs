//! Compares every declared layout with a kernel's own `mlx5_ifc.h`: the one named by `MLX5_IFC_H`, or that of a built
//! guest image; without either, nothing is compared.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use mlx5_prm::layout::Declaration;
use mlx5_prm::{COMPLETE, layouts};

/// Declarations of the header by name of the structure.
#[derive(Default)]
struct Header {
    bodies: HashMap<String, (bool, Vec<String>)>,
}

/// Fields as (name, offset, width) in bits.
type Fields = Vec<(String, usize, usize)>;

impl Header {
    /// Parses the header of the kernel, if there is one.
    fn of_kernel() -> Option<Self> {
        let Some(path) = header() else {
            eprintln!("There is no kernel source here; nothing was compared.");
            return None;
        };
        let mut text = std::fs::read_to_string(&path).unwrap();
        // A part of the capabilities' union is declared there.
        text += &std::fs::read_to_string(path.with_file_name("mlx5_ifc_fpga.h")).unwrap_or_default();
        Some(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut header = Self::default();
        let mut lines = text
            .lines()
            .map(|line| line.split("/*").next().unwrap_or("").trim().to_owned());
        while let Some(line) = lines.next() {
            let mut words = line.split_whitespace();
            let (Some(kind @ ("struct" | "union")), Some(name), Some("{"), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let body = lines
                .by_ref()
                .take_while(|line| line != "};")
                .filter(|line| !line.is_empty())
                .collect();
            header.bodies.insert(name.to_owned(), (kind == "union", body));
        }
        header
    }

    fn fields(&self, ifc: &str) -> Option<(Fields, usize)> {
        let name = format!("mlx5_ifc_{ifc}_bits");
        let (union, body) = self.bodies.get(&name)?;
        Some(self.walk(&mut body.iter(), *union))
    }

    /// Returns the fields of one nesting level, including those of anonymous levels inside, and the size in bits.
    fn walk<'a>(&self, lines: &mut impl Iterator<Item = &'a String>, union: bool) -> (Fields, usize) {
        let (mut fields, mut at, mut largest) = (Fields::new(), 0, 0);
        while let Some(line) = lines.next() {
            if line.starts_with('}') {
                break;
            }
            let start = if union { 0 } else { at };
            let width = if line == "union {" || line == "struct {" {
                let (inner, width) = self.walk(lines, line == "union {");
                fields.extend(
                    inner
                        .into_iter()
                        .map(|(name, offset, width)| (name, start + offset, width)),
                );
                width
            } else {
                let (name, width) = self.field(line);
                fields.push((name, start, width));
                width
            };
            at += width;
            largest = largest.max(width);
        }
        (fields, if union { largest } else { at })
    }

    fn field(&self, line: &str) -> (String, usize) {
        if let Some(flexible) = line.strip_prefix("DECLARE_FLEX_ARRAY(") {
            let name = flexible.split([',', ')']).nth(1).unwrap_or("").trim();
            return (name.to_owned(), 0);
        }
        let declaration = line.trim_end_matches(';');
        let (declaration, dimensions) = match declaration.find('[') {
            Some(bracket) => declaration.split_at(bracket),
            None => (declaration, ""),
        };
        let count: usize = dimensions
            .split(['[', ']'])
            .filter(|text| !text.is_empty())
            .map(number)
            .product();
        let flexible = dimensions.contains("[]");
        let words: Vec<&str> = declaration.split_whitespace().collect();
        let width = match words[..] {
            ["u8", _] => count,
            [_, kind, _] => {
                let (union, body) = &self
                    .bodies
                    .get(kind)
                    .unwrap_or_else(|| panic!("{kind} is not declared"));
                self.walk(&mut body.iter(), *union).1 * count
            }
            _ => panic!("not a field: {line}"),
        };
        (
            words.last().copied().unwrap_or("").to_lowercase(),
            if flexible { 0 } else { width },
        )
    }
}

fn number(text: &str) -> usize {
    match text.strip_prefix("0x") {
        Some(hex) => usize::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

/// Returns the header of the newest kernel source available.
fn header() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MLX5_IFC_H") {
        return Some(path.into());
    }
    let cache = std::env::var_os("GUEST_CACHE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache")),
        PathBuf::from,
    );
    let sources = std::fs::read_dir(cache.join("kernel")).ok()?;
    let mut headers: Vec<PathBuf> = sources
        .filter_map(|entry| Some(entry.ok()?.path().join("include/linux/mlx5/mlx5_ifc.h")))
        .filter(|path| path.exists())
        .collect();
    headers.sort();
    headers.pop()
}

#[test]
fn every_layout_is_the_kernels() {
    let Some(header) = Header::of_kernel() else { return };
    let wrong: Vec<String> = layouts().flat_map(|layout| differences(&header, layout)).collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(layouts().map(|layout| layout.fields.len()).sum::<usize>() > 1500);
}

#[test]
fn the_complete_layouts_have_every_field_of_the_kernels() {
    let Some(header) = Header::of_kernel() else { return };
    let complete: BTreeSet<&str> = layouts()
        .filter(|layout| undeclared(&header, layout).is_empty())
        .map(|layout| layout.ifc)
        .collect();
    assert_eq!(complete, COMPLETE.iter().copied().collect());
}

/// Returns the fields of the header, reserved ones excepted, that a layout does not declare.
fn undeclared(header: &Header, layout: &Declaration) -> Vec<String> {
    let (fields, _) = header.fields(layout.ifc).unwrap_or_default();
    let is_declared = |(_, offset, width): &(String, usize, usize)| {
        layout
            .fields
            .iter()
            .any(|field| field.offset <= *offset && offset + width <= field.offset + field.width)
    };
    let named = fields
        .into_iter()
        .filter(|(name, _, width)| *width > 0 && !name.starts_with("reserved"));
    named
        .filter(|field| !is_declared(field))
        .map(|(name, ..)| name)
        .collect()
}

fn differences(header: &Header, layout: &Declaration) -> Vec<String> {
    let Some((fields, size)) = header.fields(layout.ifc) else {
        return vec![format!("{} is not in the header", layout.ifc)];
    };
    let mut wrong = Vec::new();
    if size != layout.size * 8 {
        wrong.push(format!("{}: {} bits, not {}", layout.ifc, size, layout.size * 8));
    }
    for field in layout.fields {
        let same = |(name, offset, width): &(String, usize, usize)| {
            name == field.name.trim_end_matches('_') && *offset == field.offset && *width == field.width
        };
        if !fields.iter().any(same) {
            let theirs = fields.iter().find(|(name, ..)| name == field.name);
            wrong.push(format!("{}.{}: {:?}, not {:?}", layout.ifc, field.name, field, theirs));
        }
    }
    wrong
}
