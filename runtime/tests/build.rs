//! What a build promises: every instruction, the cache, and that neither the
//! context nor the image can make it touch the host. Needs root and busybox-static.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use abax_runtime::build::{BuildError, BuildEvent, BuildOptions, BuildProgress, build};
use abax_runtime::container::Launcher;
use abax_runtime::image::Image;
use abax_runtime::network::Mode;
use abax_runtime::reference::Reference;
use abax_runtime::{Config, Runtime};
use serde_json::{Value, json};

/// A state root with an image `base` in it, and a context directory.
struct Bench {
    root: tempfile::TempDir,
    context: tempfile::TempDir,
    runtime: Runtime,
    launcher: Launcher,
}

/// What a build said.
#[derive(Debug, Default)]
struct Log {
    steps: Mutex<Vec<String>>,
    output: Mutex<Vec<u8>>,
}

impl BuildProgress for Log {
    fn event(&self, event: BuildEvent<'_>) {
        let line = match event {
            BuildEvent::Step { number, total, text } => format!("{number}/{total} {text}"),
            BuildEvent::Cached => "cached".to_owned(),
            BuildEvent::Layer(_) => "layer".to_owned(),
            BuildEvent::Warning(text) => format!("warning: {text}"),
            BuildEvent::Output(bytes) => {
                self.output.lock().unwrap().extend_from_slice(bytes);
                return;
            }
            _ => return,
        };
        self.steps.lock().unwrap().push(line);
    }
}

impl Log {
    fn count(&self, line: &str) -> usize {
        self.steps.lock().unwrap().iter().filter(|step| *step == line).count()
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }
}

