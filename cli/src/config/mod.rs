//! Settings: flags over environment over the file over defaults.

mod table;

mod kind;

mod sources;

mod flags;

mod secret;

mod trust;

mod check;

mod host_access;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use abax_runtime::Runtime;
use abax_runtime::network::BridgeConfig;
use abax_runtime::registry::RegistriesConfig;
use anyhow::{Context as _, anyhow, bail};
use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use toml::{Table, Value};

pub(crate) use check::Role;
pub(crate) use secret::read_secret_keys;
pub(crate) use sources::Effective;

use crate::args::{Command, Global};
use crate::telemetry::LogFormat;
use sources::Sources;

const DEFAULT_FILE: &str = "/etc/abax/abax.toml";

/// All settings, each with its value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) ca_bundle: Option<PathBuf>,
    pub(crate) log: Log,
    pub(crate) traces: Traces,
    pub(crate) database: Database,
    pub(crate) queue: Queue,
    pub(crate) service: Service,
    pub(crate) api: Api,
    pub(crate) worker: Worker,
    network: Network,
    pub(crate) registries: RegistriesConfig,
}

/// `[log]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: Option<String>,
    pub(crate) format: LogFormat,
}

/// `[traces]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Traces {
    pub(crate) otlp_endpoint: Option<String>,
}

/// `[database]`: PostgreSQL; SQLite where it has no `url`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Database {
    pub(crate) url: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connections: u32,
}

/// `[queue]`: RabbitMQ; the database where it has no `url`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    pub(crate) url: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) prefix: String,
}

/// `[service]`: what all processes of the service go by, and what `abax serve` is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: Option<String>,
    data: Option<PathBuf>,
    pub(crate) slots: Option<usize>,
    pub(crate) drain_seconds: u64,
    pub(crate) lease_seconds: u64,
    pub(crate) queues: Vec<String>,
    pub(crate) owned_per_user: u64,
    pub(crate) max_attempts: u32,
    pub(crate) time_limit_seconds: Option<u64>,
    pub(crate) stop_grace_seconds: u64,
    pub(crate) memory: Option<String>,
    pub(crate) cpus: Option<f64>,
    pub(crate) pids: Option<u64>,
    pub(crate) log_limit_bytes: u64,
    pub(crate) binary_limit_bytes: usize,
    pub(crate) nonce_in_environment: String,
    pub(crate) result_limit_bytes: u64,
    pub(crate) results_limit_bytes: u64,
    pub(crate) result_expiry_hours: u64,
    mounts: Vec<String>,
    privileged_mounts: Vec<String>,
    home: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    identities_file: Option<PathBuf>,
    pub(crate) execution_retention_days: Option<u64>,
    pub(crate) workers_per_actor: u32,
    pub(crate) worker_idle_seconds: u64,
    pub(crate) sync_worker_idle_seconds: u64,
    pub(crate) worker_ttl_seconds: u64,
    pub(crate) secret_keys_file: Option<PathBuf>,
    pub(crate) configs_for_any_actor: String,
    pub(crate) tenants: BTreeMap<String, trust::OfTenant>,
    pub(crate) host_ports: Vec<u16>,
    pub(crate) bridge: String,
    pub(crate) subnet: Ipv4Net,
}

/// `[api]`: what `abax api` is told beside that.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: Option<String>,
    pub(crate) signing_key_file: Option<PathBuf>,
    pub(crate) dialect: String,
    pub(crate) waits_per_user: usize,
    pub(crate) issuers: BTreeMap<String, trust::OfIssuer>,
    pub(crate) drain_seconds: u64,
    pub(crate) webhook_networks: Vec<IpNet>,
}

/// `[worker]`: what `abax worker` is told beside that.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Worker {
    pub(crate) name: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) slots: Option<usize>,
    pub(crate) classes: Vec<String>,
    pub(crate) memory: Option<String>,
    pub(crate) cpus: Option<f64>,
    pub(crate) prepull: Vec<String>,
    pub(crate) drain_seconds: u64,
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// `[network]`: the bridge that `run` and `build` put containers on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    bridge: String,
    subnet: Ipv4Net,
}

/// What file, environment and flags say, before it is used.
#[derive(Debug)]
pub(crate) struct Said {
    sources: Sources,
}

impl Said {
    /// Reads the file, the environment and the command line.
    pub(crate) fn read(global: &Global, command: &Command) -> Self {
        let file = match &global.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        let mut sources = Sources::default();
        if let Some(path) = &file {
            match std::fs::read_to_string(path) {
                Ok(text) => sources.file(path, &text),
                Err(error) => sources
                    .problems
                    .push(format!("could not read the settings in {}: {error}", path.display())),
            }
        }
        sources.environment(|name| std::env::var(name).ok());
        sources.flags(flags::given(global, command));
        Self { sources }
    }

    /// One value for each setting.
    pub(crate) fn effective(&self) -> Vec<Effective> {
        self.sources.effective()
    }

