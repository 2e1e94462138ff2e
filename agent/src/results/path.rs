//! Elements of the critical path as people speak of them: the rows of `attribution`, added up over threads, phases and instances.

use crate::{
    correlate::asked_by,
    record::tables::{Attribution, AttributionSlice, HeldLock, Saving},
};

/// What time on the critical path was spent on, whichever thread and instance it was. Objects that differ in their folders alone, as
/// the cgroup files of instances do, are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathElement {
    /// Category, as in `attribution`.
    pub category: String,
    /// Role of the threads.
    pub role: Option<String>,
    /// System call, or `page fault`.
    pub syscall: Option<String>,
    /// What that is about, without its folders.
    pub object: Option<String>,
    /// More.
    pub detail: Option<String>,
    /// Function of the kernel that asked for what it waits for.
    pub function: Option<String>,
}

impl PathElement {
    /// What a row of `attribution` is about.
    pub fn of(row: &Attribution) -> Self {
        let words = [&row.role, &row.syscall, &row.object, &row.detail];
        Self::of_words(&row.category, words, row.stack.as_deref())
    }

    /// What a row of `attribution_slices` is about.
    pub fn of_slice(row: &AttributionSlice) -> Self {
        let words = [&row.role, &row.syscall, &row.object, &row.detail];
        Self::of_words(&row.category, words, row.stack.as_deref())
    }

    /// What a row of `savings` takes away.
    pub fn of_saving(row: &Saving) -> Self {
        Self::of_words(&row.category, [&row.role, &row.syscall, &row.object, &row.detail], None)
    }

    /// What a row of `held_locks` is about.
    pub fn of_held_lock(row: &HeldLock) -> Self {
        let (role, held_by) = (Some(row.role.clone()), Some(row.held_by.clone()));
        Self::of_words("lock", [&role, &row.syscall, &row.object, &held_by], Some(&row.stack))
    }

    fn of_words(category: &str, words: [&Option<String>; 4], stack: Option<&str>) -> Self {
        let [role, syscall, object, detail] = words.map(Option::as_deref);
        Self {
            category: category.to_owned(),
            role: role.map(str::to_owned),
            syscall: syscall.map(str::to_owned),
            object: object.map(without_folders),
            detail: detail.map(str::to_owned),
            function: stack.and_then(asked_by).map(str::to_owned),
        }
    }

    /// The same as the table `savings` has it: without who had the CPU, and which timer it was.
    #[must_use]
    pub fn removable(&self) -> Self {
        let detail = self.detail.clone().filter(|_| self.category == "exit");
        Self { detail, function: None, ..self.clone() }
    }

    /// The call with what it is about, such as `write(…/cgroup.procs)`.
    pub fn call(&self) -> Option<String> {
        let call = self.syscall.as_deref()?;
        Some(match &self.object {
            _ if call == "page fault" => "a page fault".to_owned(),
            // Of an `ioctl` the request is known.
            Some(object) => match call.strip_suffix(')') {
                Some(request) => format!("{request}, {object})"),
                None => format!("{call}({object})"),
            },
            None => call.to_owned(),
        })
    }

    /// What the time was spent on, in words, without who spent it.
    pub fn what(&self) -> String {
        let place = self.call().map_or(String::new(), |call| format!(" in {call}"));
        let detail = || self.detail.as_deref().unwrap_or("something");
        match self.category.as_str() {
            "guest" => "guest code".to_owned(),
            "exit" => format!("handling VM exits ({})", detail()),
            "kvm_run" => "guest code or the handling of its exits".to_owned(),
            "user" => "own code".to_owned(),
            "fault" => "page faults of own code".to_owned(),
            "interrupt" => "interrupts during own code".to_owned(),
            "kernel" => format!("kernel{place}"),
            "runnable" => match self.detail.as_deref() {
                None => "runnable but not running".to_owned(),
                Some("idle CPU") => "runnable but not running, while an idle CPU woke up".to_owned(),
                Some(who) => format!("runnable but not running, while {who} had the CPU"),
            },
            "throttled" => "throttled by its CPU limit".to_owned(),
            "block_io" => format!("waiting for a disk ({}){place}", detail()),
            "rcu" => format!("waiting for an RCU grace period{place}{}", self.by_function()),
            "lock" => format!("waiting for a lock of the kernel that {} held{place}{}", detail(), self.by_function()),
            "workqueue" => format!("waiting for a worker of the kernel{place}{}", self.by_function()),
            "journal" => format!("waiting for the journal of a file system{place}{}", self.by_function()),
            "timer" => format!("sleeping on a timer{place}"),
            "network" => format!("waiting for a packet{place}"),
            "device" => format!("waiting for {}{place}", detail()),
            "outside" => format!("waiting for {}, outside the sandbox{place}{}", detail(), self.by_function()),
            "unattributed" => match &self.detail {
                Some(why) => format!("not explained: {why}"),
                None => "not explained".to_owned(),
            },
            other => format!("{other}{place}"),
        }
    }

    fn by_function(&self) -> String {
        self.function.as_ref().map_or_else(String::new, |function| format!(", by {function}"))
    }

