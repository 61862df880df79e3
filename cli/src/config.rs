//! Settings: flags and environment over the file over defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use abax_runtime::Runtime;
use abax_runtime::network::BridgeConfig;
use abax_runtime::registry::RegistriesConfig;
use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::args::Global;
use crate::telemetry::{Log, Traces};

const DEFAULT_FILE: &str = "/etc/abax/abax.toml";
const DEFAULT_ROOT: &str = "/var/lib/abax";

/// The settings file. A name that we do not know is an error: a misspelt limit
/// must not be no limit.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    root: Option<PathBuf>,
    ca_bundle: Option<PathBuf>,
    registries: RegistriesConfig,
    network: Network,
    service: Service,
    log: Log,
    traces: Traces,
}

/// The bridge that `run` and `build` put containers on.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Network {
    bridge: String,
    subnet: Ipv4Net,
}

impl Default for Network {
    fn default() -> Self {
        Self { bridge: "abax0".to_owned(), subnet: ipv4_net([172, 29, 0, 0], 16) }
    }
}

/// `[service]`: what `abax serve` is told by the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Service {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// The database and the keys; `ROOT/service` when not set.
    pub(crate) data: Option<PathBuf>,
    /// How many executions run at once; four per CPU when not set.
    pub(crate) slots: Option<usize>,
    /// How long a stop waits for executions.
    pub(crate) drain_seconds: u64,
    /// How long an execution is a worker's that is not heard of any more.
    pub(crate) lease_seconds: u64,
    /// The longest an execution may run.
    pub(crate) time_limit_seconds: Option<u64>,
    /// Memory of an execution whose actor sets none.
    pub(crate) memory: Option<String>,
    /// CPUs of an execution whose actor sets none.
    pub(crate) cpus: Option<f64>,
    /// Processes and threads of one execution, beside the bound that all have.
    pub(crate) pids: Option<u64>,
    /// What is kept of an execution's output.
    pub(crate) log_limit_bytes: u64,
    /// How often an execution is tried when its worker dies.
    pub(crate) max_attempts: u32,
    /// The address that users reach the service at.
    pub(crate) public_url: Option<String>,
    /// Ports of this machine's loopback that executions may reach.
    pub(crate) host_ports: Vec<u16>,
    /// The bridge of executions; they cannot see each other there.
    pub(crate) bridge: String,
    /// Its addresses.
    pub(crate) subnet: Ipv4Net,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            data: None,
            slots: None,
            drain_seconds: 30,
            lease_seconds: 30,
            time_limit_seconds: None,
            memory: None,
            cpus: None,
            pids: None,
            log_limit_bytes: 1_000_000,
            max_attempts: 3,
            public_url: None,
            host_ports: Vec::new(),
            bridge: "abax1".to_owned(),
            subnet: ipv4_net([172, 30, 0, 0], 16),
        }
    }
}

fn ipv4_net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new(address.into(), prefix).expect("a prefix of at most 32 bits")
}

/// All settings, each with its value.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) ca_bundle: Option<PathBuf>,
    pub(crate) registries: RegistriesConfig,
    /// The bridge of `run` and `build`.
    pub(crate) bridge: BridgeConfig,
    pub(crate) service: Service,
    pub(crate) log: Log,
    pub(crate) traces: Traces,
}

impl Settings {
    /// # Errors
    ///
    /// A file that is named and missing, or that is not as it must be.
    pub(crate) fn load(global: &Global) -> anyhow::Result<Self> {
        let file = match &global.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let root = global.root.clone().or(file.root).unwrap_or_else(|| DEFAULT_ROOT.into());
        let root = std::path::absolute(&root)
            .with_context(|| format!("could not resolve {}", root.display()))?;
        let ca_bundle = global.ca_bundle.clone().or(file.ca_bundle);
        if let Some(path) = &ca_bundle {
            let pem = std::fs::read(path)
                .with_context(|| format!("could not read the CA bundle {}", path.display()))?;
            // Containers get to see this file, so it must be what it is taken for.
            let begin = b"-----BEGIN CERTIFICATE-----";
            if !pem.windows(begin.len()).any(|part| part == begin) {
                bail!("the CA bundle {} has no certificate in PEM in it", path.display());
            }
        }
        let mut registries = file.registries;
        if registries.ca_bundle.is_none() {
            registries.ca_bundle.clone_from(&ca_bundle);
        }
        let bridge = BridgeConfig {
            name: file.network.bridge,
            subnet: file.network.subnet,
            isolated: false,
            host_ports: Vec::new(),
        };
        let File { service, log, traces, .. } = file;
        Ok(Self { root, ca_bundle, registries, bridge, service, log, traces })
    }

    /// The runtime of these settings.
    ///
    /// # Errors
    ///
    /// Its directories could not be made or not be read.
    pub(crate) fn open_runtime(&self) -> anyhow::Result<Runtime> {
        let config =
            abax_runtime::Config { root: self.root.clone(), ca_bundle: self.ca_bundle.clone() };
        Runtime::open(config).with_context(|| format!("could not open {}", self.root.display()))
    }

    /// The runtime, after what crashed or killed processes left in it is cleared away.
    ///
    /// # Errors
    ///
    /// As [`Settings::open_runtime`], or something could not be cleared.
    pub(crate) fn open_swept_runtime(&self) -> anyhow::Result<Runtime> {
        let runtime = self.open_runtime()?;
        runtime.sweep().context("could not clear away what a crash left behind")?;
        Ok(runtime)
    }

    /// Where the service keeps its data.
    pub(crate) fn data(&self, flag: Option<&Path>) -> PathBuf {
        flag.map(Path::to_owned)
            .or_else(|| self.service.data.clone())
            .unwrap_or_else(|| self.root.join("service"))
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the settings in {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("could not use the settings in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_an_error_that_names_it() {
        let error = toml::from_str::<File>("[service]\nmemroy = \"1g\"\n").unwrap_err().to_string();
        assert!(error.contains("memroy"), "{error}");
    }

    #[test]
    fn every_setting_of_the_documentation_is_understood() {
        let file: File = toml::from_str(
            "root = \"/srv/abax\"\nca_bundle = \"/etc/ssl/ca.pem\"\n\
             [registries]\nplain_http = [\"localhost:5000\"]\n\
             [registries.mirrors]\n\"docker.io\" = [\"https://mirror.example.org\"]\n\
             [network]\nbridge = \"br1\"\nsubnet = \"10.9.0.0/16\"\n\
             [service]\nlisten = \"0.0.0.0:80\"\nslots = 3\ndrain_seconds = 5\nlease_seconds = 60\n\
             time_limit_seconds = 60\nmemory = \"1g\"\ncpus = 1.5\npids = 100\n\
             log_limit_bytes = 1000\nmax_attempts = 2\npublic_url = \"https://a.example\"\n\
             host_ports = [5432]\nbridge = \"br2\"\nsubnet = \"10.10.0.0/16\"\ndata = \"/srv/data\"\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n\
             [traces]\notlp_endpoint = \"http://collector:4318\"\n",
        )
        .unwrap();
        assert_eq!(file.service.slots, Some(3));
    }
}
