//! Docker's containers, by its daemon. The same protocol is spoken by Podman's service, at the socket that `DOCKER_HOST` names.

use super::{Container, Looked};
use crate::sandbox::docker::daemon::Daemon;

/// The container of this name or id.
pub async fn look(wanted: &str) -> Looked {
    let daemon = match Daemon::connect().await {
        Ok(daemon) => daemon,
        // One that is not there has no containers, others may.
        Err(error) => return Looked { place: format!("Docker: {error:#}"), containers: Vec::new() },
    };
    let place = format!("Docker at {}", daemon.socket.display());
    let Ok(details) = daemon.client.inspect_container(wanted, None).await else {
        return Looked { place, containers: Vec::new() };
    };
    let pid = details.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0);
    let name = details.name.map(|name| name.trim_start_matches('/').to_owned());
    // It has found it by what was asked for, whatever that is of it.
    let names = name.into_iter().chain([wanted.to_owned()]).collect();
    let id = details.id.unwrap_or_default();
    Looked { place, containers: vec![Container { engine: "Docker", id, names, pods: Vec::new(), pid }] }
}
