//! What unpacking a layer promises, shown with layers that nobody honest would write.
//!
//! Needs root: owners, devices, `trusted.` attributes and mounts.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;

use abax_runtime::digest::{DiffId, Digest};
use abax_runtime::image::{
    Compression, DiffError, LayerError, Store, TarError, UnpackError, UnpackLimits,
};
use abax_runtime::snapshot::overlay::Overlay;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, openat};
use rustix::io::Errno;

/// A tar archive, written byte by byte so that it can lie.
#[derive(Default, Clone)]
struct Archive(Vec<u8>);

impl Archive {
    fn new() -> Self {
        Self::default()
    }

    fn with(
        self,
        path: &str,
        flag: u8,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.raw(header.as_bytes()).raw(data)
    }

    fn raw(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn add(self, path: &str, flag: u8, link: &str) -> Self {
        self.with(path, flag, link, b"", |_| {})
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        self.with(path, b'0', "", data, |_| {})
    }

    fn directory(self, path: &str) -> Self {
        self.add(path, b'5', "")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path, b'2', target)
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(path, b'1', target)
    }

    fn device(self, path: &str, flag: u8, major: u32, minor: u32) -> Self {
        self.with(path, flag, "", b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.with("PaxHeaders", b'x', "", &data, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A state root of its own, beside which nothing may change.
struct Bench {
    directory: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        Self::with_limits(UnpackLimits::default())
    }

    fn with_limits(limits: UnpackLimits) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("root"), limits).unwrap();
        Self { directory, store }
    }

    fn unpack(&self, archive: &[u8]) -> Result<PathBuf, UnpackError> {
        let diff_id = DiffId(Digest::of(archive));
        self.store.unpack_layer(&diff_id, &mut &archive[..], Compression::None)?;
        Ok(self.store.layer_directory(&diff_id))
    }

    fn assert_nothing_is_left(&self, of: &str) {
        for directory in ["tmp", "layers", "locks"] {
            let left: Vec<_> = names(&self.store.root().join(directory));
            assert!(left.iter().all(|name| name == "init"), "{of} left {left:?} in {directory}");
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn unpacked(archive: Archive) -> (Bench, PathBuf) {
    let bench = Bench::new();
    let layer = bench.unpack(&archive.end()).unwrap_or_else(|error| panic!("{error:?}"));
    (bench, layer)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(n) => Some(value[..n].to_vec()),
        Err(Errno::NODATA) => None,
        Err(errno) => panic!("{}: {errno}", path.display()),
    }
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Everything about a tree that a layer keeps, by path.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut tree = BTreeMap::new();
    let mut first_names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for name in names(&root.join(&directory)) {
            let path = directory.join(name);
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full).unwrap();
            let kind = metadata.file_type();
            let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
            let mut text = format!("{mode:o} {uid}:{gid} {}", metadata.rdev());
            if is_whiteout(&full) {
                text = "whiteout".to_owned();
            } else {
                text += &format!(" at {}", metadata.mtime());
            }
            if kind.is_file() {
                let content = Digest::of(&fs::read(&full).unwrap());
                text += &format!(" {} bytes {content}", metadata.len());
            } else if kind.is_symlink() {
                text += &format!(" -> {:?}", fs::read_link(&full).unwrap());
            }
            if kind.is_file() || kind.is_dir() {
                for name in ["user.note", "security.capability", "trusted.overlay.opaque"] {
                    text += &format!(" {name}={:?}", xattr(&full, name));
                }
            }
            if !kind.is_dir() && metadata.nlink() > 1 {
                let first = first_names.entry(metadata.ino()).or_insert_with(|| path.clone());
                text += &format!(" = {}", first.display());
            }
            if kind.is_dir() {
                directories.push(path.clone());
            }
            tree.insert(path, text);
        }
    }
    tree
}

#[test]
fn an_honest_layer_keeps_owners_modes_times_links_and_attributes() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let (_bench, layer) = unpacked(
        Archive::new()
            .directory("./")
            .with("usr/", b'5', "", b"", |header| {
                header.set_mode(0o2775);
                header.set_gid(7);
                header.set_mtime(5);
            })
            .with("usr/sudo", b'0', "", b"#!", |header| {
                header.set_mode(0o4755);
                header.set_uid(3);
                header.set_gid(4);
            })
            .hard_link("usr/sudoedit", "usr/sudo")
            .symlink("usr/link", "/etc/passwd")
            .pax(&[
                ("mtime", b"12.5"),
                ("uid", b"3000000"),
                ("SCHILY.xattr.user.note", b"hi\0there"),
                ("SCHILY.xattr.security.capability", capability),
            ])
            .file("usr/ping", b"ping")
            .device("dev/null", b'3', 1, 3)
            .device("dev/sda", b'4', 8, 0)
            .add("dev/pipe", b'6', ""),
    );
    let at = |path: &str| fs::symlink_metadata(layer.join(path)).unwrap();
    assert_eq!((at("usr").mode() & 0o7777, at("usr").gid(), at("usr").mtime()), (0o2775, 7, 5));
    let sudo = at("usr/sudo");
    assert_eq!((sudo.mode() & 0o7777, sudo.uid(), sudo.gid()), (0o4755, 3, 4));
    assert_eq!((sudo.mtime(), sudo.ino()), (1_000_000_000, at("usr/sudoedit").ino()));
    assert_eq!(fs::read_link(layer.join("usr/link")).unwrap(), Path::new("/etc/passwd"));
    let ping = at("usr/ping");
    assert_eq!(ping.gid(), 0, "setgid of the directory is not inherited");
    assert_eq!((ping.uid(), ping.mtime(), ping.mtime_nsec()), (3_000_000, 12, 500_000_000));
    assert_eq!(xattr(&layer.join("usr/ping"), "user.note").unwrap(), b"hi\0there");
    assert_eq!(xattr(&layer.join("usr/ping"), "security.capability").unwrap(), capability);
    assert!(at("dev/null").file_type().is_char_device());
    assert_eq!(at("dev/null").rdev(), rustix::fs::makedev(1, 3));
    assert!(at("dev/sda").file_type().is_block_device());
    assert!(at("dev/pipe").file_type().is_fifo());
    assert_eq!(at("dev").mode() & 0o7777, 0o755, "a directory that the archive leaves out");
}

