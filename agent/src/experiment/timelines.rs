//! For which instances single events are written down.

/// Instances whose single events are written down.
///
/// Not all by default: those of a start of gVisor are some 50,000 rows in nearly a megabyte, some eighty times what its rows in
/// all other tables take. Not none: a start that was seen can be looked at without doing it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Timelines {
    /// Of each kind the first one with probes that gives a good response.
    #[default]
    First,
    /// All with probes.
    All,
    /// None.
    None,
}

impl Timelines {
    /// Its name on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::All => "all",
            Self::None => "none",
        }
    }
}