    /// Who spent the time and where, in words, where the category is known already.
    pub fn place(&self) -> String {
        let place = match self.category.as_str() {
            "kernel" | "block_io" | "timer" | "network" | "device" => {
                self.call().map_or(String::new(), |call| format!(" in {call}"))
            }
            "rcu" | "lock" | "workqueue" | "journal" | "outside" => {
                format!("{}{}", self.call().map_or(String::new(), |call| format!(" in {call}")), self.by_function())
            }
            _ => String::new(),
        };
        let detail = match (self.category.as_str(), self.detail.as_deref()) {
            ("runnable", Some("idle CPU")) => " while an idle CPU woke up".to_owned(),
            ("runnable", Some(who)) => format!(" while {who} had the CPU"),
            ("lock", Some(holder)) => format!(" (held by {holder})"),
            ("exit" | "block_io" | "device" | "outside" | "unattributed", Some(detail)) => format!(" ({detail})"),
            _ => String::new(),
        };
        format!("{}{place}{detail}", self.role.as_deref().unwrap_or("nobody"))
    }

    /// Who spent the time on what, in words.
    pub fn words(&self) -> String {
        match &self.role {
            Some(role) => format!("{role}: {}", self.what()),
            None => self.what(),
        }
    }

    /// As the key of an evidence.
    pub fn key(&self) -> String {
        let part = |name: &str, value: &Option<String>| {
            value.as_ref().map_or_else(String::new, |value| format!(" {name}={value}"))
        };
        format!(
            "category={}{}{}{}{}{}",
            self.category,
            part("role", &self.role),
            part("syscall", &self.syscall),
            part("object", &self.object),
            part("detail", &self.detail),
            part("function", &self.function)
        )
    }
}

/// A category of the critical path in words.
pub fn category_words(category: &str) -> &'static str {
    match category {
        "guest" => "guest code",
        "exit" => "handling VM exits",
        "kvm_run" => "guest code or the handling of its exits",
        "user" => "own code",
        "fault" => "page faults of own code",
        "interrupt" => "interrupts during own code",
        "kernel" => "kernel",
        "runnable" => "runnable but not running",
        "throttled" => "throttled by a CPU limit",
        "block_io" => "waiting for a disk",
        "rcu" => "waiting for RCU grace periods",
        "lock" => "waiting for locks of the kernel",
        "workqueue" => "waiting for workers of the kernel",
        "journal" => "waiting for the journal of a file system",
        "timer" => "sleeping on timers",
        "network" => "waiting for packets",
        "device" => "waiting for devices",
        "outside" => "waiting for others outside the sandbox",
        _ => "not explained",
    }
}

/// `cgroup:/sandscope/a1b2/cgroup.procs` becomes `…/cgroup.procs`: the folders are an instance's own. What is no path stays as it is.
pub fn without_folders(object: &str) -> String {
    // Sockets and the like have no path, or one that all instances share.
    let is_path = !object.starts_with("socket ");
    match object.rsplit_once('/').filter(|_| is_path) {
        Some((folders, name)) if !folders.is_empty() && !name.is_empty() => format!("…/{name}"),
        _ => object.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_told_as_an_engineer_would_tell_them() {
        let element = |category: &str, syscall: Option<&str>, object: Option<&str>, detail: Option<&str>| PathElement {
            category: category.to_owned(),
            role: Some("runtime".to_owned()),
            syscall: syscall.map(str::to_owned),
            object: object.map(without_folders),
            detail: detail.map(str::to_owned),
            function: None,
        };
        let rcu = element("rcu", Some("write"), Some("cgroup:/a/b/cgroup.procs"), Some("rcu_preempt"));
        assert_eq!(rcu.words(), "runtime: waiting for an RCU grace period in write(…/cgroup.procs)");
        let queue = element("runnable", None, None, Some("stress-ng"));
        assert_eq!(queue.words(), "runtime: runnable but not running, while stress-ng had the CPU");
        assert_eq!(element("kernel", Some("execve"), None, None).words(), "runtime: kernel in execve");
        assert_eq!(
            element("block_io", Some("page fault"), None, Some("device 8:0")).what(),
            "waiting for a disk (device 8:0) in a page fault"
        );
        let ioctl = element("kernel", Some("ioctl(KVM_CREATE_VM)"), Some("/kvm"), None);
        assert_eq!(ioctl.what(), "kernel in ioctl(KVM_CREATE_VM, /kvm)");
        assert_eq!(queue.removable().detail, None);
        let lock = PathElement {
            function: asked_by("__x64_sys_unshare;ksys_unshare;copy_net_ns").map(str::to_owned),
            ..element("lock", Some("unshare"), None, Some("runc"))
        };
        assert_eq!(lock.words(), "runtime: waiting for a lock of the kernel that runc held in unshare, by copy_net_ns");
        assert_eq!(lock.place(), "runtime in unshare, by copy_net_ns (held by runc)");
        assert_eq!(rcu.key(), "category=rcu role=runtime syscall=write object=…/cgroup.procs detail=rcu_preempt");
    }

    #[test]
    fn only_folders_are_left_out() {
        let kept = ["pipe", "/hosts", "socket unix /run/containerd/containerd.sock"];
        assert_eq!(kept.map(without_folders), kept);
        assert_eq!(without_folders("…/a/b"), "…/b");
    }
}
