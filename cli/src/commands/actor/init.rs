//! `abax actor init`: a project that `abax actor deploy` takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::args::ActorInit;
use crate::output;

const PYTHON: &str = r#"import os


def main():
    # Text as it is; JSON as a Python literal, and as JSON in MSG_JSON.
    print("got:", os.environ.get("MSG", ""))
    print("as execution", os.environ.get("_abaco_execution_id", "(none)"))


if __name__ == "__main__":
    main()
"#;

const SHELL: &str = r#"echo "got: $MSG"
echo "as execution ${_abaco_execution_id:-(none)}"
"#;

/// What must not be shared: values for the actor, and which actor it is.
const IGNORED: &str = "secrets.json\n.ACTOR_ID\n";

pub(super) fn run(args: &ActorInit) -> anyhow::Result<()> {
    let directory = args.directory.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    let (program, content, base, runs) = match args.language.as_str() {
        "sh" => ("reactor.sh", SHELL, "busybox", "sh"),
        _ => ("reactor.py", PYTHON, "python:3.12-slim", "python3"),
    };
    let base = args.image.as_deref().unwrap_or(base);
    let dockerfile = format!("FROM {base}\nCOPY {program} /\nCMD [\"{runs}\", \"/{program}\"]\n");
    for (name, content) in [
        ("Dockerfile", dockerfile.as_str()),
        (program, content),
        ("reactor.rc", &settings(args)),
        (".gitignore", IGNORED),
    ] {
        write_new(&directory.join(name), content)?;
    }
    // A repository is a convenience: where there is no git, there is none.
    let _ = Command::new("git")
        .args(["init", "--quiet"])
        .current_dir(&directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    output::line(directory.display().to_string())?;
    Ok(())
}

fn settings(args: &ActorInit) -> String {
    let lines = [
        ("REACTOR_NAME", args.name.as_str()),
        ("REACTOR_DESCRIPTION", &args.description),
        ("REACTOR_TOKENS", "1"),
        ("REACTOR_STATEFUL", "0"),
        ("REACTOR_PRIVILEGED", "0"),
        ("REACTOR_USE_UID", "0"),
        ("DOCKER_HUB_ORG", args.organization.as_deref().unwrap_or_default()),
        ("DOCKER_IMAGE_TAG", &args.name.to_lowercase()),
        ("DOCKER_IMAGE_VERSION", "0.1"),
    ];
    let quoted = |value: &str| format!("'{}'", value.replace('\'', "'\\''"));
    lines.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect()
}

/// A file that was not there.
fn write_new(path: &Path, content: &str) -> anyhow::Result<()> {
    if path.exists() {
        bail!("{} is there already; nothing of it was changed", path.display());
    }
    std::fs::write(path, content).with_context(|| format!("could not write {}", path.display()))
}
