//! `sandscope clean`: removes what killed runs have left.

use super::print;
use anyhow::Result;
use std::process::ExitCode;
