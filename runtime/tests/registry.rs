//! Pulls against a real registry, well-behaved and not. Needs root, and what
//! `testbed/install.sh` installs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use abax_runtime::digest::Digest;
use abax_runtime::image::{Image, Store};
use abax_runtime::platform::Platform;
use abax_runtime::reference::Reference;
use abax_runtime::registry::{
    self, Event, LayerStatus, Progress, PullError, RegistriesConfig, Unsupported, pull,
};
use abax_testbed::{
    Access, Action, Compression, Front, Layout, Manifest, PASSWORD, Registry, Request,
    busybox_image, files_tar, noise,
};
use serde_json::json;
use tempfile::TempDir;

/// A state root of its own.
struct Root {
    directory: TempDir,
    store: Store,
}

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self { directory, store }
    }

    fn pull(&self, name: &str) -> Result<Image, PullError> {
        self.pull_with(&fast(), name)
    }

    fn pull_with(&self, config: &RegistriesConfig, name: &str) -> Result<Image, PullError> {
        pull(&self.store, config, &Reference::parse(name).unwrap(), &Platform::host(), &())
    }

    fn names_in(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Asserts that nothing came of a pull but the beginning of downloads.
    fn assert_empty(&self) {
        assert!(self.store.list().unwrap().is_empty(), "an image is listed");
        for place in ["layers", "trash", "locks"] {
            let left = self.names_in(place);
            assert!(left.iter().all(|name| name == "init"), "{place}: {left:?}");
        }
        let left = self.names_in("tmp");
        assert!(left.iter().all(|name| name.starts_with("blob.")), "tmp: {left:?}");
    }
}

/// The defaults, with short waits.
fn fast() -> RegistriesConfig {
    RegistriesConfig { retry_delay_milliseconds: 10, timeout_seconds: 5, ..Default::default() }
}

