//! `sandscope upload`: results of this machine into a bucket.

use super::{BadRequest, print};
use crate::{
    bucket::{Bucket, Destination, Patience, remove},
    results::Selection,
};
use anyhow::Result;
use std::process::ExitCode;

/// What to upload, and where to.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sandscope upload results@latest s3://bucket/results
  sandscope upload results gs://bucket/results --remove    # what runs that failed to upload have left

docs/scale.md has the variables of the environment that give the credentials.")]
pub(crate) struct Arguments {
    /// Directory of results; `DIR@RUN` for one run, by the beginning of its identifier or `latest`.
    #[arg(value_name = "DIR[@RUN]")]
    results: Selection,
    /// s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH.
    #[arg(value_name = "URL")]
    to: Destination,
    /// Remove here what is there.
    #[arg(long)]
    remove: bool,
}

/// Uploads run after run; those that have arrived stay when one does not.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode> {
    let Destination::Bucket(url) = &arguments.to else {
        let text = format!("{} is a directory of this machine: results are copied there by `cp -r`", arguments.to);
        return Err(BadRequest(text).into());
    };
    let refused = |error: String| BadRequest(error);
    let results = arguments.results.open().map_err(|error| refused(error.to_string()))?;
    let bucket = Bucket::open(url, Patience::Long).map_err(|error| refused(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for run in results.runs() {
        let sent = runtime.block_on(bucket.upload(results.directory(), run.id()))?;
        print(&format!("{} {} files {} bytes\n", run.id(), sent.files_count, sent.bytes))?;
        if arguments.remove {
            remove(results.directory(), run.id())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
