use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What a server by TLS has, signed by an authority of its own.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The authority's certificate, which clients trust.
    pub(crate) authority: PathBuf,
    /// The server's.
    pub(crate) certificate: PathBuf,
    /// The server's key.
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes an authority in `directory`, and a certificate of it for a server
    /// at `address` and at `localhost`.
    pub(crate) fn make(directory: &Path, address: &str) -> Result<Self> {
        let at = |name: &str| directory.join(name);
        let (ca_key, authority) = (at("ca.key"), at("ca.crt"));
        let (key, request, certificate) = (at("tls.key"), at("tls.csr"), at("tls.crt"));
        let extensions = at("tls.ext");
        let text = format!(
            "basicConstraints = critical,CA:FALSE\n\
             subjectAltName = IP:{address},DNS:localhost\n\
             extendedKeyUsage = serverAuth\n"
        );
        std::fs::write(&extensions, text)?;
        openssl(
            Command::new("openssl")
                .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
                .args(["-subj", "/CN=testbed authority", "-keyout"])
                .arg(&ca_key)
                .arg("-out")
                .arg(&authority),
        )?;
        openssl(
            Command::new("openssl")
                .args(["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=testbed", "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&request),
        )?;
        openssl(
            Command::new("openssl")
                .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
                .arg(&request)
                .arg("-CA")
                .arg(&authority)
                .arg("-CAkey")
                .arg(&ca_key)
                .arg("-extfile")
                .arg(&extensions)
                .arg("-out")
                .arg(&certificate),
        )?;
        Ok(Self { authority, certificate, key })
    }
}

fn openssl(command: &mut Command) -> Result<()> {
    let output = command.output().context("could not run openssl (run testbed/install.sh)")?;
    if !output.status.success() {
        bail!("openssl made no certificate: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
