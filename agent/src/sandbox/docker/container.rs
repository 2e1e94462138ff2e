//! What a container is asked to be: as like the containers of the other kinds as Docker lets it.

use super::image::Image;
use crate::sandbox::{
    Specification,
    bundle::{SCRATCH, SCRATCH_SIZE, STATIC_FILE},
    child::SEARCH_PATH,
    network::Mode,
    processes::MARKER,
    resources::FileSharing,
};
use anyhow::{Context as _, Result, ensure};
use bollard::{
    Docker,
    errors::Error,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType},
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Every container of sandscope has this label; its value is the directory of the instance.
const LABEL: &str = "sandscope.instance";

/// What the daemon keeps of a container's output on the host's disk.
const LOG_BYTES: &str = "1m";

/// Name of the container of an instance.
pub fn name(label: &str) -> String {
    format!("sandscope-{label}")
}

/// The container of an instance, to be created in the timed window.
///
/// # Errors
/// When a number is too large for Docker, or a path is no UTF-8.
pub fn body(
    specification: &Specification,
    image: &Image,
    runtime: Option<&str>,
    host: Ipv4Addr,
) -> Result<ContainerCreateBody> {
    let Specification { directory, workload, resources, .. } = specification;
    let directory = directory.to_str().context("the instance's directory is no UTF-8")?;
    let static_file = workload.static_file.as_ref().map(|_| Path::new(STATIC_FILE));
    let memory =
        resources.memory_bytes.map(i64::try_from).transpose().context("that much memory can't be asked for")?;
    let log = |driver: &str, options: &[(&str, &str)]| HostConfigLogConfig {
        typ: Some(driver.to_owned()),
        config: Some(options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()),
    };
    let host_config = HostConfig {
        runtime: runtime.map(str::to_owned),
        network_mode: Some(if specification.network == Mode::Host { "host" } else { "bridge" }.to_owned()),
        memory,
        // The same as the memory: no swap besides.
        memory_swap: memory,
        nano_cpus: resources.vcpus.map(|cpus| i64::from(cpus) * 1_000_000_000),
        readonly_rootfs: Some(resources.files != FileSharing::Overlay),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), format!("rw,nosuid,nodev,noexec,mode=1777,{SCRATCH_SIZE}"))])),
        mounts: bind(workload.static_file.as_deref())?,
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        log_config: Some(if resources.console {
            log("json-file", &[("max-size", LOG_BYTES), ("max-file", "1")])
        } else {
            log("none", &[])
        }),
        init: Some(false),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(image.id.clone()),
        hostname: (specification.network == Mode::Private).then(|| specification.label.clone()),
        entrypoint: Some(workload.content.command()),
        cmd: Some(specification.arguments_from(host, static_file, Path::new(SCRATCH))),
        // The mark lets the container's processes be found and killed when the daemon is gone.
        env: Some(vec![format!("PATH={SEARCH_PATH}"), format!("{MARKER}={directory}")]),
        labels: Some(HashMap::from([(LABEL.to_owned(), directory.to_owned())])),
        working_dir: Some("/".to_owned()),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    })
}

/// The file that the workload serves is the host's own, as in the other containers: they share its pages in the page cache.
fn bind(static_file: Option<&Path>) -> Result<Option<Vec<Mount>>> {
    let Some(file) = static_file else { return Ok(None) };
    let file = file.canonicalize().with_context(|| format!("could not find {}", file.display()))?;
    Ok(Some(vec![Mount {
        typ: Some(MountType::BIND),
        source: Some(file.to_str().context("the path of the static file is no UTF-8")?.to_owned()),
        target: Some(STATIC_FILE.to_owned()),
        read_only: Some(true),
        ..Mount::default()
    }]))
}

/// Removes the containers of sandscope whose instance is gone: made by a daemon that had not answered when the agent was killed.
/// Returns their names.
///
/// # Errors
/// When the daemon does not list its containers, or refuses.
pub async fn remove_orphans(client: &Docker) -> Result<Vec<String>> {
    let filters = HashMap::from([("label", vec![LABEL])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers =
        client.list_containers(Some(options)).await.context("the Docker daemon does not list its containers")?;
    let mut removed = Vec::new();
    for container in containers {
        let directory = container.labels.and_then(|mut labels| labels.remove(LABEL)).map(PathBuf::from);
        let name = container.names.and_then(|mut names| names.pop());
        if let (Some(directory), Some(name)) = (directory, name)
            && !directory.exists()
        {
            let name = name.trim_start_matches('/');
            remove(client, &directory, name).await?;
            removed.push(name.to_owned());
        }
    }
    Ok(removed)
}

/// Removes the container of the instance with this directory, however it is, if there is one.
///
/// # Errors
/// When the daemon refuses, or the container of that name is another one.
pub async fn remove(client: &Docker, directory: &Path, name: &str) -> Result<()> {
    let failed = || format!("could not remove the container {name}");
    let container = match client.inspect_container(name, None::<InspectContainerOptions>).await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
        other => other.with_context(failed)?,
    };
    let label = container.config.and_then(|config| config.labels?.remove(LABEL));
    ensure!(
        label.as_deref().map(Path::new) == Some(directory),
        "the container {name} is not the one of {}: left alone",
        directory.display()
    );
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match client.remove_container(name, Some(options)).await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        other => other.with_context(failed),
    }
}
