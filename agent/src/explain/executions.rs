//! Which programs a sandbox executed while it started, by whom, for how long, and how much of the start's critical path is theirs.

use super::since;
use crate::{
    correlate::{Element, History, Span, View},
    record::tables,
};
use std::collections::HashMap;

/// Programs that one instance may have rows for.
const MOST: usize = 10_000;

/// Time on the critical path of each execution: a task, and the place among what it executed.
fn on_path(view: &View<'_>, path: &[Element]) -> HashMap<(usize, usize), u64> {
    let mut times = HashMap::new();
    for element in path {
        let Some(task) = element.task else { continue };
        // A task may execute something in the middle of an element.
        let mut start_ns = element.start_ns;
        while start_ns < element.end_ns {
            let later = view.histories.tasks[task].executed.iter().map(|executed| executed.at_ns);
            let end_ns = later.filter(|at_ns| *at_ns > start_ns).min().unwrap_or(u64::MAX).min(element.end_ns);
            if let Some(execution) = view.histories.execution_of(task, start_ns) {
                *times.entry(execution).or_default() += end_ns - start_ns;
            }
            start_ns = end_ns;
        }
    }
    times
}

/// The rows. `spans` are those of the histories between launch and first response.
pub(super) fn rows(view: &View<'_>, spans: &[Vec<Span>], path: &[Element], launch_ns: u64) -> Vec<tables::Execution> {
    let histories = view.histories;
    let word = |text| histories.texts.get(text).to_owned();
    let mut threads: HashMap<u32, Vec<usize>> = HashMap::new();
    for (place, task) in histories.tasks.iter().enumerate().filter(|(_, task)| task.member) {
        threads.entry(task.tgid).or_default().push(place);
    }
    let on_path = on_path(view, path);
    let mut rows = Vec::new();
    for (number, task) in histories.tasks.iter().enumerate().filter(|(_, task)| task.member) {
        let ends = task.executed.iter().skip(1).map(|next| Some(next.at_ns)).chain([None]);
        for (place, (executed, next_ns)) in task.executed.iter().zip(ends).enumerate() {
            let start_ns = executed.at_ns;
            let of_process = || threads.get(&task.tgid).into_iter().flatten().copied();
            // Numbers are used again: of a process are the threads that lived when it executed the program, or were born later.
            let is_later = |history: &History| history.died_ns.is_none_or(|died| died > start_ns);
            let own: Vec<usize> = of_process().filter(|&place| is_later(&histories.tasks[place])).collect();
            let died = || own.iter().map(|&place| histories.tasks[place].died_ns).collect::<Option<Vec<_>>>();
            let end_ns = next_ns.or_else(|| died()?.into_iter().max());
            let until_ns = end_ns.unwrap_or(u64::MAX);
            let within = |from: u64, until: u64| until.min(until_ns).saturating_sub(from.max(start_ns));
            let on_cpu = own.iter().flat_map(|&place| &spans[place]).filter(|span| span.activity.is_on_cpu());
            let parent = task.born.map(|born| &histories.tasks[born.parent]);
            rows.push(tables::Execution {
                tgid: task.tgid,
                parent_tgid: parent.map(|parent| parent.tgid),
                parent_role: task.born.zip(parent).map(|(born, parent)| word(parent.role_at(born.at_ns))),
                role: word(task.role_at(start_ns)),
                program: word(executed.path),
                arguments: word(executed.arguments),
                start_ns: since(launch_ns, start_ns),
                end_ns: end_ns.map(|end_ns| since(launch_ns, end_ns)),
                cpu_ns: on_cpu.map(|span| within(span.start_ns, span.end_ns)).sum(),
                path_ns: on_path.get(&(number, place)).copied().unwrap_or(0),
            });
        }
    }
    rows.sort_by_key(|row| row.start_ns);
    rows.truncate(MOST);
    rows
}
