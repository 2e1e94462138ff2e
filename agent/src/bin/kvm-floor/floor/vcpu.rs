//! Runs a vCPU and serves its exits. The guest is never believed: what was not agreed on ends the VM with a message.

use super::{
    guest,
    run::{Counts, Run},
    statistics::Statistics,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Whether the guest goes on after an exit.
enum Next {
    Continue,
    End,
}

/// Runs a vCPU until the process ends.
pub fn drive(mut vcpu: VcpuFd, index: usize, run: &Run) -> ! {
    loop {
        let served = match vcpu.run() {
            Ok(exit) => serve(exit, run),
            Err(error) => match error.errno() {
                libc::EINTR => {
                    add_one(&run.counts.interrupted);
                    continue;
                }
                // A vCPU that waits to be started by the guest was woken for another reason.
                libc::EAGAIN => continue,
                errno => Err(anyhow!("KVM_RUN: {}", io::Error::from_raw_os_error(errno))),
            },
        };
        match served {
            Ok(Next::Continue) => {}
            Ok(Next::End) => run.ended(),
            Err(error) => {
                let place =
                    vcpu.get_regs().map_or_else(|_| "an unknown address".to_owned(), |r| format!("{:#x}", r.rip));
                run.failed(&error.context(format!("vCPU {index} failed at {place}")))
            }
        }
        // Not before the first exit, which is the first byte of the console: nobody should have to wait for statistics.
        run.statistics.get_or_init(|| Statistics::open(&vcpu));
    }
}

fn serve(exit: VcpuExit<'_>, run: &Run) -> Result<Next> {
    let counts = &run.counts;
    match exit {
        VcpuExit::IoOut(guest::CONSOLE_PORT, &[byte]) => {
            let first = add_one(&counts.console) == 0;
            write_console(byte, first).context("can't write the guest's console to stdout")?;
        }
        VcpuExit::IoOut(guest::COUNTED_PORT, &[a, b, c, d]) => {
            in_order(add_one(&counts.counted), [a, b, c, d], run.options.pio, "--pio")?;
        }
        VcpuExit::MmioWrite(address, &[a, b, c, d]) if address == u64::from(guest::MMIO_ADDRESS) => {
            in_order(add_one(&counts.mmio), [a, b, c, d], run.options.mmio, "--mmio")?;
        }
        VcpuExit::IoOut(guest::EXIT_PORT, &[status]) => {
            add_one(&counts.end);
            ensure!(status == guest::EXIT_SUCCESS, "the guest ended with status {status:#x}");
            complete(counts, run)?;
            return Ok(Next::End);
        }
        VcpuExit::IoOut(port, data) => bail!("the guest wrote {data:02x?} to port {port:#x}: nothing is there"),
        VcpuExit::IoIn(port, _) => bail!("the guest read port {port:#x}: nothing is there"),
        VcpuExit::MmioWrite(address, data) => bail!("the guest wrote {data:02x?} to {address:#x}: nothing is there"),
        VcpuExit::MmioRead(address, _) => bail!("the guest read {address:#x}: nothing is there"),
        VcpuExit::Shutdown => bail!("the guest shut down by a triple fault"),
        VcpuExit::InternalError => {
            bail!("KVM could not go on (KVM_EXIT_INTERNAL_ERROR): it can't emulate an instruction")
        }
        VcpuExit::FailEntry(reason, cpu) => bail!("CPU {cpu} refused to enter the guest: hardware reason {reason:#x}"),
        exit => bail!("unexpected exit {exit:?}"),
    }
    Ok(Next::Continue)
}

/// Counts one, and says how many there were before.
fn add_one(count: &AtomicU64) -> u64 {
    count.fetch_add(1, Relaxed)
}

/// The first byte goes out at once, since it is the event that says "ready"; the rest line by line.
fn write_console(byte: u8, first: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&[byte])?;
    if first { stdout.flush() } else { Ok(()) }
}

/// The guest numbers its counted writes from 0: one that is lost, repeated or too many shows.
fn in_order(before: u64, value: [u8; 4], limit: u32, option: &str) -> Result<()> {
    let value = u32::from_le_bytes(value);
    ensure!(
        u64::from(value) == before && value < limit,
        "the guest made write {value} of {option} {limit} after {before}"
    );
    Ok(())
}

/// At its end, the guest has made all the writes that it was told to make.
fn complete(counts: &Counts, run: &Run) -> Result<()> {
    for (option, asked, count) in
        [("--pio", run.options.pio, &counts.counted), ("--mmio", run.options.mmio, &counts.mmio)]
    {
        let made = count.load(Relaxed);
        ensure!(made == u64::from(asked), "the guest ended after {made} writes of {option} {asked}");
    }
    Ok(())
}
