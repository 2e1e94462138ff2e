//! Takes frames from a tap device, as a VMM does.

use anyhow::Result;
use rustix::fs::{OFlags, fcntl_setfl};
use sandscope::sandbox::network::open_tap;
use std::io::{ErrorKind, Read as _, Write as _};

/// Opens the tap device of this network namespace and says so; then, for each line, takes all frames that are there and says how
/// many they were.
pub fn take() -> Result<()> {
    let mut device = open_tap()?;
    fcntl_setfl(&device, OFlags::NONBLOCK)?;
    let say = |text: &str| std::io::stdout().write_all(format!("{text}\n").as_bytes());
    say("ready")?;
    let mut frame = [0; 2048];
    for line in std::io::stdin().lines() {
        line?;
        let mut taken = 0;
        loop {
            match device.read(&mut frame) {
                Ok(_) => taken += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        say(&taken.to_string())?;
    }
    Ok(())
}
