//! The paths in a Rust source text that name other modules of its package. No compiler is needed: a lexer knows
//! comments and literals, and a parser knows `mod`, `use` and paths.

/// Modules and paths of a file, without `#[cfg(test)]` items.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Names of the modules in files of their own.
    pub modules: Vec<String>,
    /// Paths, in the order of the text.
    pub paths: Vec<Path>,
}

/// A path that begins with `crate`, `self`, `super`, the library's name or a child module, or that a `use` imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Inline modules around it.
    pub scope: Vec<String>,
    pub segments: Vec<String>,
    /// The name that a `use` binds to it.
    pub binds: Option<String>,
    pub line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Name(String),
    /// `::`
    Path,
    Other(char),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    line: usize,
}

/// Reads a file of a package whose library has this name.
pub fn read(text: &str, library: &str) -> Source {
    let tokens = lex(text);
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
        depth: 0,
        scope: Vec::new(),
        library,
        source: Source::default(),
    };
    parser.run();
    let mut source = parser.source;
    // A name in front of `::` is a module of the package only if this file declares it; a `use` is kept for the names
    // it binds.
    let modules = source.modules.clone();
    source.paths.retain(|path| {
        let first = &path.segments[0];
        path.binds.is_some() || is_anchor(first) || first == library || path.scope.is_empty() && modules.contains(first)
    });
    source
}

fn is_anchor(name: &str) -> bool {
    matches!(name, "crate" | "self" | "super")
}

fn lex(text: &str) -> Vec<Token> {
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let (mut tokens, mut index, mut line) = (Vec::new(), 0, 1);
    while index < characters.len() {
        let (start, first) = (index, line);
        let character = at(index);
        if character == '/' && at(index + 1) == '/' {
            while index < characters.len() && at(index) != '\n' {
                index += 1;
            }
        } else if character == '/' && at(index + 1) == '*' {
            let mut depth = 0;
            loop {
                match (at(index), at(index + 1)) {
                    ('/', '*') => (depth, index) = (depth + 1, index + 2),
                    ('*', '/') => (depth, index) = (depth - 1, index + 2),
                    _ => index += 1,
                }
                if depth == 0 || index >= characters.len() {
                    break;
                }
            }
        } else if character == '"' {
            index = end_of_string(&characters, index);
        } else if character == '\'' {
            index = end_of_quote(&characters, index);
        } else if character.is_alphabetic() || character == '_' {
            while at(index).is_alphanumeric() || at(index) == '_' {
                index += 1;
            }
            let word: String = characters[start..index].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr");
            let hashes = (index..).take_while(|&hash| at(hash) == '#').count();
            if raw && at(index + hashes) == '"' {
                index = end_of_raw_string(&characters, index + hashes + 1, hashes);
            } else if raw && hashes == 1 {
                // A raw identifier: the name follows.
                index += 1;
            } else {
                let kind = Kind::Name(word);
                tokens.push(Token { kind, line });
            }
        } else if character == ':' && at(index + 1) == ':' {
            let kind = Kind::Path;
            tokens.push(Token { kind, line });
            index += 2;
        } else {
            if !character.is_whitespace() {
                let kind = Kind::Other(character);
                tokens.push(Token { kind, line });
            }
            index += 1;
        }
        index = index.min(characters.len());
        line = first
            + characters[start..index]
                .iter()
                .filter(|&&character| character == '\n')
                .count();
    }
    tokens
}

