//! What the store of images promises, to one process and to several.
//!
//! Needs root: layers are unpacked.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use abax_runtime::digest::Digest;
use abax_runtime::image::{Compression, Image, ImportError, Pruned, Store, StoreError, import};
use abax_runtime::reference::Reference;
use abax_runtime::snapshot::lower_directories;

/// The tar of a file system with one file.
fn archive(name: &str, content: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("root")).unwrap();
    (directory, store)
}

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn make(store: &Store, content: &str, names: Option<&str>) -> Image {
    let changes = [format!("LABEL content={content}")];
    let names = names.map(name);
    import(store, &mut &archive("f", content)[..], &changes, names.as_ref()).unwrap()
}

fn listed(store: &Store) -> Vec<(String, Digest)> {
    let name = |reference: Option<Reference>| match reference {
        Some(reference) => reference.familiar(),
        None => "<none>".to_owned(),
    };
    let list = store.list().unwrap().into_iter();
    let mut list: Vec<_> = list.map(|entry| (name(entry.reference), *entry.image.id())).collect();
    list.sort();
    list
}

#[test]
fn an_imported_archive_is_an_image_that_can_be_stacked() {
    let (_directory, store) = store();
    let tar = archive("etc/motd", "hello");
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    let changes = ["CMD [\"cat\", \"/etc/motd\"]", "ENV A=1", "USER 7"].map(str::to_owned);
    for (bytes, compression) in
        [(&tar, Compression::None), (&gzip, Compression::Gzip), (&zstd, Compression::Zstd)]
    {
        let image = import(&store, &mut &bytes[..], &changes, Some(&name("motd"))).unwrap();
        assert_eq!(image.layers()[0].digest, Digest::of(bytes), "the blob is what was given");
        assert_eq!(Compression::of(&image.layers()[0].media_type), Some(compression));
        assert_eq!(image.diff_ids()[0].0, Digest::of(&tar));
        let config = image.config().config().as_ref().unwrap();
        assert_eq!(config.cmd().as_ref().unwrap(), &["cat", "/etc/motd"]);
        assert_eq!(config.env().as_ref().unwrap(), &["A=1"]);
        assert_eq!(config.user().as_ref().unwrap(), "7");
        let [init, layer] = &lower_directories(&store, &image)[..] else {
            panic!("two directories")
        };
        assert!(init.join("etc/resolv.conf").exists() && init.join("proc").is_dir());
        assert_eq!(fs::read_to_string(layer.join("etc/motd")).unwrap(), "hello");
        assert_eq!(store.find("motd").unwrap().unwrap().id(), image.id());
    }
    assert_eq!(
        fs::read_dir(store.root().join("layers")).unwrap().count(),
        2,
        "one layer, and init"
    );
}

