//! Tables about runs and instances themselves: what was measured, under which conditions, and what was lost.

use crate::record::table::tables;

tables! {
    /// One row per run: one invocation of the agent. It is written when the run starts and again when it ends.
    table runs = Run of run {
        /// What was run, such as `cold-start`.
        experiment: String,
        /// When the run started, since the Unix epoch.
        started_at_unix_ns: i64,
        /// When the run ended, since the Unix epoch; null while it goes on and for ever when it was interrupted or killed.
        finished_at_unix_ns: Option<i64>,
        /// The command line; of absolute paths only the file name.
        command_line: String,
        /// Seed of everything random in the run, such as the order of the instances.
        seed: u64,
        /// Version of sandscope.
        sandscope_version: String,
        /// Version of the schema that the run was written with.
        schema_version: u32,
        /// Name of the host.
        host_name: String,
        /// Release of the host's kernel.
        kernel_release: String,
        /// Machine architecture as the kernel calls it, such as `x86_64`.
        architecture: String,
        /// Model of the first CPU.
        cpu_model: Option<String>,
        /// CPUs that are online.
        cpus_count: Option<u32>,
        /// Memory of the host that the kernel can use.
        memory_bytes: Option<u64>,
        /// Whether the run could use probes at all.
        probes_available: bool,
        /// Probes that were missing and why; null when none was.
        probes_missing: Option<String>,
        /// Records of all probes that found no room.
        lost_events_count: u64,
        /// Instances that were started so far.
        instances_count: u32,
        /// Instances of these that failed. One that an interruption cut short did not fail, and is in no table.
        failed_count: u32,
        /// Everything about host, tools and conditions, as JSON; the key `manifest` of the file has the same.
        manifest_json: String,
    }

    /// One row per instance: one started sandbox. It is written after the instance's rows in all other tables.
    table instances = Instance of instance {
        /// The experiment, such as `cpu`.
        experiment: String,
        /// Variant of the experiment, such as `evicted`; empty when it has only one.
        variant: String,
        /// How many repetitions of the same experiment, variant, sandbox, workload and `probes` came before it.
        repetition: u32,
        /// Kind of the sandbox, such as `runc`.
        sandbox: String,
        /// What ran inside, such as `rust`.
        workload: String,
        /// Place in the order of the run, from 0.
        position: u32,
        /// Whether probes were attached; instances without them tell what measuring costs.
        probes: bool,
        /// Whether it started and gave a good response.
        ok: bool,
        /// Why it did not; null when `ok`.
        error: Option<String>,
        /// From launch to the first good response.
        wall_ns: Option<u64>,
        /// The launch on `CLOCK_MONOTONIC`; the instants of the other tables are relative to it.
        launched_at_monotonic_ns: Option<i64>,
        /// The launch since the Unix epoch.
        launched_at_unix_ns: Option<i64>,
        /// What was done to the files that its start reads: `primed` (read into the page cache), `evicted` or `asis`.
        cache: String,
        /// Pages of these files.
        cache_pages_count: Option<u64>,
        /// Pages of these that were in the page cache right before the launch.
        cache_resident_pages_count: Option<u64>,
        /// How it was connected, such as `private` or `host`.
        network: String,
        /// Records of its probes that found no room.
        lost_events_count: u64,
        /// Part of `wall_ns` that no category of `attribution` claims.
        unattributed_ns: Option<u64>,
        /// Events that were not seen and are inferred from others, such as a switch to a thread that later leaves the CPU: see `events`.
        inferred_events_count: Option<u64>,
        /// Times that the kernel skipped a run of a BPF program because another was at work on the CPU, while the instance was
        /// recorded; what these would have written is missing, and counted nowhere else.
        skipped_program_runs_count: Option<u64>,
        /// Further conditions of the instance, as JSON.
        conditions_json: String,
    }

    /// One row per instance and kind of record: how many the probes had to write, how many of these found no room, and how many more
    /// there must have been.
    table events = EventCount of instance {
        /// The record, such as `switch`.
        kind: String,
        /// Records that the probes had to write.
        seen_count: u64,
        /// Those of them for which the buffer had no room, those that may be another instance's included.
        lost_count: u64,
        /// Events that were not seen at all, neither written nor lost, but must have happened: a thread that leaves a CPU has got it
        /// before, and one that goes on after a wait was woken. Null where that can't be told, as in results of version 1.
        inferred_count: Option<u64>,
    }
}

impl Instance {
    /// A condition that was found before the launch, as text.
    pub fn condition(&self, name: &str) -> Option<String> {
        let conditions: serde_json::Value = serde_json::from_str(&self.conditions_json).ok()?;
        Some(conditions.get(name)?.as_str()?.to_owned())
    }

    /// Share of the host's CPUs that others used right before the launch.
    pub fn host_busy_ratio(&self) -> Option<f64> {
        self.condition("host_busy_ratio")?.parse().ok()
    }
}