/// The error and its causes, as the command prints them.
fn chain(error: &PullError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

/// A layout with `test`, an image of `count` gzip layers of noise.
fn noisy(count: u64, bytes: usize) -> (Layout, Manifest) {
    let layout = Layout::new().unwrap();
    let tars: Vec<_> = (0..count)
        .map(|n| files_tar(&[(&format!("file{n}"), &noise(n, bytes)[..])]).unwrap())
        .collect();
    let layers: Vec<_> = tars.iter().map(|tar| (&tar[..], Compression::Gzip)).collect();
    let manifest = layout.image("test", &layers, &json!({ "Cmd": ["sh"] })).unwrap();
    (layout, manifest)
}

/// A registry with `team/noise:1`, [`noisy`].
fn noisy_registry(count: u64, bytes: usize) -> (Registry, Manifest) {
    let registry = Registry::start().unwrap();
    let (layout, manifest) = noisy(count, bytes);
    registry.push(&layout, "test", "team/noise:1").unwrap();
    (registry, manifest)
}

fn front(
    registry: &Registry,
    decide: impl Fn(&Request, usize) -> Action + Send + Sync + 'static,
) -> (Front, String) {
    let front = Front::start(&registry.address(), decide).unwrap();
    let name = format!("{}/team/noise:1", front.address());
    (front, name)
}

fn dead_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Remembers events as text.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Progress for Recorder {
    fn event(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

#[test]
fn a_pulled_image_is_stored_unpacked_and_named() {
    let registry = Registry::start().unwrap();
    let name = registry.push(&busybox_image().unwrap(), "latest", "team/busybox:1").unwrap();
    let root = Root::new();
    let image = root.pull(&name).unwrap();
    assert_eq!(root.store.find(&name).unwrap().unwrap().id(), image.id());
    assert_eq!(image.diff_ids().len(), 1);
    let layer = root.store.layer_directory(&image.diff_ids()[0]);
    assert!(layer.join("bin/busybox").exists());
    assert_eq!(std::fs::read_link(layer.join("bin/sh")).unwrap(), Path::new("busybox"));
    assert_eq!(image.config().config().as_ref().unwrap().cmd().as_ref().unwrap(), &["sh"]);
}

#[test]
fn plain_gzip_and_zstd_layers_unpack_to_what_was_packed() {
    let registry = Registry::start().unwrap();
    let layout = Layout::new().unwrap();
    let contents = [noise(1, 3 << 20), b"plain".to_vec(), vec![7; 1 << 20]];
    let tars: Vec<_> = contents.iter().map(|bytes| files_tar(&[("f", bytes)]).unwrap()).collect();
    let layers = [
        (&tars[0][..], Compression::Zstd),
        (&tars[1][..], Compression::None),
        (&tars[2][..], Compression::Gzip),
    ];
    let manifest = layout.image("test", &layers, &json!({})).unwrap();
    let name = registry.push(&layout, "test", "mixed:1").unwrap();
    let root = Root::new();
    let image = root.pull(&name).unwrap();
    for (index, content) in contents.iter().enumerate() {
        let diff_id = image.diff_ids()[index];
        assert_eq!(diff_id.to_string(), manifest.diff_ids[index]);
        let unpacked = std::fs::read(root.store.layer_directory(&diff_id).join("f")).unwrap();
        assert!(unpacked == *content, "{diff_id}");
    }
    // Stored as built; skopeo compresses only plain layers as it pushes.
    assert!(image.layers()[0].media_type.to_string().ends_with("+zstd"));
}

#[test]
fn docker_manifests_are_pulled_too() {
    let registry = Registry::start().unwrap();
    let name = registry.push_as(&busybox_image().unwrap(), "latest", "busybox:2", "v2s2").unwrap();
    let image = Root::new().pull(&name).unwrap();
    assert!(image.layers()[0].media_type.to_string().contains("vnd.docker"));
}

#[test]
fn a_layer_that_an_image_repeats_is_fetched_once() {
    let registry = Registry::start().unwrap();
    let layout = Layout::new().unwrap();
    let tar = files_tar(&[("f", b"again")]).unwrap();
    let layer = (&tar[..], Compression::Gzip);
    layout.image("test", &[layer, layer, layer], &json!({})).unwrap();
    registry.push(&layout, "test", "team/noise:1").unwrap();
    let (front, name) = front(&registry, |_, _| Action::Forward);
    let image = Root::new().pull(&name).unwrap();
    assert_eq!(image.diff_ids().len(), 3);
    let blobs = front.requests().iter().filter(|request| request.is_blob()).count();
    assert_eq!(blobs, 2, "config and layer");
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    let registry = Registry::start().unwrap();
    let layout = Layout::new().unwrap();
    let host = Platform::host().architecture;
    let mut manifests = HashMap::new();
    for architecture in ["riscv64", &host, "s390x"] {
        let tar = files_tar(&[("arch", architecture.as_bytes())]).unwrap();
        let layers = [(&tar[..], Compression::Gzip)];
        let manifest = layout.untagged_image(architecture, &layers, &json!({})).unwrap();
        manifests.insert(architecture.to_owned(), manifest);
    }
    let entries: Vec<_> =
        manifests.iter().map(|(architecture, m)| (architecture.as_str(), m)).collect();
    let index = layout.index("multi", &entries).unwrap();
    let name = registry.push(&layout, "multi", "multi:1").unwrap();
    let root = Root::new();
    let image = root.pull(&name).unwrap();
    assert_eq!(image.manifest_digest().to_string(), manifests[&host].digest);

    // The index's digest names the same image.
    let by_digest = format!("{}/multi@{index}", registry.address());
    assert_eq!(root.pull(&by_digest).unwrap().id(), image.id());

    let other = Platform { os: "linux".into(), architecture: "mips64le".into(), variant: None };
    let reference = Reference::parse(&name).unwrap();
    let error = pull(&root.store, &fast(), &reference, &other, &()).unwrap_err();
    let PullError::NoPlatform { offered, .. } = error else { panic!("{error:?}") };
    assert!(offered.contains(&"linux/s390x".to_owned()), "{offered:?}");
}

#[test]
fn a_digest_names_one_manifest_and_no_other() {
    let (registry, manifest) = noisy_registry(1, 1000);
    let root = Root::new();
    let name = format!("{}/team/noise@{}", registry.address(), manifest.digest);
    let image = root.pull(&name).unwrap();
    assert_eq!(image.manifest_digest().to_string(), manifest.digest);

    let (other, other_manifest) = noisy(2, 1000);
    let hex = other_manifest.digest.trim_start_matches("sha256:");
    let body = std::fs::read_to_string(other.path().join("blobs/sha256").join(hex)).unwrap();
    let (liar, _) = front(&registry, move |request, _| match request.is_manifest() {
        true => Action::Answer(200, Vec::new(), body.clone()),
        false => Action::Forward,
    });
    let root = Root::new();
    let name = format!("{}/team/noise@{}", liar.address(), manifest.digest);
    let error = root.pull(&name).unwrap_err();
    assert_eq!(
        chain(&error),
        format!("manifest {} arrived as {}", manifest.digest, other_manifest.digest)
    );
    root.assert_empty();
}

#[test]
fn a_missing_tag_and_a_missing_repository_are_no_image() {
    let (registry, _) = noisy_registry(1, 10);
    let root = Root::new();
    for name in ["team/noise:nope", "nope:latest"] {
        let name = format!("{}/{name}", registry.address());
        let error = root.pull(&name).unwrap_err();
        assert_eq!(chain(&error), format!("no image {name}"));
        assert!(!error.is_transient());
    }
    root.assert_empty();
}

#[test]
fn a_registry_that_is_down_is_told_at_once() {
    let address = dead_address();
    let started = Instant::now();
    let error = Root::new()
        .pull_with(&RegistriesConfig::default(), &format!("{address}/busybox"))
        .unwrap_err();
    assert_eq!(chain(&error), format!("registry {address} is not reachable: connection refused"));
    assert!(error.is_transient());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_layer_that_arrives_corrupt_is_fetched_again() {
    let (registry, manifest) = noisy_registry(1, 200_000);
    let layer = manifest.layers[0].clone();
    let (_front, name) = front(&registry, move |request, earlier| {
        let first = request.target.contains(&layer) && earlier == 0;
        if first { Action::Corrupt } else { Action::Forward }
    });
    let root = Root::new();
    let image = root.pull(&name).unwrap();
    let file = root.store.layer_directory(&image.diff_ids()[0]).join("file0");
    assert!(std::fs::read(file).unwrap() == noise(0, 200_000));
}

#[test]
fn a_layer_that_always_arrives_corrupt_leaves_nothing_behind() {
    let (registry, manifest) = noisy_registry(3, 200_000);
    let layer = manifest.layers[1].clone();
    let (_front, name) = front(&registry, move |request, _| {
        if request.target.contains(&layer) { Action::Corrupt } else { Action::Forward }
    });
    let root = Root::new();
    let error = root.pull(&name).unwrap_err();
    let PullError::DigestMismatch { expected, .. } = &error else { panic!("{error:?}") };
    assert_eq!(expected.to_string(), manifest.layers[1]);
    assert!(error.is_transient());
    assert!(!root.store.has_blob(expected));
    assert!(root.store.list().unwrap().is_empty());
    let left = root.names_in("tmp");
    assert!(left.iter().all(|name| !name.contains(&expected.hex())), "{left:?}");
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_stopped() {
    const CUT: usize = 1_000_000;
    let (registry, manifest) = noisy_registry(1, 3 << 20);
    let layer = manifest.layers[0].clone();
    for ignore_range in [false, true] {
        let cut = layer.clone();
        let (front, name) = front(&registry, move |request, earlier| {
            match (request.target.contains(&cut), earlier) {
                (true, 0) => Action::CutAfter(CUT),
                (true, _) if ignore_range => Action::IgnoreRange,
                _ => Action::Forward,
            }
        });
        let root = Root::new();
        let image = root.pull(&name).unwrap();
        let file = root.store.layer_directory(&image.diff_ids()[0]).join("file0");
        assert!(std::fs::read(file).unwrap() == noise(0, 3 << 20));
        let requests = front.requests();
        let ranges: Vec<_> = requests
            .iter()
            .filter(|request| request.target.contains(&layer))
            .map(|request| request.header("range"))
            .collect();
        assert_eq!(ranges, [None, Some(format!("bytes={CUT}-").as_str())]);
    }
}

#[test]
fn a_pull_goes_on_where_a_failed_one_stopped() {
    const CUT: usize = 2_000_000;
    let (registry, manifest) = noisy_registry(1, 3 << 20);
    let layer = manifest.layers[0].clone();
    let cut = layer.clone();
    let (front, name) = front(&registry, move |request, earlier| {
        let first = request.target.contains(&cut) && earlier == 0;
        if first { Action::CutAfter(CUT) } else { Action::Forward }
    });
    let root = Root::new();
    let once = RegistriesConfig { attempts: 1, ..fast() };
    let error = root.pull_with(&once, &name).unwrap_err();
    assert!(chain(&error).starts_with(&format!("could not fetch layer {layer}: ")), "{error:?}");
    assert!(error.is_transient());
    root.assert_empty();

    root.pull_with(&once, &name).unwrap();
    let requests = front.requests();
    let last = requests.iter().rfind(|request| request.target.contains(&layer)).unwrap();
    assert_eq!(last.header("range"), Some(format!("bytes={CUT}-").as_str()));
}

#[test]
fn an_overloaded_registry_is_asked_again() {
    let (registry, _) = noisy_registry(2, 1000);
    let (_front, name) = front(&registry, |_, earlier| match earlier {
        0 => Action::Answer(503, Vec::new(), String::new()),
        _ => Action::Forward,
    });
    Root::new().pull(&name).unwrap();
}

#[test]
fn a_registry_that_stays_overloaded_is_given_up_with_its_words() {
    let (registry, _) = noisy_registry(1, 10);
    let (front, name) = front(&registry, |_, _| {
        let body = json!({ "errors": [{ "code": "UNAVAILABLE", "message": "too hot in here" }] });
        Action::Answer(503, Vec::new(), body.to_string())
    });
    let config = RegistriesConfig { attempts: 3, ..fast() };
    let error = Root::new().pull_with(&config, &name).unwrap_err();
    let text = chain(&error);
    assert!(text.ends_with("manifests/1: the registry answered 503 (too hot in here)"), "{text}");
    assert!(error.is_transient());
    assert_eq!(front.requests().len(), 3);
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_asked() {
    let (registry, _) = noisy_registry(1, 1000);
    let (_front, name) =
        front(&registry, |request, earlier| match request.is_manifest() && earlier == 0 {
            true => Action::Answer(429, vec![("Retry-After".into(), "1".into())], String::new()),
            false => Action::Forward,
        });
    let recorder = Recorder::default();
    let root = Root::new();
    let reference = Reference::parse(&name).unwrap();
    let started = Instant::now();
    pull(&root.store, &fast(), &reference, &Platform::host(), &recorder).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    let events = recorder.0.into_inner().unwrap();
    assert!(events.iter().any(|event| event.starts_with("Retrying") && event.contains("429")));
}

#[test]
fn a_registry_that_stalls_is_asked_again() {
    let (registry, _) = noisy_registry(1, 1000);
    let (_front, name) = front(&registry, |request, earlier| {
        let first = request.is_blob() && earlier == 0;
        if first { Action::Delay(Duration::from_secs(20)) } else { Action::Forward }
    });
    let config = RegistriesConfig { timeout_seconds: 1, ..fast() };
    let started = Instant::now();
    Root::new().pull_with(&config, &name).unwrap();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn credentials_of_dockers_config_open_a_registry_with_basic_authentication() {
    let registry = Registry::start_with(Access::Basic).unwrap();
    let (layout, _) = noisy(3, 1000);
    let name = registry.push(&layout, "test", "team/noise:1").unwrap();
    let address = registry.address();
    let root = Root::new();

    let error = root.pull(&name).unwrap_err();
    assert_eq!(
        chain(&error),
        format!(
            "registry {address} gives team/noise only to those who log in (or there is no such \
             repository)"
        )
    );
    let wrong = registry.docker_config(&address, "guess").unwrap();
    let config = RegistriesConfig { docker_config: Some(wrong), ..fast() };
    let error = root.pull_with(&config, &name).unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with(&format!("registry {address} refuses team/noise to abax")), "{text}");
    assert!(!error.is_transient());
    root.assert_empty();

    let right = registry.docker_config(&address, PASSWORD).unwrap();
    let config = RegistriesConfig { docker_config: Some(right), ..fast() };
    root.pull_with(&config, &name).unwrap();
}

#[test]
fn one_token_opens_a_registry_for_all_parts_of_an_image() {
    let registry = Registry::start_with(Access::Token).unwrap();
    let (layout, _) = noisy(5, 1000);
    let name = registry.push(&layout, "test", "team/noise:1").unwrap();
    let address = registry.address();
    let root = Root::new();

    // A stranger gets a token here, and the token is good for nothing.
    let error = root.pull(&name).unwrap_err();
    let PullError::Registry { source: registry::Error::CredentialsMissing { .. } } = error else {
        panic!("{error:?}")
    };
    let wrong = registry.docker_config(&address, "guess").unwrap();
    let config = RegistriesConfig { docker_config: Some(wrong), ..fast() };
    let error = root.pull_with(&config, &name).unwrap_err();
    assert_eq!(
        chain(&error),
        format!("registry {address} refuses team/noise to abax (wrong password)")
    );

    let right = registry.docker_config(&address, PASSWORD).unwrap();
    let config = RegistriesConfig { docker_config: Some(right), ..fast() };
    let before = registry.token_server().unwrap().requests();
    root.pull_with(&config, &name).unwrap();
    assert_eq!(registry.token_server().unwrap().requests() - before, 1);
}

#[test]
fn a_redirect_to_another_host_takes_no_credentials_along() {
    let closed = Registry::start_with(Access::Basic).unwrap();
    let (layout, _) = noisy(2, 1000);
    closed.push(&layout, "test", "team/noise:1").unwrap();
    let (open, _) = noisy_registry(2, 1000);
    let (storage, _) = front(&open, |_, _| Action::Forward);
    let target = storage.address();
    let (front, name) = front(&closed, move |request, _| {
        if request.is_blob() && request.header("authorization").is_some() {
            let location = format!("http://{target}{}?signature=1", request.target);
            Action::Answer(307, vec![("Location".into(), location)], String::new())
        } else {
            Action::Forward
        }
    });
    let docker_config = Some(closed.docker_config(&front.address(), PASSWORD).unwrap());
    let config = RegistriesConfig { docker_config, ..fast() };
    Root::new().pull_with(&config, &name).unwrap();
    assert_eq!(storage.requests().len(), 3);
    for request in storage.requests() {
        assert_eq!(request.header("authorization"), None, "{}", request.target);
        assert!(request.target.contains("signature=1"));
    }
}

#[test]
fn a_mirror_serves_images_of_a_registry_that_is_never_asked() {
    let registry = Registry::start().unwrap();
    let layout = busybox_image().unwrap();
    registry.push(&layout, "latest", "library/busybox:latest").unwrap();
    let mut config = fast();
    config.mirrors.insert("docker.io".into(), vec![format!("http://{}", registry.address())]);
    let root = Root::new();
    let image = root.pull_with(&config, "busybox").unwrap();
    let found = root.store.find("docker.io/library/busybox:latest").unwrap().unwrap();
    assert_eq!(found.id(), image.id());
}

#[test]
fn a_ca_bundle_opens_a_registry_of_a_private_authority() {
    let registry = Registry::start_tls().unwrap();
    let layout = busybox_image().unwrap();
    registry.push(&layout, "latest", "team/busybox:1").unwrap();
    let name = format!("{}/team/busybox:1", dead_address());
    let reference = Reference::parse(&name).unwrap();
    let mut config = fast();
    let mirror = format!("https://{}", registry.address());
    config.mirrors.insert(reference.registry().to_owned(), vec![mirror]);

    let recorder = Recorder::default();
    let root = Root::new();
    pull(&root.store, &config, &reference, &Platform::host(), &recorder).unwrap_err();
    let events = recorder.0.into_inner().unwrap();
    assert!(events.iter().any(|event| event.contains("UnknownIssuer")), "{events:?}");

    config.ca_bundle = Some(registry.certificate());
    root.pull_with(&config, &name).unwrap();
}

#[test]
fn a_registry_that_is_asked_with_or_without_tls_by_mistake_is_told_so() {
    let encrypted = Registry::start_tls().unwrap();
    let name = format!("{}/team/busybox:1", encrypted.address());
    let error = Root::new().pull(&name).unwrap_err();
    let text = chain(&error);
    assert!(text.ends_with("the registry speaks HTTPS and was asked by plain HTTP"), "{text}");
    assert!(!error.is_transient());

    let plain = Registry::start().unwrap();
    let name = format!("{}/team/busybox:1", dead_address());
    let reference = Reference::parse(&name).unwrap();
    let mut config = fast();
    let mirror = format!("https://{}", plain.address());
    config.mirrors.insert(reference.registry().to_owned(), vec![mirror]);
    struct Mirror(Mutex<Vec<String>>);
    impl Progress for Mirror {
        fn event(&self, event: Event<'_>) {
            if let Event::Fallback { error, .. } = event {
                self.0.lock().unwrap().push(chain(error));
            }
        }
    }
    let progress = Mirror(Mutex::default());
    let root = Root::new();
    pull(&root.store, &config, &reference, &Platform::host(), &progress).unwrap_err();
    let errors = progress.0.into_inner().unwrap();
    assert!(errors[0].contains("it does not speak HTTPS"), "{errors:?}");
}

#[test]
fn mirrors_that_fail_are_passed_over() {
    let (registry, manifest) = noisy_registry(2, 1000);
    let empty = Registry::start().unwrap();
    let (broken, _) = front(&registry, |_, _| Action::Answer(500, Vec::new(), String::new()));
    // This one has the manifest and lacks a layer.
    let layer = manifest.layers[1].clone();
    let (partial, _) = front(&registry, move |request, _| {
        let lacks = request.target.contains(&layer);
        if lacks { Action::Answer(404, Vec::new(), String::new()) } else { Action::Forward }
    });
    let mut config = fast();
    config.mirrors.insert(
        registry.address(),
        vec![dead_address(), empty.address(), broken.address(), partial.address()],
    );
    let recorder = Recorder::default();
    let root = Root::new();
    let reference = Reference::parse(&format!("{}/team/noise:1", registry.address())).unwrap();
    pull(&root.store, &config, &reference, &Platform::host(), &recorder).unwrap();
    let events = recorder.0.into_inner().unwrap();
    let fallbacks = events.iter().filter(|event| event.starts_with("Fallback")).count();
    assert_eq!(fallbacks, 4, "three for the manifest, one for a layer: {events:#?}");

    // The registry's own word counts in the end.
    let missing = format!("{}/team/noise:nope", registry.address());
    let error = root.pull_with(&config, &missing).unwrap_err();
    assert_eq!(chain(&error), format!("no image {missing}"));
}

#[test]
fn progress_tells_the_way_of_each_layer() {
    #[derive(Default)]
    struct Statuses(Mutex<Vec<(Digest, LayerStatus)>>);
    impl Progress for Statuses {
        fn event(&self, event: Event<'_>) {
            if let Event::Layer { digest, status, .. } = event {
                self.0.lock().unwrap().push((*digest, status));
            }
        }
    }
    let (registry, manifest) = noisy_registry(2, 1000);
    let root = Root::new();
    let reference = Reference::parse(&format!("{}/team/noise:1", registry.address())).unwrap();
    let [first, second] = [(); 2].map(|()| {
        let progress = Statuses::default();
        pull(&root.store, &fast(), &reference, &Platform::host(), &progress).unwrap();
        progress.0.into_inner().unwrap()
    });
    for layer in &manifest.layers {
        let of = |statuses: &[(Digest, LayerStatus)]| -> Vec<LayerStatus> {
            let this = statuses.iter().filter(|(digest, _)| digest.to_string() == *layer);
            this.map(|(_, status)| *status).collect()
        };
        assert_eq!(of(&first).first(), Some(&LayerStatus::Waiting));
        assert!(of(&first).contains(&LayerStatus::Downloading { bytes: 0 }));
        assert_eq!(of(&first).last(), Some(&LayerStatus::Done));
        assert_eq!(of(&second), [LayerStatus::Exists, LayerStatus::Done]);
    }
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let registry = Registry::start().unwrap();
    let digest = Digest::of(b"x").to_string();
    let blob = |media_type: &str| json!({ "mediaType": media_type, "digest": digest, "size": 1 });
    let config = blob("application/vnd.oci.image.config.v1+json");
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let chart = "application/vnd.cncf.helm.config.v1+json";
    for (media_type, body, expected) in [
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            json!({ "schemaVersion": 1, "fsLayers": [], "history": [] }),
            Unsupported::Schema1,
        ),
        (
            manifest,
            json!({ "schemaVersion": 2, "config": config, "layers": [blob(foreign)] }),
            Unsupported::Foreign { media_type: foreign.into() },
        ),
        (
            manifest,
            json!({ "schemaVersion": 2, "config": blob(chart), "layers": [] }),
            Unsupported::Artifact { media_type: chart.into() },
        ),
        (
            manifest,
            json!({ "schemaVersion": 2, "config": config, "layers": [blob("text/plain")] }),
            Unsupported::Layer { media_type: "text/plain".into() },
        ),
        (
            manifest,
            json!({ "schemaVersion": 2, "config": config, "layers": [], "manifests": [] }),
            Unsupported::Ambiguous,
        ),
        ("text/html", json!({}), Unsupported::Manifest { media_type: "text/html".into() }),
    ] {
        let headers = vec![("Content-Type".into(), media_type.into())];
        let answer = Action::Answer(200, headers, body.to_string());
        let (_front, name) = front(&registry, move |_, _| answer.clone());
        let root = Root::new();
        let error = root.pull(&name).unwrap_err();
        let PullError::Unsupported { problem, .. } = &error else { panic!("{body}: {error:?}") };
        assert_eq!(*problem, expected, "{body}");
        assert!(!error.is_transient());
        root.assert_empty();
    }
}

#[test]
fn a_manifest_without_end_is_not_read_to_its_end() {
    let registry = Registry::start().unwrap();
    let huge = Action::Answer(200, Vec::new(), " ".repeat(5 << 20));
    let (_front, name) = front(&registry, move |_, _| huge.clone());
    let error = Root::new().pull(&name).unwrap_err();
    let PullError::Registry { source: registry::Error::TooLarge { .. } } = error else {
        panic!("{error:?}")
    };
}

#[test]
fn redirects_without_end_are_given_up() {
    let registry = Registry::start().unwrap();
    let (_front, name) = front(&registry, |request, _| {
        let location = vec![("Location".into(), request.target.clone())];
        Action::Answer(302, location, String::new())
    });
    let error = Root::new().pull(&name).unwrap_err();
    assert!(chain(&error).ends_with("the registry redirects without end"), "{}", chain(&error));
}

#[test]
fn a_full_disk_is_called_that() {
    struct Mount(TempDir);
    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
        }
    }
    let (registry, manifest) = noisy_registry(1, 12 << 20);
    let mount = Mount(tempfile::tempdir().unwrap());
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "abax-test"])
        .arg(mount.0.path())
        .status()
        .unwrap();
    assert!(mounted.success(), "this test needs root, to mount a small file system");
    let store = Store::open(mount.0.path()).unwrap();
    let reference = Reference::parse(&format!("{}/team/noise:1", registry.address())).unwrap();
    let error = pull(&store, &fast(), &reference, &Platform::host(), &()).unwrap_err();
    let text = chain(&error);
    let layer = &manifest.layers[0];
    assert!(
        text.starts_with(&format!("could not store layer {layer}: No space left on device")),
        "{text}"
    );
    assert!(!error.is_transient());
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn two_processes_fetch_each_layer_once() {
    let (registry, manifest) = noisy_registry(4, 1 << 20);
    // Slow enough that the two are at it at the same time.
    let (front, name) = front(&registry, |request, _| match request.is_blob() {
        true => Action::Delay(Duration::from_millis(300)),
        false => Action::Forward,
    });
    let root = Root::new();
    let children = [(); 2].map(|()| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pull_for_another_test", "--ignored", "--nocapture"])
            .env("ABAX_TEST_ROOT", root.directory.path())
            .env("ABAX_TEST_NAME", &name)
            .spawn()
            .unwrap()
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let requests = front.requests();
    for layer in &manifest.layers {
        let fetched = requests.iter().filter(|request| request.target.contains(layer)).count();
        assert_eq!(fetched, 1, "{layer}");
    }
    assert!(root.store.find(&name).unwrap().is_some());
    assert_eq!(root.names_in("tmp"), [""; 0]);
}

#[test]
#[ignore = "a part of two_processes_fetch_each_layer_once"]
fn pull_for_another_test() {
    let (Ok(root), Ok(name)) = (std::env::var("ABAX_TEST_ROOT"), std::env::var("ABAX_TEST_NAME"))
    else {
        return;
    };
    let store = Store::open(Path::new(&root)).unwrap();
    let reference = Reference::parse(&name).unwrap();
    pull(&store, &fast(), &reference, &Platform::host(), &()).unwrap();
}

/// A registry of one sentence, which takes for ever to say it.
fn dripping() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        // Until the test's process ends, or its client is gone.
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            thread::spawn(move || {
                // An answer before the request would be none.
                let _ = connection.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
                let mut sent = connection.write_all(head.as_bytes());
                while sent.is_ok() {
                    thread::sleep(Duration::from_millis(100));
                    sent = connection.write_all(b" ");
                }
            });
        }
    });
    address
}

