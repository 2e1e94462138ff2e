//! What a VMM says has to be executed, made ready: in its network namespace, with what it and its guest print taken apart and
//! looked through.

use super::{
    super::{child::Program, console::Console, network::Network},
    DIED, FIRST_BYTE, LISTENS, Machine, Start, Vm, Vmm, Watched,
    guest::{Ready, WORKLOAD_LISTENS},
};
use anyhow::{Context as _, Result};
use rustix::thread::LinkNameSpaceType;
use std::{collections::BTreeMap, path::PathBuf};

/// A VMM that is ready to be started.
pub struct Equipment {
    pub executable: PathBuf,
    pub program: Program,
    /// What the guest will print.
    pub console: Console,
    pub watched: Watched,
    /// Files that its start reads besides the program.
    pub files: Vec<PathBuf>,
    pub conditions: BTreeMap<String, String>,
}

impl<V: Vmm> Vm<V> {
    /// Makes ready what the VMM says.
    ///
    /// # Errors
    /// When the agent is out of file descriptors or threads.
    pub(super) fn equip(&self, start: Start, machine: &Machine, network: Option<&Network>) -> Result<Equipment> {
        let Start { executable, arguments, inherited, control, mut conditions, messages: expected, shown, files } =
            start;
        let (mut program, console) = Program::new(&executable, &machine.directory)?;
        let messages = program.separate_errors()?;
        program.arguments(&arguments)?;
        if let Some(descriptor) = inherited {
            program.inherit(descriptor);
        }
        if let Some(private) = network.and_then(Network::private) {
            let namespace = private.namespace.try_clone().context("could not duplicate a namespace's descriptor")?;
            program.enter(namespace, LinkNameSpaceType::Network);
            let coupling = private.guest.map(|guest| guest.coupling.name().to_owned());
            conditions.extend(coupling.map(|coupling| ("network-link".to_owned(), coupling)));
        }
        for (marker, text) in [(FIRST_BYTE, "")].iter().chain(self.guest.milestones) {
            console.expect(marker, *text);
        }
        for text in self.guest.last_words {
            console.expect(DIED, *text);
        }
        // Of a workload that calls back it is one witness more, also where no probe sees its socket or its frames.
        let of_workload = (self.guest.ready == Ready::Workload).then_some(WORKLOAD_LISTENS);
        if let Some(text) = self.ready_line().or(of_workload) {
            console.expect(LISTENS, text);
        }
        for (marker, text) in expected {
            messages.expect(marker, text);
        }
        let watched = Watched { control, messages, shown, thread_roles: self.vmm.thread_roles(), static_disk: None };
        Ok(Equipment { executable, program, console, watched, files, conditions })
    }
}
