//! Results that a command reads: those of a directory, or a copy of those in a bucket for as long as they are needed.

use super::BadRequest;
use crate::{
    bucket::{Bucket, Destination, Patience},
    results::{Results, Selection},
};
use anyhow::{Context, Result};
use std::ops::Deref;
use tempfile::TempDir;

/// Results that were opened.
pub(crate) struct Input {
    results: Results,
    /// Of a bucket; removed in the end.
    _copy: Option<TempDir>,
}

impl Deref for Input {
    type Target = Results;

    fn deref(&self) -> &Results {
        &self.results
    }
}

impl Input {
    /// Opens what somebody named. Of a bucket the whole selection is copied first.
    pub(crate) fn open(selection: &Selection) -> Result<Self> {
        let refused = |error: String| BadRequest(error);
        let place: Destination =
            selection.directory.to_string_lossy().parse().map_err(|error| refused(format!("{error}")))?;
        let url = match place {
            Destination::Folder(directory) => {
                let selection = Selection { directory, run: selection.run.clone() };
                let results = selection.open().map_err(|error| refused(error.to_string()))?;
                return Ok(Self { results, _copy: None });
            }
            Destination::Bucket(url) => url,
        };
        let copy = tempfile::Builder::new().prefix("sandscope-").tempdir().context("can't make a directory")?;
        let bucket = Bucket::open(&url, Patience::Short).map_err(|error| refused(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let download = bucket.download(selection.run.as_deref(), copy.path());
        runtime.block_on(download).map_err(|error| refused(error.to_string()))?;
        let of_copy = Selection { directory: copy.path().to_owned(), run: selection.run.clone() };
        // Its words name the copy, which is gone when somebody reads them.
        let named = |error: String| refused(error.replace(&copy.path().display().to_string(), &url.to_string()));
        let results = of_copy.open().map_err(|error| named(error.to_string()))?;
        Ok(Self { results, _copy: Some(copy) })
    }
}