#[test]
fn what_strangers_name_is_nowhere_on_this_machine_but_where_its_operator_says() {
    let (registry, _) = noisy_registry(1, 1000);
    let strangers = || RegistriesConfig { named_by_strangers: true, ..fast() };
    let (inner, name) = front(&registry, |_, _| Action::Forward);
    let address = inner.address();
    let port = address.rsplit_once(':').unwrap().1;
    for own in [name.clone(), format!("localhost:{port}/team/noise:1")] {
        let error = Root::new().pull_with(&strangers(), &own).unwrap_err();
        assert!(chain(&error).contains("registries.local"), "{own}: {}", chain(&error));
        assert!(!error.is_transient(), "{own}");
    }
    assert!(inner.requests().is_empty(), "nobody was asked");
    for config in [
        RegistriesConfig { local: vec![address.clone()], ..strangers() },
        RegistriesConfig { plain_http: vec![address.clone()], ..strangers() },
        RegistriesConfig {
            mirrors: [("r.example".into(), vec![address.clone()])].into(),
            ..strangers()
        },
    ] {
        Root::new().pull_with(&config, &name).unwrap();
    }

    // Nor does one that may be asked send us to another.
    let location = format!("http://{}/v2/any?thing=1", registry.address());
    let (other, elsewhere) = front(&registry, move |_, _| {
        Action::Answer(307, vec![("Location".into(), location.clone())], String::new())
    });
    let config = RegistriesConfig { local: vec![other.address()], ..strangers() };
    let error = Root::new().pull_with(&config, &elsewhere).unwrap_err();
    assert!(chain(&error).contains("registries.local"), "{}", chain(&error));
}

#[test]
fn who_takes_for_ever_is_given_up_where_strangers_named_it() {
    let address = dripping();
    let config = RegistriesConfig {
        named_by_strangers: true,
        local: vec![address.clone()],
        timeout_seconds: 1,
        ..fast()
    };
    let error = Root::new().pull_with(&config, &format!("{address}/a:1")).unwrap_err();
    assert!(chain(&error).contains("too slowly"), "{}", chain(&error));
    assert!(error.is_transient(), "it may be faster another time");
}
