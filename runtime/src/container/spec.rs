//! Image config + options → OCI runtime spec, with `docker run`'s defaults.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMappingBuilder,
    LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
};

use super::{ContainerId, Isolation, MountSource, Options, WindowSize};
use crate::cgroup::Layout;
use crate::image::Image;
use crate::network::Mode;
use crate::security::capabilities::DOCKER_DEFAULT;

/// First id of the host that an unprivileged container's ids are mapped to.
const FIRST_UNPRIVILEGED_ID: u32 = 1_000_000;
/// Number of ids that an unprivileged container has.
const UNPRIVILEGED_IDS: u32 = 65_536;
/// Processes of an unprivileged container for which no limit was asked: what a fork bomb gets.
const UNPRIVILEGED_PROCESSES: u64 = 4_096;
/// Where the program of a container whose image says nothing is looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the host's CA bundle is shown: /dev is always ours, so no layer gets a mount point.
const CA_BUNDLE: &str = "/dev/ca-bundle.crt";
/// Variables by which programs find a CA bundle.
const CA_BUNDLE_VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
];

/// Paths that Docker hides.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that Docker makes read-only.
const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Files of a container's directory that are shown in its /etc.
pub(super) const ETC_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What the container is beside its image and options.
pub(super) struct Place<'a> {
    pub(super) id: &'a ContainerId,
    /// ROOT/containers/ID.
    pub(super) directory: &'a Path,
    pub(super) hostname: &'a str,
    pub(super) layout: Layout,
    pub(super) window: Option<WindowSize>,
}

/// The spec of one container.
///
/// # Errors
///
/// When a builder of the spec finds a value that the runtime spec does not allow.
pub(super) fn spec(
    image: &Image,
    options: &Options,
    place: &Place<'_>,
) -> Result<Spec, OciSpecError> {
    let terminal = place.window.is_some();
    let arguments = arguments(image, options);
    let environment = environment(image, options, place.hostname, terminal);
    let directory = working_directory(image, options);
    let unprivileged = options.isolation == Isolation::Unprivileged;

    let kept: Capabilities =
        if unprivileged { Capabilities::new() } else { DOCKER_DEFAULT.into_iter().collect() };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(kept.clone())
        .effective(kept.clone())
        .permitted(kept)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(terminal)
        .args(arguments)
        .env(environment)
        .cwd(directory)
        .capabilities(capabilities)
        .rlimits(resource_limits(options)?)
        .no_new_privileges(unprivileged)
        .build()?;
    if let Some(WindowSize { rows, columns }) = place.window {
        let size =
            BoxBuilder::default().height(u64::from(rows)).width(u64::from(columns)).build()?;
        process.set_console_size(Some(size));
    }

    let mut namespaces = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    if !matches!(options.network, Mode::Host) {
        namespaces.push(LinuxNamespaceType::Network);
    }
    if unprivileged {
        namespaces.push(LinuxNamespaceType::User);
    }
    let namespaces = namespaces
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(MASKED_PATHS.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY_PATHS.map(str::to_owned).to_vec())
        .build()?;
    linux.set_devices(None);
    linux.set_resources(None);
    if unprivileged {
        let map = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(FIRST_UNPRIVILEGED_ID)
            .size(UNPRIVILEGED_IDS)
            .build()?;
        linux.set_uid_mappings(Some(vec![map]));
        linux.set_gid_mappings(Some(vec![map]));
    }

    SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path("/").readonly(options.read_only).build()?)
        .hostname(place.hostname)
        .mounts(mounts(options, place)?)
        .process(process)
        .linux(linux)
        .annotations(HashMap::from([("dev.abax.id".to_owned(), place.id.to_string())]))
        .build()
}