fn end_of_string(characters: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while index < characters.len() && characters[index] != '"' {
        index += if characters[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

fn end_of_raw_string(characters: &[char], start: usize, hashes: usize) -> usize {
    let ends =
        |index: usize| characters[index] == '"' && (1..=hashes).all(|hash| characters.get(index + hash) == Some(&'#'));
    let end = (start..characters.len()).find(|&index| ends(index));
    end.map_or(characters.len(), |index| index + 1 + hashes)
}

/// Returns the end of a character literal; for a lifetime, that of its quote.
fn end_of_quote(characters: &[char], start: usize) -> usize {
    match (characters.get(start + 1), characters.get(start + 2)) {
        (Some('\\'), _) => {
            let end = (start + 3..characters.len()).find(|&index| characters[index] == '\'');
            end.map_or(characters.len(), |index| index + 1)
        }
        (Some(_), Some('\'')) => start + 3,
        _ => start + 1,
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// Inline modules, with the depth of braces inside each.
    scope: Vec<(String, usize)>,
    library: &'a str,
    source: Source,
}

impl Parser<'_> {
    fn kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn name(&self, ahead: usize) -> Option<&str> {
        match self.kind(ahead) {
            Some(Kind::Name(name)) => Some(name),
            _ => None,
        }
    }

    fn is(&self, ahead: usize, character: char) -> bool {
        self.kind(ahead) == Some(&Kind::Other(character))
    }

    fn run(&mut self) {
        while let Some(kind) = self.kind(0).cloned() {
            match kind {
                Kind::Other('#') if self.is(1, '[') => self.attribute(1),
                Kind::Other('#') if self.is(1, '!') && self.is(2, '[') => {
                    if self.is_test(3) {
                        return;
                    }
                    self.attribute(2);
                }
                Kind::Other('{') => self.open(),
                Kind::Other('}') => self.close(),
                Kind::Name(word) if word == "mod" && self.name(1).is_some() => self.module(),
                Kind::Name(word) if word == "use" && !self.is(1, '<') => {
                    self.at += 1;
                    self.tree(Vec::new(), true);
                }
                // `pub(in path)` names an ancestor that needs nothing of the file.
                Kind::Name(word)
                    if word == "in" && self.at > 0 && self.tokens[self.at - 1].kind == Kind::Other('(') =>
                {
                    self.at += 1;
                    while self.name(0).is_some() || self.kind(0) == Some(&Kind::Path) {
                        self.at += 1;
                    }
                }
                Kind::Name(_) if self.kind(1) == Some(&Kind::Path) => self.tree(Vec::new(), false),
                _ => self.at += 1,
            }
        }
    }

    fn open(&mut self) {
        self.depth += 1;
        self.at += 1;
    }

    fn close(&mut self) {
        self.scope.pop_if(|(_, depth)| *depth == self.depth);
        self.depth = self.depth.saturating_sub(1);
        self.at += 1;
    }

    /// Returns whether `cfg(test)` is `ahead`.
    fn is_test(&self, ahead: usize) -> bool {
        self.name(ahead) == Some("cfg")
            && self.is(ahead + 1, '(')
            && self.name(ahead + 2) == Some("test")
            && self.is(ahead + 3, ')')
    }

    /// Skips an attribute whose bracket is `ahead`, with its item if that is for tests only.
    fn attribute(&mut self, ahead: usize) {
        let test = self.is_test(ahead + 1);
        self.at += ahead;
        self.skip_group();
        if test {
            while self.is(0, '#') && self.is(1, '[') {
                self.at += 1;
                self.skip_group();
            }
            self.skip_item();
        }
    }

    /// Skips brackets and their content.
    fn skip_group(&mut self) {
        let mut depth = 0;
        while let Some(kind) = self.kind(0) {
            match kind {
                Kind::Other('(' | '[' | '{') => depth += 1,
                Kind::Other(')' | ']' | '}') => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips an item up to its semicolon or the end of its body, a field or a match arm up to its comma.
    fn skip_item(&mut self) {
        let item = [
            "pub", "fn", "impl", "struct", "enum", "trait", "type", "const", "static", "unsafe", "async", "extern",
        ];
        let item = self.name(0).is_some_and(|word| item.contains(&word));
        while let Some(kind) = self.kind(0) {
            match kind {
                Kind::Other('{') => return self.skip_group(),
                Kind::Other('(' | '[') => self.skip_group(),
                Kind::Other('}') => return,
                Kind::Other(';') => return self.at += 1,
                Kind::Other(',') if !item => return self.at += 1,
                _ => self.at += 1,
            }
        }
    }

    fn module(&mut self) {
        let name = self.name(1).unwrap_or_default().to_owned();
        self.at += 2;
        if self.is(0, ';') && self.scope.is_empty() {
            self.source.modules.push(name);
        } else if self.is(0, '{') {
            self.open();
            self.scope.push((name, self.depth));
        }
    }

    /// Parses a path, or a tree of paths if it is imported.
    fn tree(&mut self, mut segments: Vec<String>, import: bool) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        if self.kind(0) == Some(&Kind::Path) {
            self.at += 1;
        }
        while let Some(name) = self.name(0).map(str::to_owned) {
            self.at += 1;
            segments.push(name);
            if self.kind(0) != Some(&Kind::Path) {
                break;
            }
            self.at += 1;
        }
        let mut binds = None;
        if import && self.is(0, '{') {
            self.at += 1;
            while self.kind(0).is_some() && !self.is(0, '}') {
                self.tree(segments.clone(), true);
                if self.is(0, ',') {
                    self.at += 1;
                }
            }
            self.at += 1;
            return;
        }
        if import && self.is(0, '*') {
            self.at += 1;
            binds = Some("*".to_owned());
        } else if import {
            // `a::{self}` is `a`.
            if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
                segments.pop();
            }
            binds = segments.last().cloned();
            if self.name(0) == Some("as") {
                binds = self.name(1).map(str::to_owned);
                self.at += 2;
            }
        } else if segments.first().is_some_and(|first| first == self.library) && segments.len() == 1 {
            return;
        }
        if segments.is_empty() {
            // Not a path; the caller continues.
            self.at += 1;
            return;
        }
        let scope = self.scope.iter().map(|(name, _)| name.clone()).collect();
        self.source.paths.push(Path {
            scope,
            segments,
            binds,
            line,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = read(text, "the_crate");
        source.paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn imports_and_inline_paths_are_found() {
        let text = "
            use crate::a::{self, b::C, d as e, f::{g, *}};
            use std::sync::Arc;
            fn x(y: super::Y) -> the_crate::z::Z { self::w::<crate::v::V>() }
        ";
        let expected = [
            "crate::a",
            "crate::a::b::C",
            "crate::a::d",
            "crate::a::f::g",
            "crate::a::f",
            "std::sync::Arc",
            "super::Y",
            "the_crate::z::Z",
            "self::w",
            "crate::v::V",
        ];
        assert_eq!(paths(text), expected);
        let source = read(text, "the_crate");
        assert_eq!(source.paths[2].binds.as_deref(), Some("e"));
        assert_eq!((source.paths[0].line, source.paths[6].line), (2, 4));
    }

    #[test]
    fn tests_comments_and_literals_are_left_out() {
        let text = r##"
            // use crate::a;
            /* use crate::b; /* nested */ use crate::c; */
            const X: (&str, &str, char) = ("use crate::d;\"", r#"crate::e::"F" "#, '"');
            fn lifetime<'a>(x: &'a crate::kept::X) -> char { '\'' }
            #[cfg(test)] use crate::g;
            #[cfg(test)] #[allow(dead_code)] fn h() { crate::i::j() }
            #[cfg(test)] mod tests { use super::*; use crate::k; }
            #[cfg(test)] mod more;
            mod child;
            pub(in crate::l) fn m() { child::n() }
        "##;
        assert_eq!(paths(text), ["crate::kept::X", "child::n"]);
        assert_eq!(read(text, "the_crate").modules, ["child"]);
    }

    #[test]
    fn inline_modules_are_the_scope_of_their_paths() {
        let source = read("mod a { fn f() { if x { super::y() } } } use self::b;", "the_crate");
        assert_eq!(source.paths[0].scope, ["a"]);
        assert!(source.paths[1].scope.is_empty() && source.modules.is_empty());
    }
}
