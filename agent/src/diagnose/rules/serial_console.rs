//! A guest writes to its serial console, and each byte is an exit.

use crate::{
    diagnose::{Case, Evidence, Finding, Quantity, Rule, Topic, Weight, starts},
    record::tables::Exit,
    report::units::{duration, percent},
    results::{Error, Of},
};

/// Part of a start that is worth doing something about.
const LEAST: f64 = 0.10;
/// Data registers of the four serial ports of a PC.
const PORTS: [&str; 4] = ["0x3f8", "0x2f8", "0x3e8", "0x2e8"];

pub(super) struct SerialConsole;

impl Rule for SerialConsole {
    fn name(&self) -> &'static str {
        "serial_console"
    }

    fn about(&self) -> &'static str {
        "Guests of whose start 10 % or more is exits for bytes that they write to a serial console."
    }

    fn topic(&self) -> Topic {
        Topic::Starts
    }

    fn needs(&self) -> &'static [&'static str] {
        &["instances", "attribution", "exits"]
    }

    fn examine(&self, case: &Case) -> Result<Vec<Finding>, Error> {
        let exits = case.table::<Exit>()?;
        let mut findings = Vec::new();
        for (group, path) in starts::of(case)? {
            let explained = group.explained();
            let own: Vec<_> = exits.rows.iter().filter(|row| explained.contains(row.instance_id.as_str())).collect();
            let Some(cost_ns) = cost_ns(&own) else { continue };
            let is_byte = |row: &&&Of<Exit>| {
                row.source == "kvm_pio"
                    && row.reason == "io_out"
                    && row.detail.as_deref().is_some_and(|port| PORTS.contains(&port))
            };
            let bytes: u64 = own.iter().filter(is_byte).map(|row| row.count).sum();
            let per_start = bytes as f64 / explained.len() as f64;
            let mean_ns = per_start * cost_ns;
            if mean_ns < LEAST * path.mean_ns {
                continue;
            }
            let key =
                format!("sandbox={} source=kvm_pio reason=io_out, serial ports, count of all instances", group.sandbox);
            findings.push(Finding {
                rule: self.name(),
                weight: Weight::Insight,
                subject: group.subject(),
                text: format!(
                    "The guest writes {per_start:.0} bytes to its serial console, and each is an exit of {}: {} of a start ({})",
                    duration(cost_ns),
                    percent(mean_ns / path.mean_ns),
                    duration(mean_ns)
                ),
                evidence: vec![Evidence::new("exits", key, Quantity::Count(bytes))],
                next_step: "Boot without a console or with `quiet` (--console false), or with a console of virtio, which takes whole \
                            lines."
                    .to_owned(),
            });
        }
        Ok(findings)
    }
}

/// Mean time of an exit for an access to a port, as closely as the host tells it.
fn cost_ns(exits: &[&Of<Exit>]) -> Option<f64> {
    let of = |source: &str| {
        let port = exits.iter().filter(|row| row.source == source && row.reason.to_lowercase().contains("io"));
        let timed = port.filter(|row| !row.reason.contains("mmio")).filter_map(|row| Some((row.count, row.time_ns?)));
        let (count, time_ns) = timed.fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        (count > 0).then(|| time_ns as f64 / count as f64)
    };
    of("kvm_exit").or_else(|| of("kvm_userspace_exit"))
}

#[cfg(test)]
mod tests {
    use crate::diagnose::testing::{Scene, exit};

    #[test]
    fn bytes_on_a_console_are_told_with_what_they_cost_and_few_are_not() {
        let told = |bytes: u64| {
            let mut scene = Scene::healthy();
            for id in scene.probed("kvm-floor") {
                // Each takes a microsecond, and a start two milliseconds.
                let byte = crate::record::tables::Exit {
                    source: "kvm_pio".to_owned(),
                    detail: Some("0x3f8".to_owned()),
                    time_ns: None,
                    ..exit("io_out", bytes)
                };
                scene.exits.extend([byte, exit("io_instruction", bytes)].map(|row| (id.clone(), row)));
            }
            scene
        };
        let finding = told(500).only_finding("serial_console");
        assert!(finding.text.starts_with("The guest writes 500 bytes"), "{}", finding.text);
        assert!(finding.text.contains("an exit of 1.000 µs: 24."), "{}", finding.text);
        assert!(told(50).diagnose().findings.is_empty());
    }
}
