//! Fills the pattern of a guest's command line with what is known only when an instance is prepared.
//!
//! | in the pattern | becomes |
//! |---|---|
//! | `%ip`, `%gateway`, `%netmask`, `%prefix` | address of the guest and of the host, mask and length of the prefix they share |
//! | `%mac` | link-layer address of the guest's device |
//! | `%callback` | URL at which the workload calls back |
//! | `%port` | TCP port that it shall listen on |
//! | `%tsc` | rate of the CPU's time stamp counter in kHz: calibrating it takes a guest long, and fails on a busy host |
//! | `%app` | all arguments of the workload by its contract |
//! | `%%` | `%` |

use super::super::{
    Specification,
    network::{Network, Private},
};
use crate::{host::clock::tsc_khz, workload::callback};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;

/// Bytes of the longest command line: Linux on x86-64 cuts it off there.
const MOST_BYTES: usize = 2047;

/// Where workloads in a guest may write.
const SCRATCH: &str = "/tmp/unzipped";

/// The pattern with its places filled, for a workload that serves this file of the guest.
pub fn expand(
    pattern: &str,
    specification: &Specification,
    network: Option<&Network>,
    static_file: Option<&Path>,
) -> Result<String> {
    let mut parts = pattern.split('%');
    let mut line = parts.next().unwrap_or_default().to_owned();
    let mut escaped = false;
    for part in parts {
        if escaped {
            escaped = false;
            line.push_str(part);
            continue;
        }
        if part.is_empty() {
            line.push('%');
            escaped = true;
            continue;
        }
        let end = part.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(part.len());
        line.push_str(&value(&part[..end], specification, network, static_file)?);
        line.push_str(&part[end..]);
    }
    ensure!(line.len() <= MOST_BYTES, "the guest's command line has {} bytes: {MOST_BYTES} are the most", line.len());
    ensure!(
        !line.contains(['\0', '\n', '"', '\'']),
        "the guest's command line would hold a quote or a line break: {line}"
    );
    Ok(line)
}

fn value(
    place: &str,
    specification: &Specification,
    network: Option<&Network>,
    static_file: Option<&Path>,
) -> Result<String> {
    let own = || -> Result<&Private> {
        let own = network.and_then(Network::private);
        own.with_context(|| format!("`%{place}` in a command line: this guest has no network"))
    };
    let addresses = || own().map(Private::addresses);
    Ok(match place {
        "ip" => addresses()?.sandbox.to_string(),
        "gateway" => addresses()?.host.to_string(),
        "netmask" => addresses()?.netmask().to_string(),
        "prefix" => addresses()?.prefix_length.to_string(),
        "mac" => {
            let guest = own()?.guest.context("`%mac` in a command line: this network is not for a guest")?;
            guest.link_address.map(|byte| format!("{byte:02x}")).join(":")
        }
        "callback" => callback::url(own()?.host_address.into(), specification.callback_port, &specification.label),
        "port" => specification.workload.port.to_string(),
        "tsc" => tsc_khz().context("`%tsc` in a command line: this machine has no time stamp counter")?.to_string(),
        "app" => {
            let network = network.context("`%app` in a command line: this guest has no network to call back by")?;
            let arguments = specification.arguments(network, static_file, Path::new(SCRATCH));
            let spaced = arguments.iter().find(|argument| argument.contains(char::is_whitespace));
            if let Some(argument) = spaced {
                bail!("the argument `{argument}` has a space in it: a guest's command line has no way to say so");
            }
            arguments.join(" ")
        }
        _ => bail!(
            "there is no `%{place}` for a command line: use %ip, %gateway, %netmask, %prefix, %mac, %callback, %port, %tsc, %app, or \
             %% for a percent sign"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sandbox::{Resources, network::Mode},
        workload::Workload,
    };

    fn specification() -> Specification {
        Specification {
            label: "a1".into(),
            directory: "/nowhere".into(),
            workload: Workload::of_executable("test", "/nowhere/app".into()),
            network: Mode::Private,
            resources: Resources::default(),
            callback_port: 3999,
        }
    }

    #[test]
    fn places_are_filled_and_unknown_ones_named() {
        let (network, file) = (Some(&Network::Host), Some(Path::new("/data/file")));
        let expand = |pattern| expand(pattern, &specification(), network, file);
        assert_eq!(expand("console=ttyS0 -- %app").unwrap(), {
            "console=ttyS0 -- http://127.0.0.1:3999/ready/a1 --static-file /data/file --scratch /tmp/unzipped --port 8080"
        });
        assert_eq!(expand("50%% of %port, 100%%%port").unwrap(), "50% of 8080, 100%8080");
        assert!(expand("%pi").unwrap_err().to_string().contains("`%pi`"));
        assert!(expand("%ip").unwrap_err().to_string().contains("no network"));
        assert!(expand("a='b'").unwrap_err().to_string().contains("quote"));
        assert!(expand(&"x".repeat(3000)).unwrap_err().to_string().contains("3000 bytes"));
    }
}
