//! Executes itself once more, and so initialises itself twice.

use std::{os::unix::process::CommandExt as _, process::Command, time::Instant};

const AGAIN: &str = "SCENE_AGAIN";

fn main() -> anyhow::Result<()> {
    let start = Instant::now();
    scenes::compute(scenes::INITIALISATION);
    if std::env::var_os(AGAIN).is_none() {
        return Err(Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .env(AGAIN, "1")
            .exec()
            .into());
    }
    match scenes::serve(start)? {}
}
