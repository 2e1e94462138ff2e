//! Does the steps of an experiment on a running instance.

use super::{
    stage::Stage,
    step::{Action, Step, Taken},
    trial::Trial,
};
use crate::{
    host::clock::monotonic_ns,
    measure::page_cache::{self, CacheState, Residency},
    sandbox::resources::CpuList,
    workload::{
        client::{self, Exchange},
        load::Load,
    },
};
use anyhow::{Context, Result, bail, ensure};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::time::Instant;

/// Asks a ready instance for all that `steps` say, one step after the other. A step that fails does not keep the next from being
/// tried, unless the instance itself has failed or the run was interrupted. One that is alone shares its recording with no other.
pub async fn perform(
    trial: &mut Trial,
    stage: &mut Stage,
    steps: &[Step],
    client_cpus: Option<&CpuList>,
    is_alone: bool,
) {
    for step in steps {
        let Some(address) = trial.address() else {
            return trial.fail(&anyhow::anyhow!("it can't be asked for {}: it has no address", step.path));
        };
        let mut taken = Taken::at(step.clone(), monotonic_ns());
        let outcome = take(trial, stage, address, client_cpus, &mut taken).await;
        if let Err(error) = &outcome {
            taken.error = Some(format!("{error:#}"));
        }
        taken.end_ns = taken.end_ns.max(taken.start_ns);
        trial.took(taken);
        if outcome.is_err() {
            return;
        }
        if is_alone && let Err(error) = trial.sum_up(stage) {
            return trial.fail(&error);
        }
    }
}

async fn take(
    trial: &mut Trial,
    stage: &mut Stage,
    address: SocketAddr,
    client_cpus: Option<&CpuList>,
    taken: &mut Taken,
) -> Result<()> {
    let step = taken.step.clone();
    let file = step.file.map(|state| Ok::<_, anyhow::Error>((state, static_file(trial)?))).transpose()?;
    taken.file_before = condition(file.as_ref())?;
    let length = file.as_ref().map(|(_, path)| path.metadata()).transpose()?.map(|file| file.len());
    // That of a disk says nothing of the file on it.
    let length = length.filter(|_| trial.instance().is_some_and(|instance| instance.static_disk().is_none()));
    let (mut before, mut files_before) = (trial.traffic(stage)?, trial.files(stage)?);
    taken.start_ns = monotonic_ns();
    let deadline = Instant::now() + step.patience(stage.timeout);
    match step.action {
        Action::Requests { count } => {
            for _ in 0..count {
                let each = Instant::now() + stage.timeout;
                let exchange = client::get(address, &step.path, taken.start_ns, each);
                let mut exchange = trial.unless_it_fails(stage, deadline, exchange).await?;
                check_read(&step.path, length, &mut exchange);
                taken.exchanges.push(exchange);
            }
            taken.end_ns = monotonic_ns();
        }
        Action::Load { connections, keep_alive, pace, warm_up, window } => {
            let load = Load {
                address,
                path: step.path.clone(),
                connections,
                keep_alive,
                pace,
                warm_up,
                window,
                timeout: stage.timeout,
                cpus: client_cpus.cloned(),
            };
            let until = stage.interrupted.child_token();
            // Nobody asks any more once the step is over, whatever ended it.
            let _ends_with_the_step = until.clone().drop_guard();
            let mut tally = tokio::spawn(load.run(until));
            // What counts is the window, as everywhere: not what the warm-up asked for.
            let warm = async { tokio::time::timeout(warm_up, &mut tally).await };
            let early = trial.unless_it_fails(stage, deadline, warm).await?;
            if warm_up > Duration::ZERO {
                (before, files_before) = (trial.traffic(stage)?, trial.files(stage)?);
            }
            let tally = match early {
                Ok(tally) => tally,
                Err(_) => trial.unless_it_fails(stage, deadline, tally).await?,
            };
            let tally = tally.context("the load panicked")??;
            (taken.start_ns, taken.end_ns) = (tally.start_ns, tally.end_ns);
            taken.tally = Some(tally);
        }
        Action::Watch | Action::Weigh => bail!("nothing is asked in the step {}", step.name),
    }
    let after = trial.traffic(stage)?;
    taken.traffic = after.zip(before).map(|(after, before)| after.since(&before));
    taken.files = trial.files(stage)?.zip(files_before).map(|(after, before)| after.since(&before));
    let after = file.map(|(_, path)| (CacheState::AsIs, path));
    taken.file_after = condition(after.as_ref())?;
    Ok(())
}

/// Takes an answer for bad that says that another number of bytes was read than the file has.
fn check_read(path: &str, length: Option<u64>, exchange: &mut Exchange) {
    if let ("/read", Some(length), true) = (path, length, exchange.is_good())
        && exchange.read_bytes != Some(length)
    {
        let read = exchange.read_bytes.map_or("no number of".to_owned(), |read| read.to_string());
        exchange.error = Some(format!("the workload says that it read {read} bytes of a file that has {length}"));
    }
}

/// The file on the host's disk that the workload's `/read`, `/static` and `/unzip` use: itself, or the disk that a guest has it on.
fn static_file(trial: &Trial) -> Result<PathBuf> {
    let instance = trial.instance().context("the instance was lost")?;
    if let Some(disk) = instance.static_disk() {
        return Ok(disk);
    }
    let file = trial.static_file().context("the workload has no static file; `cargo xtask workloads` makes one")?;
    let name = file.file_name();
    let own = instance.files().into_iter().find(|path| path.file_name() == name);
    Ok(own.unwrap_or_else(|| file.to_owned()))
}

/// Brings a file into its state in the page cache, and makes sure that it is.
fn condition(file: Option<&(CacheState, PathBuf)>) -> Result<Option<Residency>> {
    let Some((state, path)) = file else { return Ok(None) };
    let found = page_cache::bring_about(*state, std::slice::from_ref(path))?;
    let as_asked = match state {
        CacheState::Primed => found.resident == found.pages,
        CacheState::Evicted => found.resident == 0,
        CacheState::AsIs => true,
    };
    ensure!(as_asked, "{} of {} pages of {} are in memory", found.resident, found.pages, path.display());
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_read_whole_is_no_good_answer() {
        let answer = |read_bytes| Exchange { status: Some(200), read_bytes, ..Exchange::default() };
        let checked = |path, length, read_bytes| {
            let mut exchange = answer(read_bytes);
            check_read(path, length, &mut exchange);
            exchange.error.unwrap_or_default()
        };
        assert_eq!(checked("/read", Some(10), Some(10)), "");
        assert_eq!(checked("/read", None, Some(9)), "", "nobody knows how long it is");
        assert_eq!(checked("/unzip", Some(10), None), "");
        assert!(checked("/read", Some(10), Some(9)).contains("read 9 bytes of a file that has 10"));
        assert!(checked("/read", Some(10), None).contains("no number"));
    }
}
