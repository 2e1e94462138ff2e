//! Configuration files in TOML, each problem with its line, its reason and the nearest thing that is right.

pub mod sandboxes;
pub mod suite;

use crate::nearest::suggestion;
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// What is wrong with a file, and where.
#[derive(Debug)]
pub struct Problem {
    file: PathBuf,
    /// Line and column, from 1; `None`: the file as a whole.
    place: Option<(usize, usize)>,
    message: String,
}

impl Problem {
    /// What is wrong, without where.
    pub fn reason(&self) -> &str {
        &self.message
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(out, ":{line}:{column}")?;
        }
        write!(out, ": {}", self.message)
    }
}

/// A file and its text: what problems refer to.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    /// The text of a file.
    fn text(file: &Path) -> Result<String, Problem> {
        std::fs::read_to_string(file).map_err(|error| Problem {
            file: file.to_owned(),
            place: None,
            message: format!("can't be read: {error}"),
        })
    }

    fn problem(&self, span: Option<Range<usize>>, message: impl Into<String>) -> Problem {
        let place = span.map(|span| {
            let before = &self.text[..span.start.min(self.text.len())];
            let line_start = before.rfind('\n').map_or(0, |end| end + 1);
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        });
        Problem { file: self.file.to_owned(), place, message: message.into() }
    }

    fn refused(&self, error: &toml::de::Error, otherwise: &Range<usize>) -> Problem {
        let span = error.span().unwrap_or_else(|| otherwise.clone());
        self.problem(Some(span), improved(error.message()))
    }
}

/// Adds the nearest known key to serde's message about an unknown one: it names all the known ones, in backticks.
fn improved(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown "), quoted.next()) {
        (true, Some(unknown)) => format!("{message}{}", suggestion(unknown, quoted)),
        _ => message.to_owned(),
    }
}
