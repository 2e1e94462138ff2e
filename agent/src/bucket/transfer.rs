//! Files of runs on their way to a bucket and back.
//!
//! They are sent in the order that keeps a promise of the tables: what has a row in `instances` has all its other rows. And
//! `runs`, which says that a run is over, comes last.

use super::{Bucket, Error};
use crate::record::{
    Row,
    tables::{Instance, Run},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path as Key};
use std::{fs, io, path::Path};
use ulid::Ulid;

/// Files that are on their way at the same time; each waits for the store most of its time.
const AT_A_TIME: usize = 8;

/// A file of a table: `<table>/run=<ulid>/part-<n>.parquet`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    table: String,
    run: String,
    file: String,
}

impl Name {
    /// The name of a file below a folder of results; nothing where a run writes no such file, so that no name of an object can
    /// lead out of the directory that it is copied to.
    fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (table, run, file) = (parts.next()?, parts.next()?.strip_prefix("run=")?, parts.next()?);
        let number = file.strip_prefix("part-")?.strip_suffix(".parquet")?;
        let known = parts.next().is_none()
            && table.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_')
            && Ulid::from_string(run).is_ok()
            && number.parse::<u32>().is_ok();
        known.then(|| Self { table: table.to_owned(), run: run.to_owned(), file: file.to_owned() })
    }

    fn path(&self) -> String {
        format!("{}/run={}/{}", self.table, self.run, self.file)
    }

    /// Files of a lower turn are there before those of a higher one are sent.
    fn turn(&self) -> u8 {
        match self.table.as_str() {
            name if name == Run::TABLE.name => 2,
            name if name == Instance::TABLE.name => 1,
            _ => 0,
        }
    }
}

/// What was sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Files.
    pub files_count: u64,
    /// Their lengths together.
    pub bytes: u64,
}

impl Bucket {
    /// Sends what the directory has of the run in the table `runs`: whether that arrives tells whether anything will.
    ///
    /// # Errors
    /// When it does not, or can't be read.
    pub async fn announce(&self, directory: &Path, run: &str) -> Result<(), Error> {
        let mut files = files(directory, run)?;
        files.retain(|name| name.table == Run::TABLE.name);
        self.send(directory, &files).await.map(drop)
    }

    /// Sends all files of a run.
    ///
    /// # Errors
    /// When one does not arrive, or can't be read. Those that did arrive are whole.
    pub async fn upload(&self, directory: &Path, run: &str) -> Result<Sent, Error> {
        let files = files(directory, run)?;
        let mut sent = Sent::default();
        for turn in 0..=2 {
            let now: Vec<_> = files.iter().filter(|name| name.turn() == turn).cloned().collect();
            sent.bytes += self.send(directory, &now).await?;
            sent.files_count += now.len() as u64;
        }
        Ok(sent)
    }

    /// Sends files, and gives their lengths together.
    async fn send(&self, directory: &Path, files: &[Name]) -> Result<u64, Error> {
        let one = async |name: &Name| {
            let path = directory.join(name.path());
            let content = fs::read(&path).map_err(Error::file("read", &path))?;
            let length = content.len() as u64;
            let stored = self.store.put(&self.key(name), content.into()).await;
            stored.map_err(Error::store("write to", &self.url))?;
            Ok(length)
        };
        let sending = stream::iter(files).map(one).buffer_unordered(AT_A_TIME);
        sending.try_fold(0, async |sum, length| Ok(sum + length)).await
    }

