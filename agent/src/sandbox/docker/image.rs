//! Images for Docker, made on this host from workloads: no registry, no build, one layer.
//!
//! An image is named by the hash of its content, so that it is made once and kept from run to run. They do not pile up: of each
//! workload only the newest is kept, and `sandscope clean` removes all that no container uses.

use crate::workload::{Content, Workload};
use anyhow::{Context as _, Result, ensure};
use bollard::{
    Docker, body_try_stream,
    errors::Error,
    query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions},
};
use futures_util::{TryStreamExt as _, stream};
use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tar::{Builder, EntryType, Header};

/// Every image of sandscope has this label; its value is the name of the workload.
const LABEL: &str = "sandscope.workload";

/// Digits of the hash that go into an image's name.
const HASH_DIGITS: usize = 16;

/// Bytes of the archive that are sent at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// An image that the daemon has.
pub struct Image {
    /// Its identifier.
    pub id: String,
    /// The folder on the host in which the files of its one layer are, if the daemon tells.
    pub layer: Option<PathBuf>,
    /// What keeps its layers.
    pub driver: String,
}

/// The image of a workload; made, if the daemon does not have it.
///
/// # Errors
/// When the workload can't be read, or the daemon does not take it.
pub async fn provide(client: &Docker, workload: &Workload) -> Result<Image> {
    let digest = archive(&workload.content, None, io::sink())?.0;
    let repository = repository(&workload.name);
    let reference = format!("{repository}:{}", &digest[..HASH_DIGITS]);
    let image = match find(client, &reference).await? {
        Some(image) => image,
        None => import(client, workload, None, &digest, &reference).await?,
    };
    remove_others(client, &workload.name, &image.id).await?;
    Ok(image)
}

/// Name of the image that is made for one instance alone.
pub fn copy_name(label: &str) -> String {
    format!("sandscope/copy:{label}")
}

/// An image for one instance alone, which shares nothing with another. It is made now.
///
/// # Errors
/// As [`provide`].
pub async fn provide_copy(client: &Docker, workload: &Workload, label: &str) -> Result<Image> {
    let digest = archive(&workload.content, Some(label), io::sink())?.0;
    import(client, workload, Some(label), &digest, &copy_name(label)).await
}

/// Removes an image, if there is one of this name.
///
/// # Errors
/// When the daemon refuses.
pub async fn remove(client: &Docker, name: &str) -> Result<()> {
    match client.remove_image(name, None::<RemoveImageOptions>, None).await {
        Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("could not remove the image {name}")),
    }
}

