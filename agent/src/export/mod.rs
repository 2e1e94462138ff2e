//! Results in the formats of other people's viewers: traces for Perfetto, and stacks for flame graphs.

pub mod flamegraph;
pub mod perfetto;

use crate::{
    record::tables,
    results::{self, Of, Results, Run},
};
use std::{io, path::Path, rc::Rc};

/// Why something can't be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The results can't be read.
    #[error(transparent)]
    Results(#[from] results::Error),
    /// There is no such instance.
    #[error("{directory} has no instance {wanted}that was launched; the first that were: {known}")]
    NoInstance {
        /// The results.
        directory: String,
        /// What was asked for.
        wanted: String,
        /// Some that there are.
        known: String,
    },
    /// The instances have nothing to show.
    #[error("{0}")]
    Nothing(String),
    /// The file can't be written.
    #[error("can't write {path}: {reason}")]
    Write {
        /// The file.
        path: String,
        /// The operating system's answer.
        reason: io::Error,
    },
    /// The stacks can't be drawn.
    #[error("can't draw the flame graph: {0}")]
    Draw(String),
}

/// Instances of one run.
pub struct Chosen<'a> {
    /// The run.
    pub run: &'a Run,
    /// Those of its instances that are meant, in the order in which they were started.
    pub instances: Vec<Of<tables::Instance>>,
}

/// The instances of all runs, or one of them: by its identifier, or its place in the order of the run; of several runs that
/// have such a place, the latest counts.
///
/// # Errors
/// When the table of a run can't be read, or no instance that was launched is meant.
pub fn choose<'a>(results: &'a Results, instance: Option<&str>) -> Result<Vec<Chosen<'a>>, Error> {
    let is_meant = |row: &Of<tables::Instance>| match instance {
        Some(wanted) => row.instance_id == wanted || wanted.parse() == Ok(row.position),
        None => true,
    };
    let mut chosen = Vec::new();
    let mut known = Vec::new();
    for run in results.runs() {
        let table = run.table::<tables::Instance>()?;
        let launched = table.rows.iter().filter(|row| row.launched_at_monotonic_ns.is_some());
        known.extend(launched.clone().take(3).map(|row| row.instance_id.clone()));
        let mut instances: Vec<_> = launched.filter(|row| is_meant(row)).cloned().collect();
        instances.sort_by_key(|row| row.position);
        if !instances.is_empty() {
            chosen.push(Chosen { run, instances });
        }
    }
    if instance.is_some() && chosen.len() > 1 {
        chosen.drain(..chosen.len() - 1);
    }
    if chosen.is_empty() {
        let directory = results.directory().display().to_string();
        let wanted = instance.map_or_else(String::new, |wanted| format!("{wanted} "));
        known.truncate(5);
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::NoInstance { directory, wanted, known });
    }
    Ok(chosen)
}

/// A table of a run; no rows where the run did not observe it.
fn rows<R: crate::record::Row>(run: &Run) -> Result<Vec<Rc<results::Rows<R>>>, results::Error> {
    match run.table::<R>() {
        Ok(rows) => Ok(vec![rows]),
        Err(results::Error::NoTable { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Writes a file as a whole, so that nobody meets half of one.
///
/// # Errors
/// When it can't be written; what was there before stays.
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    use std::{fs::Permissions, io::Write as _, os::unix::fs::PermissionsExt as _};
    let failed = |reason| Error::Write { path: path.display().to_string(), reason };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let builder = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
    let mut file = builder.map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
