//! The floor on x86-64: builds the machine, starts its vCPUs, and waits for the end.

mod elf;
mod guest;
mod machine;
mod run;
mod statistics;
mod stop;
mod vcpu;

use crate::options::{Action, Options};
use anyhow::{Context, Result};
use machine::Machine;
use run::Run;
use std::{convert::Infallible, fs, panic, process, sync::Arc, thread};

/// Does what the command line asks for, and returns what is to be printed. Does not return when that is to run the
/// guest and the guest starts: the end of the guest is the end of the process.
///
/// # Errors
/// When the host refuses what it takes.
pub fn execute(action: Action) -> Result<String> {
    match action {
        Action::Run(options) => match start(options)? {},
        Action::PrintSymbols => {
            Ok(guest::symbols().iter().map(|symbol| format!("{:x} {}\n", symbol.address, symbol.name)).collect())
        }
        Action::EmitElf(path) => {
            fs::write(&path, elf::build()?).with_context(|| format!("can't write {}", path.display()))?;
            Ok(String::new())
        }
    }
}

fn start(options: Options) -> Result<Infallible> {
    end_at_panic();
    stop::hold_signals()?;
    let Machine { vm: _vm, vcpus, memory } = Machine::new(&options)?;
    let run = Arc::new(Run::new(options));
    for (index, vcpu) in vcpus.into_iter().enumerate() {
        let (memory, run) = (memory.clone(), Arc::clone(&run));
        thread::Builder::new()
            .name(format!("vcpu {index}"))
            .spawn(move || {
                // The vCPU runs in this memory: it must be mapped as long as the thread lives.
                let _memory = memory;
                vcpu::drive(vcpu, index, &run)
            })
            .context("can't start the thread of a vCPU")?;
    }
    let signal = stop::wait_for_signal()?;
    run.stopped_by(signal)
}

/// A panic of a vCPU's thread would leave the main thread waiting for a signal, and the VM looking alive.
fn end_at_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        process::abort()
    }));
}
