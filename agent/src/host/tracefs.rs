//! tracefs: which tracepoints the running kernel has, and where their records keep their fields.
//!
//! Where nobody has mounted it, a thread of its own mounts it in a mount namespace of its own: the host's mounts stay as they
//! are, and nothing is left behind even if the agent is killed.

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why tracefs could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not mounted and could not be mounted.
    #[error("tracefs is not mounted and can't be: {0}; run as root, or `mount -t tracefs nodev /sys/kernel/tracing`")]
    NotMounted(io::Error),
    /// The kernel has no such tracepoint.
    #[error("this kernel has no tracepoint {category}:{name} ({reason})")]
    NoTracepoint {
        /// Category, such as `sched`.
        category: String,
        /// Name, such as `sched_switch`.
        name: String,
        /// What went wrong when its description was read.
        reason: String,
    },
    /// The record of a tracepoint has no such field.
    #[error("the tracepoint {tracepoint} of this kernel has no field `{field}`")]
    NoField {
        /// Its name.
        tracepoint: String,
        /// Field that was looked up.
        field: String,
    },
}

/// Runs `action` on a thread that sees tracefs at the path it is given.
///
/// # Errors
/// When tracefs is not mounted and can't be mounted.
pub fn with_tracefs<T: Send>(action: impl FnOnce(&Tracefs) -> T + Send) -> Result<T, Error> {
    if let Some(root) = mounted() {
        return Ok(action(&Tracefs { root }));
    }
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let tracefs = mount_privately().map_err(Error::NotMounted)?;
            Ok(action(&tracefs))
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mounted() -> Option<PathBuf> {
    MOUNT_POINTS.iter().map(PathBuf::from).find(|point| point.join("events").is_dir())
}

/// Mounts tracefs for the calling thread only.
fn mount_privately() -> io::Result<Tracefs> {
    // SAFETY: the thread shares file descriptors and memory with the others as before; only its own view of mounts and its
    // working directory are separated, and it was started for this alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = Path::new(MOUNT_POINTS[0]);
    mount("nodev", root, "tracefs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    Ok(Tracefs { root: root.to_owned() })
}

/// A mounted tracefs.
pub struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// Number of a tracepoint, by which it can be counted; `None`: this kernel has no such tracepoint.
    pub fn id(&self, category: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.root.join("events").join(category).join(name).join("id")).ok()?;
        text.trim().parse().ok()
    }

    /// Whether the kernel has a tracepoint.
    pub fn has(&self, category: &str, name: &str) -> bool {
        self.root.join("events").join(category).join(name).is_dir()
    }

    /// Layout of a tracepoint's record.
    ///
    /// # Errors
    /// When the kernel has no such tracepoint or its description can't be read.
    pub fn format(&self, category: &str, name: &str) -> Result<Format, Error> {
        let path = self.root.join("events").join(category).join(name).join("format");
        let text = fs::read_to_string(&path).map_err(|error| Error::NoTracepoint {
            category: category.to_owned(),
            name: name.to_owned(),
            reason: format!("{}: {error}", path.display()),
        })?;
        Ok(Format::parse(name, &text))
    }
}

/// Layout of a tracepoint's record: its fields, and how it prints symbolic values.
#[derive(Debug, Clone)]
pub struct Format {
    tracepoint: String,
    fields: BTreeMap<String, u32>,
    print: String,
}

impl Format {
    /// Parses the text of a `format` file.
    pub fn parse(tracepoint: &str, text: &str) -> Self {
        let mut fields = BTreeMap::new();
        let mut print = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("print fmt:") {
                print = rest.trim().to_owned();
            } else if let Some(rest) = line.trim_start().strip_prefix("field:") {
                // Such as `field:char comm[16];	offset:8;	size:16;	signed:0;`
                let mut parts = rest.split(';').map(str::trim);
                let declaration = parts.next().unwrap_or_default();
                let offset = parts.find_map(|part| part.strip_prefix("offset:")).and_then(|value| value.parse().ok());
                let name = declaration.rsplit([' ', '*']).next().unwrap_or_default();
                let name = name.split('[').next().unwrap_or_default();
                if let (false, Some(offset)) = (name.is_empty(), offset) {
                    fields.insert(name.to_owned(), offset);
                }
            }
        }
        Self { tracepoint: tracepoint.to_owned(), fields, print }
    }

    /// Bytes from the beginning of the record to a field.
    ///
    /// # Errors
    /// When the record has no such field.
    pub fn offset(&self, field: &str) -> Result<u32, Error> {
        self.fields
            .get(field)
            .copied()
            .ok_or_else(|| Error::NoField { tracepoint: self.tracepoint.clone(), field: field.to_owned() })
    }

    /// Names that the record's print format gives to the values of a field, for each of its `__print_symbolic` lists that
    /// prints this field, in their order: x86's `kvm_exit` has one for VMX and one for SVM.
    pub fn symbols(&self, field: &str) -> Vec<BTreeMap<u64, String>> {
        let mut lists = Vec::new();
        for call in self.print.split("__print_symbolic(").skip(1) {
            let Some((argument, rest)) = call.split_once(',') else {
                continue;
            };
            if !argument.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == field) {
                continue;
            }
            lists.push(symbol_list(rest));
        }
        lists
    }
}

/// Parses `{ 0x60, "intr" }, { 0x61, "nmi" })…`.
fn symbol_list(text: &str) -> BTreeMap<u64, String> {
    let mut symbols = BTreeMap::new();
    let mut rest = text.trim_start();
    while let Some(inside) = rest.strip_prefix('{') {
        let Some((pair, after)) = inside.split_once('}') else {
            break;
        };
        if let Some((value, name)) = pair.split_once(',')
            && let Some(value) = number(value.trim())
        {
            symbols.insert(value, name.trim().trim_matches('"').to_owned());
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    symbols
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['U', 'L', 'u', 'l']);
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWTASK: &str = "name: task_newtask\nID: 100\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n\tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n\tfield:const void * skaddr;\toffset:32;\tsize:8;\tsigned:0;\n\nprint fmt: \"pid=%d\", REC->pid\n";

    #[test]
    fn fields_are_found_whatever_their_declaration_looks_like() {
        let format = Format::parse("task_newtask", NEWTASK);
        assert_eq!(format.offset("pid").unwrap(), 8);
        assert_eq!(format.offset("comm").unwrap(), 12);
        assert_eq!(format.offset("skaddr").unwrap(), 32);
        assert!(format.offset("nothing").unwrap_err().to_string().contains("task_newtask"));
    }

    #[test]
    fn symbols_are_read_per_list() {
        let print = "print fmt: \"%s\", (REC->isa == 1) ? __print_symbolic(REC->exit_reason & 0xffff, { 0, \"EXCEPTION_NMI\" }, { 30, \"IO_INSTRUCTION\" }) : __print_symbolic(REC->exit_reason, { 0x07b, \"io\" }, { 0x078, \"hlt\" }), (REC->isa == 1) ? __print_flags(REC->x, \" \", { 1, \"a\" }) : \"\"\n";
        let lists = Format::parse("kvm_exit", print).symbols("exit_reason");
        assert_eq!(lists.len(), 2);
        assert_eq!(lists[0][&30], "IO_INSTRUCTION");
        assert_eq!(lists[1][&0x7b], "io");
        assert_eq!(lists[1][&0x78], "hlt");
    }
}