impl Bench {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test mounts and needs root");
        let root = tempfile::tempdir().unwrap();
        let context = tempfile::tempdir().unwrap();
        let config = Config { root: root.path().to_owned(), ca_bundle: None };
        let runtime = Runtime::open(config).unwrap();
        let launcher =
            Launcher::start_with(Path::new(env!("CARGO_BIN_EXE_abax-launcher"))).unwrap();
        let bench = Self { root, context, runtime, launcher };
        bench.write("rootfs.tar", abax_testbed::busybox_rootfs_tar().unwrap());
        let text = "FROM scratch\nADD rootfs.tar /\nENV PATH=/bin:/usr/bin\nCMD [\"base\"]";
        bench.write("Dockerfile", text);
        let mut options = bench.options();
        options.tags = vec![Reference::parse("base").unwrap()];
        build(&bench.runtime, &options, &()).unwrap();
        fs::remove_file(bench.context.path().join("rootfs.tar")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.context.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn options(&self) -> BuildOptions {
        BuildOptions {
            launcher: Some(self.launcher.clone()),
            ..BuildOptions::new(self.context.path(), Mode::None)
        }
    }

    fn try_build(
        &self,
        dockerfile: &str,
        options: &BuildOptions,
    ) -> (Result<Image, BuildError>, Log) {
        self.write("Dockerfile", dockerfile);
        let log = Log::default();
        (build(&self.runtime, options, &log), log)
    }

    fn build(&self, dockerfile: &str) -> (Image, Log) {
        let (image, log) = self.try_build(dockerfile, &self.options());
        match image {
            Ok(image) => (image, log),
            Err(error) => panic!("{dockerfile}\n{}\n{}", chain(&error), log.output()),
        }
    }

    fn fail(&self, dockerfile: &str) -> String {
        match self.try_build(dockerfile, &self.options()).0 {
            Ok(_) => panic!("this should have failed:\n{dockerfile}"),
            Err(error) => chain(&error),
        }
    }

    /// Where the file of an image lies in the store: in its topmost layer.
    fn find(&self, image: &Image, path: &str) -> Option<PathBuf> {
        let store = self.runtime.images();
        image.diff_ids().iter().rev().find_map(|diff_id| {
            let path = store.layer_directory(diff_id).join(path);
            path.symlink_metadata().is_ok().then_some(path)
        })
    }

    fn read(&self, image: &Image, path: &str) -> String {
        let found = self.find(image, path).unwrap_or_else(|| panic!("{path} is in no layer"));
        fs::read_to_string(found).unwrap()
    }

    /// Kind and mode, user, group.
    fn stat(&self, image: &Image, path: &str) -> (u32, u32, u32) {
        let found = self.find(image, path).unwrap_or_else(|| panic!("{path} is in no layer"));
        let stat = found.symlink_metadata().unwrap();
        (stat.mode(), stat.uid(), stat.gid())
    }

    /// Everything that a build should not leave behind.
    fn leftovers(&self) -> Vec<PathBuf> {
        ["tmp", "containers"]
            .iter()
            .filter_map(|directory| fs::read_dir(self.root.path().join(directory)).ok())
            .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
            .collect()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn config(image: &Image, field: &str) -> Value {
    image.config_json()["config"][field].clone()
}

#[test]
fn an_archive_on_scratch_becomes_an_image() {
    let bench = Bench::new();
    let base = bench.runtime.images().find("base").unwrap().expect("it has a name");
    assert_eq!(base.diff_ids().len(), 1);
    assert_eq!(bench.stat(&base, "bin/busybox"), (0o100_755, 0, 0));
    assert_eq!(bench.stat(&base, "home/app"), (0o40_755, 1000, 1000));
    assert_eq!(bench.stat(&base, "tmp"), (0o41_777, 0, 0));
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn what_says_something_about_the_image_is_in_its_config() {
    let bench = Bench::new();
    let (image, log) = bench.build(
        "FROM base\nENV A=1 B=\"x y\"\nLABEL l=v\nUSER app\nEXPOSE 80\nVOLUME /data\n\
         ENTRYPOINT [\"/bin/echo\"]\nSTOPSIGNAL SIGINT\nWORKDIR /home/app\nMAINTAINER me",
    );
    for (field, expected) in [
        ("Env", json!(["PATH=/bin:/usr/bin", "A=1", "B=x y"])),
        ("Labels", json!({"l": "v"})),
        ("User", json!("app")),
        ("ExposedPorts", json!({"80/tcp": {}})),
        ("Volumes", json!({"/data": {}})),
        ("Entrypoint", json!(["/bin/echo"])),
        // The base's CMD was meant for the base's entry point.
        ("Cmd", Value::Null),
        ("StopSignal", json!("SIGINT")),
        ("WorkingDir", json!("/home/app")),
    ] {
        assert_eq!(config(&image, field), expected, "{field}");
    }
    assert_eq!(image.config_json()["author"], "me");
    // WORKDIR was there already: nothing changed, no layer.
    assert_eq!((image.diff_ids().len(), log.count("layer")), (1, 0));
    let history = image.config_json()["history"].as_array().unwrap().clone();
    assert_eq!(history.len(), 3 + 9);
    assert_eq!(history[3]["created_by"], "/bin/sh -c #(nop)  ENV A=1 B=x y");
    assert_eq!(history[3]["empty_layer"], true);
    assert_eq!(history[0]["empty_layer"], Value::Null);
}

#[test]
fn run_keeps_what_the_command_changed() {
    let bench = Bench::new();
    bench.write("old", "old");
    let (image, log) = bench.build(
        "FROM base\nCOPY old /old\nWORKDIR /work\nENV GREETING=hello\n\
         RUN echo $GREETING > file && rm /old && echo said && pwd\n\
         RUN [\"/bin/sh\", \"-c\", \"cat file >&2\"]\nRUN true",
    );
    assert_eq!(bench.read(&image, "work/file"), "hello\n");
    assert_eq!(log.output(), "said\n/work\nhello\n");
    let gone = bench.find(&image, "old").unwrap().symlink_metadata().unwrap();
    assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0), "a whiteout");
    // Base, COPY, WORKDIR, the first RUN; the others changed nothing.
    assert_eq!(image.diff_ids().len(), 4);
    let history = image.config_json()["history"].as_array().unwrap().clone();
    assert_eq!(
        history.last().unwrap(),
        &json!({
            "created": image.config_json()["created"],
            "created_by": "/bin/sh -c true",
            "empty_layer": true,
        })
    );
    // No mount point of a container is left in a layer.
    for path in ["proc", "sys", "dev", "etc/resolv.conf", "etc/hosts"] {
        assert_eq!(bench.find(&image, path), None, "{path}");
    }
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn user_shell_and_arguments_reach_run() {
    let bench = Bench::new();
    let mut options = bench.options();
    options.build_args = vec![
        ("GIVEN".into(), Some("given".into())),
        ("HIDDEN".into(), Some("hidden".into())),
        ("https_proxy".into(), Some("http://proxy:1".into())),
        ("UNSET".into(), None),
    ];
    let (image, log) = bench.try_build(
        "ARG GLOBAL=global\nFROM base\nARG GIVEN=default\nARG DEFAULT=default\nARG GLOBAL UNSET\n\
         RUN echo $GIVEN $DEFAULT $GLOBAL ${UNSET:-unset} ${HIDDEN:-none} $https_proxy\n\
         USER app\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN id -u; echo $-",
        &options,
    );
    let image = image.unwrap();
    assert_eq!(
        log.output().lines().collect::<Vec<_>>(),
        ["given default global unset none http://proxy:1", "1000", "ce"]
    );
    assert_eq!(log.count("warning: One or more build-args [HIDDEN] were not consumed"), 1);
    assert_eq!(config(&image, "Env"), json!(["PATH=/bin:/usr/bin"]));
    let json = image.config_json().to_string();
    assert!(!json.contains("proxy:1") && !json.contains("\"hidden"), "{json}");
    assert!(
        json.contains("|3 DEFAULT=default GIVEN=given GLOBAL=global /bin/sh -c echo"),
        "{json}"
    );
}

#[test]
fn copies_land_where_docker_puts_them() {
    let bench = Bench::new();
    bench.write("a.txt", "a");
    bench.write("b.txt", "b");
    bench.write("dir/one", "1");
    bench.write("dir/sub/two", "2");
    symlink("one", bench.path("dir/link")).unwrap();
    symlink("a.txt", bench.path("link.txt")).unwrap();
    fs::set_permissions(bench.path("dir/sub/two"), fs::Permissions::from_mode(0o4711)).unwrap();
    let (image, _) = bench.build(
        "FROM base\nWORKDIR /w\nCOPY a.txt x\nCOPY a.txt y/\nCOPY *.txt all/\nCOPY dir d\n\
         COPY dir/ d2/\nCOPY . /ctx/\nCOPY link.txt /followed\nCOPY /a.txt /abs\n\
         COPY --chown=app:nogroup --chmod=0640 dir /owned\nCOPY --chown=app a.txt /ids\n\
         COPY --chown=7:8 a.txt /numbers\nCOPY [\"a.txt\", \"/with space\"]\nADD b.txt /added\n\
         COPY <<one.txt <<\"two.txt\" /inline/\n$A ${B:-b}\none.txt\n$A\ntwo.txt\n",
    );
    for (path, text) in [
        ("w/x", "a"),
        ("w/y/a.txt", "a"),
        ("w/all/a.txt", "a"),
        ("w/all/b.txt", "b"),
        ("w/all/link.txt", "a"),
        ("w/d/one", "1"),
        ("w/d/sub/two", "2"),
        ("w/d2/one", "1"),
        ("ctx/dir/one", "1"),
        ("followed", "a"),
        ("abs", "a"),
        ("with space", "a"),
        ("added", "b"),
        ("inline/one.txt", " b\n"),
        ("inline/two.txt", "$A\n"),
    ] {
        assert_eq!(bench.read(&image, path), text, "{path}");
    }
    for (path, expected) in [
        ("w/d/sub/two", (0o104_711, 0, 0)),
        ("w/d/link", (0o120_777, 0, 0)),
        ("followed", (0o100_644, 0, 0)),
        ("owned", (0o40_755, 1000, 65534)),
        ("owned/sub", (0o40_640, 1000, 65534)),
        ("owned/one", (0o100_640, 1000, 65534)),
        ("ids", (0o100_644, 1000, 1000)),
        ("numbers", (0o100_644, 7, 8)),
    ] {
        assert_eq!(bench.stat(&image, path), expected, "{path}");
    }
    let modified = |path: PathBuf| fs::metadata(path).unwrap().mtime();
    assert_eq!(
        modified(bench.find(&image, "w/x").unwrap()),
        modified(bench.path("a.txt")),
        "times are kept"
    );
}

#[test]
fn copies_that_make_no_sense_are_refused_as_by_docker() {
    let bench = Bench::new();
    bench.write("a", "a");
    bench.write("dir/bin/x", "x");
    for (line, expected) in [
        ("COPY nosuch /x", "nosuch: file not found in build context or excluded by .dockerignore"),
        (
            "COPY no*such /x",
            "no*such: file not found in build context or excluded by .dockerignore",
        ),
        ("COPY ../a /x", "../a: forbidden path outside the build context"),
        ("COPY a a /x", "the destination must be a directory and end with a /: /x"),
        ("COPY --chown=nobody2 a /x", "unable to find user nobody2 in the image"),
        ("COPY --chmod=rwx a /x", "invalid chmod parameter \"rwx\""),
        ("COPY dir/bin /etc/passwd", "cannot copy to non-directory"),
        ("COPY a /etc/passwd/x", "cannot copy to non-directory"),
    ] {
        let text = bench.fail(&format!("FROM base\n{line}"));
        assert!(text.starts_with("Dockerfile:2: COPY failed: "), "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn ignored_files_are_not_there() {
    let bench = Bench::new();
    for name in ["keep.py", "secret.key", "logs/a.log", "logs/keep.log", "deep/x/y.pyc", "out/x"] {
        bench.write(name, name);
    }
    bench.write(".dockerignore", "# comment\n*.key\nlogs\n!logs/keep.log\n**/*.pyc\n/out\n");
    let (image, _) = bench.build("FROM base\nCOPY . /c/");
    for (path, there) in [
        ("c/keep.py", true),
        ("c/secret.key", false),
        ("c/logs/a.log", false),
        ("c/logs/keep.log", true),
        ("c/deep/x", true),
        ("c/deep/x/y.pyc", false),
        ("c/out", false),
    ] {
        assert_eq!(bench.find(&image, path).is_some(), there, "{path}");
    }
    let text = bench.fail("FROM base\nCOPY secret.key /");
    assert!(text.contains("excluded by .dockerignore"), "{text}");
    // One beside the Dockerfile takes its place.
    bench.write("Dockerfile.dockerignore", "keep.py");
    let (image, _) = bench.build("FROM base\nCOPY . /c/");
    assert!(bench.find(&image, "c/secret.key").is_some());
    assert!(bench.find(&image, "c/keep.py").is_none());
}

#[test]
fn links_in_the_context_do_not_lead_out_of_it() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), bench.path("out")).unwrap();
    symlink(outside.path().join("secret"), bench.path("file")).unwrap();
    symlink("../../../../../../../etc/passwd", bench.path("up")).unwrap();
    symlink("/proc/self/root/etc/passwd", bench.path("magic")).unwrap();
    for source in ["out/secret", "file", "up", "magic", "out", "o*t/secret"] {
        let text = bench.fail(&format!("FROM base\nCOPY {source} /x/"));
        assert!(text.contains("file not found in build context"), "{source}: {text}");
    }
    // Below a directory a link is copied as what it is.
    let (image, _) = bench.build("FROM base\nCOPY . /c/");
    let link = bench.find(&image, "c/file").unwrap();
    assert_eq!(fs::read_link(link).unwrap(), outside.path().join("secret"));
}

#[test]
fn links_in_the_image_do_not_lead_to_the_host() {
    let bench = Bench::new();
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    bench.write("payload", "payload");
    bench.write("tree/sub/file", "x");
    bench.write("tree2/link/file", "x");
    let (image, _) = bench.build(&format!(
        "FROM base\nRUN mkdir -p {target} /real && ln -s {target} /link && \
         ln -s ../../../../../../{target} /up && ln -s /real /good && ln -s /nowhere /dangling && \
         ln -s {target}/file /leaf\n\
         COPY payload /link/a\nCOPY payload /up/b\nCOPY payload /good/\nCOPY tree /link/tree\n\
         WORKDIR /link/made\nCOPY payload here\nCOPY payload /leaf",
    ));
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0, "nothing on the host");
    let inside = target.trim_start_matches('/');
    for path in ["a", "b", "tree/sub/file", "made/here"] {
        assert!(bench.find(&image, &format!("{inside}/{path}")).is_some(), "{path}");
    }
    assert!(bench.find(&image, "real/payload").is_some());
    let text = bench.fail("FROM base\nRUN ln -s /nowhere /d\nCOPY payload /d/x");
    assert!(text.contains("cannot copy to non-directory: d"), "{text}");
    let text = bench.fail("FROM base\nRUN mkdir /t && ln -s /tmp /t/link\nCOPY tree2 /t");
    assert!(text.contains("cannot copy to non-directory: t/link"), "{text}");
}

#[test]
fn archives_unpack_only_inside_their_destination() {
    let bench = Bench::new();
    let host = tempfile::tempdir().unwrap();
    let file = |name: &str, kind: tar::EntryType, link: Option<&Path>| {
        let mut header = tar::Header::new_gnu();
        // `set_path` refuses what we need here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        header
    };
    let archive = |headers: &[tar::Header]| {
        let mut builder = tar::Builder::new(Vec::new());
        for header in headers {
            builder.append(header, io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let regular = tar::EntryType::Regular;
    let link = tar::EntryType::Symlink;
    bench.write("dots.tar", archive(&[file("../../evil", regular, None)]));
    let text = bench.fail("FROM base\nADD dots.tar /x/");
    assert!(text.contains("could not unpack dots.tar"), "{text}");

    bench.write(
        "link.tar",
        archive(&[file("out", link, Some(host.path())), file("out/evil", regular, None)]),
    );
    let _ = bench.try_build("FROM base\nADD link.tar /x/", &bench.options());
    bench.write("absolute.tar", archive(&[file("/evil", regular, None)]));
    let (image, _) = bench.build("FROM base\nADD absolute.tar /x/");
    assert!(bench.find(&image, "x/evil").is_some());
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0, "nothing on the host");
    assert!(!Path::new("/evil").exists());

    // COPY does not unpack, and ADD copies what is no archive.
    bench.write("text.tar", "no archive");
    let (image, _) = bench.build("FROM base\nCOPY absolute.tar /c/\nADD text.tar /t/");
    assert!(bench.find(&image, "c/absolute.tar").is_some());
    assert_eq!(bench.read(&image, "t/text.tar"), "no archive");
}

#[test]
fn a_working_directory_that_is_a_descriptor_is_harmless() {
    let bench = Bench::new();
    let mut reached = Vec::new();
    for fd in 3..20 {
        let dockerfile = format!(
            "FROM base\nWORKDIR /proc/self/fd/{fd}\nRUN pwd; ls ../../../../../../../../../ && \
             cat ../../../../../../../../../etc/passwd"
        );
        let (_, log) = bench.try_build(&dockerfile, &bench.options());
        let host = fs::read_to_string("/etc/passwd").unwrap();
        if log.output().contains(host.trim()) {
            reached.push(fd);
        }
    }
    assert_eq!(reached, Vec::<i32>::new(), "descriptors that lead to the host");
}

#[test]
fn a_second_build_is_cached_and_gives_the_same_image() {
    let bench = Bench::new();
    bench.write("file", "1");
    let text = "FROM base\nARG A=1\nENV B=2\nWORKDIR /w\nCOPY file .\nRUN date +%N > now\nCMD x";
    let (first, log) = bench.build(text);
    assert_eq!((log.count("cached"), log.count("layer")), (0, 3));
    let (second, log) = bench.build(text);
    assert_eq!((log.count("cached"), log.count("layer")), (6, 0));
    assert_eq!(first.id(), second.id());
    // Another time is not another content.
    let file = fs::File::open(bench.path("file")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(bench.build(text).0.id(), first.id());

    let mut options = bench.options();
    options.no_cache = true;
    let (image, log) = bench.try_build(text, &options);
    assert_eq!(log.count("cached"), 0);
    assert_ne!(image.unwrap().id(), first.id());
}

#[test]
fn what_a_step_depends_on_makes_it_run_again() {
    let bench = Bench::new();
    bench.write("file", "1");
    let text = "FROM base\nARG A=1\nCOPY file /f\nRUN echo $A\nRUN echo end > /end";
    bench.build(text);
    // After what changed: (its own step and) those behind it.
    bench.write("file", "2");
    assert_eq!(bench.build(text).1.count("cached"), 1, "content");
    fs::set_permissions(bench.path("file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.build(text).1.count("cached"), 1, "mode");
    let mut options = bench.options();
    options.build_args = vec![("A".into(), Some("2".into()))];
    let (_, log) = bench.try_build(text, &options);
    // ARG says the same, COPY does not see it, both RUNs do.
    assert_eq!(log.count("cached"), 2, "argument: {log:?}");
    let changed = text.replace("echo end", "echo END");
    assert_eq!(bench.build(&changed).1.count("cached"), 3, "command");
    let env = text.replace("COPY", "ENV X=1\nCOPY");
    assert_eq!(bench.build(&env).1.count("cached"), 1, "environment");
    // A layer that is gone is made again.
    let (image, _) = bench.build(text);
    let last = bench.runtime.images().layer_directory(image.diff_ids().last().unwrap());
    fs::remove_dir_all(last).unwrap();
    let (image, log) = bench.build(text);
    assert_eq!(log.count("layer"), 1, "{log:?}");
    assert_eq!(bench.read(&image, "end"), "end\n");
}

#[test]
fn a_failing_command_fails_the_build_with_its_line_and_code() {
    let bench = Bench::new();
    let before = bench.runtime.images().list().unwrap().len();
    let text = "FROM base\nRUN echo one > /one\n\nRUN echo failing; \\\n  exit 7\nRUN echo never";
    let (result, log) = bench.try_build(text, &bench.options());
    assert_eq!(
        chain(&result.unwrap_err()),
        "Dockerfile:4: RUN failed: The command '/bin/sh -c echo failing;   exit 7' returned a non-zero code: 7"
    );
    assert_eq!(log.output(), "failing\n");
    assert_eq!(bench.runtime.images().list().unwrap().len(), before, "no image");
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
    // The steps before it are cached.
    let (_, log) = bench.build("FROM base\nRUN echo one > /one");
    assert_eq!(log.count("cached"), 1);
    let text = bench.fail("FROM base\nRUN [\"/no/such\"]");
    assert!(text.starts_with("Dockerfile:2: RUN failed: could not start '/no/such'"), "{text}");
    let text = bench.fail("FROM base\nRUN sh -c 'kill -9 $$'; exit $?");
    assert!(text.ends_with("non-zero code: 137"), "{text}");
}

#[test]
fn a_mistake_anywhere_in_the_file_stops_it_before_anything_is_done() {
    let bench = Bench::new();
    for (line, expected) in [
        ("FORM x", "Dockerfile:3: unknown instruction FORM (did you mean FROM?)"),
        ("RUN --mount=type=cache,target=/x true", "Dockerfile:3: RUN --mount is not supported yet"),
        ("HEALTHCHECK NONE", "Dockerfile:3: HEALTHCHECK is not supported yet"),
        ("COPY --from=9 a b", "Dockerfile:3: no stage 9 stands before this line"),
        ("FROM --platform=plan9/mips x", "Dockerfile:3: the platform plan9/mips on a host that is"),
    ] {
        let (result, log) =
            bench.try_build(&format!("FROM base\nRUN touch /ran\n{line}"), &bench.options());
        let text = chain(&result.unwrap_err());
        assert!(text.starts_with(expected), "{line}: {text}");
        assert_eq!(log.steps.lock().unwrap().len(), 0, "{line}");
    }
    let mut options = bench.options();
    options.target = Some("nosuch".into());
    let (result, _) = bench.try_build("FROM base", &options);
    assert_eq!(chain(&result.unwrap_err()), "Dockerfile has no stage nosuch");
}

#[test]
fn run_has_only_the_network_that_was_asked_for() {
    let bench = Bench::new();
    let (_, log) = bench.build("FROM base\nRUN ls /sys/class/net");
    assert_eq!(log.output(), "lo\n");
    let mut options = bench.options();
    options.network = Mode::Host;
    let text = "FROM base\nRUN --network=none ls /sys/class/net";
    let (result, log) = bench.try_build(text, &options);
    result.unwrap();
    assert_eq!(log.output(), "lo\n");
}

#[test]
fn stages_hand_files_on_and_only_the_needed_ones_are_built() {
    let bench = Bench::new();
    let text = "FROM base AS tools\nRUN echo made > /made\nFROM base AS unused\nRUN exit 1\n\
                FROM tools AS more\nENV M=1\nFROM scratch\nCOPY --from=tools /made /bin/busybox /x/\n\
                COPY --from=2 /made /y\nCOPY --from=base /etc/passwd /z";
    let (image, log) = bench.build(text);
    assert_eq!(bench.read(&image, "x/made"), "made\n");
    assert_eq!(bench.read(&image, "y"), "made\n");
    assert!(bench.find(&image, "z").is_some());
    assert!(!log.steps.lock().unwrap().iter().any(|step| step.contains("exit 1")));
    assert_eq!(image.diff_ids().len(), 3);
    let mut options = bench.options();
    options.target = Some("more".into());
    let (image, log) = bench.try_build(text, &options);
    assert_eq!(config(&image.unwrap(), "Env"), json!(["PATH=/bin:/usr/bin", "M=1"]));
    assert_eq!(log.count("cached"), 2, "RUN and ENV");
}

#[test]
fn names_go_to_the_new_image() {
    let bench = Bench::new();
    let mut options = bench.options();
    options.tags = vec![Reference::parse("one:1").unwrap(), Reference::parse("two").unwrap()];
    let (image, _) = bench.try_build("FROM base\nLABEL a=b", &options);
    let image = image.unwrap();
    for name in ["one:1", "two:latest"] {
        let found = bench.runtime.images().find(name).unwrap().expect(name);
        assert_eq!(found.id(), image.id(), "{name}");
    }
}

#[test]
fn builds_at_the_same_time_do_not_disturb_each_other() {
    let bench = Bench::new();
    bench.write("Dockerfile", "FROM base\nRUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| build(&bench.runtime, &bench.options(), &()).unwrap());
        }
    });
    let (_, log) = bench.build("FROM base\nRUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c");
    assert_eq!(log.count("cached"), 3);
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
}
