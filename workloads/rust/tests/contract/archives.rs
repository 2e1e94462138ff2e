//! `/unzip`: archives that are fine, broken and hostile.

use super::{
    client::{Client, get},
    server::{Program, Server},
};
use hyper::StatusCode;
use std::{
    fs,
    io::{Cursor, Write},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

type Writer = ZipWriter<Cursor<Vec<u8>>>;

fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored)
}

fn archive(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::default());
    fill(&mut writer);
    writer.finish().unwrap().into_inner()
}

fn add(writer: &mut Writer, name: &str, content: &[u8], options: SimpleFileOptions) {
    writer.start_file(name, options).unwrap();
    writer.write_all(content).unwrap();
}

pub async fn unzip(program: Program) {
    let deflated = stored().compression_method(CompressionMethod::Deflated);
    let zeros = vec![0; 300_000];
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let content = archive(|writer| {
        add(writer, "stored", &bytes, stored());
        add(writer, "deflated", &zeros, deflated);
        writer.add_directory("empty/", stored()).unwrap();
        add(writer, "deep/er/file", b"deep", deflated);
        add(writer, "deep/nothing", b"", stored());
    });
    let server = program.serve().await;
    server.write_static_file(&content);
    let mut client = Client::connect(server.port).await;
    // The second time there is something to be removed.
    for _ in 0..2 {
        assert_eq!(client.get("/unzip").await.text(), "Done (4 files, 370004 bytes)\n");
        let read = |name: &str| fs::read(server.path("unzipped").join(name)).unwrap();
        assert!(read("stored") == bytes);
        assert!(read("deflated") == zeros);
        assert_eq!(read("deep/er/file"), b"deep");
        assert_eq!(read("deep/nothing"), b"");
        assert!(server.path("unzipped/empty").is_dir());
        for left_over in ["left", "deep/left"] {
            assert!(!server.path("unzipped").join(left_over).exists());
            fs::write(server.path("unzipped").join(left_over), b"").unwrap();
        }
        std::os::unix::fs::symlink("..", server.path("unzipped/link")).unwrap();
    }
    assert!(server.path("static_file").exists());

    let scratch = tempfile::tempdir().unwrap();
    let server = program.serve_with(&["ignore", "--scratch", scratch.path().to_str().unwrap()]).await;
    server.write_static_file(&content);
    assert_eq!(get(server.port, "/unzip").await.status, StatusCode::OK);
    assert!(scratch.path().join("deep/er/file").exists());
}

pub async fn unzip_of_what_is_no_archive(program: Program) {
    let server = program.serve().await;
    let mut client = Client::connect(server.port).await;
    let mut fails = async |part: &str| {
        client.get("/unzip").await.assert_error(StatusCode::INTERNAL_SERVER_ERROR, &["static_file", part]);
    };
    fails("o such file or directory").await;
    server.write_static_file(b"no archive");
    fails("").await;
    server.write_static_file(b"");
    fails("").await;
    let mut content = archive(|writer| add(writer, "name", b"content that is found to be broken", stored()));
    let start = content.windows(7).position(|window| window == b"content").unwrap();
    content[start] ^= 1;
    server.write_static_file(&content);
    fails("checksum").await;
}

/// Starts a server with this archive and checks that it refuses it and writes nothing.
async fn refused(program: &Program, content: &[u8], part: &str) -> Server {
    let server = program.serve().await;
    server.write_static_file(content);
    let answer = get(server.port, "/unzip").await;
    answer.assert_error(StatusCode::INTERNAL_SERVER_ERROR, &["static_file", part]);
    assert!(!server.path("unzipped").exists());
    server
}

pub async fn unzip_of_hostile_archives(program: Program) {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("escaped");
    for name in ["../escaped", "a/../../escaped", "a/..", "..", "..\\escaped", target.to_str().unwrap()] {
        let content = archive(|writer| add(writer, name, b"", stored()));
        let server = refused(&program, &content, "could lead out").await;
        assert!(!server.path("escaped").exists() && !target.exists(), "{name}");
    }
    let content = archive(|writer| writer.add_symlink("link", outside.path().to_str().unwrap(), stored()).unwrap());
    refused(&program, &content, "neither a file nor a directory").await;

    // Two files that claim, in the archive's directory, to hold 1 GiB and 1 byte together.
    let mut content = archive(|writer| {
        add(writer, "a", b"", stored());
        add(writer, "b", b"b", stored());
    });
    let length = content.windows(4).position(|window| window == b"PK\x01\x02").unwrap() + 24;
    content[length..length + 4].copy_from_slice(&(1u32 << 30).to_le_bytes());
    refused(&program, &content, "more than 1073741824 bytes").await;
}

pub async fn unzip_spares_what_it_needs(program: Program) {
    let content = archive(|writer| add(writer, "name", b"", stored()));
    for scratch in [".", "..", "/"] {
        let server = program.serve_with(&["ignore", "--scratch", scratch]).await;
        server.write_static_file(&content);
        let answer = get(server.port, "/unzip").await;
        answer.assert_error(StatusCode::INTERNAL_SERVER_ERROR, &["can't empty", "--scratch must name another"]);
        assert!(server.path("static_file").exists());
    }
}
