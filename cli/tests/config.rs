//! Settings from the file, the environment and flags, as `abax config check` shows them.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use abax_testbed::{PASSWORD, Postgres, PostgresOptions};
use machine::{Machine, Ran};
use serde_json::Value;

/// A value of each setting that is not its default, as the environment has it.
const SAMPLES: &[(&str, &str)] = &[
    ("root", "/srv/abax"),
    ("ca_bundle", "CERTIFICATES"),
    ("log.level", "debug"),
    ("log.format", "json"),
    ("traces.otlp_endpoint", "http://collector:4318/"),
    ("database.url", "postgres://abax@127.0.0.1/abax"),
    ("database.password_file", "SECRET"),
    ("database.ca_file", "CERTIFICATES"),
    ("database.connections", "17"),
    ("queue.url", "amqp://abax@127.0.0.1/%2f"),
    ("queue.password_file", "SECRET"),
    ("queue.ca_file", "CERTIFICATES"),
    ("queue.prefix", "lab"),
    ("service.listen", "127.0.0.1:8001"),
    ("service.public_url", "https://abax.example.org/"),
    ("service.data", "/srv/data"),
    ("service.slots", "3"),
    ("service.drain_seconds", "31"),
    ("service.lease_seconds", "60"),
    ("service.queues", "default,gpu"),
    ("service.owned_per_user", "10"),
    ("service.max_attempts", "4"),
    ("service.time_limit_seconds", "60"),
    ("service.stop_grace_seconds", "11"),
    ("service.memory", "1g"),
    ("service.cpus", "1.5"),
    ("service.pids", "100"),
    ("service.log_limit_bytes", "1000"),
    ("service.binary_limit_bytes", "1000"),
    ("service.nonce_in_environment", "yes"),
    ("service.result_limit_bytes", "1000"),
    ("service.results_limit_bytes", "10000"),
    ("service.result_expiry_hours", "2"),
    ("service.mounts", "/data1:/_abaco_data1:ro"),
    ("service.privileged_mounts", "/run/x.sock:/run/x.sock:rw"),
    ("service.home", "/home/{username}"),
    ("service.uid", "2000"),
    ("service.gid", "3000"),
    ("service.identities_file", "USERS"),
    ("service.execution_retention_days", "30"),
    ("service.workers_per_actor", "7"),
    ("service.worker_idle_seconds", "31"),
    ("service.sync_worker_idle_seconds", "601"),
    ("service.worker_ttl_seconds", "86401"),
    ("service.secret_keys_file", "KEYS"),
    ("service.configs_for_any_actor", "yes"),
    ("service.tenants", "{ LAB = { default_token = true } }"),
    ("service.host_ports", "5432,8080"),
    ("service.bridge", "br1"),
    ("service.subnet", "10.1.0.0/16"),
    ("api.listen", "127.0.0.1:8002"),
    ("api.public_url", "https://api.example.org/"),
    ("api.signing_key_file", "SECRET"),
    ("api.dialect", "v3"),
    ("api.issuers", "{ idp = { jwks_url = \"http://127.0.0.1:1/keys\", tenants = [\"LAB\"] } }"),
    ("api.waits_per_user", "7"),
    ("api.drain_seconds", "21"),
    ("api.webhook_networks", "10.1.0.0/16,fd00::/8"),
    ("worker.name", "node-7"),
    ("worker.address", "10.1.0.7"),
    ("worker.slots", "4"),
    ("worker.classes", "default,gpu"),
    ("worker.memory", "60g"),
    ("worker.cpus", "15.5"),
    ("worker.prepull", "busybox,python:3.13-slim"),
    ("worker.drain_seconds", "32"),
    ("worker.metrics_listen", "127.0.0.1:9090"),
    ("network.bridge", "br2"),
    ("network.subnet", "10.2.0.0/16"),
    ("registries.mirrors", "{ \"docker.io\" = [\"https://mirror.example.org\"] }"),
    ("registries.plain_http", "registry.lan:5000"),
    ("registries.local", "localhost:5000"),
    ("registries.ca_bundle", "CERTIFICATES"),
    ("registries.docker_config", "/srv/config.json"),
    ("registries.parallel_downloads", "4"),
    ("registries.attempts", "7"),
    ("registries.retry_delay_milliseconds", "501"),
    ("registries.timeout_seconds", "31"),
];

fn check(environment: &[(&str, &str)]) -> Ran {
    let arguments = ["config", "check", "--format", "json"];
    // Nothing but what the test says.
    let mut command = Command::new(env!("CARGO_BIN_EXE_abax"));
    command.args(arguments);
    command.env_clear().env("ABAX_CONFIG", "/dev/null").envs(environment.iter().copied());
    Ran::of(&arguments, command.output().unwrap())
}