#[test]
fn names_are_cleaned_and_absolute_ones_start_at_the_root() {
    let (_bench, layer) = unpacked(
        Archive::new().file("/etc/a", b"a").file("./etc/./b", b"b").file("x/../etc//c", b"c"),
    );
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read(layer.join("etc").join(name)).unwrap(), name.as_bytes());
    }
    assert!(!layer.join("x").exists());
}

#[test]
fn whiteouts_become_what_overlayfs_uses() {
    let (_bench, layer) = unpacked(
        Archive::new()
            .file("etc/.wh.gone", b"")
            .file("etc/.wh.gone", b"")
            .directory("opaque/")
            .file("opaque/.wh..wh..opq", b"")
            .file("opaque/new", b"")
            .file(".wh..wh.plnk/1.2", b"aufs")
            .file(".wh..wh.aufs", b"aufs")
            .file(".wh.again", b"")
            .directory("again/")
            .file(".wh.file", b"")
            .file("file", b"new"),
    );
    assert!(is_whiteout(&layer.join("etc/gone")));
    assert_eq!(xattr(&layer.join("opaque"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(xattr(&layer.join("etc"), "trusted.overlay.opaque"), None);
    assert!(layer.join("opaque/new").exists());
    let again = xattr(&layer.join("again"), "trusted.overlay.opaque");
    assert_eq!(again.unwrap(), b"y", "a directory after its own whiteout hides the one below");
    assert_eq!(fs::read(layer.join("file")).unwrap(), b"new");
    assert_eq!(names(&layer), ["again", "etc", "file", "opaque"], "nothing of AUFS's own");
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_the_same_name() {
    let (_bench, layer) = unpacked(
        Archive::new()
            .file("a", b"first and longer")
            .file("a", b"second")
            .directory("d/")
            .file("d/sub/x", b"")
            .file("d", b"now a file")
            .symlink("s", "d")
            .directory("s/")
            .file("s/inside", b"")
            .file("keep/x", b"")
            .directory("keep/")
            .file("other", b"other")
            .hard_link("a2", "a")
            .hard_link("a2", "other")
            .symlink("l", "a")
            .file("l", b"no longer a link"),
    );
    assert_eq!(fs::read(layer.join("a")).unwrap(), b"second");
    assert_eq!(fs::read(layer.join("d")).unwrap(), b"now a file");
    assert!(fs::symlink_metadata(layer.join("s")).unwrap().is_dir());
    assert!(layer.join("s/inside").exists() && layer.join("keep/x").exists());
    assert_eq!(fs::read(layer.join("a2")).unwrap(), b"other");
    assert_eq!(fs::read(layer.join("l")).unwrap(), b"no longer a link");
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_one_more_name_of_the_link() {
    let (_bench, layer) =
        unpacked(Archive::new().symlink("link", "/etc/shadow").hard_link("other", "link"));
    assert_eq!(fs::read_link(layer.join("other")).unwrap(), Path::new("/etc/shadow"));
}

#[test]
fn what_no_honest_layer_has_is_refused_and_leaves_nothing() {
    let new = Archive::new;
    let long = "n".repeat(256);
    let deep = "d/".repeat(201);
    let very_long = "name/".repeat(1000);
    let cases: Vec<(&str, Archive, &str)> = vec![
        ("parent", new().file("../evil", b""), "out of the root"),
        ("absolute parent", new().file("/../evil", b""), "out of the root"),
        ("deep parent", new().file("a/b/../../../evil", b""), "out of the root"),
        ("parent directory", new().directory("../evil/"), "out of the root"),
        ("parent link", new().symlink("../evil", "x"), "out of the root"),
        (
            "through an absolute link",
            new().symlink("l", "/tmp").file("l/evil", b""),
            "symbolic link",
        ),
        (
            "through a relative link",
            new().symlink("l", "../..").file("l/evil", b""),
            "symbolic link",
        ),
        (
            "through a link inside",
            new().directory("d/").symlink("l", "d").file("l/x", b""),
            "symbolic link",
        ),
        (
            "through a dangling link",
            new().symlink("l", "nowhere").file("l/x", b""),
            "symbolic link",
        ),
        ("directory through a link", new().symlink("l", "/tmp").directory("l/d/"), "symbolic link"),
        (
            "whiteout through a link",
            new().symlink("l", "/tmp").file("l/.wh.x", b""),
            "symbolic link",
        ),
        (
            "opaque through a link",
            new().symlink("l", "/tmp").file("l/.wh..wh..opq", b""),
            "symbolic link",
        ),
        ("hard link out", new().hard_link("l", "../../etc/passwd"), "out of the root"),
        ("hard link to the host", new().hard_link("l", "/etc/passwd"), "does not have"),
        (
            "hard link through a link",
            new().symlink("e", "/etc").hard_link("l", "e/passwd"),
            "does not have",
        ),
        ("hard link before its target", new().hard_link("l", "a").file("a", b""), "does not have"),
        ("hard link to itself", new().file("a", b"").hard_link("a", "./a"), "itself"),
        ("hard link to a directory", new().directory("d/").hard_link("l", "d"), "directory"),
        ("hard link to the root", new().hard_link("l", "/"), "root"),
        ("hard link to nothing", new().hard_link("l", ""), "no name"),
        ("whiteout of nothing", new().file("d/.wh.", b""), "no name"),
        ("whiteout of itself", new().file("d/.wh..", b""), "no name"),
        ("whiteout of its parent", new().file("d/.wh...", b""), "no name"),
        ("whiteout after add", new().file("a", b"").file(".wh.a", b""), "put there"),
        ("whiteout of a directory", new().file("a/b", b"").file(".wh.a", b""), "put there"),
        ("below a whiteout", new().file(".wh.a", b"").file("a/b", b""), "whiteout"),
        ("whiteout with children", new().file(".wh.a/b", b""), "whiteout"),
        ("below a file", new().file("a", b"").file("a/b", b""), "file"),
        ("below a device", new().device("n", b'3', 1, 3).file("n/b", b""), "file"),
        ("root as a link", new().symlink("./", "/etc"), "root"),
        ("root as a file", new().file(".", b"x"), "root"),
        ("no name", new().file("", b"x"), "no name"),
        ("empty link", new().symlink("l", ""), "no path"),
        ("unknown type", new().add("s", b's', ""), "unknown type"),
        ("long name", new().pax(&[("path", long.as_bytes())]).file("x", b""), "255"),
        ("long path", new().pax(&[("path", very_long.as_bytes())]).file("x", b""), "4095"),
        ("deep path", new().pax(&[("path", deep.as_bytes())]).directory("x"), "200"),
        ("pax parent", new().pax(&[("path", b"../evil")]).file("x", b""), "out of the root"),
        (
            "gnu parent",
            new().with("././@LongLink", b'L', "", b"../evil\0", |_| {}).file("x", b""),
            "out of the root",
        ),
        (
            "pax hard link out",
            new().pax(&[("linkpath", b"../../evil")]).hard_link("x", "y"),
            "out of the root",
        ),
    ];
    for (name, archive, reason) in cases {
        let bench = Bench::new();
        match bench.unpack(&archive.end()) {
            Err(UnpackError::Layer {
                source: LayerError::Refused { reason: given, .. }, ..
            }) => {
                assert!(given.contains(reason), "{name}: {given}");
            }
            other => panic!("{name}: {other:?}"),
        }
        bench.assert_nothing_is_left(name);
    }
}

fn sparse_1_0(map: &str, real_size: u64, data: &[u8]) -> Vec<u8> {
    let mut content = map.as_bytes().to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend_from_slice(data);
    Archive::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"sparse"),
            ("GNU.sparse.realsize", real_size.to_string().as_bytes()),
        ])
        .file("GNUSparseFile.0/sparse", &content)
        .file("after", b"after")
        .end()
}

#[test]
fn what_is_no_archive_is_refused_and_leaves_nothing() {
    let new = Archive::new;
    let sized = |flag, size: &'static [u8; 12]| {
        new().with("a", flag, "", b"x", move |header| header.as_old_mut().size = *size).end()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("noise", vec![0x5a; 2048]),
        ("cut in a header", new().file("a", b"").end()[..300].to_vec()),
        ("cut in data", new().file("a", &[1; 2000]).end()[..1500].to_vec()),
        ("cut in padding", new().file("a", b"x").end()[..600].to_vec()),
        ("lying size", sized(b'0', b"00000010000\0")),
        ("negative size", sized(b'0', b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe")),
        ("size in letters", sized(b'0', b"aaaaaaaaaaa\0")),
        ("huge long name", sized(b'L', b"77777777777\0")),
        ("huge pax header", sized(b'x', b"77777777777\0")),
        ("endless pax size", new().pax(&[("size", b"99999999999999999999")]).file("a", b"").end()),
        ("largest size", new().pax(&[("size", b"9223372036854775807")]).file("a", b"").end()),
        ("a zero byte in a name", new().pax(&[("path", b"a\0b")]).file("a", b"").end()),
        ("a long name and no entry", new().with("l", b'L', "", b"name", |_| {}).end()),
        ("one block of zeros inside", new().file("a", b"").raw(&[0; 512]).file("b", b"").end()),
        ("owner of chown's no-op", new().pax(&[("uid", b"4294967295")]).file("a", b"").end()),
        ("owner too large", new().pax(&[("uid", b"4294967296")]).file("a", b"").end()),
        ("sparse overlap", sparse_1_0("2\n0\n10\n5\n10\n", 20, &[1; 20])),
        ("sparse beyond its end", sparse_1_0("1\n15\n10\n", 20, &[1; 10])),
        ("sparse with less data", sparse_1_0("1\n0\n10\n", 20, &[1; 5])),
        ("sparse with endless map", sparse_1_0("99999999\n0\n10\n", 20, &[1; 10])),
        ("sparse overflow", sparse_1_0("1\n18446744073709551615\n2\n", 20, &[1; 2])),
    ];
    for (name, archive) in cases {
        let bench = Bench::new();
        match bench.unpack(&archive) {
            Err(UnpackError::Layer { source: LayerError::Tar { .. }, .. }) => {}
            other => panic!("{name}: {other:?}"),
        }
        bench.assert_nothing_is_left(name);
    }
    let mut broken = new().file("a", b"x").end();
    broken[0] = b'b';
    match Bench::new().unpack(&broken) {
        Err(UnpackError::Layer { source: LayerError::Tar { source }, .. }) => {
            assert!(matches!(source, TarError::Header { reason: "wrong checksum" }), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sparse_files_of_every_form_have_their_holes() {
    let mut expected = vec![0; 1 << 20];
    expected[..3].copy_from_slice(b"abc");
    expected[(1 << 20) - 3..].copy_from_slice(b"xyz");
    let old = Archive::new()
        .with("sparse", b'S', "", b"abcxyz", |header| {
            let bytes = header.as_mut_bytes();
            bytes[257..265].copy_from_slice(b"ustar  \0");
            for (at, text) in [
                (386, "00000000000"),
                (398, "00000000003"),
                (410, "00003777775"),
                (422, "00000000003"),
                (483, "00004000000"),
            ] {
                bytes[at..at + 11].copy_from_slice(text.as_bytes());
            }
        })
        .file("after", b"after")
        .end();
    let form_0_1 = Archive::new()
        .pax(&[
            ("GNU.sparse.size", b"1048576"),
            ("GNU.sparse.map", b"0,3,1048573,3"),
            ("GNU.sparse.name", b"sparse"),
        ])
        .file("x", b"abcxyz")
        .file("after", b"after")
        .end();
    let form_1_0 = sparse_1_0("2\n0\n3\n1048573\n3\n", 1 << 20, b"abcxyz");
    for (name, archive) in [("old", old), ("0.1", form_0_1), ("1.0", form_1_0)] {
        let bench = Bench::new();
        let layer = bench.unpack(&archive).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(fs::read(layer.join("sparse")).unwrap() == expected, "{name}");
        assert_eq!(fs::read(layer.join("after")).unwrap(), b"after", "{name}");
        let blocks = fs::metadata(layer.join("sparse")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{name}: {blocks} blocks");
    }
}

#[test]
fn what_gnu_tar_writes_is_unpacked_as_gnu_tar_does() {
    for format in ["gnu", "posix", "ustar", "v7"] {
        let tree = tempfile::tempdir().unwrap();
        let is_long = format == "gnu" || format == "posix";
        let deep = tree.path().join("d".repeat(if is_long { 200 } else { 40 })).join("e");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "content").unwrap();
        symlink("t".repeat(if is_long { 300 } else { 90 }), tree.path().join("link")).unwrap();
        let mut file = fs::File::create(tree.path().join("sparse")).unwrap();
        file.write_all(b"start").unwrap();
        file.set_len(3 << 20).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["-c", "--format", format, "-C"]).arg(tree.path());
        if is_long {
            tar.arg("-S");
        }
        let output = tar.arg(".").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let bench = Bench::new();
        let layer =
            bench.unpack(&output.stdout).unwrap_or_else(|error| panic!("{format}: {error:?}"));
        assert_eq!(describe(&layer), describe(tree.path()), "{format}");
    }
}

#[test]
fn attributes_that_speak_to_the_kernel_are_left_out() {
    let (_bench, layer) = unpacked(
        Archive::new()
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.note", b"x"),
                ("SCHILY.xattr.user.note", b"x"),
            ])
            .directory("d/")
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.metacopy", b""),
                ("SCHILY.xattr.user.note", b"x"),
            ])
            .file("f", b""),
    );
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.note"] {
        assert_eq!(xattr(&layer.join("d"), name), None, "{name}");
    }
    assert_eq!(xattr(&layer.join("f"), "trusted.overlay.metacopy"), None);
    assert_eq!(xattr(&layer.join("d"), "user.note").unwrap(), b"x");
    assert_eq!(xattr(&layer.join("f"), "user.note").unwrap(), b"x");
}

#[test]
fn limits_stop_a_layer_before_it_fills_the_disk() {
    let limits = UnpackLimits { bytes: 1000, entries: 5 };
    let many = (0..6).fold(Archive::new(), |archive, n| archive.directory(&format!("d{n}")));
    for (what, archive) in [
        ("bytes", Archive::new().file("a", &[0; 600]).file("b", &[0; 600]).end()),
        ("bytes", sparse_1_0("1\n0\n1\n", 1 << 40, b"x")),
        ("entries", many.end()),
    ] {
        let bench = Bench::with_limits(limits);
        match bench.unpack(&archive) {
            Err(UnpackError::Layer {
                source: LayerError::TooLarge { what: given, .. }, ..
            }) => {
                assert_eq!(given, what);
            }
            other => panic!("{what}: {other:?}"),
        }
        bench.assert_nothing_is_left(what);
    }
}

#[test]
fn a_layer_that_is_another_one_is_refused() {
    let archive = Archive::new().file("a", b"a").end();
    let bench = Bench::new();
    let unpack = |diff_id: &DiffId, bytes: &[u8]| {
        bench.store.unpack_layer(diff_id, &mut &bytes[..], Compression::None)
    };
    let (promised, given) = (DiffId(Digest::of(b"other")), DiffId(Digest::of(&archive)));
    match unpack(&promised, &archive) {
        Err(UnpackError::WrongDiffId { expected, actual }) => {
            assert_eq!((expected, actual), (promised, given));
        }
        other => panic!("{other:?}"),
    }
    bench.assert_nothing_is_left("a wrong diff_id");
    // Bytes after the end of the archive count as well.
    let longer = [&archive[..], b"trailing"].concat();
    assert!(matches!(unpack(&given, &longer), Err(UnpackError::WrongDiffId { .. })));
    unpack(&DiffId(Digest::of(&longer)), &longer).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn layers_are_decompressed_to_the_last_member() {
    let data: Vec<u8> =
        (0..750_000u32).flat_map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()).collect();
    let archive = Archive::new().file("big", &data).end();
    let diff_id = DiffId(Digest::of(&archive));
    let (first, second) = archive.split_at(1_234_567);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    for (name, bytes, compression) in [
        ("plain", archive.clone(), Compression::None),
        ("gzip", gzip(&archive), Compression::Gzip),
        ("gzip members", [gzip(first), gzip(second)].concat(), Compression::Gzip),
        ("padded gzip", [&gzip(&archive)[..], &[0; 700]].concat(), Compression::Gzip),
        ("zstd", zstd(&archive), Compression::Zstd),
        ("zstd frames", [zstd(first), zstd(second)].concat(), Compression::Zstd),
    ] {
        let bench = Bench::new();
        let unpack =
            |bytes: &[u8]| bench.store.unpack_layer(&diff_id, &mut &bytes[..], compression);
        for cut in [0, 5, bytes.len() / 3] {
            unpack(&bytes[..cut]).expect_err(name);
            bench.assert_nothing_is_left(name);
        }
        assert_eq!(unpack(&bytes).unwrap(), archive.len() as u64, "{name}");
        let big = bench.store.layer_directory(&diff_id).join("big");
        assert!(fs::read(big).unwrap() == data, "{name}");
        assert_eq!(unpack(b"").unwrap(), 0, "{name}: the second time nothing is read");
    }
}

#[test]
fn a_full_disk_names_the_layer_and_leaves_nothing() {
    struct Disk(tempfile::TempDir);
    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
    let disk = Disk(tempfile::tempdir().unwrap());
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", disk.0.path(), "tmpfs", flags, c"size=1m").unwrap();
    let store = Store::open(&disk.0.path().join("root")).unwrap();
    let archive = Archive::new().file("big", &vec![7; 2 << 20]).end();
    let diff_id = DiffId(Digest::of(&archive));
    let error = store.unpack_layer(&diff_id, &mut &archive[..], Compression::None).unwrap_err();
    assert!(error.to_string().contains(&diff_id.to_string()), "{error}");
    match error {
        UnpackError::Layer { source: LayerError::Write { path, source }, .. } => {
            assert_eq!(path, "big");
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&store.root().join("tmp")), [""; 0]);
    let small = Archive::new().file("small", b"fits").end();
    store
        .unpack_layer(&DiffId(Digest::of(&small)), &mut &small[..], Compression::None)
        .expect("there is room again");
}

#[test]
fn many_threads_that_unpack_one_layer_unpack_it_once() {
    let add = |archive: Archive, n| archive.file(&format!("d{}/f{n}", n % 7), &[1; 3000]);
    let archive = (0..200).fold(Archive::new(), add).end();
    let diff_id = DiffId(Digest::of(&archive));
    let bench = Bench::new();
    let unpacked: Vec<u64> = std::thread::scope(|scope| {
        let unpack = || {
            // A store of its own, as another process has.
            let store = Store::open(bench.store.root()).unwrap();
            store.unpack_layer(&diff_id, &mut &archive[..], Compression::None).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(unpack)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(unpacked.iter().filter(|bytes| **bytes > 0).count(), 1, "{unpacked:?}");
    assert_eq!(names(&bench.store.root().join("layers")).len(), 2);
    assert_eq!(names(&bench.store.root().join("tmp")), [""; 0]);
}

#[test]
fn a_sweep_removes_what_the_dead_left_and_spares_the_living() {
    let bench = Bench::new();
    let root = bench.store.root();
    for directory in
        ["tmp/layer.dead/sub", "tmp/layer.alive", "trash/upper.1/x", "tmp/of-somebody-else"]
    {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("trash/file"), b"").unwrap();
    fs::write(root.join("tmp/blob.young"), b"partial").unwrap();
    let alive = fs::File::open(root.join("tmp/layer.alive")).unwrap();
    alive.lock().unwrap();
    bench.store.sweep().unwrap();
    assert_eq!(names(&root.join("tmp")), ["blob.young", "layer.alive", "of-somebody-else"]);
    assert_eq!(names(&root.join("trash")), [""; 0]);
}

/// Entries that try to get out, in any order.
fn hostile_archive() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "a",
        "b",
        "l",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh.l",
        ".wh..",
        ".wh...",
        ".wh..wh..opq",
        ".wh.",
        "outside",
    ]);
    let path = (any::<bool>(), prop::collection::vec(name, 1..5)).prop_map(|(absolute, names)| {
        format!("{}{}", if absolute { "/" } else { "" }, names.join("/"))
    });
    let target = prop::sample::select(vec![
        "..",
        "../..",
        "../../..",
        "/",
        "/tmp",
        "/etc",
        "a",
        "b",
        "l",
        ".",
        "../../outside",
        "../../../outside/canary",
        "/proc/self/cwd",
        "/proc/self/root",
        "a/../../..",
        "",
    ]);
    let flag = prop::sample::select(b"0012255367SLK".to_vec());
    let entry = (path, flag, target, any::<bool>());
    prop::collection::vec(entry, 1..12).prop_map(|entries| {
        let mut archive = Archive::new();
        for (path, flag, target, by_pax) in entries {
            let data: &[u8] = match flag {
                b'0' | b'7' => b"evil",
                b'L' => path.as_bytes(),
                b'K' => target.as_bytes(),
                _ => b"",
            };
            if by_pax {
                let records = [("path", path.as_bytes()), ("linkpath", target.as_bytes())];
                archive = archive.pax(&records);
            }
            archive = archive.with(&path, flag, target, data, |_| {});
        }
        archive.end()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_hostile_layer_never_changes_anything_outside_its_root(archive in hostile_archive()) {
        let bench = Bench::new();
        let outside = bench.directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary"), "alive").unwrap();
        fs::write(bench.store.root().join("tmp/canary"), "alive").unwrap();
        // Directories in which the store works have new times.
        let own = ["root/tmp", "root/layers", "root/locks"].map(PathBuf::from);
        let state = || {
            let mut tree = describe(bench.directory.path());
            tree.retain(|path, _| !own.contains(path));
            tree
        };
        let before = state();
        if let Ok(layer) = bench.unpack(&archive) {
            // A hard link that escaped would share its inode with the canary.
            prop_assert_eq!(fs::metadata(outside.join("canary")).unwrap().nlink(), 1);
            fs::remove_dir_all(layer).unwrap();
        }
        prop_assert_eq!(before, state());
    }
}

/// What a container could have left in its upper directory: path, kind, mode, text.
fn random_tree() -> impl Strategy<Value = Vec<(String, u8, u32, String)>> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "a name with spaces", "ünïcode"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let long = path.clone().prop_map(|path| format!("{}/{path}", "l".repeat(150)));
    let mode = prop::sample::select(vec![0o644, 0o755, 0o4711, 0o2700, 0o1777, 0o000]);
    let path = prop_oneof![9 => path, 1 => long];
    prop::collection::vec((path, 0u8..9, mode, "[a-z/.]{1,120}"), 0..25)
}

fn make_tree(root: &Path, tree: &[(String, u8, u32, String)]) {
    let mut made: Vec<PathBuf> = Vec::new();
    for (path, kind, mode, text) in tree {
        let path = root.join(path);
        let parent = path.parent().unwrap();
        let blocked = |above: &Path| above.symlink_metadata().is_ok_and(|found| !found.is_dir());
        if path.symlink_metadata().is_ok() || parent.ancestors().any(blocked) {
            continue;
        }
        fs::create_dir_all(parent).unwrap();
        let set = |name, value: &[u8]| {
            rustix::fs::setxattr(&path, name, value, XattrFlags::empty()).unwrap();
        };
        let node = |kind, device| {
            rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), device).unwrap();
        };
        match kind {
            0 | 1 => fs::write(&path, text).unwrap(),
            2 => fs::create_dir(&path).unwrap(),
            3 => symlink(text, &path).unwrap(),
            4 => node(FileType::CharacterDevice, 0),
            5 => node(FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
            6 => match made.last() {
                Some(first) => fs::hard_link(first, &path).unwrap(),
                None => fs::write(&path, "").unwrap(),
            },
            7 => {
                fs::create_dir(&path).unwrap();
                set("trusted.overlay.opaque", b"y");
                set("trusted.overlay.impure", b"y");
            }
            _ => {
                let file = fs::File::create(&path).unwrap();
                file.set_len(5 << 20).unwrap();
                file.write_all_at(text.as_bytes(), 2 << 20).unwrap();
                set("user.note", text.as_bytes());
            }
        }
        let metadata = path.symlink_metadata().unwrap();
        if !metadata.is_symlink() && *kind != 4 && metadata.nlink() < 3 {
            let uid = u32::try_from(text.len()).unwrap() * 100_000;
            std::os::unix::fs::lchown(&path, Some(uid), Some(5)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        if !matches!(kind, 2 | 4 | 7) {
            made.push(path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_diff_writes_unpack_restores(tree in random_tree()) {
        let bench = Bench::new();
        let upper = bench.store.root().join("upper");
        fs::create_dir(&upper).unwrap();
        make_tree(&upper, &tree);
        let before = describe(&upper);

        let layer = bench.store.adopt_layer(&upper).unwrap();
        prop_assert!(!upper.exists());
        let adopted = bench.store.layer_directory(&layer.diff_id);
        prop_assert_eq!(&describe(&adopted), &before);

        let other = Bench::new();
        let mut archive = bench.store.open_blob(&layer.digest).unwrap();
        other.store.unpack_layer(&layer.diff_id, &mut archive, Compression::None).unwrap();
        let unpacked = other.store.layer_directory(&layer.diff_id);
        prop_assert_eq!(&describe(&unpacked), &before);
    }
}

#[test]
fn the_same_tree_gives_the_same_layer_and_is_kept_once() {
    let bench = Bench::new();
    let mut layers = Vec::new();
    for (name, nanoseconds) in [("one", 0), ("two", 1)] {
        let upper = bench.store.root().join(name);
        fs::create_dir_all(upper.join("d")).unwrap();
        fs::write(upper.join("d/f"), "content").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(upper.join("socket")).unwrap();
        let time = Timespec { tv_sec: 1_000, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        for path in ["d/f", "d"] {
            rustix::fs::utimensat(CWD, upper.join(path), &times, AtFlags::empty()).unwrap();
        }
        layers.push(bench.store.adopt_layer(&upper).unwrap());
        assert!(!upper.exists());
    }
    assert_eq!(layers[0], layers[1], "times are cut to seconds, sockets left out");
    assert_eq!(layers[0].digest, layers[0].diff_id.0);
    assert!(bench.store.has_blob(&layers[0].digest) && bench.store.has_layer(&layers[0].diff_id));
}

#[test]
fn names_that_mean_something_else_in_a_layer_are_refused() {
    let bench = Bench::new();
    let upper = bench.store.root().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join(".wh.passwd"), "").unwrap();
    match bench.store.adopt_layer(&upper) {
        Err(DiffError::Reserved { path }) => assert_eq!(path, upper.join(".wh.passwd")),
        other => panic!("{other:?}"),
    }
    assert!(upper.exists());
    let missing = bench.store.adopt_layer(&upper.join("missing"));
    assert!(matches!(missing, Err(DiffError::Read { .. })), "{missing:?}");
}

#[test]
fn what_we_write_gnu_tar_reads() {
    let bench = Bench::new();
    let upper = bench.store.root().join("upper");
    let deep = upper.join("d".repeat(120)).join("ü");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "content").unwrap();
    fs::hard_link(deep.join("f"), upper.join("g")).unwrap();
    symlink("t".repeat(200), upper.join("link")).unwrap();
    let file = fs::File::create(upper.join("sparse")).unwrap();
    file.set_len(4 << 20).unwrap();
    file.write_all_at(b"middle", 2 << 20).unwrap();
    std::os::unix::fs::chown(upper.join("sparse"), Some(3_000_000), Some(2_000_000_000)).unwrap();
    let layer = bench.store.adopt_layer(&upper).unwrap();

    let target = tempfile::tempdir().unwrap();
    let status = Command::new("tar")
        .args(["--numeric-owner", "-xpf"])
        .arg(bench.store.root().join("images/blobs/sha256").join(layer.digest.hex()))
        .arg("-C")
        .arg(target.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(describe(target.path()), describe(&bench.store.layer_directory(&layer.diff_id)));
}

fn read_through(root: &OwnedFd, path: &str) -> Result<String, Errno> {
    let file = openat(root.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).unwrap();
    Ok(text)
}

#[test]
fn a_stack_of_layers_shows_what_their_whiteouts_leave() {
    let bench = Bench::new();
    let bottom = Archive::new()
        .file("etc/a", b"1")
        .file("etc/b", b"1")
        .file("d/old", b"1")
        .file("l", b"1")
        .directory("lnk/");
    let middle = Archive::new()
        .file("etc/b", b"2")
        .file("etc/.wh.a", b"")
        .directory("d/")
        .file("d/.wh..wh..opq", b"")
        .symlink("lnk", "/etc");
    let top = Archive::new().file("d/new", b"3").file(".wh.l", b"").file("lnk/x", b"3");
    let layers = [top, middle, bottom].map(|archive| bench.unpack(&archive.end()).unwrap());
    let mount = Overlay { lower: &layers, upper: None, volatile: false }.mount().unwrap();
    assert_eq!(read_through(&mount, "etc/b").unwrap(), "2");
    assert_eq!(read_through(&mount, "d/new").unwrap(), "3");
    assert_eq!(read_through(&mount, "lnk/x").unwrap(), "3", "replaces a link of a lower layer");
    for gone in ["etc/a", "d/old", "l"] {
        assert_eq!(read_through(&mount, gone), Err(Errno::NOENT), "{gone}");
    }
}

#[test]
fn an_upper_directory_takes_what_is_written_and_becomes_a_layer() {
    let bench = Bench::new();
    let base = bench.unpack(&Archive::new().file("etc/a", b"1").file("d/x", b"1").end()).unwrap();
    let root = bench.store.root();
    let (upper, work) = (root.join("upper"), root.join("work"));
    fs::create_dir(&upper).unwrap();
    let lower = [root.join("layers/init"), base.clone()];
    for volatile in [false, true] {
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).unwrap();
        let overlay = Overlay { lower: &lower, upper: Some((&upper, &work)), volatile };
        let mount = overlay.mount().unwrap();
        let through = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        fs::write(through.join("etc/new"), "2").unwrap();
        let _ = fs::remove_file(through.join("etc/a"));
        fs::remove_dir_all(through.join("d")).unwrap();
        fs::create_dir(through.join("d")).unwrap();
        fs::write(through.join("d/y"), "2").unwrap();
    }
    let layer = bench.store.adopt_layer(&upper).unwrap();
    let adopted = bench.store.layer_directory(&layer.diff_id);
    let other = Bench::new();
    let mut archive = bench.store.open_blob(&layer.digest).unwrap();
    other.store.unpack_layer(&layer.diff_id, &mut archive, Compression::None).unwrap();
    for top in [adopted, other.store.layer_directory(&layer.diff_id)] {
        let lower = [top, base.clone()];
        let mount = Overlay { lower: &lower, upper: None, volatile: false }.mount().unwrap();
        assert_eq!(read_through(&mount, "etc/new").unwrap(), "2");
        assert_eq!(read_through(&mount, "d/y").unwrap(), "2");
        for gone in ["etc/a", "d/x"] {
            assert_eq!(read_through(&mount, gone), Err(Errno::NOENT), "{gone} in {lower:?}");
        }
    }
}

#[test]
fn two_hundred_layers_can_be_mounted() {
    let bench = Bench::new();
    let layer = |n: usize| {
        let archive =
            Archive::new().file(&format!("f{n}"), b"x").file("top", n.to_string().as_bytes());
        bench.unpack(&archive.end()).unwrap()
    };
    let layers: Vec<PathBuf> = (0..200).rev().map(layer).collect();
    let mount = Overlay { lower: &layers, upper: None, volatile: false }.mount().unwrap();
    assert_eq!(read_through(&mount, "top").unwrap(), "199");
    assert_eq!(read_through(&mount, "f0").unwrap(), "x");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bench.directory.path().to_str().unwrap()), "it is mounted nowhere");
}

#[test]
fn a_missing_directory_is_an_error_and_not_an_empty_stack() {
    let missing = [PathBuf::from("/nonexistent/layer"), PathBuf::from("/")];
    let error = Overlay { lower: &missing, upper: None, volatile: false }.mount().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(Overlay { lower: &[], upper: None, volatile: false }.mount().is_err());
}