    /// Copies runs into a directory: all, the latest, or those whose identifiers begin like this.
    ///
    /// # Errors
    /// When there are none at all, or they can't be read or written.
    pub async fn download(&self, wanted: Option<&str>, directory: &Path) -> Result<(), Error> {
        let failed = Error::store("read", &self.url);
        let objects: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await.map_err(&failed)?;
        let inside = |key: &Key| Name::parse(Key::from_iter(key.prefix_match(&self.folder)?).as_ref());
        let mut files: Vec<_> = objects.iter().filter_map(|object| inside(&object.location)).collect();
        let runs = || files.iter().filter(|name| name.table == Run::TABLE.name).map(|name| name.run.clone());
        let Some(latest) = runs().max() else { return Err(Error::NoResults { url: self.url.to_string() }) };
        match wanted {
            None => {}
            Some("latest") => files.retain(|name| name.run == latest),
            Some(beginning) => {
                let beginning = beginning.to_ascii_uppercase();
                // Of the others the table `runs` alone: an error names them.
                files.retain(|name| name.run.starts_with(&beginning) || name.table == Run::TABLE.name);
            }
        }
        let one = async |name: &Name| {
            let path = directory.join(name.path());
            let folder = path.parent().unwrap_or(directory);
            fs::create_dir_all(folder).map_err(Error::file("make the directory", folder))?;
            let answer = self.store.get(&self.key(name)).await.map_err(&failed)?;
            let content = answer.bytes().await.map_err(&failed)?;
            fs::write(&path, content).map_err(Error::file("write", &path))
        };
        stream::iter(&files).map(one).buffer_unordered(AT_A_TIME).try_collect().await
    }

    fn key(&self, name: &Name) -> Key {
        name.path().split('/').fold(self.folder.clone(), |key, part| key.join(part))
    }
}

/// Removes the files of a run, which are somewhere else too.
///
/// # Errors
/// When the directory can't be read, or a file can't be removed.
pub fn remove(directory: &Path, run: &str) -> Result<(), Error> {
    for name in files(directory, run)? {
        let path = directory.join(name.path());
        fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        // Where nothing else is; the directories of the table and of all results stay for other runs.
        let _ = path.parent().map(fs::remove_dir);
    }
    Ok(())
}

/// All files of a run below a directory.
fn files(directory: &Path, run: &str) -> Result<Vec<Name>, Error> {
    let mut files = Vec::new();
    for table in names(directory)? {
        let folder = directory.join(&table).join(format!("run={run}"));
        if folder.is_dir() {
            let paths = names(&folder)?.into_iter().map(|file| format!("{table}/run={run}/{file}"));
            files.extend(paths.filter_map(|path| Name::parse(&path)));
        }
    }
    files.sort();
    Ok(files)
}

fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let list = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    list().map_err(Error::file("read", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_a_run_writes_have_names() {
        let run = "01KGZV5B000000000000000000";
        let good = format!("event_counts/run={run}/part-12.parquet");
        assert_eq!(Name::parse(&good).unwrap().path(), good);
        for bad in [
            format!("../run={run}/part-0.parquet"),
            format!("runs/run={run}/../part-0.parquet"),
            format!("runs/run={run}/part-0.parquet/x"),
            "runs/run=../part-0.parquet".to_owned(),
            format!("runs/run={run}/part-x.parquet"),
            format!("runs/{run}/part-0.parquet"),
            ".unfinished/x".to_owned(),
        ] {
            assert_eq!(Name::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn instances_come_after_their_rows_and_runs_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let (run, other) = ("01KGZV5B000000000000000000", "01KGZV5B000000000000000001");
        for table in ["runs", "phases", "instances", "steps"] {
            for run in [run, other] {
                let folder = home.path().join(format!("{table}/run={run}"));
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("part-0.parquet"), "x").unwrap();
            }
        }
        fs::create_dir(home.path().join(".unfinished")).unwrap();
        let mut found = files(home.path(), run).unwrap();
        found.sort_by_key(Name::turn);
        let tables: Vec<_> = found.iter().map(|name| name.table.as_str()).collect();
        assert_eq!(tables, ["phases", "steps", "instances", "runs"]);
        remove(home.path(), run).unwrap();
        assert_eq!((files(home.path(), run).unwrap().len(), files(home.path(), other).unwrap().len()), (0, 4));
    }
}
