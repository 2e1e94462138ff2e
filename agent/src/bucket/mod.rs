//! Results in a bucket (Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage), for fleets whose
//! hosts share no disk.
//!
//! A run writes to a directory of its host and its files are sent as a whole when it is over. So a run that is killed, or whose
//! disk or network fails, leaves the same readable files as ever, and nothing is sent while something is measured.

mod destination;
mod error;
mod transfer;

pub use destination::{BucketUrl, Destination, NoDestination};
pub use error::Error;
pub use transfer::{Sent, remove};

use destination::Kind;
use object_store::{
    ClientConfigKey, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    path::Path as Key,
};
use std::time::Duration;

/// How long a store is asked until it counts as out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Some seconds: somebody waits for a run to begin.
    Short,
    /// Some minutes: what was measured is to arrive.
    Long,
}

impl Patience {
    fn retries(self) -> RetryConfig {
        let (max_retries, seconds) = match self {
            Self::Short => (1, 10),
            Self::Long => (5, 180),
        };
        RetryConfig { max_retries, retry_timeout: Duration::from_secs(seconds), ..RetryConfig::default() }
    }

    /// Longest time of one request, as the builders read it.
    fn request(self) -> &'static str {
        match self {
            Self::Short => "10 seconds",
            // A part has at most some 32 MiB (`record::Limits`), which a slow line takes a minute or two for.
            Self::Long => "120 seconds",
        }
    }
}

/// A folder in a bucket, and how to get there.
#[derive(Debug)]
pub struct Bucket {
    url: BucketUrl,
    store: Box<dyn ObjectStore>,
    folder: Key,
}

impl Bucket {
    /// A folder in a bucket, by the credentials and the endpoint that the environment names. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When the environment says too little, or something wrong.
    pub fn open(url: &BucketUrl, patience: Patience) -> Result<Self, Error> {
        let refused = |reason: String| Error::Settings { url: url.to_string(), reason };
        // It fails when this was done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Key::from_url_path(url.path()).map_err(|error| refused(error.to_string()))?;
        let store = store(url, patience).map_err(|error| refused(error.to_string()))?;
        Ok(Self { url: url.clone(), store, folder })
    }
}

fn store(url: &BucketUrl, patience: Patience) -> object_store::Result<Box<dyn ObjectStore>> {
    let (bucket, retries, limit) = (url.bucket(), patience.retries(), ClientConfigKey::Timeout);
    Ok(match url.kind {
        Kind::S3 => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retries);
            Box::new(builder.with_config(AmazonS3ConfigKey::Client(limit), patience.request()).build()?)
        }
        Kind::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retries);
            Box::new(builder.with_config(GoogleConfigKey::Client(limit), patience.request()).build()?)
        }
        Kind::Azure => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retries);
            Box::new(builder.with_config(AzureConfigKey::Client(limit), patience.request()).build()?)
        }
    })
}
