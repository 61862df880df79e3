use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    Gzip,
    /// `application/vnd.oci.image.layer.v1.tar+zstd`
    Zstd,
}

/// A descriptor of a manifest in a [`Layout`].
#[derive(Clone, Debug)]
pub struct Manifest {
    /// `sha256:…` of the manifest.
    pub digest: String,
    /// `sha256:…` of the config.
    pub config: String,
    /// `sha256:…` of each layer as stored, bottom first.
    pub layers: Vec<String>,
    /// `sha256:…` of each layer's tar, bottom first.
    pub diff_ids: Vec<String>,
    /// Bytes of the manifest.
    pub size: usize,
}

/// An OCI image layout in a temporary directory, written by hand.
#[derive(Debug)]
pub struct Layout {
    directory: TempDir,
    manifests: Mutex<Vec<Value>>,
}

impl Layout {
    /// An empty layout.
    ///
    /// # Errors
    ///
    /// No temporary directory can be made.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::create_dir_all(directory.path().join("blobs/sha256"))?;
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { directory, manifests: Mutex::new(Vec::new()) })
    }

    /// The layout's directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Adds a blob; returns its digest.
    ///
    /// # Errors
    ///
    /// The blob cannot be written.
    pub fn blob(&self, bytes: &[u8]) -> Result<String> {
        let hex = hex::encode(Sha256::digest(bytes));
        fs::write(self.path().join("blobs/sha256").join(&hex), bytes)?;
        Ok(format!("sha256:{hex}"))
    }

    /// Adds an image of `layers` (tars, bottom first) for this machine's
    /// platform, with `config` as the config's `config` member, and names it
    /// `tag`.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub fn image(
        &self,
        tag: &str,
        layers: &[(&[u8], Compression)],
        config: &Value,
    ) -> Result<Manifest> {
        let manifest = self.untagged_image(host_architecture(), layers, config)?;
        self.tag(tag, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
        Ok(manifest)
    }

    /// Adds an image for another architecture, without a name.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub fn untagged_image(
        &self,
        architecture: &str,
        layers: &[(&[u8], Compression)],
        config: &Value,
    ) -> Result<Manifest> {
        let mut descriptors = Vec::new();
        let mut digests = Vec::new();
        let mut diff_ids = Vec::new();
        for &(tar, compression) in layers {
            diff_ids.push(format!("sha256:{}", hex::encode(Sha256::digest(tar))));
            let (media_type, stored) = compress(tar, compression)?;
            let digest = self.blob(&stored)?;
            descriptors
                .push(json!({ "mediaType": media_type, "digest": digest, "size": stored.len() }));
            digests.push(digest);
        }
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": layers.iter().map(|_| json!({ "created_by": "testbed" })).collect::<Vec<_>>(),
        })
        .to_string();
        let config_digest = self.blob(config.as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": descriptors,
        })
        .to_string();
        let digest = self.blob(manifest.as_bytes())?;
        Ok(Manifest {
            digest,
            config: config_digest,
            layers: digests,
            diff_ids,
            size: manifest.len(),
        })
    }

    /// Adds an index of images by architecture and names it `tag`; returns its
    /// digest.
    ///
    /// # Errors
    ///
    /// Something cannot be written.
    pub fn index(&self, tag: &str, images: &[(&str, &Manifest)]) -> Result<String> {
        let manifests: Vec<Value> = images
            .iter()
            .map(|(architecture, manifest)| {
                json!({
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": manifest.digest,
                    "size": manifest.size,
                    "platform": { "architecture": architecture, "os": "linux" },
                })
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests })
            .to_string();
        let digest = self.blob(index.as_bytes())?;
        let manifest = Manifest {
            digest: digest.clone(),
            config: String::new(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            size: index.len(),
        };
        self.tag(tag, media_type, &manifest)?;
        Ok(digest)
    }

    fn tag(&self, tag: &str, media_type: &str, manifest: &Manifest) -> Result<()> {
        let mut manifests =
            self.manifests.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        manifests.push(json!({
            "mediaType": media_type,
            "digest": manifest.digest,
            "size": manifest.size,
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }));
        let index = json!({ "schemaVersion": 2, "manifests": *manifests });
        fs::write(self.path().join("index.json"), index.to_string())?;
        Ok(())
    }
}

