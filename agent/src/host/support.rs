//! The answer to "can this host do that?".

/// Whether a host can do something, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Support {
    /// It can.
    Ok {
        /// What was found.
        evidence: String,
    },
    /// It can, but not fully.
    Degraded {
        /// What was found.
        evidence: String,
        /// What the person can do about it.
        remedy: String,
    },
    /// It can't.
    Unsupported {
        /// What is missing.
        evidence: String,
        /// What the person can do about it.
        remedy: String,
    },
}

impl Support {
    /// Whether it works at all.
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Unsupported { .. })
    }

    /// The verdict in one word.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Degraded { .. } => "degraded",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// What was found.
    pub fn evidence(&self) -> &str {
        match self {
            Self::Ok { evidence } | Self::Degraded { evidence, .. } | Self::Unsupported { evidence, .. } => evidence,
        }
    }

    /// What the person can do about it, if there is something to be done.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Ok { .. } => None,
            Self::Degraded { remedy, .. } | Self::Unsupported { remedy, .. } => Some(remedy),
        }
    }
}
