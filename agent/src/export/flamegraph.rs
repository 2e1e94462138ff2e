//! Flame graphs of time: the account of the wall time, or the life of every thread, as folded stacks and as a drawing.
//!
//! A folded stack is a line `frame;frame;frame NUMBER`, the number in nanoseconds; the lines add up to exactly what the table
//! holds. Every other tool for flame graphs reads them too.

use super::{Chosen, Error, rows};
use crate::{record::tables, results::PathElement};
use inferno::flamegraph::{Options, from_lines};
use std::collections::BTreeMap;

/// What the stacks are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// Where the wall time went, each nanosecond once (table `attribution`).
    Account,
    /// What each thread did with its time, all threads side by side (table `thread_slices`).
    Threads,
}

/// Nanoseconds by stack.
pub type Stacks = BTreeMap<String, u64>;

/// Whether a category of `attribution` or `thread_slices` is time with a CPU.
fn is_on_cpu(category: &str) -> bool {
    matches!(category, "guest" | "exit" | "kvm_run" | "user" | "fault" | "interrupt" | "kernel")
}

/// The stacks of some instances, added up.
///
/// # Errors
/// When a table can't be read, or has nothing about these instances.
pub fn stacks(chosen: &[Chosen<'_>], view: View) -> Result<Stacks, Error> {
    let mut stacks = Stacks::new();
    for Chosen { run, instances } in chosen {
        match view {
            View::Account => {
                for table in rows::<tables::Attribution>(run)? {
                    for instance in instances {
                        for row in table.of(&instance.instance_id) {
                            let call = PathElement::of(row).call();
                            let frames = [Some(row.phase.as_str()), row.role.as_deref(), Some(place(&row.category))];
                            let more = [Some(row.category.as_str()), call.as_deref(), row.detail.as_deref()];
                            add(&mut stacks, &instance.sandbox, frames.into_iter().chain(more), row.time_ns);
                        }
                    }
                }
            }
            View::Threads => {
                for table in rows::<tables::ThreadSlice>(run)? {
                    for instance in instances {
                        for row in table.of(&instance.instance_id) {
                            let frames = [Some(row.role.as_str()), Some(&row.comm), Some(place(&row.category))];
                            let more = [Some(row.category.as_str()), row.detail.as_deref()];
                            let time_ns = row.end_ns.abs_diff(row.start_ns);
                            add(&mut stacks, &instance.sandbox, frames.into_iter().chain(more), time_ns);
                        }
                    }
                }
            }
        }
    }
    if stacks.is_empty() {
        let reason = match view {
            View::Account => "no probes saw these instances, so nothing tells where their time went",
            View::Threads => {
                "the single events of these instances were not written; `sandscope run … --timeline all` does"
            }
        };
        return Err(Error::Nothing(reason.to_owned()));
    }
    Ok(stacks)
}

fn place(category: &str) -> &'static str {
    if is_on_cpu(category) { "on CPU" } else { "off CPU" }
}

fn add<'a>(stacks: &mut Stacks, root: &str, frames: impl Iterator<Item = Option<&'a str>>, time_ns: u64) {
    // Rows of no time only say that nothing is unexplained.
    if time_ns == 0 {
        return;
    }
    let mut stack = root.to_owned();
    for frame in frames.flatten().filter(|frame| !frame.is_empty()) {
        stack.push(';');
        // The semicolon ends a frame, a line break the stack.
        stack.extend(frame.chars().map(|c| if c == ';' || c.is_control() { ',' } else { c }));
    }
    *stacks.entry(stack).or_default() += time_ns;
}

/// The stacks as lines of text.
pub fn folded(stacks: &Stacks) -> String {
    stacks.iter().map(|(stack, time_ns)| format!("{stack} {time_ns}\n")).collect()
}

/// The stacks as a drawing that a browser can search and zoom into.
///
/// # Errors
/// When there is nothing to draw.
pub fn svg(stacks: &Stacks, title: &str) -> Result<Vec<u8>, Error> {
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    "ns".clone_into(&mut options.count_name);
    options.deterministic = true;
    let text = folded(stacks);
    let mut drawing = Vec::new();
    from_lines(&mut options, text.lines(), &mut drawing).map_err(|error| Error::Draw(error.to_string()))?;
    Ok(drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cannot_break_a_stack() {
        let mut stacks = Stacks::new();
        add(&mut stacks, "runc", [Some("user"), None, Some("a;b\nc d")].into_iter(), 5);
        add(&mut stacks, "runc", [Some("user"), Some(""), Some("a;b\nc d")].into_iter(), 6);
        add(&mut stacks, "runc", [Some("unattributed")].into_iter(), 0);
        assert_eq!(folded(&stacks), "runc;user;a,b,c d 11\n");
    }

    #[test]
    fn a_drawing_names_its_stacks_and_is_the_same_each_time() {
        let stacks = Stacks::from([("runc;exit;hlt".to_owned(), 70), ("runc;user".to_owned(), 30)]);
        let drawing = svg(&stacks, "a & b").unwrap();
        let text = String::from_utf8(drawing.clone()).unwrap();
        assert!(text.contains("<title>hlt (70 ns, 70.00%)</title>"), "{text}");
        assert!(text.contains("a &amp; b"));
        assert_eq!(drawing, svg(&stacks, "a & b").unwrap());
    }
}