/// Removes the images of sandscope that no container uses; returns their names.
///
/// # Errors
/// When the daemon does not list its images.
pub async fn remove_unused(client: &Docker) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for (id, name) in ours(client, None).await? {
        // One that a container uses is refused, and stays.
        if client.remove_image(&id, None::<RemoveImageOptions>, None).await.is_ok() {
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Identifiers and names of the images that were made from this workload, or from any.
async fn ours(client: &Docker, workload: Option<&str>) -> Result<Vec<(String, String)>> {
    let label = workload.map_or_else(|| LABEL.to_owned(), |name| format!("{LABEL}={}", plain(name)));
    let filters = HashMap::from([("label", vec![label])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let images = client.list_images(Some(options)).await.context("the Docker daemon does not list its images")?;
    Ok(images
        .into_iter()
        .map(|image| {
            let name = image.repo_tags.into_iter().next().unwrap_or_else(|| image.id.clone());
            (image.id, name)
        })
        .collect())
}

/// Removes what was made from earlier builds of the workload, unless a container uses it.
async fn remove_others(client: &Docker, workload: &str, kept: &str) -> Result<()> {
    for (id, name) in ours(client, Some(workload)).await? {
        if id != kept && !name.starts_with("sandscope/copy:") {
            match client.remove_image(&id, None::<RemoveImageOptions>, None).await {
                Ok(_) => tracing::info!("removed the image {name} of an earlier build"),
                Err(error) => tracing::info!("the image {name} of an earlier build stays: {error}"),
            }
        }
    }
    Ok(())
}

async fn find(client: &Docker, reference: &str) -> Result<Option<Image>> {
    let image = match client.inspect_image(reference).await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        other => other.with_context(|| format!("the Docker daemon does not tell about the image {reference}"))?,
    };
    let driver = image.graph_driver;
    let layer = driver.as_ref().and_then(|driver| driver.data.get("UpperDir")).map(PathBuf::from);
    Ok(Some(Image {
        id: image.id.with_context(|| format!("the image {reference} has no identifier"))?,
        layer: layer.filter(|path| path.is_dir()),
        driver: driver.map_or_else(|| "unknown".to_owned(), |driver| driver.name),
    }))
}

async fn import(
    client: &Docker,
    workload: &Workload,
    unique: Option<&str>,
    digest: &str,
    reference: &str,
) -> Result<Image> {
    let failed = || format!("could not make the image {reference} from {}", workload.content.path().display());
    // To a file first: a part that can't be read would leave the daemon with half of it.
    let spool = tempfile::tempfile().context("could not make a temporary file").with_context(failed)?;
    let (read, mut spool) = archive(&workload.content, unique, spool).with_context(failed)?;
    ensure!(read == digest, "{}: it changed while it was read", failed());
    spool.rewind().with_context(failed)?;
    let chunks = stream::unfold(spool, async |mut spool| {
        let mut chunk = vec![0; CHUNK_BYTES];
        match spool.read(&mut chunk) {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Ok(Bytes::from(chunk)), spool))
            }
            Err(error) => Some((Err(error), spool)),
        }
    });
    let label = format!("LABEL {LABEL}={} sandscope.content={digest}", plain(&workload.name));
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(reference).changes(vec![label]).build();
    let progress = client.create_image(Some(options), Some(body_try_stream(chunks)), None);
    progress.try_for_each(async |_| Ok(())).await.with_context(failed)?;
    find(client, reference).await?.with_context(|| format!("{}: the daemon does not have it afterwards", failed()))
}

fn repository(workload: &str) -> String {
    format!("sandscope/{}", plain(workload))
}

/// The name of a workload, which may be that of any file, in the letters that an image's may have.
fn plain(name: &str) -> String {
    let name: String =
        name.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).collect::<Vec<_>>().join("-");
    let name = name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    if name.is_empty() { "workload".to_owned() } else { name }
}

/// Writes the workload's root file system as a tar archive that depends on nothing but its content. Returns the archive's
/// SHA-256 in hexadecimal digits, and what was written to. A `unique` text makes it another one.
fn archive<W: Write>(content: &Content, unique: Option<&str>, out: W) -> Result<(String, W)> {
    let mut archive = Builder::new(Hashed { hash: Sha256::new(), out });
    match content {
        Content::Executable(path) => {
            for place in ["dev", "proc"] {
                add(&mut archive, Path::new(place), EntryType::Directory, 0o755, &mut io::empty(), 0)?;
            }
            add(&mut archive, Path::new("tmp"), EntryType::Directory, 0o1777, &mut io::empty(), 0)?;
            add(&mut archive, Path::new("static_file"), EntryType::Regular, 0o644, &mut io::empty(), 0)?;
            let command = content.command();
            add_file(&mut archive, Path::new(command[0].trim_start_matches('/')), path)?;
        }
        Content::Root(root) => add_folder(&mut archive, &root.folder, Path::new(""))?,
    }
    if let Some(unique) = unique {
        let mut text = unique.as_bytes();
        let length = text.len() as u64;
        add(&mut archive, Path::new(".sandscope-instance"), EntryType::Regular, 0o444, &mut text, length)?;
    }
    let Hashed { hash, out } = archive.into_inner().context("could not write an archive")?;
    let mut digits = String::new();
    for byte in hash.finalize() {
        write!(digits, "{byte:02x}").expect("writing to a String can't fail");
    }
    Ok((digits, out))
}

