//! Why something can't be had from a bucket or put into it, in words that tell which, and what to do.

use super::BucketUrl;
use object_store::Error as Cause;
use std::{io, path::PathBuf};

/// Why results did not get to or from a bucket. What is on this machine stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address and the environment together say too little, or something wrong.
    #[error("{url} can't be used: {reason}; docs/scale.md names the variables of the environment that say how")]
    Settings {
        /// The bucket.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The store refused, or did not answer.
    #[error("can't {operation} {url}: {reason}; {advice}")]
    Store {
        /// What was to be done, such as "write to".
        operation: &'static str,
        /// The bucket.
        url: String,
        /// The answer, or that there was none.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// There are no results.
    #[error("{url} holds no results of sandscope: there is no runs/run=…/part-….parquet in it")]
    NoResults {
        /// The bucket.
        url: String,
    },
    /// A file of this machine can't be read or written.
    #[error("can't {operation} {}: {reason}", path.display())]
    File {
        /// What was to be done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        reason: io::Error,
    },
}

/// Characters of a store's answer that are shown: some answer with pages.
const ANSWER: usize = 400;

impl Error {
    /// Makes an error of a store's answer.
    pub(super) fn store(operation: &'static str, url: &BucketUrl) -> impl Fn(Cause) -> Self {
        move |cause| Self::Store {
            operation,
            url: url.to_string(),
            reason: readable(&cause.to_string()),
            advice: advice(&cause),
        }
    }

    /// Makes an error of the system's answer.
    pub(super) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |reason| Self::File { operation, path, reason }
    }
}

/// What a person can do about it.
fn advice(cause: &Cause) -> &'static str {
    match cause {
        Cause::NotFound { .. } => "make sure that there is a bucket of this name",
        Cause::PermissionDenied { .. } | Cause::Unauthenticated { .. } => {
            "make sure that the credentials in the environment are right and may do this"
        }
        _ => "make sure that the endpoint and the credentials in the environment are right, and that it can be reached",
    }
}

/// An answer on one line, without what follows the path of an address: a query can be a signature.
fn readable(answer: &str) -> String {
    let words = answer.split_whitespace().map(|word| match word.split_once('?') {
        Some((address, _)) if address.contains("://") => address,
        _ => word,
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(ANSWER) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_that_holds_no_signature() {
        let answer = "Error performing PUT https://a.blob/x?sig=SECRET in 1s:\n <Error>\n  no?\n</Error>";
        assert_eq!(readable(answer), "Error performing PUT https://a.blob/x in 1s: <Error> no? </Error>");
        assert_eq!(readable(&"x".repeat(ANSWER + 1)).chars().count(), ANSWER + 1);
    }
}
