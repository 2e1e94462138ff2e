//! Where the results of a run go: into a directory, or through one into a bucket.

use super::BadRequest;
use crate::bucket::{Bucket, BucketUrl, Destination, Patience, Sent, remove};
use anyhow::Result;
use clap::Args;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Where results go.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Output {
    /// Directory of the results; runs add to it. Or a folder in a bucket: s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH
    /// (docs/scale.md has the variables of the environment that give the credentials).
    #[arg(long, default_value = "results", value_name = "DIR|URL")]
    out: Destination,
    /// With a bucket: directory where a run is until it is over and uploaded.
    #[arg(long, default_value = "results", value_name = "DIR")]
    staging: PathBuf,
}

impl Output {
    /// The directory that a run writes to.
    pub(crate) fn directory(&self) -> &Path {
        self.out.folder().unwrap_or(&self.staging)
    }

    /// Makes sure, before anything is started, that the results of a run will find their place: sends its row to the bucket. When
    /// that is impossible, the directory keeps only what it had of the run before.
    pub(crate) async fn begin(&self, run: &str, resumed: bool) -> Result<()> {
        let Destination::Bucket(url) = &self.out else { return Ok(()) };
        let announced = async { Bucket::open(url, Patience::Short)?.announce(&self.staging, run).await };
        if let Err(error) = announced.await {
            if !resumed {
                remove(&self.staging, run)?;
            }
            return Err(BadRequest(format!("{error}. Nothing was started")).into());
        }
        Ok(())
    }

    /// Sends the files of a run that is over to the bucket and removes them here, and says where the results are. Who interrupts
    /// the run does not want to wait for this either.
    pub(crate) async fn end(&self, run: &str, finished: bool, interrupted: &CancellationToken) -> Result<String> {
        let Destination::Bucket(url) = &self.out else { return Ok(self.out.to_string()) };
        let sent = async { Bucket::open(url, Patience::Long)?.upload(&self.staging, run).await };
        let sent = tokio::select! {
            biased;
            () = interrupted.cancelled() => None,
            sent = sent => Some(sent),
        };
        match sent {
            Some(Ok(Sent { files_count, bytes })) => {
                eprintln!("sandscope: uploaded {files_count} files, {bytes} bytes");
                if finished {
                    remove(&self.staging, run)?;
                }
                Ok(url.to_string())
            }
            Some(Err(error)) => anyhow::bail!("{error}. {}", self.later(url, run)),
            None => {
                eprintln!("sandscope: nothing was uploaded. {}", self.later(url, run));
                Ok(self.staging.display().to_string())
            }
        }
    }

    /// What to do about results that are still here.
    fn later(&self, url: &BucketUrl, run: &str) -> String {
        let staging = self.staging.display();
        format!("The results are in {staging}, and `sandscope upload {staging}@{run} {url}` uploads them")
    }
}