fn add_folder(archive: &mut Builder<impl Write>, folder: &Path, inside: &Path) -> Result<()> {
    let failed = || format!("could not read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(failed)?.collect::<io::Result<Vec<_>>>();
    let mut entries = entries.with_context(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            let mode = entry.metadata().with_context(failed)?.permissions().mode();
            add(archive, &inside, EntryType::Directory, mode, &mut io::empty(), 0)?;
            add_folder(archive, &path, &inside)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(failed)?;
            let mut header = header(EntryType::Symlink, 0o777, 0);
            archive.append_link(&mut header, &inside, &target).context("could not write an archive")?;
        } else {
            ensure!(
                kind.is_file(),
                "{} is neither file, folder nor symbolic link: it can't be part of an image",
                path.display()
            );
            add_file(archive, &inside, &path)?;
        }
    }
    Ok(())
}

fn add_file(archive: &mut Builder<impl Write>, inside: &Path, path: &Path) -> Result<()> {
    let failed = || format!("could not read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let metadata = file.metadata().with_context(failed)?;
    let (mode, length) = (metadata.permissions().mode(), metadata.len());
    add(archive, inside, EntryType::Regular, mode, &mut file, length).with_context(failed)
}

fn add(
    archive: &mut Builder<impl Write>,
    inside: &Path,
    kind: EntryType,
    mode: u32,
    data: &mut dyn io::Read,
    length: u64,
) -> Result<()> {
    let mut header = header(kind, mode, length);
    archive.append_data(&mut header, inside, data.take(length)).context("could not write an archive")
}

/// Of root, and of no time.
fn header(kind: EntryType, mode: u32, length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_size(length);
    for set in [Header::set_uid, Header::set_gid, Header::set_mtime] {
        set(&mut header, 0);
    }
    header
}

/// Hashes what it writes.
struct Hashed<W> {
    hash: Sha256,
    out: W,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_names_of_images() {
        assert_eq!(plain("rust"), "rust");
        assert_eq!(plain("My Work_load..v2"), "my-work-load-v2");
        assert_eq!(plain("___"), "workload");
    }

    #[test]
    fn an_archive_depends_on_the_content_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a program");
        fs::write(&path, "one").unwrap();
        let digest = |unique| archive(&Content::Executable(path.clone()), unique, io::sink()).unwrap().0;
        let first = digest(None);
        File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(digest(None), first);
        assert_ne!(digest(Some("a1")), first);
        assert_ne!(digest(Some("a1")), digest(Some("a2")));
        fs::write(&path, "two").unwrap();
        assert_ne!(digest(None), first);
    }

    #[test]
    fn what_can_not_be_part_of_an_image_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("root");
        for place in ["proc", "dev", "tmp", "bin"] {
            fs::create_dir_all(folder.join(place)).unwrap();
        }
        fs::write(directory.path().join("workload.toml"), "command = [\"/bin/it\"]\nstart-files = []\n").unwrap();
        for file in ["static_file", "bin/it"] {
            fs::write(folder.join(file), file).unwrap();
        }
        let content = Content::at(directory.path()).unwrap();
        let whole = archive(&content, None, io::sink()).unwrap().0;
        std::os::unix::fs::symlink("it", folder.join("bin/link")).unwrap();
        assert_ne!(archive(&content, None, io::sink()).unwrap().0, whole);
        let _listener = std::os::unix::net::UnixListener::bind(folder.join("bin/socket")).unwrap();
        let error = format!("{:#}", archive(&content, None, io::sink()).unwrap_err());
        assert!(error.contains("bin/socket is neither file, folder nor symbolic link"), "{error}");
    }

    #[test]
    fn an_archive_holds_what_the_workload_needs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, "content").unwrap();
        let (_, bytes) = archive(&Content::Executable(path), None, Vec::new()).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().entry_type(), text)
            })
            .collect();
        let (folder, file) = (EntryType::Directory, EntryType::Regular);
        let expected = [
            ("dev", folder, ""),
            ("proc", folder, ""),
            ("tmp", folder, ""),
            ("static_file", file, ""),
            ("app", file, "content"),
        ];
        assert_eq!(found, expected.map(|(path, kind, text)| (path.to_owned(), kind, text.to_owned())));
    }
}
