//! Makes the snapshot that a guest is restored from: boots it in the instance's own network, waits until its workload is ready,
//! and has its VMM save it. All of that is before the timed window; the network stays, so that addresses and devices are there
//! again when the guest goes on.

use super::{
    super::{
        Readiness, Specification, blocking,
        child::{Child, last_lines},
        console::Console,
        network::Network,
    },
    DIED, Equipment,
};
use crate::workload::callback::Receiver;
use anyhow::{Context as _, Result, bail};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the guest may take to be ready.
const LIMIT: Duration = Duration::from_secs(100);

/// How often it is looked whether it has failed.
const INTERVAL: Duration = Duration::from_millis(20);

/// Until the workload has closed the connection of its callback: afterwards nobody would be there to close it.
const SETTLING: Duration = Duration::from_millis(300);

/// Boots what is equipped for it, and saves it to the instance's directory.
///
/// # Errors
/// When the guest does not get ready, or its VMM can't save it.
pub fn make(
    equipment: Equipment,
    readiness: Readiness,
    specification: &Specification,
    network: &Network,
) -> Result<()> {
    let Equipment { program, console, mut watched, .. } = equipment;
    let control = watched.control.as_mut().context("this VMM can't be asked for a snapshot")?;
    let mut child = program.spawn()?;
    let mut failed = || failure(&mut child, &console, &watched.messages);
    await_ready(readiness, specification, network, &console, &mut failed)
        .context("the guest of which a snapshot is to be made does not get ready")?;
    sleep(SETTLING);
    control.save(&specification.directory, &mut failed)?;
    child.kill()
}

/// Evidence that it will not be ready.
fn failure(child: &mut Child, guest: &Console, vmm: &Console) -> Option<String> {
    let said = || format!("{}; its VMM says: {}", last_lines(guest), vmm.last_lines(3).join(" | "));
    if let Some(ended) = child.failure(guest) {
        return Some(format!("{ended}{}", said()));
    }
    guest.reached().iter().any(|reached| reached.marker == DIED).then(|| format!("it is dead{}", said()))
}

fn await_ready(
    readiness: Readiness,
    specification: &Specification,
    network: &Network,
    console: &Console,
    failed: &mut (dyn FnMut() -> Option<String> + Send),
) -> Result<()> {
    blocking::wait("snapshot", async || {
        let host = network.host_address().into();
        let receiver = match readiness {
            Readiness::Callback { .. } => {
                Some(Receiver::bind(host, specification.callback_port, &specification.label)?)
            }
            _ => None,
        };
        let ready = async {
            match (&receiver, readiness) {
                (Some(receiver), _) => receiver.wait().await.map(drop),
                (None, Readiness::Line { line, .. }) => {
                    console.milestone(line).await.map(drop).context("its console ended")
                }
                (None, _) => bail!("it has no way to tell"),
            }
        };
        let mut ready = std::pin::pin!(ready);
        let deadline = Instant::now() + LIMIT;
        loop {
            tokio::select! {
                biased;
                outcome = &mut ready => break outcome,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if let Some(failure) = failed() {
                bail!("{failure}");
            }
            if Instant::now() > deadline {
                bail!("not within {} s{}", LIMIT.as_secs(), last_lines(console));
            }
        }?;
        // The answer to the callback is on its way while the runtime lives.
        tokio::time::sleep(INTERVAL).await;
        Ok(())
    })
}
