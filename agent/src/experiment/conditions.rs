//! Conditions that all instances of a suite have in common.

use crate::sandbox::{
    Resources, network,
    resources::{Bytes, CpuList, FileSharing},
};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

/// Conditions of all instances of a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Conditions {
    /// How instances are connected.
    pub network: network::Mode,
    /// Memory of an instance: a limit for a container, the size of a VM.
    pub memory: Option<Bytes>,
    /// CPUs of an instance: a limit for a container, the vCPUs of a VM.
    pub vcpus: Option<u32>,
    /// CPUs that instances may run on.
    pub cpus: Option<CpuList>,
    /// CPUs of the load generator.
    pub client_cpus: Option<CpuList>,
    /// Whether instances have a console.
    pub console: bool,
    /// How they get their files.
    pub files: FileSharing,
    /// Port of the ready callback.
    pub callback_port: u16,
    /// Seconds that a start, and each request, may take.
    pub timeout_s: f64,
    /// Whether system calls are recorded.
    pub syscalls: bool,
    /// Size of the buffer between the probes and the agent; a power of two.
    pub ring_buffer_bytes: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            network: network::Mode::Private,
            memory: None,
            vcpus: None,
            cpus: None,
            client_cpus: None,
            console: true,
            files: FileSharing::Shared,
            callback_port: 3999,
            timeout_s: 30.0,
            syscalls: true,
            ring_buffer_bytes: 64 << 20,
        }
    }
}

impl Conditions {
    /// What an instance may use.
    pub fn resources(&self) -> Resources {
        Resources {
            memory_bytes: self.memory.map(|Bytes(bytes)| bytes),
            vcpus: self.vcpus,
            console: self.console,
            files: self.files,
        }
    }

    /// Time for a start, and for each request.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_s)
    }

    /// The first that makes no sense, with what is wrong with it.
    pub fn complaint(&self) -> Option<(&'static str, String)> {
        if !(self.timeout_s > 0.0 && self.timeout_s <= 86_400.0) {
            return Some(("timeout-s", format!("{} s: choose above 0, at most 86400", self.timeout_s)));
        }
        if self.vcpus.is_some_and(|vcpus| !(1..=64).contains(&vcpus)) {
            return Some(("vcpus", "choose from 1 to 64".to_owned()));
        }
        if !self.ring_buffer_bytes.is_power_of_two() || !(4096..=1 << 30).contains(&self.ring_buffer_bytes) {
            return Some(("ring-buffer-bytes", "choose a power of two from 4096 to 1073741824".to_owned()));
        }
        if self.callback_port == 0 {
            return Some(("callback-port", "choose from 1 to 65535".to_owned()));
        }
        for (key, cpus) in [("cpus", &self.cpus), ("client-cpus", &self.client_cpus)] {
            // Only to know now whether it can be done.
            if let Some(Err(error)) = cpus.as_ref().map(CpuList::pin) {
                return Some((key, format!("{error:#}")));
            }
        }
        None
    }

    /// For the manifest.
    pub fn recorded(&self) -> BTreeMap<String, String> {
        fn or(value: Option<&impl ToString>, none: &str) -> String {
            value.map_or_else(|| none.to_owned(), ToString::to_string)
        }
        [
            ("memory_bytes", or(self.memory.map(|Bytes(bytes)| bytes).as_ref(), "no limit")),
            ("vcpus", or(self.vcpus.as_ref(), "no limit")),
            ("cpus", or(self.cpus.as_ref(), "all")),
            ("client_cpus", or(self.client_cpus.as_ref(), "all")),
            ("console", self.console.to_string()),
            ("files", self.files.name().to_owned()),
            ("network", self.network.name().to_owned()),
            ("network_made", "before the launch".to_owned()),
            ("timeout_s", self.timeout_s.to_string()),
            ("ring_buffer_bytes", self.ring_buffer_bytes.to_string()),
            ("syscalls_recorded", self.syscalls.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