/// Docker's rules: a given entrypoint puts the image's command out of force.
pub(super) fn arguments(image: &Image, options: &Options) -> Vec<String> {
    let config = image.config().config().as_ref();
    let of_image = |part: fn(&oci_spec::image::Config) -> &Option<Vec<String>>| {
        config.and_then(|config| part(config).clone()).unwrap_or_default()
    };
    let (mut arguments, command) = match &options.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => {
            (of_image(oci_spec::image::Config::entrypoint), of_image(oci_spec::image::Config::cmd))
        }
    };
    arguments.extend(if options.args.is_empty() { command } else { options.args.clone() });
    arguments
}

/// What the user is called, by the options or else by the image.
pub(super) fn user(image: &Image, options: &Options) -> String {
    let of_image = || image.config().config().as_ref().and_then(|config| config.user().clone());
    options.user.clone().or_else(of_image).unwrap_or_default()
}

fn working_directory(image: &Image, options: &Options) -> PathBuf {
    let of_image = image.config().config().as_ref().and_then(|config| config.working_dir().clone());
    let of_image =
        of_image.filter(|directory| !directory.is_empty()).unwrap_or_else(|| "/".to_owned());
    match &options.working_directory {
        None => Path::new("/").join(of_image),
        Some(directory) => Path::new("/").join(directory),
    }
}

/// Docker's variables under the image's, under the caller's.
fn environment(image: &Image, options: &Options, hostname: &str, terminal: bool) -> Vec<String> {
    let mut environment: Vec<(String, String)> = Vec::new();
    let mut set =
        |name: &str, value: &str| match environment.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => environment.push((name.to_owned(), value.to_owned())),
        };
    set("PATH", PATH);
    set("HOSTNAME", hostname);
    if terminal {
        set("TERM", "xterm");
    }
    if options.ca_bundle.is_some() {
        for name in CA_BUNDLE_VARIABLES {
            set(name, CA_BUNDLE);
        }
    }
    let of_image = image.config().config().as_ref().and_then(|config| config.env().as_ref());
    for line in of_image.into_iter().flatten() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        set(name, value);
    }
    for (name, value) in &options.env {
        set(name, value);
    }
    environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn resource_limits(options: &Options) -> Result<Vec<PosixRlimit>, OciSpecError> {
    if options.isolation == Isolation::Docker {
        return Ok(Vec::new());
    }
    let limit =
        |kind, value: u64| PosixRlimitBuilder::default().typ(kind).soft(value).hard(value).build();
    let mut limits = vec![limit(PosixRlimitType::RlimitCore, 0)?];
    // A pids limit counts what the container has; this one is the bound where none was asked.
    if options.limits.pids.is_none() {
        limits.push(limit(PosixRlimitType::RlimitNproc, UNPRIVILEGED_PROCESSES)?);
    }
    Ok(limits)
}

fn mounts(options: &Options, place: &Place<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])?,
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
    ];
    if place.layout == Layout::V2 {
        mounts.push(mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "ro"])?);
    }
    for file in ETC_FILES {
        mounts.push(bind(&place.directory.join(file), &Path::new("/etc").join(file), false)?);
    }
    if let Some(bundle) = &options.ca_bundle {
        mounts.push(bind(bundle, Path::new(CA_BUNDLE), true)?);
    }
    for wanted in &options.mounts {
        mounts.push(match &wanted.source {
            MountSource::Bind(source) => bind(source, &wanted.target, wanted.read_only)?,
            MountSource::Tmpfs { size_bytes } => {
                let mut flags =
                    vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
                flags.extend(size_bytes.map(|bytes| format!("size={bytes}")));
                flags.extend(wanted.read_only.then(|| "ro".to_owned()));
                let flags: Vec<_> = flags.iter().map(String::as_str).collect();
                mount("tmpfs", &wanted.target, &flags)?
            }
        });
    }
    Ok(mounts)
}

fn mount(kind: &str, target: impl AsRef<Path>, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .typ(kind)
        .source(kind)
        .destination(target.as_ref())
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<Mount, OciSpecError> {
    let access = if read_only { "ro" } else { "rw" };
    MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(Path::new("/").join(target))
        .options(vec!["rbind".to_owned(), "rprivate".to_owned(), access.to_owned()])
        .build()
}
