//! Reads results back: a directory that one or many runs have written, as typed rows of the same tables that the writer fills
//! in ([`crate::record::tables`]).
//!
//! A table is read when somebody asks for it, run by run, so that ten thousand runs need no more memory than the largest
//! of them. What an earlier version did not write is named, never made up.

mod error;
mod file;
mod kind;
mod path;
mod selection;

pub use error::Error;
pub use kind::Kind;
pub use path::{PathElement, category_words, without_folders};
pub use selection::Selection;

use crate::record::{OfRun, Row, tables};
use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    ops::Deref,
    path::{Path, PathBuf},
    rc::Rc,
};

/// A directory of results: its runs, in the order in which they were started.
#[derive(Debug)]
pub struct Results {
    directory: PathBuf,
    runs: Vec<Run>,
}

impl Results {
    /// The results in a directory. Only names are read.
    ///
    /// # Errors
    /// When it can't be read, or is not what a run writes.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        // The table `runs` has a row from the first moment of every run.
        let folders = names(&directory.join(tables::Run::TABLE.name))?;
        let mut ids: Vec<_> = folders.iter().filter_map(|name| name.strip_prefix("run=")).collect();
        // A run's identifier begins with its time.
        ids.sort_unstable();
        let run = |id: &str| Run { directory: directory.to_owned(), id: id.to_owned(), read: RefCell::default() };
        let mut runs = Vec::new();
        for run in ids.into_iter().map(run) {
            if !run.parts(tables::Run::TABLE.name)?.is_empty() {
                runs.push(run);
            }
        }
        if runs.is_empty() {
            return Err(Error::NoResults { directory: directory.to_owned() });
        }
        Ok(Self { directory: directory.to_owned(), runs })
    }

    /// The same with one run alone: `latest`, or the one whose identifier is or begins with this.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn only(mut self, wanted: &str) -> Result<Self, Error> {
        let known = || self.runs.iter().map(|run| run.id.clone()).collect();
        let refuse = |found, runs| {
            let directory = self.directory.clone();
            Error::NoSuchRun { directory, wanted: wanted.to_owned(), found, runs }
        };
        if wanted == "latest" {
            self.runs.drain(..self.runs.len() - 1);
            return Ok(self);
        }
        let matches = |run: &Run| !wanted.is_empty() && run.id.starts_with(&wanted.to_ascii_uppercase());
        match self.runs.iter().filter(|run| matches(run)).count() {
            0 => Err(refuse("not", known())),
            1 => {
                self.runs.retain(matches);
                Ok(self)
            }
            _ => Err(refuse("more than one that begin like", known())),
        }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The runs, the earliest first.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }
}

/// One run of the results.
#[derive(Debug)]
pub struct Run {
    directory: PathBuf,
    id: String,
    /// Tables that were asked for; what asks for the same one again gets the same rows.
    read: RefCell<BTreeMap<&'static str, Rc<dyn Any>>>,
}

impl Run {
    /// Version of the schema since which the table `attribution` is the critical path of a start. Before, it gave each instant to the
    /// first of a fixed order of activities.
    const PATH_SINCE: u32 = 2;

    /// Whether its table `attribution`, if there is one, is the critical path of its starts.
    ///
    /// # Errors
    /// When the row about the run can't be read.
    pub fn has_critical_path(&self) -> Result<bool, Error> {
        Ok(self.row()?.schema_version >= Self::PATH_SINCE)
    }

    /// Its identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it observed a table.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn has(&self, table: &str) -> Result<bool, Error> {
        Ok(!self.parts(table)?.is_empty())
    }

    /// The rows of a table.
    ///
    /// # Errors
    /// When the run has no such table ([`Error::is_absence`]), or a file of it can't be read.
    pub fn table<R: Row>(&self) -> Result<Rc<Rows<R>>, Error> {
        let name = R::TABLE.name;
        if let Some(known) = self.read.borrow().get(name).and_then(|rows| rows.clone().downcast().ok()) {
            return Ok(known);
        }
        let parts = self.parts(name)?;
        if parts.is_empty() {
            return Err(Error::NoTable { run: self.id.clone(), table: name });
        }
        let mut rows = Rows { rows: Vec::new(), missing: Vec::new() };
        for part in parts {
            let content = file::read::<R>(&part)?;
            rows.rows.extend(content.rows.into_iter().map(|(instance_id, row)| Of { instance_id, row }));
            rows.missing = content.missing;
        }
        let rows = Rc::new(rows);
        self.read.borrow_mut().insert(name, rows.clone());
        Ok(rows)
    }

    /// The same, or nothing where the run has no such table.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn observed<R: Row>(&self) -> Result<Option<Rc<Rows<R>>>, Error> {
        match self.table() {
            Ok(rows) => Ok(Some(rows)),
            Err(Error::NoTable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The row about the run itself.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn row(&self) -> Result<tables::Run, Error> {
        self.single::<tables::Run>()
    }

    fn single<R: OfRun + Clone>(&self) -> Result<R, Error> {
        let rows = self.table::<R>()?;
        let first = rows.rows.first().map(|of| of.row.clone());
        first.ok_or_else(|| Error::NoTable { run: self.id.clone(), table: R::TABLE.name })
    }

    /// The files of a table, in the order in which they were written.
    fn parts(&self, table: &str) -> Result<Vec<PathBuf>, Error> {
        let folder = self.directory.join(table).join(format!("run={}", self.id));
        let number = |name: &str| name.strip_prefix("part-")?.strip_suffix(".parquet")?.parse::<u32>().ok();
        let mut numbers: Vec<_> = names(&folder)?.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(|number| folder.join(format!("part-{number}.parquet"))).collect())
    }
}

/// The rows of a table in one run.
#[derive(Debug)]
pub struct Rows<R> {
    /// In the order in which they were written.
    pub rows: Vec<Of<R>>,
    /// Columns that an earlier version did not write; all rows have null there.
    pub missing: Vec<&'static str>,
}

impl<R> Rows<R> {
    /// The rows about one instance.
    pub fn of<'a>(&'a self, instance_id: &'a str) -> impl Iterator<Item = &'a R> {
        self.rows.iter().filter(move |of| of.instance_id == instance_id).map(|of| &of.row)
    }
}

/// A row, and the instance that it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Of<R> {
    /// The instance; empty where the row is about the run.
    pub instance_id: String,
    /// The row.
    pub row: R,
}

impl<R> Deref for Of<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.row
    }
}

/// Names in a directory; none where there is no directory.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let failed = |reason| Error::File { path: directory.to_owned(), reason };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(reason) if matches!(reason.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(reason) => return Err(failed(reason)),
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
}
