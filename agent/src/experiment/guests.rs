//! Names of the functions of all guests of a run: those that a person gives, else those that are kept beside each guest's images.

use crate::{sandbox::Sandbox, steady::GuestSymbols};
use anyhow::{Context as _, Result};
use std::{collections::BTreeMap, sync::Arc};

/// See above.
#[derive(Debug)]
pub enum Guests {
    /// The same for all.
    Given(GuestSymbols),
    /// By the name of the sandbox; others have none.
    Kept(BTreeMap<String, GuestSymbols>),
}

impl Guests {
    /// Reads those that are kept.
    ///
    /// # Errors
    /// When a file is there and has no symbols of use.
    pub fn kept<'a>(sandboxes: impl IntoIterator<Item = &'a Arc<dyn Sandbox>>) -> Result<Self> {
        let mut kept = BTreeMap::new();
        for sandbox in sandboxes {
            let name = sandbox.name();
            if let Some(path) = sandbox.guest_symbols().filter(|_| !kept.contains_key(name)) {
                let symbols = GuestSymbols::read(&path).with_context(|| format!("the sandbox `{name}`"))?;
                kept.insert(name.to_owned(), symbols);
            }
        }
        Ok(Self::Kept(kept))
    }

    /// Those of a sandbox.
    pub fn of_sandbox(&self, name: &str) -> Option<&GuestSymbols> {
        match self {
            Self::Given(symbols) => Some(symbols),
            Self::Kept(kept) => kept.get(name),
        }
    }
}