/// Ignoring how lists and texts are written.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !" []\"{}".contains(*c)).collect()
}

#[test]
fn every_setting_is_understood_from_the_environment() {
    let machine = Machine::new();
    let certificates = machine.path("ca.pem");
    std::fs::write(&certificates, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let certificates = certificates.to_str().unwrap();

    let secret = machine.path("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let secret = secret.to_str().unwrap();
    let keys = machine.path("secret.keys");
    std::fs::write(&keys, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap();
    std::fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    let keys = keys.to_str().unwrap();

    let users = machine.path("users");
    std::fs::write(&users, "ada:x:1001:100:Ada:/home/ada:/bin/sh\n").unwrap();
    let users = users.to_str().unwrap();

    let defaults: Value = serde_json::from_str(check(&[]).success()).unwrap();
    let defaults = defaults.as_object().unwrap();
    for key in defaults.keys() {
        assert!(SAMPLES.iter().any(|(sample, _)| sample == key), "{key} has no sample here");
    }
    let environment: Vec<(&str, &str)> = SAMPLES
        .iter()
        .map(|(key, value)| {
            let variable = defaults[*key]["environment"].as_str().unwrap();
            let value = match *value {
                "CERTIFICATES" => certificates,
                "SECRET" => secret,
                "KEYS" => keys,
                "USERS" => users,
                value => value,
            };
            (variable, value)
        })
        .collect();
    let ran = check(&environment);
    let found: Value = serde_json::from_str(ran.success()).unwrap();
    for ((key, _), (variable, value)) in SAMPLES.iter().zip(&environment) {
        assert_eq!(found[key]["from"], *variable, "{key}");
        assert_ne!(found[key]["value"], defaults[*key]["value"], "{key}");
        assert_eq!(plain(found[key]["value"].as_str().unwrap()), plain(value), "{key}");
    }
}

#[test]
fn all_problems_are_listed_each_with_its_place() {
    let machine = Machine::new();
    let file = machine.path("wrong.toml");
    std::fs::write(&file, "[service]\nmemroy = \"1g\"\nslots = 0\n").unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["--config", file, "config", "check"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_abax"));
    let output = command.args(arguments).env("ABAX_LOG_FORMAT", "xml").output().unwrap();
    let ran = Ran::of(&arguments, output);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
    for part in [file, "did you mean service.memory?", "service.slots is 0", "ABAX_LOG_FORMAT"] {
        assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
    }
    assert!(ran.stdout.contains("service.listen"), "{}", ran.stdout);
    // Any other verb says the first, and that there are more.
    let mut command = Command::new(env!("CARGO_BIN_EXE_abax"));
    let arguments = ["--config", file, "version"];
    let ran = Ran::of(&arguments, command.args(arguments).output().unwrap());
    ran.fails(1, &["1 more", "abax config check"]);
}

#[test]
fn settings_that_do_not_go_together_are_said() {
    let ran = check(&[("ABAX_SERVICE_SUBNET", "172.29.5.0/24")]);
    ran.fails(1, &["service.subnet", "network.subnet", "overlap"]);
}

#[test]
fn an_address_that_nobody_reaches_is_said() {
    for (url, word) in [
        ("http://127.0.0.1:8000", "loopback"),
        ("http://localhost:8000/", "loopback"),
        ("http://0.0.0.0:8000", "reach"),
    ] {
        let ran = check(&[("ABAX_PUBLIC_URL", url)]);
        ran.success();
        assert_eq!(
            ran.stderr.lines().count(),
            1,
            "said once, not for the API again: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains("warning: service.public_url"), "{}", ran.stderr);
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
    let ran = check(&[("ABAX_API_PUBLIC_URL", "https://abax.example.org/behind/a/path")]);
    ran.fails(1, &["api.public_url", "https://host"]);
    assert_eq!(check(&[("ABAX_PUBLIC_URL", "https://abax.example.org/")]).stderr, "");
}

#[test]
fn issuers_and_tenants_that_cannot_work_are_said() {
    for (variable, value, words) in [
        ("ABAX_API_ISSUERS", "{ a = { tenants = [\"T\"] } }", ["api.issuers.a", "key_files"]),
        ("ABAX_API_ISSUERS", "{ a = { tenant = \"T\" } }", ["unknown field", "tenant"]),
        (
            "ABAX_API_ISSUERS",
            "{ a = { jwks_url = \"http://[::1]\" } }",
            ["api.issuers", "no tenants"],
        ),
        (
            "ABAX_API_ISSUERS",
            "{ a = { tenants = [\"T\"], key_files = [\"/dev/null\"] } }",
            ["/dev/null", "not a public RSA key"],
        ),
        (
            "ABAX_SERVICE_TENANTS",
            "{ LAB = { uid = 1001 } }",
            ["service.tenants.LAB.uid", "need each other"],
        ),
        (
            "ABAX_SERVICE_TENANTS",
            "{ LAB = { mounts = [\"/a\"] } }",
            ["service.tenants.LAB.mounts", "no mount"],
        ),
        (
            "ABAX_SERVICE_TENANTS",
            "{ LAB = { public_url = \"https://h/path\" } }",
            ["service.tenants.LAB.public_url", "https://host"],
        ),
    ] {
        check(&[(variable, value)]).fails(1, &words);
    }
    let open = "{ a = { tenants = [\"T\"], jwks_url = \"http://idp.example.org/keys\" } }";
    let ran = check(&[("ABAX_API_ISSUERS", open)]);
    ran.success();
    assert!(ran.stderr.contains("warning: api.issuers.a.jwks_url"), "{}", ran.stderr);
}

#[test]
fn files_of_a_server_that_is_not_used_need_not_be_there() {
    let ran = check(&[("ABAX_QUEUE_PASSWORD_FILE", "/dev/null"), ("ABAX_QUEUE_CA_FILE", "/none")]);
    ran.success();
    assert!(ran.stderr.contains("warning: queue.url is not set"), "{}", ran.stderr);
}

#[test]
fn passwords_are_not_printed_and_said_to_belong_into_a_file() {
    let machine = Machine::new();
    let open = machine.path("open");
    std::fs::write(&open, "s3cret\n").unwrap();
    std::fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let ran = check(&[
        ("ABAX_DATABASE_URL", "postgres://abax:s3cret@db.example.org/abax"),
        ("ABAX_DATABASE_PASSWORD_FILE", open.to_str().unwrap()),
    ]);
    assert!(!ran.success().contains("s3cret") && !ran.stderr.contains("s3cret"), "{}", ran.stderr);
    for part in ["database.password_file", "chmod o-rwx", "sslmode=verify-full"] {
        assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
    }
}

#[test]
fn what_a_role_lacks_is_said_at_once() {
    let arguments = ["config", "check", "--role", "worker"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_abax"));
    command.args(arguments).env_clear().env("ABAX_CONFIG", "/dev/null");
    let ran = Ran::of(&arguments, command.output().unwrap());
    assert_eq!(ran.code, Some(1));
    for part in ["ABAX_DATABASE_URL", "ABAX_API_SIGNING_KEY_FILE", "ABAX_API_PUBLIC_URL"] {
        assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
    }
}

#[test]
fn both_servers_are_tried_with_their_certificates_checked() {
    let machine = Machine::new();
    let options = PostgresOptions { tls: true, ..PostgresOptions::default() };
    let postgres = Postgres::start_with(&options).unwrap();
    let password = machine.path("password");
    std::fs::write(&password, PASSWORD).unwrap();
    std::fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
    let url = format!("{}?sslmode=verify-full", postgres.url());
    let authority = postgres.authority().unwrap().to_str().unwrap();
    let try_it = |verb: &[&str], more: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abax"));
        command.args(verb).env_clear().env("ABAX_CONFIG", "/dev/null");
        command.env("ABAX_DATABASE_URL", &url).env("ABAX_DATABASE_PASSWORD_FILE", &password);
        Ran::of(verb, command.envs(more.iter().copied()).output().unwrap())
    };
    let connect = ["config", "check", "--connect"];
    try_it(&connect, &[]).fails(1, &["database.url", "certificate"]);
    let trusted = [("ABAX_DATABASE_CA_FILE", authority)];
    try_it(&connect, &trusted).fails(1, &["abax migrate"]);
    assert!(try_it(&["migrate"], &trusted).success().contains("from step 0 to"));
    try_it(&connect, &trusted).success();
    let wrong = machine.path("wrong");
    std::fs::write(&wrong, "wrong").unwrap();
    std::fs::set_permissions(&wrong, Permissions::from_mode(0o600)).unwrap();
    let wrong = [trusted[0], ("ABAX_DATABASE_PASSWORD_FILE", wrong.to_str().unwrap())];
    try_it(&connect, &wrong).fails(1, &["database.url", "password"]);
}
