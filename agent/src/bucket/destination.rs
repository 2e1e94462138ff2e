//! Where results are, as people write it: a directory, or a folder in a bucket.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};
use url::Url;

/// A place for results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A directory of this machine.
    Folder(PathBuf),
    /// A folder in a bucket.
    Bucket(BucketUrl),
}

/// Address of a folder in a bucket: `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `az://CONTAINER/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    pub(super) kind: Kind,
    url: Url,
}

/// The kinds of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Google,
    Azure,
}

/// An address that names no place for results.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{text}` {problem}; results go into a directory, or to s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH"
)]
pub struct NoDestination {
    text: String,
    problem: String,
}

/// Schemes of which an address begins with one and is none is a slip of the fingers, not a directory.
const SCHEMES: [&str; 4] = ["s3", "gs", "az", "file"];

impl Destination {
    /// The directory, unless it is a bucket.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Bucket(_) => None,
        }
    }
}

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        let refuse = |problem: &str| Err(NoDestination { text: text.to_owned(), problem: problem.to_owned() });
        let Some((scheme, _)) = text.split_once("://") else {
            let slip = text.split_once(":/").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme));
            return if slip { refuse("has one slash where two belong") } else { Ok(Self::Folder(text.into())) };
        };
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(reason) => return refuse(&format!("is no address ({reason})")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("has something after its path");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("holds an account or credentials, which belong into the environment");
        }
        let bucket = |kind, url: Url| match url.host_str() {
            Some(name) if !name.is_empty() => Ok(Self::Bucket(BucketUrl { kind, url })),
            _ => refuse("names no bucket"),
        };
        match scheme {
            "file" => match url.to_file_path() {
                Ok(folder) => Ok(Self::Folder(folder)),
                Err(()) => refuse("names another machine: write file:///PATH"),
            },
            "s3" => bucket(Kind::S3, url),
            "gs" => bucket(Kind::Google, url),
            "az" => bucket(Kind::Azure, url),
            other => refuse(&format!("begins with {other}://, which is not known here")),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(out, "{}", folder.display()),
            Self::Bucket(url) => write!(out, "{url}"),
        }
    }
}

impl BucketUrl {
    /// The bucket, or container.
    pub(super) fn bucket(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The path below it; empty for the bucket itself.
    pub(super) fn path(&self) -> &str {
        self.url.path()
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Destination, String> {
        text.parse().map_err(|error: NoDestination| error.to_string())
    }

    #[test]
    fn directories_and_buckets_are_told_apart() {
        for folder in ["results", "/srv/a b", "c:d", "../x:y/z"] {
            assert_eq!(parse(folder), Ok(Destination::Folder(folder.into())));
        }
        assert_eq!(parse("file:///srv/a%20b"), Ok(Destination::Folder("/srv/a b".into())));
        for address in ["s3://bucket/some/folder", "gs://bucket", "az://container/folder"] {
            let Ok(Destination::Bucket(url)) = parse(address) else { panic!("{address}") };
            assert_eq!(url.to_string(), address);
            assert_eq!(parse(&format!("{address}/")).unwrap().to_string(), address);
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_what_would_be_right() {
        let cases = [
            ("s3:/bucket/folder", "one slash"),
            ("s3://", "names no bucket"),
            ("ftp://host/folder", "ftp://"),
            ("https://bucket.s3.amazonaws.com/x", "https://"),
            ("s3://key:secret@bucket/x", "credentials"),
            ("s3://bucket/x?versionId=1", "after its path"),
            ("file://host/srv", "another machine"),
        ];
        for (text, expected) in cases {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expected) && said.contains("s3://BUCKET/PATH"), "{text}: {said}");
        }
    }
}