#[test]
fn an_archive_that_is_refused_leaves_no_image() {
    let (_directory, store) = store();
    let unknown = import(&store, &mut &archive("f", "")[..], &["RUN rm".to_owned()], None);
    assert!(matches!(unknown, Err(ImportError::Change { .. })), "{unknown:?}");
    let noise = import(&store, &mut &[1; 4096][..], &[], None);
    assert!(matches!(noise, Err(ImportError::Unpack { .. })), "{noise:?}");
    assert_eq!(listed(&store), []);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().join("images/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn the_directory_is_an_oci_image_layout() {
    let (_directory, store) = store();
    let image = make(&store, "a", Some("team/app:v1"));
    let images = store.root().join("images");
    let json = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    assert_eq!(json(&images.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = json(&images.join("index.json"));
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], image.manifest_digest().to_string());
    let annotated = &entry["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(annotated, "docker.io/team/app:v1");
    let blob = |digest: &serde_json::Value| {
        images.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
    };
    let manifest = json(&blob(&entry["digest"]));
    assert_eq!(fs::metadata(blob(&entry["digest"])).unwrap().len(), entry["size"]);
    assert_eq!(manifest["config"]["digest"], image.id().to_string());
    for descriptor in [&manifest["config"], &manifest["layers"][0]] {
        assert_eq!(fs::metadata(blob(&descriptor["digest"])).unwrap().len(), descriptor["size"]);
    }
}

#[test]
fn an_image_is_found_by_name_by_id_and_by_the_start_of_its_id() {
    let (_directory, store) = store();
    let image = make(&store, "a", Some("team/app:v1"));
    let id = image.id();
    for text in [
        "team/app:v1".to_owned(),
        "docker.io/team/app:v1".to_owned(),
        id.to_string(),
        id.hex(),
        image.short_id(),
        id.hex()[..4].to_owned(),
        format!("sha256:{}", image.short_id()),
        image.manifest_digest().to_string(),
        format!("team/app@{}", image.manifest_digest()),
        format!("team/app:other@{}", image.manifest_digest()),
    ] {
        let found = store.find(&text).unwrap();
        assert_eq!(found.as_ref().map(Image::id), Some(id), "{text}");
    }
    for text in [
        "team/app".to_owned(),
        "team/app:v2".to_owned(),
        "library/app:v1".to_owned(),
        id.hex()[..3].to_owned(),
        id.hex()[1..9].to_owned(),
        format!("other/app@{}", image.manifest_digest()),
    ] {
        assert!(store.find(&text).unwrap().is_none(), "{text}");
    }
    assert!(matches!(store.find("Team/App"), Err(StoreError::InvalidName { .. })));
}

#[test]
fn a_start_that_several_ids_have_is_an_error_that_lists_them() {
    let (_directory, store) = store();
    // Two images whose ids start alike: the second is looked for.
    let mut by_start = std::collections::HashMap::new();
    let layer = make(&store, "base", Some("base")).layers()[0].clone();
    let mut n = 0;
    let (start, first, second) = loop {
        let config = serde_json::json!({ "os": "linux", "architecture": "amd64", "config": { "Labels": { "n": n.to_string() } } });
        let id = {
            let mut config = config.clone();
            config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": [layer.diff_id] });
            config.sort_all_objects();
            Digest::of(config.to_string().as_bytes())
        };
        let start = id.hex()[..4].to_owned();
        if let Some(other) = by_start.insert(start.clone(), config.clone()) {
            break (start, other, config);
        }
        n += 1;
    };
    store.create_image_from_json(first, std::slice::from_ref(&layer), &[name("one")]).unwrap();
    store.create_image_from_json(second, &[layer], &[name("two")]).unwrap();
    match store.find(&start) {
        Err(StoreError::Ambiguous { candidates, .. }) => {
            let text = candidates.join(" ");
            assert_eq!(candidates.len(), 2);
            assert!(text.contains("(one:latest)") && text.contains("(two:latest)"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    // A name wins over the ids that start like it.
    let image = store.find("one").unwrap().unwrap();
    store.tag(&image, &name(&start)).unwrap();
    assert_eq!(store.find(&start).unwrap().unwrap().id(), image.id());
}

#[test]
fn a_name_moves_and_who_loses_the_last_one_stays_listed_without() {
    let (_directory, store) = store();
    let old = make(&store, "old", Some("app"));
    let new = make(&store, "new", Some("app"));
    assert_eq!(
        listed(&store),
        [("<none>".to_owned(), *old.id()), ("app:latest".to_owned(), *new.id())]
    );
    assert_eq!(store.find("app").unwrap().unwrap().id(), new.id());

    store.tag(&old, &name("app:old")).unwrap();
    assert_eq!(
        listed(&store),
        [("app:latest".to_owned(), *new.id()), ("app:old".to_owned(), *old.id())]
    );
    store.tag(&new, &name("app:old")).unwrap();
    store.tag(&old, &name("app:older")).unwrap();
    assert!(store.untag(&name("app:old")).unwrap());
    assert!(!store.untag(&name("app:old")).unwrap());
    assert_eq!(
        listed(&store),
        [("app:latest".to_owned(), *new.id()), ("app:older".to_owned(), *old.id())]
    );
    assert!(store.remove(&new).unwrap());
    assert!(store.find(&new.short_id()).unwrap().is_none());
    assert!(!store.remove(&new).unwrap());
}

#[test]
fn the_same_config_in_another_order_is_the_same_image() {
    let (_directory, store) = store();
    let layer = make(&store, "a", None).layers().to_vec();
    let one = serde_json::json!({ "os": "linux", "architecture": "amd64", "config": { "Labels": { "a": "1", "b": "2" } } });
    let two = serde_json::json!({ "config": { "Labels": { "b": "2", "a": "1" } }, "architecture": "amd64", "os": "linux" });
    let one = store.create_image_from_json(one, &layer, &[]).unwrap();
    let two = store.create_image_from_json(two, &layer, &[]).unwrap();
    assert_eq!((one.id(), one.manifest_digest()), (two.id(), two.manifest_digest()));
    let again = store.create_image(one.config(), &layer, &[name("typed")]).unwrap();
    assert_eq!(again.config().config(), one.config().config());
}

#[test]
fn fields_that_only_docker_has_are_kept() {
    let (_directory, store) = store();
    let layers = make(&store, "a", None).layers().to_vec();
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64",
        "config": { "OnBuild": ["RUN true"], "Shell": ["/bin/bash", "-c"], "Cmd": null, "Env": null },
    });
    let image = store.create_image_from_json(config, &layers, &[name("docker")]).unwrap();
    let reopened = Store::open(store.root()).unwrap().find("docker").unwrap().unwrap();
    assert_eq!(reopened.id(), image.id());
    assert_eq!(reopened.config_json()["config"]["OnBuild"][0], "RUN true");
    assert_eq!(reopened.config_json()["config"]["Shell"][0], "/bin/bash");
}

#[test]
fn manifests_of_docker_are_images_too_and_what_is_none_is_refused() {
    let (_directory, store) = store();
    let image = make(&store, "a", None);
    let layer = &image.layers()[0];
    let manifest = |config_type: &str, layer_type: &str, layers: usize| {
        let layer = serde_json::json!({ "mediaType": layer_type, "size": layer.size_bytes, "digest": layer.digest });
        let config =
            serde_json::json!({ "mediaType": config_type, "size": 1, "digest": image.id() });
        let layers = vec![layer; layers];
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": config, "layers": layers,
        })
    };
    let config_type = "application/vnd.docker.container.image.v1+json";
    let layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let add = |manifest: &serde_json::Value| {
        store.add_manifest(manifest.to_string().as_bytes(), Some(&name("docker")))
    };
    let added = add(&manifest(config_type, layer_type, 1)).unwrap();
    assert_eq!(added.id(), image.id());

    let before =
        (listed(&store), fs::read_dir(store.root().join("images/blobs/sha256")).unwrap().count());
    let mut absent = manifest(config_type, layer_type, 1);
    absent["config"]["digest"] = Digest::of(b"absent").to_string().into();
    let mut without_digest = manifest(config_type, layer_type, 1);
    without_digest["layers"][0]["digest"] = "sha512:ab".into();
    for (what, manifest) in [
        ("an artifact", manifest("application/vnd.oci.empty.v1+json", layer_type, 1)),
        (
            "a chart",
            manifest(config_type, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", 1),
        ),
        ("more layers than diff_ids", manifest(config_type, layer_type, 2)),
        ("no layers", manifest(config_type, layer_type, 0)),
        ("a config that is not there", absent),
        ("another algorithm", without_digest),
        ("an index", serde_json::json!({ "schemaVersion": 2, "manifests": [] })),
        ("schema 1", serde_json::json!({ "schemaVersion": 1, "fsLayers": [], "history": [] })),
        ("nothing", serde_json::json!({})),
        ("no object", serde_json::json!([1])),
    ] {
        assert!(add(&manifest).is_err(), "{what}");
    }
    let large =
        [&manifest(config_type, layer_type, 1).to_string()[..], &" ".repeat(5 << 20)].concat();
    assert!(matches!(store.add_manifest(large.as_bytes(), None), Err(StoreError::TooLarge { .. })));
    let after =
        (listed(&store), fs::read_dir(store.root().join("images/blobs/sha256")).unwrap().count());
    assert_eq!(before, after, "what was refused leaves nothing");
}

#[test]
fn an_image_without_its_layer_is_not_added() {
    let (_directory, first) = store();
    let (_other_directory, second) = store();
    let image = make(&first, "a", None);
    let manifest = first.read_blob(image.manifest_digest(), 1 << 20).unwrap();
    second.put_blob(&first.read_blob(image.id(), 1 << 20).unwrap()).unwrap();
    match second.add_manifest(&manifest, None) {
        Err(StoreError::MissingLayer { digest }) => assert_eq!(digest, image.layers()[0].digest),
        other => panic!("{other:?}"),
    }
    assert_eq!(listed(&second), []);
}

#[test]
fn a_blob_that_the_disk_has_changed_is_not_believed() {
    let (_directory, store) = store();
    let image = make(&store, "a", Some("app"));
    let path = store.root().join("images/blobs/sha256").join(image.id().hex());
    let config = fs::read(&path).unwrap();
    fs::write(&path, b"{}").unwrap();
    let fresh = Store::open(store.root()).unwrap();
    assert!(matches!(fresh.find("app"), Err(StoreError::Corrupt { .. })));
    assert!(fresh.list().unwrap().is_empty(), "a broken image does not break the list");
    fresh.put_blob(&config).unwrap();
    assert!(fresh.find("app").unwrap().is_some(), "writing it again repairs it");
}

#[test]
fn a_partial_blob_is_gone_on_with_and_a_wrong_one_leaves_nothing() {
    let (_directory, store) = store();
    let tmp = || fs::read_dir(store.root().join("tmp")).unwrap().count();
    let bytes = vec![9; 100_000];
    let digest = Digest::of(&bytes);
    let mut writer = store.blob_writer(&digest, Some(100_000)).unwrap();
    writer.write_all(&bytes[..30_000]).unwrap();
    match writer.commit() {
        Err(StoreError::Size { expected_bytes: 100_000, actual_bytes: 30_000, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!store.has_blob(&digest));
    let mut writer = store.blob_writer(&digest, Some(100_000)).unwrap();
    assert_eq!(writer.offset(), 30_000);
    writer.write_all(&bytes[30_000..]).unwrap();
    assert!(writer.write_all(b"more").is_err(), "more than was promised");
    drop(writer);
    assert_eq!(tmp(), 0);

    let mut writer = store.blob_writer(&digest, None).unwrap();
    writer.write_all(b"other bytes").unwrap();
    match writer.commit() {
        Err(StoreError::Corrupt { expected, actual }) => {
            assert_eq!((expected, actual), (digest, Digest::of(b"other bytes")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(tmp(), 0);
    assert!(!store.has_blob(&digest));

    let mut writer = store.blob_writer(&digest, None).unwrap();
    writer.write_all(b"wrong start").unwrap();
    writer.restart().unwrap();
    writer.write_all(&bytes).unwrap();
    writer.commit().unwrap();
    assert_eq!(store.read_blob(&digest, 100_000).unwrap(), bytes);
    assert!(matches!(store.read_blob(&digest, 99_999), Err(StoreError::TooLarge { .. })));
    assert_eq!(tmp(), 0);
}

#[test]
fn what_no_image_refers_to_is_pruned_and_nothing_else() {
    let (_directory, store) = store();
    let kept = make(&store, "kept", Some("kept"));
    let in_use = make(&store, "in-use", Some("in-use"));
    let gone = make(&store, "gone", Some("gone"));
    store.untag(&name("in-use")).unwrap();
    store.untag(&name("gone")).unwrap();
    let running = in_use.diff_ids().iter().copied().collect();
    assert_eq!(store.prune(&running, None).unwrap(), Pruned::default(), "they are young");
    let pruned = store.prune(&running, Some(Duration::ZERO)).unwrap();
    assert_eq!((pruned.blobs, pruned.layers), (6, 1), "manifest, config and layer of two images");
    assert!(pruned.blob_bytes > 0);
    assert!(store.has_layer(&in_use.diff_ids()[0]) && !store.has_layer(&gone.diff_ids()[0]));
    let reopened = Store::open(store.root()).unwrap();
    assert_eq!(reopened.find("kept").unwrap().unwrap().id(), kept.id());
    assert!(reopened.has_layer(&kept.diff_ids()[0]) && reopened.has_blob(&kept.layers()[0].digest));
    assert!(lower_directories(&reopened, &kept).iter().all(|directory| directory.exists()));
    assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
}

/// The other process of the tests below: this test again, told what to do by its environment.
fn process(test: &str, root: &Path, number: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("ABAX_TEST_ROOT", root)
        .env("ABAX_TEST_NUMBER", number.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// In the other process: the store, and which process it is.
fn other_process() -> Option<(Store, usize)> {
    let root = std::env::var_os("ABAX_TEST_ROOT")?;
    let number = std::env::var("ABAX_TEST_NUMBER").unwrap().parse().unwrap();
    Some((Store::open(Path::new(&root)).unwrap(), number))
}

#[test]
fn processes_that_build_and_tag_at_once_lose_nothing() {
    if let Some((store, number)) = other_process() {
        for n in 0..10 {
            let image = make(&store, &format!("{number}-{n}"), Some(&format!("p{number}:n{n}")));
            store.tag(&image, &name(&format!("shared:n{n}"))).unwrap();
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let test = "processes_that_build_and_tag_at_once_lose_nothing";
    let processes: Vec<_> = (0..4).map(|number| process(test, &root, number)).collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let store = Store::open(&root).unwrap();
    for number in 0..4 {
        for n in 0..10 {
            let image = store.find(&format!("p{number}:n{n}")).unwrap().unwrap();
            let labels = image.config().config().as_ref().unwrap().labels().as_ref().unwrap();
            assert_eq!(labels["content"], format!("{number}-{n}"));
        }
    }
    assert_eq!(listed(&store).len(), 4 * 10 + 10);
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("locks")).unwrap().count(), 0);
}

#[test]
fn a_blob_is_fetched_by_one_process_at_a_time() {
    let bytes = vec![3; 4 << 20];
    let digest = Digest::of(&bytes);
    if let Some((store, _)) = other_process() {
        let _lock = store.lock_blob(&digest).unwrap();
        if !store.has_blob(&digest) {
            let mut writer = store.blob_writer(&digest, Some(bytes.len() as u64)).unwrap();
            assert_eq!(writer.offset(), 0, "nobody else writes it");
            writer.write_all(&bytes).unwrap();
            writer.commit().unwrap();
            fs::write(store.root().join(format!("fetched.{}", std::process::id())), b"").unwrap();
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let store = Store::open(&root).unwrap();
    let test = "a_blob_is_fetched_by_one_process_at_a_time";
    let processes: Vec<_> = (0..6).map(|number| process(test, &root, number)).collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let entries = fs::read_dir(&root).unwrap().flatten();
    let fetched =
        entries.filter(|e| e.file_name().to_string_lossy().starts_with("fetched")).count();
    assert_eq!(fetched, 1);
    assert_eq!(store.read_blob(&digest, 4 << 20).unwrap(), bytes);
}
