//! Virtual machines whose guests do not do well: what is wrong is named, with what the guest said last, in time, and the rest of
//! the run goes on. And what is particular about their networks and machines.
//!
//! Needs root. What the host lacks is skipped aloud, as in the other tests.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and reports on its standard output, helpers included"
)]

use crate::common::{
    bench::{Bench, PATIENCE, await_ready, fails, floor_that_begins_with, kind, virtual_machine, workload_executable},
    dataset::rows,
    disturbance::undisturbed,
    program::printing,
};
use anyhow::ensure;
use sandscope::{
    host::virtualization,
    sandbox::{
        Sandbox, Support,
        network::Coupling,
        resources::FileSharing,
        vm::{
            Vm,
            qemu::{Accelerator, Qemu},
        },
    },
    testing::skip,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long evidence may go unreported, beyond the interval at which instances are asked.
const A_SECOND: Duration = Duration::from_secs(1);

/// Linux in QEMU without KVM, which every host can run; or a reported skip.
fn linux(test: &str, workload: &str) -> Option<Vm<Qemu>> {
    let machine = virtual_machine(Qemu::by(Accelerator::Tcg), "linux", workload);
    if let Support::Unsupported { evidence, remedy } = machine.support() {
        skip(test, "qemu-tcg-linux", format!("{evidence}: {remedy}"));
        return None;
    }
    if machine.initrd.is_none() {
        let reason = format!("no image with the workload {workload}: `cargo xtask workloads` and `cargo xtask images`");
        skip(test, "qemu-tcg-linux", reason);
        return None;
    }
    Some(machine)
}

/// The floor in QEMU, by each accelerator that this host has; the other is a reported skip.
fn floors(test: &str) -> Vec<(&'static str, Vm<Qemu>)> {
    let all = [("qemu-floor", Accelerator::Kvm), ("qemu-tcg-floor", Accelerator::Tcg)];
    let usable = all.into_iter().filter_map(|(name, accelerator)| match kind(name) {
        Ok(_) => Some((name, virtual_machine(Qemu::by(accelerator), "floor", "rust"))),
        Err(reason) => {
            skip(test, name, reason);
            None
        }
    });
    usable.collect()
}

/// Prepares an instance that can't be; returns why, having checked that nothing is left.
fn refused(bench: &Bench, label: &str, sandbox: &dyn Sandbox) -> String {
    let error = sandbox.prepare(&bench.specification(label, Path::new("/unused"))).err();
    let error = format!("{:#}", error.unwrap_or_else(|| panic!("{label} can be")));
    assert_eq!(bench.leftovers(label), [""; 0], "{error}");
    error
}

/// An entry of a cpio archive and its end: what stands in a later archive of an initial RAM disk replaces what was before.
fn archive_of_one_file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in [(name, 0o100_755, content), ("TRAILER!!!", 0, &[])] {
        let size = u32::try_from(content.len()).unwrap();
        let fields = [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, u32::try_from(name.len() + 1).unwrap(), 0];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        archive.extend(format!("070701{header}{name}\0").bytes());
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// The machine with another program in place of its workload.
fn with_app(bench: &Bench, machine: &Vm<Qemu>, app: &[u8]) -> Vm<Qemu> {
    let image = bench.base.join("initrd-with-app");
    let content = [fs::read(machine.initrd.as_ref().unwrap()).unwrap(), archive_of_one_file("app", app)].concat();
    fs::write(&image, content).unwrap();
    Vm { initrd: Some(image), ..machine.clone() }
}

// ---- images that can't boot -----------------------------------------------------------------------------------------

#[test]
fn a_kernel_that_is_none_is_named_before_anything_starts() {
    const TEST: &str = "a_kernel_that_is_none_is_named_before_anything_starts";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let whole = fs::read(machine.kernel.as_ref().unwrap()).unwrap();
    let mut number = 0;
    let mut wrong = |content: &[u8], expected: &str| {
        number += 1;
        let kernel = bench.base.join("the-kernel");
        fs::write(&kernel, content).unwrap();
        let error =
            refused(&bench, &format!("kernel{number}"), &Vm { kernel: Some(kernel.clone()), ..machine.clone() });
        assert!(error.contains(expected) && error.contains(kernel.to_str().unwrap()), "{error}");
        fs::remove_file(kernel).unwrap();
    };
    wrong(b"#!/bin/sh\n", "no ELF executable and no Linux bzImage");
    wrong(b"", "is empty");
    let mut other = whole.clone();
    other[18] = 183;
    wrong(&other, "another machine (ELF machine 183, not 62)");
    wrong(&whole[..whole.len() / 2], "cut off");
    let missing = Vm { kernel: Some("/nowhere/kernel".into()), ..machine.clone() };
    assert!(refused(&bench, "kernel9", &missing).contains("/nowhere/kernel"));
}

#[test]
fn an_initial_ram_disk_that_is_missing_or_cut_off_is_named_before_anything_starts() {
    const TEST: &str = "an_initial_ram_disk_that_is_missing_or_cut_off_is_named_before_anything_starts";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let missing = Vm { initrd: Some("/nowhere/initrd".into()), ..machine.clone() };
    assert!(refused(&bench, "disk1", &missing).contains("/nowhere/initrd"));
    let disk = bench.base.join("the-disk");
    let whole = fs::read(machine.initrd.as_ref().unwrap()).unwrap();
    for (label, content, expected) in
        [("disk2", &whole[..whole.len() / 2], "cut off"), ("disk3", b"text".as_slice(), "no cpio archive")]
    {
        fs::write(&disk, content).unwrap();
        let error = refused(&bench, label, &Vm { initrd: Some(disk.clone()), ..machine.clone() });
        assert!(error.contains(expected) && error.contains(disk.to_str().unwrap()), "{error}");
    }
    fs::remove_file(disk).unwrap();
    // Of a workload that nobody has built an image for.
    let mut unbuilt = bench.specification("disk4", Path::new("/unused"));
    unbuilt.workload.name = "unheard-of".into();
    let error = Vm { initrd: None, ..machine }.prepare(&unbuilt).err().unwrap().to_string();
    assert!(error.contains("linux/unheard-of/initrd") && error.contains("cargo xtask images"), "{error}");
}

#[test]
fn a_disk_that_is_none_or_cut_off_is_named_before_anything_starts() {
    const TEST: &str = "a_disk_that_is_none_or_cut_off_is_named_before_anything_starts";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let whole = fs::read(machine.data.as_ref().expect("`cargo xtask images` makes it")).unwrap();
    let disk = bench.base.join("the-disk");
    for (label, content, expected) in
        [("data1", &whole[..whole.len() / 2], "cut off"), ("data2", &[7; 4096], "no ext4 file system")]
    {
        fs::write(&disk, content).unwrap();
        let error = refused(&bench, label, &Vm { data: Some(disk.clone()), ..machine.clone() });
        assert!(error.contains(expected) && error.contains(disk.to_str().unwrap()), "{error}");
    }
    fs::remove_file(disk).unwrap();
}

#[test]
fn a_guest_has_the_file_if_a_disk_of_its_has_it() {
    let has_file = |machine: Vm<Qemu>| machine.abilities().host_file;
    let linux = virtual_machine(Qemu::by(Accelerator::Tcg), "linux", "rust");
    assert!(has_file(Vm {
        data: Some("/any/disk".into()),
        kernel: Some("/any".into()),
        initrd: Some("/any".into()),
        ..linux
    }));
    // A unikernel takes no disk but the one it boots from, and only a person knows what is on that.
    let nanos = Vm { drive: Some("/any/drive".into()), ..virtual_machine(Qemu::by(Accelerator::Tcg), "nanos", "go") };
    assert!(!has_file(nanos.clone()));
    assert!(has_file(Vm { holds_file: true, ..nanos.clone() }));
    assert!(!has_file(Vm { data: Some("/any/disk".into()), ..nanos }), "it has no use for one");
}

#[test]
fn what_can_not_be_is_refused_with_what_can() {
    const TEST: &str = "what_can_not_be_is_refused_with_what_can";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let mut little = bench.specification("little", Path::new("/unused"));
    little.resources.memory_bytes = Some(64 << 20);
    let error = format!("{:#}", machine.prepare(&little).err().unwrap());
    assert!(error.contains("64M of memory are too little for the guest `linux`"), "{error}");
    let mut shared = bench.specification("shared", Path::new("/unused"));
    shared.network = sandscope::sandbox::network::Mode::Host;
    let error = format!("{:#}", machine.prepare(&shared).err().unwrap());
    assert!(error.contains("--network private"), "{error}");
    let drive = Vm { drive: Some("/dev/null".into()), ..machine };
    assert!(refused(&bench, "drive", &drive).contains("has no use for a drive"));
}

// ---- guests that die ------------------------------------------------------------------------------------------------

#[test]
fn a_guest_that_panics_is_quoted_whether_its_vmm_ends_or_not() {
    const TEST: &str = "a_guest_that_panics_is_quoted_whether_its_vmm_ends_or_not";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let pattern = machine.guest.command_line.unwrap();
    let ending = Vm { command_line: Some(format!("rdinit=/nowhere root=/dev/none {pattern}")), ..machine.clone() };
    let (failure, _) = fails(&bench, "panic1", &ending, None);
    assert!(failure.contains("the guest reset its machine") && failure.contains("Kernel panic"), "{failure}");
    let staying = pattern.replace("panic=-1", "panic=0");
    let staying = Vm { command_line: Some(format!("rdinit=/nowhere root=/dev/none {staying}")), ..machine };
    undisturbed(|| {
        let bench = Bench::new();
        let (failure, since) = fails(&bench, "panic2", &staying, Some("guest_died"));
        assert!(failure.contains("dead although its VMM lives: it said `"), "{failure}");
        assert!(failure.contains("Kernel panic - not syncing"), "{failure}");
        ensure!(since.unwrap() < A_SECOND, "{since:?} after its last words: {failure}");
        Ok(())
    });
}

#[test]
fn a_guest_whose_workload_ends_is_quoted_with_its_exit_status() {
    const TEST: &str = "a_guest_whose_workload_ends_is_quoted_with_its_exit_status";
    let Some(machine) = linux(TEST, "rust") else { return };
    undisturbed(|| {
        let bench = Bench::new();
        let machine = with_app(&bench, &machine, &printing("I give up\u{1b}[31m, sorry\n", false));
        let (failure, since) = fails(&bench, "quits", &machine, Some("guest_died"));
        assert!(failure.contains("the workload ended with exit status: 3"), "{failure}");
        assert!(failure.contains(r"I give up\u{1b}[31m, sorry"), "{failure}");
        ensure!(since.unwrap() < A_SECOND, "{since:?} after its last words: {failure}");
        Ok(())
    });
}

#[test]
fn a_guest_that_floods_its_console_is_drained_and_bounded() {
    const TEST: &str = "a_guest_that_floods_its_console_is_drained_and_bounded";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let machine = with_app(&bench, &machine, &printing(&"all work and no play ".repeat(2000), true));
    let mut instance = machine.prepare(&bench.specification("flood", Path::new("/unused"))).unwrap();
    instance.launch().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // More than a pipe and the console's tail hold; an emulated serial line is slow.
    while instance.console().total_bytes() < 200_000 {
        assert_eq!(instance.failure(), None);
        assert!(Instant::now() < deadline, "{} bytes only", instance.console().total_bytes());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(instance.console().tail().len() <= sandscope::sandbox::console::TAIL_BYTES);
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("flood"), [""; 0]);
}

#[test]
fn a_triple_fault_is_named_although_its_vmm_ends_well() {
    const TEST: &str = "a_triple_fault_is_named_although_its_vmm_ends_well";
    for (name, machine) in floors(TEST) {
        let bench = Bench::new();
        // ud2, without a table of interrupts.
        let machine = floor_that_begins_with(&bench, &machine, &[0x0f, 0x0b]);
        let began = Instant::now();
        let (failure, _) = fails(&bench, "triple", &machine, None);
        println!("{name}: told after {:?}: {failure}", began.elapsed());
        assert!(failure.contains("triple fault"), "{name}: {failure}");
        // With software emulation QEMU may take longer to end than a dead guest may go untold.
        let ended = failure.contains("exit status: 0");
        let lives = name.contains("tcg") && failure.contains("although its VMM lives");
        assert!(ended || lives, "{name}: {failure}");
    }
}

#[test]
fn a_machine_that_ends_before_its_service_is_named_with_its_status() {
    const TEST: &str = "a_machine_that_ends_before_its_service_is_named_with_its_status";
    for (name, machine) in floors(TEST) {
        let bench = Bench::new();
        let mut machine = Vm { command_line: Some("pio=3".into()), ..machine };
        machine.vmm.arguments = ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"].map(str::to_owned).into();
        let (failure, _) = fails(&bench, "ends", &machine, None);
        // What the guest writes there, doubled and made odd.
        assert!(failure.contains("exit status: 33") && failure.contains("sandscope floor: done"), "{name}: {failure}");
    }
}

#[test]
fn a_guest_that_kvm_can_not_go_on_with_is_named_within_a_second() {
    const TEST: &str = "a_guest_that_kvm_can_not_go_on_with_is_named_within_a_second";
    if virtualization::hardware().is_ok() {
        return skip(TEST, "kvm-interpreter", "this KVM runs every instruction on the CPU");
    }
    let Some((_, machine)) = floors(TEST).into_iter().find(|(name, _)| *name == "qemu-floor") else { return };
    undisturbed(|| {
        let bench = Bench::new();
        // fld1, which a KVM that interprets kernels does not know.
        let machine = floor_that_begins_with(&bench, &machine, &[0xd9, 0xe8]);
        let began = Instant::now();
        let (failure, _) = fails(&bench, "internal", &machine, None);
        let took = began.elapsed();
        println!("told after {took:?}: {failure}");
        assert!(failure.contains("dead although its VMM lives") && failure.contains("internal-error"), "{failure}");
        // QEMU's own words, which are not the guest's.
        assert!(failure.contains("Its VMM says: KVM internal error"), "{failure}");
        ensure!(took < A_SECOND + A_SECOND, "{took:?} after its start");
        Ok(())
    });
}

#[test]
fn a_vmm_that_can_not_start_is_quoted() {
    const TEST: &str = "a_vmm_that_can_not_start_is_quoted";
    let Some((_, mut machine)) = floors(TEST).pop() else { return };
    let bench = Bench::new();
    machine.vmm.cpu = Some("no-such-cpu".into());
    let (failure, _) = fails(&bench, "cpu", &machine, None);
    assert!(failure.contains("exit status: 1") && failure.contains("no-such-cpu"), "{failure}");
    machine.vmm.executable = Some("/nowhere/qemu".into());
    let mut instance = machine.prepare(&bench.specification("nowhere", Path::new("/unused"))).unwrap();
    let error = format!("{:#}", instance.launch().unwrap_err());
    assert!(error.contains("could not execute /nowhere/qemu"), "{error}");
}

// ---- in a run -------------------------------------------------------------------------------------------------------

#[test]
fn a_run_goes_on_after_guests_that_fail_each_in_its_way() {
    const TEST: &str = "a_run_goes_on_after_guests_that_fail_each_in_its_way";
    let Some(machine) = linux(TEST, "rust") else { return };
    let home = tempfile::tempdir().unwrap();
    let (config, out, kernel) = (home.path().join("x.toml"), home.path().join("out"), home.path().join("kernel"));
    fs::write(&kernel, "no kernel").unwrap();
    let pattern = machine.guest.command_line.unwrap();
    // Nobody is called back by the second, and the third has a panic before it has an init.
    let text = format!(
        "[sandbox.wrong]\nkind = \"qemu\"\nguest = \"linux\"\nkernel = \"{}\"\nvmm.accelerator = \"tcg\"\n\
         [sandbox.mute]\nkind = \"qemu\"\nguest = \"linux\"\nvmm.accelerator = \"tcg\"\ncommand-line = \"{}\"\n\
         [sandbox.panics]\nkind = \"qemu\"\nguest = \"linux\"\nvmm.accelerator = \"tcg\"\ncommand-line = \"{}\"\n",
        kernel.display(),
        pattern.replace("%app", "ignore --port %port"),
        format_args!("rdinit=/nowhere root=/dev/none {pattern}"),
    );
    fs::write(&config, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sandscope"))
        .env("SANDSCOPE_WORKLOADS", concat!(env!("CARGO_MANIFEST_DIR"), "/../target/workloads"))
        .args(["run", "cold-start", "--no-probes", "-n", "1", "--timeout", "45", "--seed", "1"])
        .args(["--sandbox", "wrong,mute,panics,process", "--config", config.to_str().unwrap()])
        .args(["--out", out.to_str().unwrap()])
        .output()
        .unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let instances = rows(&out, "instances");
    assert_eq!(instances.len(), 4);
    for (sandbox, expected) in [
        ("wrong", "no ELF executable"),
        ("mute", "not ready within 45s (--timeout); the last lines of its console: "),
        ("mute", "listening on 0.0.0.0:8080"),
        ("panics", "Kernel panic"),
    ] {
        let instance = instances.iter().find(|row| row.text("sandbox") == sandbox).unwrap();
        assert_eq!(instance.number("ok"), Some(0), "{sandbox}");
        assert!(instance.text("error").contains(expected), "{sandbox}: {}", instance.text("error"));
    }
    let process = instances.iter().find(|row| row.text("sandbox") == "process").unwrap();
    assert_eq!(process.number("ok"), Some(1), "{}", process.text("error"));
    // How far it came is in the tables although it failed.
    let of_mute = instances.iter().find(|row| row.text("sandbox") == "mute").unwrap().text("instance_id").to_owned();
    let markers = rows(&out, "markers");
    let reached: Vec<_> = markers.iter().filter(|row| row.text("instance_id") == of_mute).collect();
    assert!(reached.iter().any(|row| row.text("marker") == "guest_app"));
}

// ---- what is particular ---------------------------------------------------------------------------------------------

#[test]
fn three_lives_of_a_linux_guest_leave_nothing() {
    const TEST: &str = "three_lives_of_a_linux_guest_leave_nothing";
    for workload in ["rust", "go"] {
        let Some(machine) = linux(TEST, workload) else { continue };
        for number in 0..3 {
            let (bench, label) = (Bench::new(), format!("{workload}{number}"));
            let mut instance = machine.prepare(&bench.specification(&label, Path::new("/unused"))).unwrap();
            let guest = instance.network().unwrap().guest.unwrap();
            println!("{workload}: {}", guest.coupling.name());
            instance.launch().unwrap();
            await_ready(&bench.callback, &label, &mut *instance);
            let reached: Vec<_> = instance.console().reached().iter().map(|reached| reached.marker).collect();
            assert_eq!(reached[..3], ["console_first_byte", "guest_init", "guest_app"]);
            // What it prints right before its callback may be read a moment later.
            assert!(["guest_listens"; 1].starts_with(&reached[3..]), "{reached:?}");
            instance.stop().unwrap();
            assert_eq!(bench.leftovers(&label), [""; 0]);
        }
    }
}

#[test]
fn a_guest_sends_the_first_frame_itself() {
    const TEST: &str = "a_guest_sends_the_first_frame_itself";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let mut instance = machine.prepare(&bench.specification("quiet", Path::new("/unused"))).unwrap();
    let interface = instance.network().unwrap().host_interface.clone();
    let frames = || {
        let count = |name| {
            let path = format!("/sys/class/net/{interface}/statistics/{name}");
            fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
        };
        (count("rx_packets"), count("tx_packets"))
    };
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(frames(), (0, 0), "frames before there is a guest");
    instance.launch().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Until the guest's workload starts: nothing that it does not send itself. The frames are read first, so that those which come
    // while the console is looked at are none of before.
    loop {
        let seen = frames();
        if instance.console().reached().iter().any(|reached| reached.marker == "guest_init") {
            break;
        }
        assert_eq!(seen, (0, 0), "frames before there is an init");
        assert!(Instant::now() < deadline, "{:?}", instance.console().last_lines(9));
        std::thread::sleep(Duration::from_millis(2));
    }
    await_ready(&bench.callback, "quiet", &mut *instance);
    let (received, sent) = frames();
    assert!(received > 0 && sent > 0, "{received} {sent}");
    instance.stop().unwrap();
}

#[test]
fn a_vmm_tells_whether_its_guest_merges_receive_buffers() {
    const TEST: &str = "a_vmm_tells_whether_its_guest_merges_receive_buffers";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    // Linux accepts it wherever it is offered.
    let unoffered = ["-global", "virtio-net-device.mrg_rxbuf=off"].map(str::to_owned).to_vec();
    for (label, arguments, expected) in [("merge1", Vec::new(), true), ("merge2", unoffered, false)] {
        let vmm = Qemu { arguments, ..machine.vmm.clone() };
        let mut instance =
            Vm { vmm, ..machine.clone() }.prepare(&bench.specification(label, Path::new("/unused"))).unwrap();
        instance.launch().unwrap();
        await_ready(&bench.callback, label, &mut *instance);
        assert_eq!(instance.mergeable_buffers(), Some(expected), "{label}");
        instance.stop().unwrap();
    }
}

#[test]
fn a_guest_has_the_memory_vcpus_and_files_that_were_asked_for() {
    const TEST: &str = "a_guest_has_the_memory_vcpus_and_files_that_were_asked_for";
    let Some(machine) = linux(TEST, "rust") else { return };
    let bench = Bench::new();
    let mut specification = bench.specification("large", Path::new("/unused"));
    specification.resources.memory_bytes = Some(384 << 20);
    specification.resources.vcpus = Some(2);
    specification.resources.console = false;
    specification.resources.files = FileSharing::Copy;
    let mut instance = machine.prepare(&specification).unwrap();
    let conditions = instance.conditions();
    for (name, value) in [
        ("memory", "384M"),
        ("vcpus", "2"),
        ("files", "a copy of the images"),
        ("accelerator", "tcg"),
        ("machine", "microvm"),
    ] {
        assert_eq!(conditions[name], value, "{conditions:?}");
    }
    assert!(
        instance.files().iter().skip(1).all(|file| file.starts_with(&specification.directory)),
        "{:?}",
        instance.files()
    );
    instance.launch().unwrap();
    await_ready(&bench.callback, "large", &mut *instance);
    assert_eq!(instance.console().total_bytes(), 0, "it has no console");
    let process = vmm_of(&specification.directory);
    let threads = fs::read_dir(process.join("task")).unwrap().flatten();
    let names = threads.map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap());
    assert_eq!(names.filter(|name| name.starts_with("CPU ")).count(), 2);
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("large"), [""; 0]);
}

/// `/proc/PID` of the process that an instance started.
fn vmm_of(directory: &Path) -> PathBuf {
    let mark = format!("SANDSCOPE_INSTANCE={}\0", directory.display());
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let marked = |process: &PathBuf| {
        fs::read(process.join("environ")).is_ok_and(|environment| String::from_utf8_lossy(&environment).contains(&mark))
    };
    processes.into_iter().find(marked).expect("a process of the instance")
}

#[test]
fn a_guest_with_built_in_addresses_gets_its_gateway_unless_the_host_uses_it() {
    const TEST: &str = "a_guest_with_built_in_addresses_gets_its_gateway_unless_the_host_uses_it";
    let Some(machine) = linux(TEST, "rust") else { return };
    let executable = match workload_executable() {
        Ok(executable) => executable,
        Err(reason) => return skip(TEST, "workload", reason),
    };
    let bench = Bench::new();
    let addresses = sandscope::sandbox::network::Addresses {
        host: "198.19.255.1".parse().unwrap(),
        sandbox: "198.19.255.2".parse().unwrap(),
        prefix_length: 24,
    };
    // As an image would be: nothing of the run is in its command line, and it is ready when it says so.
    let fixed = Vm {
        network: Some(addresses),
        command_line: Some("console=ttyS0 quiet panic=-1 ipv6.disable=1 tsc=reliable tsc_early_khz=%tsc -- 198.19.255.2/24 198.19.255.1 ignore".into()),
        ready_line: Some("listening on".into()),
        ..machine
    };
    let mut instance = fixed.prepare(&bench.specification("fixed1", &executable)).unwrap();
    assert_eq!(instance.network().unwrap().guest.unwrap().coupling, Coupling::Redirect);
    // The first one has them now.
    let error = refused(&bench, "fixed2", &fixed);
    assert!(error.contains("198.19.255.2") && error.contains("ip route"), "{error}");
    instance.launch().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let line = instance.console().milestone("guest_listens");
    let line = runtime.block_on(async { tokio::time::timeout(PATIENCE, line).await });
    assert!(line.unwrap().is_some(), "{:?}", instance.failure());
    assert!(crate::common::bench::get(&*instance).starts_with("HTTP/1.1 200"));
    instance.stop().unwrap();
    assert_eq!(bench.leftovers("fixed1"), [""; 0]);
}
