//! Markers: the named instants of a start that the probes saw. The client adds its own.

use super::{reading::exec_words, view::View};
use crate::{printable::name as text, probe::Record};
use sandscope_ebpf::event::Direction;

/// Port of the first serial line of a PC: its data, or half of its divisor while the latch of that is open.
const SERIAL_PORT: u32 = 0x3f8;
/// Its line control, and the bit of that which opens the divisor latch (`UART_LCR_DLAB` in `include/uapi/linux/serial_reg.h`).
const LINE_CONTROL: u32 = SERIAL_PORT + 3;
const DIVISOR_LATCH: u32 = 0x80;
/// Console lines that become markers, and characters kept of each: the guest decides how much it prints.
const MAX_CONSOLE_LINES: usize = 200;
const MAX_LINE_BYTES: usize = 160;
/// `KVM_CREATE_VM` (`include/uapi/linux/kvm.h`).
const KVM_CREATE_VM: u64 = 0xae01;

/// A named instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its name.
    pub name: &'static str,
    /// Who saw it: a probe or the client.
    pub source: &'static str,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// More about it, such as the executed file.
    pub detail: Option<String>,
}

/// Takes the first sighting of each kind of marker, and the console's lines.
#[derive(Default)]
struct Markers {
    found: Vec<Marker>,
    line: Vec<u8>,
    lines: usize,
    sets_speed: bool,
}

impl Markers {
    fn first(&mut self, name: &'static str, source: &'static str, at_ns: u64, detail: impl FnOnce() -> Option<String>) {
        if self.found.iter().all(|marker| marker.name != name) {
            self.found.push(Marker { name, source, at_ns, detail: detail() });
        }
    }

    fn console_byte(&mut self, at_ns: u64, byte: u8) {
        self.first("console_first_byte", "kvm_pio", at_ns, || None);
        if byte != b'\n' {
            if self.line.len() < MAX_LINE_BYTES && byte != b'\r' {
                self.line.push(byte);
            }
            return;
        }
        if self.lines < MAX_CONSOLE_LINES {
            self.lines += 1;
            let detail = Some(text(&self.line));
            self.found.push(Marker { name: "console_line", source: "kvm_pio", at_ns, detail });
        }
        self.line.clear();
    }
}

/// The markers that the records of an instance hold.
pub fn markers_of_records(view: &View<'_>) -> Vec<Marker> {
    let View { records, histories, .. } = *view;
    let mut markers = Markers::default();
    for record in records {
        let at_ns = record.header().at_ns;
        match record {
            Record::Exec(exec) => {
                let detail = || Some(exec_words(exec).join(" "));
                markers.first("first_exec", "sched_process_exec", at_ns, detail);
                let history = histories.tasks.iter().find(|history| history.executed_at(exec.header.tid, at_ns));
                let name = match history.map(|history| histories.texts.get(history.role_at(at_ns))) {
                    Some("workload") => "workload_exec",
                    Some("sentry") => "sentry_exec",
                    Some("gofer") => "gofer_exec",
                    _ => continue,
                };
                markers.first(name, "sched_process_exec", at_ns, detail);
            }
            Record::Syscall(call) if call.arg == KVM_CREATE_VM => {
                markers.first("vm_created", "sys_exit", at_ns, || None)
            }
            Record::KvmEntry(_) => markers.first("first_guest_entry", "kvm_entry", at_ns, || None),
            Record::KvmPio(pio) if pio.header.flags == 1 && pio.size == 1 => match pio.port {
                LINE_CONTROL => markers.sets_speed = pio.value & DIVISOR_LATCH != 0,
                SERIAL_PORT if !markers.sets_speed => markers.console_byte(at_ns, pio.value as u8),
                _ => {}
            },
            Record::Listen(listen) => {
                markers.first("listen", "inet_sock_set_state", at_ns, || Some(format!("port {}", listen.port)));
            }
            Record::Frame(frame) => {
                let name = if frame.header.flags == Direction::FromSandbox as u8 {
                    "first_frame_out"
                } else {
                    "first_frame_in"
                };
                let detail = || Some(format!("ethertype {:#06x}, {} bytes", frame.ethertype, frame.bytes));
                markers.first(name, "tc", at_ns, detail);
            }
            _ => {}
        }
    }
    if let Some(at_ns) = histories.first_kvm_run() {
        // Where the host traces no entries, the first KVM_RUN stands for it.
        markers.first("first_guest_entry", "sys_enter", at_ns, || None);
    }
    markers.found.sort_by_key(|marker| marker.at_ns);
    markers.found
}

