//! Image config + options → OCI runtime spec, with `docker run`'s defaults.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    BoxBuilder, Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping,
    LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder,
};

use super::{ContainerId, Isolation, MountSource, Options, WindowSize, devices};
use crate::cgroup::Layout;
use crate::image::Image;
use crate::network::Mode;
use crate::security::capabilities::{ALL, DOCKER_DEFAULT};

/// First id of the host that an unprivileged container's ids are mapped to.
const FIRST_UNPRIVILEGED_ID: u32 = 1_000_000;
/// Number of ids that an unprivileged container has.
pub(super) const UNPRIVILEGED_IDS: u32 = 65_536;
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

    let privileged = options.isolation == Isolation::Privileged;
    let kept: Capabilities = match options.isolation {
        Isolation::Docker => DOCKER_DEFAULT.into_iter().collect(),
        Isolation::Unprivileged => Capabilities::new(),
        Isolation::Privileged => ALL.into_iter().collect(),
    };
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
    let paths = |paths: &[&str]| -> Vec<String> {
        if privileged { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(paths(&MASKED_PATHS))
        .readonly_paths(paths(&READ_ONLY_PATHS))
        .build()?;
    linux.set_devices(privileged.then(devices::of_host));
    linux.set_resources(None);
    if unprivileged {
        let own = options.host_user;
        linux.set_uid_mappings(Some(id_mappings(own.map(|user| user.uid))?));
        linux.set_gid_mappings(Some(id_mappings(own.map(|user| user.gid))?));
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

/// Ids 0 to 65535 of the container are nobody's on the host, but for `own`, which is the host's.
fn id_mappings(own: Option<u32>) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let range = |container: u32, host: u32, size: u32| {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build()
    };
    let (first, count) = (FIRST_UNPRIVILEGED_ID, UNPRIVILEGED_IDS);
    let Some(own) = own.filter(|own| may_be_of_host(*own)) else {
        return Ok(vec![range(0, first, count)?]);
    };
    if own >= count {
        return Ok(vec![range(0, first, count)?, range(own, own, 1)?]);
    }
    let mut mappings = vec![range(0, first, own)?, range(own, own, 1)?];
    if own + 1 < count {
        mappings.push(range(own + 1, first + own + 1, count - own - 1)?);
    }
    Ok(mappings)
}

/// Whether an unprivileged container may have this id of the host.
pub(super) fn may_be_of_host(id: u32) -> bool {
    let nobodys = FIRST_UNPRIVILEGED_ID..FIRST_UNPRIVILEGED_ID + UNPRIVILEGED_IDS;
    id != 0 && !nobodys.contains(&id) && i32::try_from(id).is_ok()
}

fn resource_limits(options: &Options) -> Result<Vec<PosixRlimit>, OciSpecError> {
    if options.isolation != Isolation::Unprivileged {
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
    let access = if options.isolation == Isolation::Privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", access])?,
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
    ];
    if place.layout == Layout::V2 {
        mounts.push(mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", access])?);
    }
    for file in ETC_FILES {
        mounts.push(bind(&place.directory.join(file), &Path::new("/etc").join(file), false)?);
    }
    if let Some(bundle) = &options.ca_bundle {
        mounts.push(bind(bundle, Path::new(CA_BUNDLE), true)?);
    }
    for wanted in &options.mounts {
        mounts.push(match &wanted.source {
            MountSource::Bind(source) | MountSource::BindWithoutLinks(source) => {
                bind(source, &wanted.target, wanted.read_only)?
            }
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
    for (index, provision) in options.provisions.iter().enumerate() {
        let source = super::provisions::path(place.directory, index);
        mounts.push(bind(&source, &provision.target, true)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_of_the_host_takes_its_place_among_those_that_are_nobody_s() {
        for (own, expected) in [
            (None, &[(0, 1_000_000, 65_536)][..]),
            (Some(1), &[(0, 1_000_000, 1), (1, 1, 1), (2, 1_000_002, 65_534)]),
            (Some(1_234), &[(0, 1_000_000, 1_234), (1_234, 1_234, 1), (1_235, 1_001_235, 64_301)]),
            (Some(65_535), &[(0, 1_000_000, 65_535), (65_535, 65_535, 1)]),
            (Some(458_981), &[(0, 1_000_000, 65_536), (458_981, 458_981, 1)]),
            // Neither root nor what other containers have.
            (Some(0), &[(0, 1_000_000, 65_536)]),
            (Some(1_000_000), &[(0, 1_000_000, 65_536)]),
        ] {
            let mappings = id_mappings(own).unwrap();
            let found: Vec<_> =
                mappings.iter().map(|m| (m.container_id(), m.host_id(), m.size())).collect();
            assert_eq!(found, expected, "{own:?}");
        }
    }
}
