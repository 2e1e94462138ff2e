//! Files that strangers fill: command lines, state of container engines, names of sockets. Whoever may write them may make them endless,
//! so that each is read up to a bound.

use std::{fs::File, io::Read as _, path::Path};

/// The bytes of a file up to `most`; what is beyond is left out. `None` when it can't be read.
pub fn bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    // Opening a pipe would wait for a writer, and these are no pipes.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The same as text; what is no UTF-8 is replaced.
pub fn text(path: &Path, most: u64) -> Option<String> {
    bytes(path, most).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A JSON document; `None` when it is none, or longer than `most`.
pub fn json<T: serde::de::DeserializeOwned>(path: &Path, most: u64) -> Option<T> {
    serde_json::from_slice(&bytes(path, most)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_files_and_pipes_end() {
        let directory = tempfile::tempdir().unwrap();
        let (long, pipe) = (directory.path().join("long"), directory.path().join("pipe"));
        std::fs::write(&long, "[1,2,3]").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(text(&long, 4).as_deref(), Some("[1,2"));
        assert_eq!(json::<Vec<u8>>(&long, 100), Some(vec![1, 2, 3]));
        assert_eq!(json::<Vec<u8>>(&long, 4), None);
        assert_eq!(bytes(&pipe, 4), None);
        assert_eq!(bytes(Path::new("/dev/zero"), 4), None);
    }
}
