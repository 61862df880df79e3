use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::image::Layout;
use crate::process::Process;
use crate::token::TokenServer;
use crate::{PASSWORD, USER};

/// Who may use a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anonymous,
    /// [`USER`] with [`PASSWORD`], by HTTP basic authentication.
    Basic,
    /// Bearer tokens of a token server, which gives them to [`USER`] for
    /// everything and to everybody else for nothing.
    Token,
}

/// A real registry (Debian's docker-registry) on a loopback port.
#[derive(Debug)]
pub struct Registry {
    access: Access,
    port: u16,
    _process: Process,
    token: Option<TokenServer>,
    directory: TempDir,
}

/// `htpasswd -B` of [`USER`] and [`PASSWORD`], with few rounds.
const HTPASSWD: &str = "abax:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";

impl Registry {
    /// Starts an empty registry that everybody may use.
    ///
    /// # Errors
    ///
    /// docker-registry is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(Access::Anonymous)
    }

    /// Starts an empty registry.
    ///
    /// # Errors
    ///
    /// docker-registry (or openssl, for tokens) is not installed or fails.
    pub fn start_with(access: Access) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, access, "")
    }

    /// Starts an empty registry that everybody may use, by HTTPS only; its
    /// certificate is signed by itself: [`Registry::certificate`].
    ///
    /// # Errors
    ///
    /// docker-registry or openssl is not installed or fails.
    pub fn start_tls() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (key, certificate) =
            (directory.path().join("tls.key"), directory.path().join("tls.crt"));
        // A server's certificate must not be an authority's, for some clients.
        let options = ["-addext", "basicConstraints=critical,CA:FALSE"];
        crate::token::make_certificate(&key, &certificate, &options)?;
        let tls =
            format!(", tls: {{ certificate: {}, key: {} }}", certificate.display(), key.display());
        Self::start_in(directory, Access::Anonymous, &tls)
    }

    fn start_in(directory: TempDir, access: Access, tls: &str) -> Result<Self> {
        let root = directory.path();
        let mut config = format!(
            "version: 0.1\n\
             log: {{ level: info, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
             http: {{ addr: '127.0.0.1:0'{tls} }}\n",
            root.join("data").display()
        );
        let mut token = None;
        match access {
            Access::Anonymous => {}
            Access::Basic => {
                let file = root.join("htpasswd");
                fs::write(&file, HTPASSWD)?;
                config +=
                    &format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", file.display());
            }
            Access::Token => {
                let server = TokenServer::start(root)?;
                config += &format!(
                    "auth: {{ token: {{ realm: '{}', service: {}, issuer: {}, rootcertbundle: {} }} }}\n",
                    server.realm(),
                    crate::token::SERVICE,
                    crate::token::ISSUER,
                    server.certificate().display()
                );
                token = Some(server);
            }
        }
        let file = root.join("config.yml");
        fs::write(&file, config)?;
        let file = file.to_str().context("the temporary directory is not UTF-8")?;
        let mut process = Process::start("docker-registry", &["serve", file], &root.join("log"))?;
        let port = process.wait_for_output(|printed| {
            let (_, rest) = printed.split_once("listening on 127.0.0.1:")?;
            let digits = rest.split_once(|c: char| !c.is_ascii_digit())?.0;
            digits.parse().ok()
        })?;
        Ok(Self { access, port, _process: process, token, directory })
    }

    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The certificate of a registry by HTTPS, as PEM.
    pub fn certificate(&self) -> std::path::PathBuf {
        self.directory.path().join("tls.crt")
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The token server of a registry with [`Access::Token`].
    pub fn token_server(&self) -> Option<&TokenServer> {
        self.token.as_ref()
    }

    /// A docker `config.json` with `password` for [`USER`] at `address`.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn docker_config(&self, address: &str, password: &str) -> Result<std::path::PathBuf> {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let file = self.directory.path().join(format!("docker-{}.json", password.len()));
        let text = serde_json::json!({ "auths": { address: { "auth": auth } } });
        fs::write(&file, text.to_string())?;
        Ok(file)
    }

    /// Pushes `tag` of `layout` as `name` (`repository:tag`) by skopeo, with
    /// all platforms; returns the full reference.
    ///
    /// # Errors
    ///
    /// skopeo is not installed or fails; its words are in the error.
    pub fn push(&self, layout: &Layout, tag: &str, name: &str) -> Result<String> {
        self.push_as(layout, tag, name, "oci")
    }

    /// As [`Registry::push`], in skopeo's manifest format `oci` or `v2s2`.
    ///
    /// # Errors
    ///
    /// skopeo is not installed or fails; its words are in the error.
    pub fn push_as(&self, layout: &Layout, tag: &str, name: &str, format: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.address());
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"]);
        if format != "oci" {
            command.args(["--format", format]);
        }
        if self.access != Access::Anonymous {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        command
            .arg(format!("oci:{}:{tag}", layout.path().display()))
            .arg(format!("docker://{reference}"));
        let output = command.output().context("could not run skopeo (run testbed/install.sh)")?;
        if !output.status.success() {
            bail!("skopeo could not push: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(reference)
    }
}
