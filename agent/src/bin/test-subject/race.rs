//! One thing that the first thread waits for or works at, beside others that have no part in it: what a critical path must tell apart.

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{FileExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const PAGE: usize = 4096;

/// Does the main thing, with threads that do others until it is over, and prints when it began and ended (`CLOCK_MONOTONIC`
/// nanoseconds).
pub fn race(beside: &str, main: &str) -> Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let others = beside.split(',').filter(|name| *name != "none");
    for name in others {
        let (name, over) = (name.to_owned(), Arc::clone(&over));
        thread::spawn(move || {
            if let Err(error) = other(&name, &over) {
                eprintln!("{name}: {error:#}");
                std::process::exit(1);
            }
        });
    }
    // All of them are at it by then.
    thread::sleep(Duration::from_millis(5));
    let start_ns = now_ns();
    main_thing(main)?;
    let end_ns = now_ns();
    over.store(true, Ordering::Relaxed);
    writeln!(std::io::stdout(), "{start_ns} {end_ns}")?;
    Ok(())
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn other(name: &str, over: &AtomicBool) -> Result<()> {
    let goes_on = || !over.load(Ordering::Relaxed);
    match name.split_once(':').unwrap_or((name, "")) {
        ("spin", _) => {
            while goes_on() {
                std::hint::spin_loop();
            }
        }
        ("nice", _) => {
            // SAFETY: the call takes numbers alone, and changes this thread's own priority.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
            while goes_on() {
                std::hint::spin_loop();
            }
        }
        ("poll", _) => {
            while goes_on() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        ("touch", _) => {
            while goes_on() {
                let mut memory = vec![0_u8; 64 * PAGE];
                memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
                std::hint::black_box(&memory);
            }
        }
        // Pages are filled in and given back with the lock of the address space held.
        ("populate", pages) => {
            let pages = pages.parse()?;
            while goes_on() {
                map(pages, libc::MAP_POPULATE)?;
            }
        }
        ("direct", path) => {
            let file =
                File::options().read(true).custom_flags(libc::O_DIRECT).open(path).with_context(|| path.to_owned())?;
            let layout = std::alloc::Layout::from_size_align(64 * PAGE, PAGE)?;
            // SAFETY: the layout has a size.
            let memory = unsafe { std::alloc::alloc_zeroed(layout) };
            // SAFETY: all of it was just allocated and set to zero, and nobody else refers to it; it stays until the process ends.
            let buffer = unsafe { std::slice::from_raw_parts_mut(memory, layout.size()) };
            let mut place = 0;
            while goes_on() {
                let read = file.read_at(buffer, place)?;
                place = if read == 0 { 0 } else { place + read as u64 };
            }
        }
        _ => bail!("{name}: nothing that goes on beside others"),
    }
    Ok(())
}

/// Maps so many pages and takes them away again.
fn map(pages: usize, flags: i32) -> Result<()> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address that the kernel chooses, touches no memory that anybody refers to.
    let memory =
        unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).context("mmap");
    }
    // SAFETY: the whole of the mapping that was just made, which nobody refers to.
    if unsafe { libc::munmap(memory, pages * PAGE) } != 0 {
        return Err(std::io::Error::last_os_error()).context("munmap");
    }
    Ok(())
}

fn main_thing(what: &str) -> Result<()> {
    let (name, how) = what.split_once(':').context("a main thing has a measure")?;
    match name {
        "sleep" => thread::sleep(Duration::from_millis(how.parse()?)),
        "sleeps" => (0..how.parse::<u32>()?).for_each(|_| thread::sleep(Duration::from_millis(10))),
        "rcu" => {
            for _ in 0..how.parse::<u32>()? {
                // SAFETY: the call takes numbers alone; it waits for a grace period.
                let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
                if result != 0 {
                    return Err(std::io::Error::last_os_error()).context("membarrier");
                }
            }
        }
        // The list of mounts can't be read while a namespace is copied.
        "mounts" => {
            for _ in 0..how.parse::<u32>()? {
                std::fs::read("/proc/self/mountinfo")?;
            }
        }
        "maps" => {
            for _ in 0..how.parse::<u32>()? {
                map(1, 0)?;
            }
        }
        "touch" => {
            let mut memory = vec![0_u8; how.parse::<usize>()? * PAGE];
            // SAFETY: the range is inside of the vector, and this advice changes no content. A huge page would be one fault for 512.
            unsafe {
                libc::madvise(
                    memory.as_mut_ptr().cast(),
                    memory.len() / (PAGE * 512) * (PAGE * 512),
                    libc::MADV_NOHUGEPAGE,
                )
            };
            memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            std::hint::black_box(&memory);
        }
        // Somebody else sleeps, computes for a twelfth of that, and is waited for.
        "join" => {
            let time = Duration::from_millis(how.parse()?);
            let other = thread::spawn(move || {
                thread::sleep(time);
                let end = std::time::Instant::now() + time / 12;
                while std::time::Instant::now() < end {
                    std::hint::spin_loop();
                }
            });
            if other.join().is_err() {
                bail!("the other thread panicked");
            }
        }
        "ask" => {
            let mut stream = UnixStream::connect(how).with_context(|| how.to_owned())?;
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0])?;
        }
        _ => bail!("{what}: no main thing"),
    }
    Ok(())
}
