//! Hardware virtualisation: whether there is a KVM, and whether it has hardware below it.

/// What a person can do without KVM.
pub const REMEDY: &str = "run as root or as a member of the group kvm, on a machine with hardware virtualisation; in a virtual \
                          machine, switch nested virtualisation on; or use the lab: `cargo xtask lab`";

/// Whether `/dev/kvm` can be used; else why not.
///
/// # Errors
/// When it can't be opened.
pub fn kvm() -> Result<i32, String> {
    match kvm_ioctls::Kvm::new() {
        Ok(kvm) => Ok(kvm.get_api_version()),
        Err(error) => Err(format!("/dev/kvm can't be opened: {error}")),
    }
}

/// Whether KVM runs guest kernels on the CPU itself. On x86-64 there are also KVMs by page tables alone, which run user code on
/// the CPU but interpret the guest's kernel.
///
/// # Errors
/// When the CPU has neither of the two extensions.
pub fn hardware() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let text =
        std::fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("can't read /proc/cpuinfo: {error}"))?;
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    match flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")) {
        true => Ok(()),
        false => Err("the CPU has neither VMX nor SVM (/proc/cpuinfo)".to_owned()),
    }
}
