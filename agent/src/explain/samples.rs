//! Where in its programs a start was whenever it was looked at: the functions of its own code.

use super::start::{phase_at, thread_number};
use crate::{
    correlate::{Activity, Element, Phase, Sampled, Span, Text, View},
    record::tables,
};
use std::{collections::BTreeMap, path::Path};

/// Rows that one instance may have.
const MOST: usize = 10_000;

/// What looks at a start have in common that are counted together.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place<'a> {
    task: usize,
    phase: usize,
    role: Text,
    on_path: bool,
    program: Option<&'a Path>,
    stack: String,
}

/// The rows, the most frequent first. `spans` are those of the histories between launch and first response; looks at a thread that was in
/// a system call or had no CPU are left out, for that is known without them.
pub(super) fn rows(view: &View<'_>, spans: &[Vec<Span>], path: &[Element], phases: &[Phase]) -> Vec<tables::Sample> {
    let histories = view.histories;
    let mut counts: BTreeMap<Place<'_>, u32> = BTreeMap::new();
    let all = histories.tasks.iter().zip(spans).enumerate();
    for (task, (history, spans)) in all.filter(|(_, (history, _))| history.is_counted()) {
        for sample in history.samples().iter().filter(|sample| is_in_own_code(spans, sample)) {
            let at_ns = sample.at_ns;
            let Some(phase) = phase_at(phases, at_ns) else { continue };
            let program = histories.program_of(task, at_ns);
            let (role, on_path) = (history.role_at(at_ns), is_on(path, task, at_ns));
            let stack = folded(view, program, sample);
            *counts.entry(Place { task, phase, role, on_path, program, stack }).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    // Those of one count stay in the order of their places.
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    counts.truncate(MOST);
    let row = |(place, count): (Place<'_>, u32)| tables::Sample {
        phase: phases[place.phase].name.to_owned(),
        thread: thread_number(place.task),
        role: histories.texts.get(place.role).to_owned(),
        on_path: place.on_path,
        program: place.program.map(|program| program.display().to_string()),
        stack: place.stack,
        count,
    };
    counts.into_iter().map(row).collect()
}

fn is_in_own_code(spans: &[Span], sample: &Sampled) -> bool {
    let after = spans.partition_point(|span| span.start_ns <= sample.at_ns);
    spans[..after].last().is_some_and(|span| {
        sample.at_ns < span.end_ns && matches!(span.activity, Activity::User | Activity::Fault | Activity::Interrupt)
    })
}

/// Whether a task is on the path at an instant.
fn is_on(path: &[Element], task: usize, at_ns: u64) -> bool {
    let after = path.partition_point(|element| element.start_ns <= at_ns);
    path[..after].last().is_some_and(|element| at_ns < element.end_ns && element.task == Some(task))
}

/// The functions, the outermost first, joined by `;`; what has no name is what it is part of, in brackets.
fn folded(view: &View<'_>, program: Option<&Path>, sample: &Sampled) -> String {
    let file = program.and_then(Path::file_name).map_or_else(|| "unknown".into(), |name| name.to_string_lossy());
    let nameless = format!("[{file}]");
    let Some(program) = program else { return nameless };
    let mut names: Vec<&str> = view.names.functions_of(program, sample).map(|name| name.unwrap_or(&nameless)).collect();
    names.reverse();
    names.dedup_by(|next, before| next == before && *next == nameless);
    names.join(";")
}