fn compress(tar: &[u8], compression: Compression) -> Result<(&'static str, Vec<u8>)> {
    Ok(match compression {
        Compression::None => ("application/vnd.oci.image.layer.v1.tar", tar.to_vec()),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar)?;
            ("application/vnd.oci.image.layer.v1.tar+gzip", encoder.finish()?)
        }
        Compression::Zstd => {
            ("application/vnd.oci.image.layer.v1.tar+zstd", zstd::encode_all(tar, 3)?)
        }
    })
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image `busybox:latest` of one gzip layer, [`busybox_rootfs_tar`].
///
/// # Errors
///
/// busybox-static is not installed, or the layout cannot be written.
pub fn busybox_image() -> Result<Layout> {
    let layout = Layout::new()?;
    let tar = busybox_rootfs_tar()?;
    layout.image(
        "latest",
        &[(&tar, Compression::Gzip)],
        &json!({ "Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"] }),
    )?;
    Ok(layout)
}

/// A root file system of a static busybox as a tar: its applets in `/bin`,
/// `/usr/bin/env`, `/etc/passwd` and `/etc/group` (root, nobody, and a user
/// `app` 1000), `/root`, `/home/app`, `/tmp`.
///
/// # Errors
///
/// busybox-static is not installed.
pub fn busybox_rootfs_tar() -> Result<Vec<u8>> {
    let program = busybox()?;
    let listed = Command::new(&program).arg("--list").output()?;
    let mut tar = tar::Builder::new(Vec::new());
    for (directory, mode, owner) in [
        ("bin/", 0o755, 0),
        ("etc/", 0o755, 0),
        ("home/", 0o755, 0),
        ("home/app/", 0o755, 1000),
        ("root/", 0o700, 0),
        ("tmp/", 0o1777, 0),
        ("usr/", 0o755, 0),
        ("usr/bin/", 0o755, 0),
        ("var/", 0o755, 0),
    ] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        header.set_uid(owner);
        header.set_gid(owner);
        tar.append_data(&mut header, directory, &[][..])?;
    }
    let bytes = fs::read(&program)?;
    tar.append_data(
        &mut header(tar::EntryType::Regular, 0o755, bytes.len()),
        "bin/busybox",
        &bytes[..],
    )?;
    let listed = String::from_utf8(listed.stdout)?;
    for applet in listed.lines().filter(|applet| *applet != "busybox") {
        tar.append_link(
            &mut header(tar::EntryType::Symlink, 0o777, 0),
            format!("bin/{applet}"),
            "busybox",
        )?;
    }
    tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), "usr/bin/env", "/bin/busybox")?;
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\n\
             app:x:1000:1000:app:/home/app:/bin/sh\n\
             nobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        ("etc/group", "root:x:0:\nwheel:x:10:app\napp:x:1000:\nnogroup:x:65534:\n"),
    ] {
        tar.append_data(
            &mut header(tar::EntryType::Regular, 0o644, text.len()),
            path,
            text.as_bytes(),
        )?;
    }
    Ok(tar.into_inner()?)
}

/// A tar of regular files.
///
/// # Errors
///
/// A path does not fit into a tar.
pub fn files_tar(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, bytes.len()), path, *bytes)?;
    }
    Ok(tar.into_inner()?)
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size as u64);
    header
}

fn busybox() -> Result<PathBuf> {
    for directory in ["/bin", "/usr/bin", "/usr/local/bin"] {
        let path = Path::new(directory).join("busybox");
        if path.exists() {
            return Ok(path);
        }
    }
    bail!("no busybox here: run testbed/install.sh")
}