    /// All that is wrong with single settings.
    pub(crate) fn problems(&self) -> &[String] {
        &self.sources.problems
    }

    /// The settings, if nothing is wrong with any of them.
    ///
    /// # Errors
    ///
    /// What is wrong with the first, and how many more there are.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        match self.problems() {
            [] => Settings::of(&self.sources),
            [only] => Err(anyhow!("{only}")),
            [first, others @ ..] => {
                Err(anyhow!("{first} (and {} more; `abax config check` lists them)", others.len()))
            }
        }
    }
}

impl Settings {
    fn of(sources: &Sources) -> anyhow::Result<Self> {
        let mut all = Table::new();
        for effective in sources.effective() {
            let Some(value) = effective.value else {
                // A section must be there even where nothing is set in it.
                if let Some((section, _)) = effective.setting.key.split_once('.') {
                    all.entry(section).or_insert_with(|| Value::Table(Table::new()));
                }
                continue;
            };
            match effective.setting.key.split_once('.') {
                Some((section, name)) => {
                    let section = all.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    if let Value::Table(section) = section {
                        section.insert(name.to_owned(), value);
                    }
                }
                None => {
                    all.insert(effective.setting.key.to_owned(), value);
                }
            }
        }
        let mut settings: Self =
            Value::Table(all).try_into().map_err(|error: toml::de::Error| {
                // Its text has lines: what is wrong, and where.
                let what = error.to_string().trim().replace('\n', " ");
                anyhow!("could not use the settings: {what}")
            })?;
        // Users and executions put paths behind it.
        for url in [&mut settings.service.public_url, &mut settings.api.public_url] {
            *url = url.take().map(|url| url.trim_end_matches('/').to_owned());
        }
        settings.root = std::path::absolute(&settings.root)
            .with_context(|| format!("could not resolve {}", settings.root.display()))?;
        if let Some(path) = &settings.ca_bundle {
            check_certificates(path).context("ca_bundle")?;
        }
        Ok(settings)
    }

    /// The bridge of `run` and `build`.
    pub(crate) fn bridge(&self) -> BridgeConfig {
        BridgeConfig {
            name: self.network.bridge.clone(),
            subnet: self.network.subnet,
            isolated: false,
            host_ports: Vec::new(),
        }
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

    /// The runtime, after what crashed or killed processes left in it is cleared away. What they
    /// left on the disk is deleted meanwhile, by a thread that ends with the process.
    ///
    /// # Errors
    ///
    /// As [`Settings::open_runtime`], or something could not be cleared.
    pub(crate) fn open_swept_runtime(&self) -> anyhow::Result<Runtime> {
        let runtime = self.open_runtime()?;
        runtime.sweep().context("could not clear away what a crash left behind")?;
        let trash = runtime.clone();
        std::thread::spawn(move || {
            if let Err(error) = trash.empty_trash() {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "could not empty the trash");
            }
        });
        Ok(runtime)
    }

    /// Where `abax serve` keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.service.data.clone().unwrap_or_else(|| self.root.join("service"))
    }

    /// Whether `abax serve` was told to keep its data elsewhere than below the root.
    pub(crate) fn named_data(&self) -> Option<&Path> {
        self.service.data.as_deref()
    }
}

