//! What processes and threads are to a sandbox, told from what they execute and what they are called.
//!
//! Each sandbox and VMM states its own rules, in its own file; the recordings are read by them.

/// Tells a role from what a process executed: the first rule that matches wins. A process that executed nothing has its
/// parent's role, unless a rule names the role of such children.
#[derive(Clone, Copy, Debug)]
pub struct RoleRule {
    /// The role, such as `runtime`, `sentry`, `gofer`, `vmm`, `workload`.
    pub role: &'static str,
    /// Matches when the executed path, or the arguments (program name first, joined by single spaces), contain this.
    pub contains: &'static str,
    /// Role of its children that execute nothing themselves; `None`: the same.
    pub forked: Option<&'static str>,
}

/// Tells a role from the name of a thread, for threads that execute nothing: those of VMMs.
#[derive(Clone, Copy, Debug)]
pub struct ThreadRule {
    /// The role, such as `vcpu`.
    pub role: &'static str,
    /// What the name begins with.
    pub begins: &'static str,
}

/// The first of the rules that applies to who executed this path with these arguments.
pub fn rule_of(rules: &'static [RoleRule], path: &str, arguments: &[impl AsRef<str>]) -> Option<&'static RoleRule> {
    let arguments = arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
    rules.iter().find(|rule| path.contains(rule.contains) || arguments.contains(rule.contains))
}
