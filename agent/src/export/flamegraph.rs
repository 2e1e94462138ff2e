//! Flame graphs of time: the account of the wall time, or the life of every thread, as folded stacks and as a drawing.
//!
//! A folded stack is a line `frame;frame;frame NUMBER`, the number in nanoseconds; the lines add up to exactly what the table
//! holds. Every other tool for flame graphs reads them too.

use super::{Chosen, Error, rows};
use crate::{record::tables, results::PathElement};
use inferno::flamegraph::{Options, from_lines};
use std::collections::{BTreeMap, HashMap};

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
                let samples = rows::<tables::Sample>(run)?;
                for table in rows::<tables::Attribution>(run)? {
                    for instance in instances {
                        let looks = Looks::of(samples.iter().flat_map(|table| table.of(&instance.instance_id)));
                        for row in table.of(&instance.instance_id) {
                            let call = PathElement::of(row).call();
                            let frames = [Some(row.phase.as_str()), row.role.as_deref(), Some(place(&row.category))];
                            let more = [Some(row.category.as_str()), call.as_deref(), row.detail.as_deref()];
                            let frames = frames.into_iter().chain(more);
                            for (functions, time_ns) in looks.share_out(row) {
                                let functions = functions.into_iter().flat_map(|stack| stack.split(';')).map(Some);
                                add(&mut stacks, &instance.sandbox, frames.clone().chain(functions), time_ns);
                            }
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

/// What the threads of an instance did in their own code on the critical path, by phase and thread: stacks, each with how often it was
/// seen.
struct Looks<'a>(HashMap<(&'a str, u32), Vec<(&'a str, u64)>>);

impl<'a> Looks<'a> {
    fn of(samples: impl Iterator<Item = &'a tables::Sample>) -> Self {
        let mut looks: HashMap<_, Vec<_>> = HashMap::new();
        for sample in samples.filter(|sample| sample.on_path) {
            let of_thread = looks.entry((&*sample.phase, sample.thread)).or_default();
            of_thread.push((&*sample.stack, u64::from(sample.count)));
        }
        Self(looks)
    }

    /// The time of a row with the functions that it was spent in: that of own code in proportion to how often each stack was seen, that of
    /// a wait in the kernel where it was, any other without. It adds up to the row's.
    fn share_out<'b>(&'b self, row: &'b tables::Attribution) -> Vec<(Option<&'b str>, u64)> {
        let seen = row.thread.and_then(|thread| self.0.get(&(&*row.phase, thread))).filter(|_| row.category == "user");
        let Some(seen) = seen else { return vec![(row.stack.as_deref(), row.time_ns)] };
        let all: u64 = seen.iter().map(|(_, count)| count).sum();
        let (mut counted, mut given_ns) = (0, 0);
        let part = |(stack, count): &(&'b str, u64)| {
            counted += count;
            let until_ns = (u128::from(row.time_ns) * u128::from(counted) / u128::from(all)) as u64;
            let time_ns = until_ns - given_ns;
            given_ns = until_ns;
            (Some(*stack), time_ns)
        };
        seen.iter().map(part).collect()
    }
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
    fn own_code_is_shared_out_by_where_it_was_seen_and_adds_up() {
        let sample = |phase: &str, thread, stack: &str, count, on_path| tables::Sample {
            phase: phase.to_owned(),
            thread,
            role: "sentry".to_owned(),
            on_path,
            program: None,
            stack: stack.to_owned(),
            count,
        };
        let samples = [
            sample("boot", 3, "main;build", 2, true),
            sample("boot", 3, "main;parse", 1, true),
            sample("boot", 3, "main;beside", 9, false),
            sample("boot", 4, "main;other", 9, true),
        ];
        let looks = Looks::of(samples.iter());
        let mut row = tables::Attribution {
            phase: "boot".to_owned(),
            category: "user".to_owned(),
            role: Some("sentry".to_owned()),
            thread: Some(3),
            syscall: None,
            object: None,
            detail: None,
            stack: None,
            time_ns: 100,
        };
        assert_eq!(looks.share_out(&row), [(Some("main;build"), 66), (Some("main;parse"), 34)]);
        row.thread = Some(5);
        assert_eq!(looks.share_out(&row), [(None, 100)], "nobody looked at that thread");
        (row.thread, row.category, row.stack) =
            (Some(3), "rcu".to_owned(), Some("ksys_write;synchronize_rcu".to_owned()));
        assert_eq!(looks.share_out(&row), [(Some("ksys_write;synchronize_rcu"), 100)]);
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
