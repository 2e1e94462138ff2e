//! The dataset writer: tables as directories of Parquet files that are complete at every moment.
//!
//! Layout: `<out>/<table>/run=<ulid>/part-<k>.parquet`, so that any reader that knows hive partitions reads one run or
//! ten thousand as one table, and runs can share a directory without knowing of each other.
//!
//! A file is written under `<out>/.unfinished` and renamed to its place, so a reader never meets half of one, whenever
//! the agent is killed. It is not written beside its destination under a hidden name, because polars reads hidden files
//! too when it is given a directory.

use super::{
    error::Error,
    manifest::{Manifest, Outcome},
    part::{AnyPart, Limits, Part},
    table::{OfInstance, OfRun, Row},
    tables::Instance,
};
use crate::record::SCHEMA_VERSION;
use parquet::file::metadata::KeyValue;
use std::{
    any::Any,
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use ulid::Ulid;

/// Directory of the files that are being written; no table can have this name.
const UNFINISHED: &str = ".unfinished";

/// A run's part of a dataset, being written.
///
/// Rows are in memory until [`Dataset::flush`] or until a part is full. When an instance's row is the last thing
/// appended about it, then whoever finds that row in the files, even after a kill, finds all other rows of the instance
/// too.
#[must_use = "rows are in the files only after a flush"]
pub struct Dataset {
    files: Files,
    limits: Limits,
    tables: BTreeMap<&'static str, Open>,
}

/// A table that is being written.
struct Open {
    part: Box<dyn AnyPart>,
    number: u32,
    changed: bool,
}

impl Dataset {
    /// Begins to record a run under `out`, which is made if need be, and writes its row in `runs`. Where the run was
    /// begun before, it goes on: its rows stay, and what a kill left half-written is removed.
    ///
    /// # Errors
    /// When the directory can't be made or written to.
    pub fn create(out: &Path, run_id: Ulid, manifest: &Manifest) -> Result<Self, Error> {
        let files = Files { out: out.to_owned(), run_id: run_id.to_string() };
        files.remove_unfinished()?;
        let mut dataset = Self { files, limits: Limits::default(), tables: BTreeMap::new() };
        dataset.describe(manifest, &Outcome::default())?;
        Ok(dataset)
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The run that is recorded.
    pub fn run_id(&self) -> &str {
        &self.files.run_id
    }

    /// Writes the row of the run anew, and the manifest with it. Flushes nothing else.
    ///
    /// # Errors
    /// When the file can't be written; the one before stays.
    pub fn describe(&mut self, manifest: &Manifest, outcome: &Outcome) -> Result<(), Error> {
        let row = manifest.row(outcome);
        let metadata = KeyValue::new("manifest".to_owned(), row.manifest_json.clone());
        self.replace(&[row], [metadata])
    }

    /// Writes a table about the run as a whole; these rows take the place of all that the run had there.
    ///
    /// # Errors
    /// When the file can't be written, or a row has a number that files can't have; the one before stays.
    pub fn replace<R: OfRun>(
        &self,
        rows: &[R],
        more_metadata: impl IntoIterator<Item = KeyValue>,
    ) -> Result<(), Error> {
        let mut part = Part::default();
        for row in rows {
            part.push(None, row)?;
        }
        let metadata = self.files.metadata().into_iter().chain(more_metadata).collect();
        self.files.write(R::TABLE.name, 0, &part.encode(&self.files.run_id, metadata)?)
    }

    /// Says that the run observes this table, so that the next flush writes it even when there is nothing to see. A
    /// table that is absent was not observed; one without rows was.
    ///
    /// # Errors
    /// When the table's directory can't be read.
    pub fn declare<R: OfInstance>(&mut self) -> Result<(), Error> {
        self.open::<R>().map(|_| ())
    }

    /// Appends rows about an instance. Its own row in `instances` comes last.
    ///
    /// # Errors
    /// When a part was full and could not be written, or a row has a number that files can't have. Rows before the one that was not taken are kept, the others not.
    pub fn append<R: OfInstance>(&mut self, instance_id: &str, rows: impl IntoIterator<Item = R>) -> Result<(), Error> {
        let limits = self.limits;
        let mut table = self.open::<R>()?;
        for row in rows {
            if table.part.is_full(limits) {
                self.flush()?;
                table = self.open::<R>()?;
                table.part.clear();
                table.number += 1;
            }
            let part: &mut dyn Any = table.part.as_mut();
            part.downcast_mut::<Part<R>>()
                .expect("table names are unique, so the part under this name has rows of this type")
                .push(Some(instance_id), &row)?;
            table.changed = true;
        }
        Ok(())
    }

    /// Writes all rows so far into files.
    ///
    /// # Errors
    /// When a file can't be written. Its rows are kept for the next try, and the file that was there before stays.
    pub fn flush(&mut self) -> Result<(), Error> {
        // An instance's row promises that its other rows are there, so its table comes last.
        for promises in [false, true] {
            let changed = self.tables.iter_mut().filter(|(_, table)| table.changed);
            for (name, table) in changed.filter(|(name, _)| (**name == Instance::TABLE.name) == promises) {
                let file = table.part.encode(&self.files.run_id, self.files.metadata())?;
                self.files.write(name, table.number, &file)?;
                table.changed = false;
            }
        }
        Ok(())
    }

    /// The table of these rows, whose next part is opened if none is.
    fn open<R: Row>(&mut self) -> Result<&mut Open, Error> {
        let name = R::TABLE.name;
        if !self.tables.contains_key(name) {
            let table =
                Open { part: Box::new(Part::<R>::default()), number: self.files.next_number(name)?, changed: true };
            self.tables.insert(name, table);
        }
        Ok(self.tables.get_mut(name).expect("it was inserted above"))
    }
}

/// Where the files of a run are.
struct Files {
    out: PathBuf,
    run_id: String,
}

impl Files {
    /// What every file says about itself.
    fn metadata(&self) -> Vec<KeyValue> {
        [
            ("run_id", self.run_id.clone()),
            ("schema_version", SCHEMA_VERSION.to_string()),
            ("sandscope_version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(key, value)| KeyValue::new(key.to_owned(), value))
        .to_vec()
    }

    fn directory(&self, table: &str) -> PathBuf {
        self.out.join(table).join(format!("run={}", self.run_id))
    }

    /// One more than the highest part that a table of this run has.
    fn next_number(&self, table: &str) -> Result<u32, Error> {
        let directory = self.directory(table);
        let failed = Error::file("read", &directory);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(reason) if reason.kind() == ErrorKind::NotFound => return Ok(0),
            Err(reason) => return Err(failed(reason)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let number = |name: &str| name.strip_prefix("part-")?.strip_suffix(".parquet")?.parse::<u32>().ok();
        Ok(names.iter().filter_map(|name| number(name.to_str()?)).max().map_or(0, |highest| highest + 1))
    }

    /// Puts a complete file at its place at once.
    fn write(&self, table: &str, number: u32, content: &[u8]) -> Result<(), Error> {
        let directory = self.directory(table);
        let path = directory.join(format!("part-{number}.parquet"));
        let unfinished = self.out.join(UNFINISHED);
        fs::create_dir_all(&unfinished).map_err(Error::file("make the directory", &unfinished))?;
        let mut file = tempfile::Builder::new()
            .prefix(&self.unfinished_prefix())
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&unfinished)
            .map_err(Error::file("make a file in", &unfinished))?;
        file.write_all(content).map_err(Error::file("write", &path))?;
        // Not only for the sake of a power failure: what the kernel would write back later it would write while the
        // next instance is measured.
        file.as_file().sync_data().map_err(Error::file("write", &path))?;
        fs::create_dir_all(&directory).map_err(Error::file("make the directory", &directory))?;
        file.persist(&path).map_err(|error| Error::file("replace", &path)(error.error))?;
        Ok(())
    }

    /// Removes what a kill left of this run, and nothing of others.
    fn remove_unfinished(&self) -> Result<(), Error> {
        let unfinished = self.out.join(UNFINISHED);
        fs::create_dir_all(&unfinished).map_err(Error::file("make the directory", &unfinished))?;
        for entry in fs::read_dir(&unfinished).map_err(Error::file("read", &unfinished))? {
            let entry = entry.map_err(Error::file("read", &unfinished))?;
            if entry.file_name().to_string_lossy().starts_with(&self.unfinished_prefix()) {
                fs::remove_file(entry.path()).map_err(Error::file("remove", entry.path()))?;
            }
        }
        Ok(())
    }

    fn unfinished_prefix(&self) -> String {
        format!("{}-", self.run_id)
    }
}