/// Whether the file has certificates in PEM; containers get to see such files,
/// so they must be what they are taken for.
fn check_certificates(path: &Path) -> anyhow::Result<Vec<u8>> {
    let pem = std::fs::read(path)
        .with_context(|| format!("could not read the CA bundle {}", path.display()))?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|part| part == begin) {
        bail!("the CA bundle {} has no certificate in PEM in it", path.display());
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use abax_actors::HostAccess;

    use super::*;

    #[test]
    fn every_setting_of_the_table_has_a_field_and_the_reverse() {
        // Defaults alone make settings: no field without an entry of the table.
        let defaults = Settings::of(&Sources::default()).unwrap();
        assert_eq!(defaults.root, Path::new("/var/lib/abax"));
        assert_eq!(defaults.data(), Path::new("/var/lib/abax/service"));
        assert_eq!(defaults.api.listen, defaults.service.listen);
        assert_eq!(defaults.worker.classes, defaults.service.queues);
        // The runtime has defaults of its own, which must be those of the table.
        let runtime = RegistriesConfig::default();
        assert_eq!(format!("{:?}", defaults.registries), format!("{runtime:?}"));

        // An entry without a field would be refused here.
        let mut sources = Sources::default();
        sources.file(
            Path::new("abax.toml"),
            "root = \"/srv/abax\"\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n\
             [traces]\notlp_endpoint = \"http://collector:4318\"\n\
             [database]\nurl = \"postgres://abax@db/abax\"\npassword_file = \"/p\"\n\
             ca_file = \"/c\"\nconnections = 4\n\
             [queue]\nurl = \"amqps://abax@mq/abax\"\npassword_file = \"/p\"\nca_file = \"/c\"\n\
             prefix = \"lab\"\n\
             [registries]\nplain_http = [\"localhost:5000\"]\nca_bundle = \"/c\"\n\
             docker_config = \"/d\"\nparallel_downloads = 1\nattempts = 2\n\
             retry_delay_milliseconds = 1\ntimeout_seconds = 2\n\
             [registries.mirrors]\n\"docker.io\" = [\"https://mirror.example.org\"]\n\
             [network]\nbridge = \"br1\"\nsubnet = \"10.9.0.0/16\"\n\
             [service]\nlisten = \"0.0.0.0:80\"\nslots = 3\ndrain_seconds = 5\nlease_seconds = 60\nqueues = [\"a\"]\n\
             time_limit_seconds = 60\nstop_grace_seconds = 1\nmemory = \"1g\"\ncpus = 2\npids = 100\n\
             log_limit_bytes = 1000\nmax_attempts = 2\npublic_url = \"https://a.example\"\n\
             execution_retention_days = 30\nworkers_per_actor = 2\nworker_idle_seconds = 3\n\
             sync_worker_idle_seconds = 4\nworker_ttl_seconds = 5\n\
             binary_limit_bytes = 1\n\
             nonce_in_environment = \"yes\"\nresult_limit_bytes = 1\nresults_limit_bytes = 1\n\
             result_expiry_hours = 1\nmounts = [\"/a:/a:ro\"]\nprivileged_mounts = [\"/b:/b:rw\"]\n\
             home = \"/home/{username}\"\nuid = 1000\ngid = 1000\n\
             secret_keys_file = \"/s\"\nconfigs_for_any_actor = \"yes\"\n\
             host_ports = [5432]\nbridge = \"br2\"\nsubnet = \"10.10.0.0/16\"\ndata = \"/srv/data\"\n\
             [api]\nlisten = \"0.0.0.0:81\"\npublic_url = \"https://b.example/\"\n\
             signing_key_file = \"/k\"\ndrain_seconds = 1\nwebhook_networks = [\"10.0.0.0/8\"]\ndialect = \"v3\"\nwaits_per_user = 7\n\
             [service.tenants.LAB]\ndefault_token = true\nissues_tokens = false\n\
             public_url = \"https://lab.example/\"\nlog_expiry_seconds = 1\n\
             log_expiry_ceiling_seconds = 2\nuid = 1001\ngid = 1002\nhome = \"/h\"\n\
             mounts = [\"/c:/c:ro\"]\nprivileged_mounts = []\n\
             [api.issuers.idp]\ntenants = [\"LAB\", \"*\"]\nservice_tenants = [\"LAB\"]\n\
             issuer = \"https://idp.example\"\naudience = \"abax\"\n\
             jwks_url = \"https://idp.example/keys\"\njwks_fresh_seconds = 60\n\
             user_claim = \"login\"\ntenant_claim = \"tenant\"\nroles_claim = \"groups\"\n\
             required_role = \"staff\"\nadmins = [\"ada\"]\nprivileged = [\"grace\"]\n\
             [worker]\nname = \"w\"\naddress = \"10.0.0.1\"\nslots = 1\nclasses = [\"gpu\"]\nmemory = \"8g\"\ncpus = 1.5\n\
             prepull = [\"busybox\"]\ndrain_seconds = 2\nmetrics_listen = \"127.0.0.1:9\"\n",
        );
        assert!(sources.problems.is_empty(), "{:?}", sources.problems);
        for effective in sources.effective() {
            // A file that must exist is not for this test.
            let elsewhere =
                ["ca_bundle", "service.identities_file"].contains(&effective.setting.key);
            assert!(effective.value.is_some() || elsewhere, "{}", effective.setting.key);
        }
        let settings = Settings::of(&sources).unwrap();
        assert_eq!(settings.service.cpus, Some(2.0));
        let lab = abax_actors::Tenant::new("LAB");
        let tenants = settings.tenants().unwrap();
        assert_eq!(tenants.api_server(&lab, ""), "https://lab.example");
        assert!(!tenants.issues_tokens(&lab));
        let access = tenants.of(&lab, |own| own.host_access.clone(), HostAccess::default());
        assert_eq!((access.user, access.mounts.len()), (Some((1001, 1002)), 1));
        assert!(access.privileged_mounts.is_empty());
        let mut trusted = abax_api::Config::default();
        let mut alone = settings;
        alone.ca_bundle = None;
        alone.trust(&mut trusted).unwrap();
        let settings = alone;
        assert_eq!(trusted.issuers[0].tenants, abax_api::Tenants::Any);
        assert_eq!(trusted.issuers[0].required_role.as_deref(), Some("staff"));
        assert_eq!(settings.worker.classes, ["gpu"]);
        assert_eq!(settings.api.public_url.as_deref(), Some("https://b.example"));
    }
}
