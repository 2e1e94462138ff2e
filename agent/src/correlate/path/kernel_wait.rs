//! What a wait in the kernel is for, by the functions that it was called through.
//!
//! Who ended a wait is often no more than a worker of the kernel; the functions tell what it was asked for. Their names are the
//! kernel's own and change: what is known here is a prefix of names that have lasted from 5.15 to 7.x, and a wait whose functions
//! nobody knows stays what it was without them.

use super::charge::Category;

/// Of the innermost functions, how a task leaves the CPU: the same in every wait. Kernels leave most of them out themselves.
const SLEEPS: [&str; 6] =
    ["__schedule", "schedule", "io_schedule", "__cond_resched", "preempt_schedule", "__switch_to"];

/// Of the outermost functions, how a task comes into the kernel: the same in every call.
const ENTRIES: [&str; 10] = [
    "entry_SYSCALL",
    "do_syscall_64",
    "x64_sys_call",
    "asm_exc_page_fault",
    "exc_page_fault",
    "ret_from_fork",
    "el0",
    "do_el0_svc",
    "invoke_syscall",
    "secondary_startup",
];

/// Functions that wait for something, by the beginning of their names, and what that is.
const WAITS: [(&str, Category); 11] = [
    ("synchronize_rcu", Category::Rcu),
    ("synchronize_srcu", Category::Rcu),
    ("__synchronize_srcu", Category::Rcu),
    ("__wait_rcu_gp", Category::Rcu),
    ("rcu_barrier", Category::Rcu),
    ("rcu_sync_enter", Category::Rcu),
    ("exp_funnel_lock", Category::Rcu),
    ("flush_work", Category::Workqueue),
    ("__flush_work", Category::Workqueue),
    ("jbd2_log_wait_commit", Category::Journal),
    ("wait_transaction_locked", Category::Journal),
];

/// The functions between how a task came into the kernel and how it left the CPU, the innermost first.
fn body<T: AsRef<str>>(functions: &[T]) -> &[T] {
    let any = |names: &[&str], function: &T| names.iter().any(|name| function.as_ref().starts_with(name));
    let first = functions.iter().position(|function| !any(&SLEEPS, function)).unwrap_or(functions.len());
    let last = functions.iter().rposition(|function| !any(&ENTRIES, function)).map_or(0, |last| last + 1);
    functions.get(first..last).unwrap_or_default()
}

/// The functions of a wait from the system call's inwards, with `;` between, as flame graphs have them.
pub fn folded<T: AsRef<str>>(functions: &[T]) -> String {
    // Copies that the compiler made of a function are that function: `function.isra.0`.
    let name = |function: &T| function.as_ref().split('.').next().unwrap_or_default().to_owned();
    body(functions).iter().rev().map(name).collect::<Vec<_>>().join(";")
}

/// The function that asked for what is waited for: the innermost of a folded stack that is no way to wait itself.
pub fn asked_by(folded: &str) -> Option<&str> {
    let waits = |function: &str| {
        let known = WAITS.iter().any(|(name, _)| function.starts_with(name));
        known
            || ["wait_for_", "__wait_for_", "__wait_on_", "out_of_line_wait_"]
                .iter()
                .any(|name| function.starts_with(name))
    };
    folded.rsplit(';').find(|function| !waits(function))
}

/// What a wait through these functions is for, the innermost first. A grace period that is waited for to get a lock, or while somebody
/// else has the lock of grace periods, is a grace period.
pub(super) fn category<T: AsRef<str>>(functions: &[T], is_lock: bool) -> Option<Category> {
    let of = |function: &T| WAITS.iter().find(|(name, _)| function.as_ref().starts_with(name)).map(|(_, what)| *what);
    functions.iter().find_map(of).or(is_lock.then_some(Category::Lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_function_that_is_known_tells_what_is_waited_for() {
        let rcu = [
            "__schedule",
            "schedule",
            "schedule_timeout",
            "__wait_for_common",
            "__wait_rcu_gp",
            "synchronize_rcu_normal",
        ];
        let procs = ["rcu_sync_enter", "cgroup_procs_write", "vfs_write.isra.0", "__x64_sys_write", "do_syscall_64"];
        let all: Vec<&str> = rcu.into_iter().chain(procs).chain(["entry_SYSCALL_64_after_hwframe"]).collect();
        let body = body(&all);
        assert_eq!((body.first(), body.last()), (Some(&"__wait_for_common"), Some(&"__x64_sys_write")));
        assert!(folded(&all).starts_with("__x64_sys_write;vfs_write;"));
        assert_eq!(asked_by(&folded(&all)), Some("cgroup_procs_write"));
        assert_eq!(category(body, false), Some(Category::Rcu));
        // Others are at it already.
        assert_eq!(category(&["exp_funnel_lock", "synchronize_rcu_expedited"], true), Some(Category::Rcu));
        let unshare = ["copy_net_ns", "create_new_namespaces", "ksys_unshare"];
        assert_eq!((category(&unshare, true), category(&unshare, false)), (Some(Category::Lock), None));
        assert_eq!(super::body::<&str>(&["__schedule", "schedule"]), [""; 0]);
    }
}