/// Takes back the delay with which lines of the console were read: where the guest's writes are in the records, a line was there when
/// its last byte was.
pub fn undelay(markers: &mut [Marker], of_records: &[Marker]) {
    for marker in markers.iter_mut().filter(|marker| marker.source == "console") {
        let Some(line) = marker.detail.as_deref().map(str::trim).filter(|line| !line.is_empty()) else { continue };
        let written = of_records.iter().filter(|other| other.name == "console_line" && other.at_ns < marker.at_ns);
        let same = written.filter(|other| other.detail.as_deref().is_some_and(|text| text.trim() == line));
        // Of the same line twice, the one that was read last.
        if let Some(at_ns) = same.map(|other| other.at_ns).max() {
            marker.at_ns = at_ns;
        }
    }
}

/// When the workload's `main` began: so long before its socket listened as it says itself. That instant was seen, or where a sentry
/// listens the workload's first frame follows it at once; else its line on the console or the arrival of its callback stands for it, which
/// is a little later. What a sandbox says is believed as far as it can be: of one that goes on from a snapshot, whose clock stood still, or that claims to be
/// older than its launch, nothing.
pub fn workload_main(markers: &[Marker], since_main_ns: u64, launch_ns: u64) -> Option<Marker> {
    let first = |name: &str| markers.iter().filter(|marker| marker.name == name).map(|marker| marker.at_ns).min();
    if first("restored").is_some() {
        return None;
    }
    let of_sentry = || first("sentry_exec").and_then(|_| first("first_frame_out"));
    let of_guest = || ["guest_listens", "callback"].into_iter().filter_map(first).min();
    let listened_ns = first("listen").or_else(of_sentry).or_else(of_guest)?;
    let at_ns = listened_ns.checked_sub(since_main_ns).filter(|&at_ns| at_ns >= launch_ns)?;
    let detail = Some(format!("{since_main_ns} ns before it listened, by its own clock"));
    Some(Marker { name: "workload_main", source: "client", at_ns, detail })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::{names::Names, testing::*};
    use sandscope_ebpf::event::{Header, Kind, KvmPio};

    #[test]
    fn a_line_was_there_when_it_was_written_not_when_it_was_read() {
        let marker = |name, source, at_ns, line: &str| Marker { name, source, at_ns, detail: Some(line.to_owned()) };
        let mut markers = [
            marker("guest_init", "console", 50, "init: up"),
            marker("guest_app", "console", 90, "init: starts"),
            marker("callback", "client", 80, "init: up"),
        ];
        let of_records = [
            marker("console_line", "kvm_pio", 40, "init: up"),
            marker("first_frame_out", "tc", 45, "init: up"),
            marker("console_line", "kvm_pio", 95, "init: starts"),
        ];
        undelay(&mut markers, &of_records);
        // What is told to be written later than it was read is another line.
        assert_eq!(markers.map(|marker| marker.at_ns), [40, 90, 80]);
    }

    #[test]
    fn main_began_as_long_before_the_socket_listened_as_the_workload_says() {
        let main = |told: &[(&'static str, u64)], since_main_ns| {
            let marker = |&(name, at_ns): &_| Marker { name, source: "test", at_ns, detail: None };
            let markers: Vec<_> = told.iter().map(marker).collect();
            workload_main(&markers, since_main_ns, 100).map(|marker| marker.at_ns)
        };
        let (listen, frame, callback) = (("listen", 150), ("first_frame_out", 160), ("callback", 170));
        assert_eq!(main(&[listen, frame, callback], 20), Some(130));
        // A guest may send before its workload runs, a sentry does not.
        assert_eq!(main(&[frame, callback], 20), Some(150));
        assert_eq!(main(&[("sentry_exec", 110), frame, callback], 20), Some(140));
        assert_eq!(main(&[("guest_listens", 165), callback], 20), Some(145));
        assert_eq!(main(&[listen], 50), Some(100));
        for lie in [51, u64::MAX] {
            assert_eq!(main(&[listen], lie), None);
        }
        assert_eq!(main(&[("restored", 120), callback], 20), None);
        assert_eq!(main(&[], 20), None);
    }

    #[test]
    fn the_speed_of_the_line_is_no_byte() {
        let pio = |at_ns: u64, port, value| {
            let header = Header { flags: 1, ..header(at_ns, PROCESS, Kind::KvmPio) };
            Record::KvmPio(KvmPio { header, port, size: 1, count: 1, value })
        };
        let mut records = vec![pio(10, 0x3fb, 0x83), pio(20, 0x3f8, 1), pio(30, 0x3f9, 0), pio(40, 0x3fb, 0x03)];
        records.extend([(50, b'u'), (60, b'p'), (70, b'\n')].map(|(at_ns, byte)| pio(at_ns, 0x3f8, byte.into())));
        let (histories, names) = (histories(&records), Names::default());
        let markers = markers_of_records(&View { records: &records, histories: &histories, names: &names });
        let told: Vec<_> = markers.iter().map(|marker| (marker.name, marker.at_ns, marker.detail.as_deref())).collect();
        assert_eq!(told, [("console_first_byte", 50, None), ("console_line", 70, Some("up"))]);
    }
}
