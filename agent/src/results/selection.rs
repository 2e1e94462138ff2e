//! How people name results: `DIR` for all runs in a directory, `DIR@RUN` for one of them.

use super::{Error, Results};
use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

/// Results that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The directory.
    pub directory: PathBuf,
    /// `latest`, or how the identifier of a run begins; all runs without it.
    pub run: Option<String>,
}

impl Selection {
    /// Opens them.
    ///
    /// # Errors
    /// When there are none, see [`Results::open`] and [`Results::only`].
    pub fn open(&self) -> Result<Results, Error> {
        let results = Results::open(&self.directory)?;
        match &self.run {
            Some(run) => results.only(run),
            None => Ok(results),
        }
    }
}

impl FromStr for Selection {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let whole = || Self { directory: text.into(), run: None };
        // A directory may have such a name itself.
        let Some((directory, run)) = text.rsplit_once('@').filter(|_| !PathBuf::from(text).is_dir()) else {
            return Ok(whole());
        };
        // The name of a run has no slash, so that one belongs to a directory.
        Ok(if run.contains('/') { whole() } else { Self { directory: directory.into(), run: Some(run.to_owned()) } })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.directory.display())?;
        self.run.iter().try_for_each(|run| write!(out, "@{run}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Selection {
        text.parse().unwrap_or_else(|never: Infallible| match never {})
    }

    #[test]
    fn a_run_stands_behind_the_last_at_sign() {
        let all = |directory: &str| Selection { directory: directory.into(), run: None };
        assert_eq!(parse("results"), all("results"));
        assert_eq!(parse("a@b/results"), all("a@b/results"));
        let one = parse("a@b/results@latest");
        assert_eq!((one.directory.to_str(), one.run.as_deref()), (Some("a@b/results"), Some("latest")));
        assert_eq!(one.to_string(), "a@b/results@latest");
        let folder = tempfile::Builder::new().prefix("x@y").tempdir().unwrap();
        assert_eq!(parse(folder.path().to_str().unwrap()), all(folder.path().to_str().unwrap()));
    }
}
