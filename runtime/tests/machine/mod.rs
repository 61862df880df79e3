//! A state root of its own, a launcher and a busybox image, for tests that run containers. They need root.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "a module of tests, of which each test binary uses its part"
)]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use abax_runtime::cgroup::Cgroup;
use abax_runtime::container::{Container, ContainerId, Exit, Launcher, Options, StartError, Stdio};
use abax_runtime::digest::{DiffId, Digest};
use abax_runtime::image::{Image, Layer};
use abax_runtime::{Config, Runtime};
use oci_spec::image::{
    Config as ImageSettings, ConfigBuilder, ImageConfigurationBuilder, MediaType,
};

pub struct Machine {
    pub root: tempfile::TempDir,
    pub runtime: Runtime,
    pub launcher: Launcher,
    pub image: Image,
    /// Ids of the containers made so far, for [`Machine::assert_clean`].
    made: Mutex<Vec<ContainerId>>,
}

/// What a container did.
#[derive(Debug)]
pub struct Outcome {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

impl Machine {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes containers and needs root");
        let root = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(config(root.path())).unwrap();
        let launcher =
            Launcher::start_with(Path::new(env!("CARGO_BIN_EXE_abax-launcher"))).unwrap();
        let image = busybox(&runtime);
        Self { root, runtime, launcher, image, made: Mutex::default() }
    }

    /// The state root, as mount tables show it.
    pub fn root_text(&self) -> String {
        self.root.path().display().to_string()
    }

    /// A container that does not run yet.
    pub fn create(&self, image: &Image, options: Options, stdio: Stdio) -> Container {
        let container =
            Container::create(&self.runtime, &self.launcher, image, options, stdio).unwrap();
        self.made.lock().unwrap().push(container.id().clone());
        container
    }

    /// A container that runs.
    pub fn start(&self, options: Options) -> Container {
        let container = self.create(&self.image, options, Stdio::Null);
        container.start().unwrap();
        container
    }

    /// No directory, no cgroup, no process, no mount is left of any container of this machine.
    pub fn assert_clean(&self) {
        let empty =
            |part: &str| std::fs::read_dir(self.root.path().join(part)).unwrap().next().is_none();
        assert!(empty("containers"));
        let groups = Cgroup::list("abax").unwrap();
        for id in self.made.lock().unwrap().iter() {
            assert!(!groups.contains(&format!("abax/{id}")), "cgroup of {id}");
        }
        // The launcher deletes when it has nothing else to do.
        wait_for("the trash is emptied", || empty("trash"));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.root_text()), "{mounts}");
        let children = format!("/proc/{0}/task/{0}/children", self.launcher.pid());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        assert_eq!(children, "", "children of the launcher");
    }

    /// busybox with files over it.
    pub fn image_with(
        &self,
        settings: &ImageSettings,
        fill: impl FnOnce(&mut tar::Builder<Vec<u8>>),
    ) -> Image {
        let mut tar = tar::Builder::new(Vec::new());
        fill(&mut tar);
        let layers = [abax_testbed::busybox_rootfs_tar().unwrap(), tar.into_inner().unwrap()];
        image(&self.runtime, &layers, settings)
    }

    /// Runs a shell script in a container to its end.
    pub fn sh(&self, script: &str, options: Options) -> Outcome {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.run(Options { args, ..options }).unwrap()
    }

    pub fn run(&self, options: Options) -> Result<Outcome, StartError> {
        self.run_image(&self.image, options)
    }

    pub fn run_image(&self, image: &Image, options: Options) -> Result<Outcome, StartError> {
        let (out, stdout) = std::io::pipe().unwrap();
        let (err, stderr) = std::io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio = Stdio::Fds {
            stdin: null.into(),
            stdout: OwnedFd::from(stdout),
            stderr: OwnedFd::from(stderr),
        };
        let container = self.create(image, options, stdio);
        if let Err(error) = container.start() {
            container.wait().unwrap();
            container.delete().unwrap();
            return Err(error);
        }
        let reader = |mut pipe: std::io::PipeReader| {
            thread::spawn(move || {
                let mut text = String::new();
                pipe.read_to_string(&mut text).unwrap();
                text
            })
        };
        let (out, err) = (reader(out), reader(err));
        let exit = container
            .wait_timeout(Duration::from_secs(60))
            .unwrap()
            .expect("it ends within a minute");
        let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
        container.delete().unwrap();
        Ok(Outcome { exit, stdout, stderr })
    }
}

/// Settings for a state root of a test.
pub fn config(root: &Path) -> Config {
    Config { root: root.to_owned(), ca_bundle: None }
}

/// busybox, and nothing in its config.
pub fn busybox(runtime: &Runtime) -> Image {
    image(
        runtime,
        &[abax_testbed::busybox_rootfs_tar().unwrap()],
        &ConfigBuilder::default().build().unwrap(),
    )
}

/// Waits for a condition, generously.
pub fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Removes a bridge, also after a panic.
#[derive(Debug)]
pub struct RemoveBridge(pub &'static str);

impl Drop for RemoveBridge {
    fn drop(&mut self) {
        abax_testbed::remove_bridge(self.0);
    }
}

/// An image of these layers, the bottom first, unpacked without the store's own unpacker: these
/// tests are about containers.
pub fn image(runtime: &Runtime, tars: &[Vec<u8>], settings: &ImageSettings) -> Image {
    let store = runtime.images();
    let mut layers = Vec::new();
    for tar in tars {
        let digest = store.put_blob(tar).unwrap();
        let diff_id = DiffId(digest);
        let directory = store.layer_directory(&diff_id);
        if !directory.exists() {
            std::fs::create_dir_all(&directory).unwrap();
            let mut archive = tar::Archive::new(&tar[..]);
            archive.set_preserve_permissions(true);
            archive.set_preserve_ownerships(true);
            archive.unpack(&directory).unwrap();
        }
        layers.push(Layer {
            digest: Digest::of(tar),
            diff_id,
            size_bytes: tar.len() as u64,
            media_type: MediaType::ImageLayer,
        });
    }
    let config = ImageConfigurationBuilder::default()
        .architecture(oci_spec::image::Arch::default())
        .os(oci_spec::image::Os::Linux)
        .config(settings.clone())
        .rootfs(
            oci_spec::image::RootFsBuilder::default()
                .typ("layers")
                .diff_ids(Vec::<String>::new())
                .build()
                .unwrap(),
        )
        .build()
        .unwrap();
    store.create_image(&config, &layers, &[]).unwrap()
}

pub fn args(words: &[&str]) -> Options {
    Options { args: words.iter().map(|word| (*word).to_owned()).collect(), ..Options::default() }
}
