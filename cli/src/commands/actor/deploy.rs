//! `abax actor deploy`: a project's image, and the actor of it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::update;
use crate::args::{ActorDeploy, Build, Format, NetworkMode};
use crate::client::{Body, Client, text};
use crate::commands::image;
use crate::config::Settings;
use crate::exit::Usage;
use crate::output;

const ACTOR_ID: &str = ".ACTOR_ID";
const SECRETS: &str = "secrets.json";

/// The first half, which makes containers.
pub(super) fn build(settings: &Settings, args: &ActorDeploy) -> anyhow::Result<()> {
    if args.no_build {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("a build needs root; try it with sudo, or with --no-build where the image is there");
    }
    image::build::run(
        settings,
        &Build {
            tags: vec![Project::read(args)?.image],
            file: Some(args.file.clone()),
            build_args: Vec::new(),
            target: None,
            no_cache: args.no_cache,
            pull: !args.no_pull,
            network: NetworkMode::default(),
            quiet: false,
            path: PathBuf::from("."),
        },
    )
}

/// The second half.
pub(super) async fn register(
    client: &Client,
    format: Format,
    args: &ActorDeploy,
) -> anyhow::Result<()> {
    if args.build_only {
        return Ok(());
    }
    let project = Project::read(args)?;
    let actor = match &args.update {
        None => {
            let mut fields = project.fields;
            fields.entry("stateless").or_insert(json!(true));
            client.request(Method::POST, &[], &[], Body::Json(Value::Object(fields))).await?
        }
        Some(named) => {
            let name = named.clone().map_or_else(deployed, Ok)?;
            let actor = client.actor(&name).await?;
            let mut fields = update::present(&actor);
            fields.extend(project.fields);
            fields.insert("force".into(), json!(true));
            let id = text(&actor, "id");
            client.request(Method::PUT, &[&id], &[], Body::Json(Value::Object(fields))).await?
        }
    };
    let id = text(&actor, "id");
    if !args.no_id {
        std::fs::write(ACTOR_ID, format!("{id}\n"))
            .with_context(|| format!("could not write {ACTOR_ID}"))?;
    }
    match format {
        Format::Json => output::json(&actor)?,
        Format::Table => output::line(id)?,
    }
    Ok(())
}

/// The actor that was deployed from here before.
fn deployed() -> anyhow::Result<String> {
    match std::fs::read_to_string(ACTOR_ID) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "{ACTOR_ID} is not here: nothing was deployed from this directory; name the actor"
            )
        }
        Err(error) => Err(error).with_context(|| format!("could not read {ACTOR_ID}")),
    }
}

/// What the files and the command line say.
struct Project {
    image: String,
    /// For a request.
    fields: Map<String, Value>,
}

impl Project {
    fn read(args: &ActorDeploy) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(&args.settings)
            .with_context(|| format!("could not read {}", args.settings.display()))?;
        let settings = assignments(&text);
        let of = |name: &str| settings.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let name = of("REACTOR_NAME");
        let image_name = args.image_name.as_deref().or(of("DOCKER_IMAGE_TAG")).or(name);
        let image_name = image_name.ok_or_else(|| {
            Usage(format!(
                "{}: it sets neither REACTOR_NAME nor DOCKER_IMAGE_TAG",
                args.settings.display()
            ))
        })?;
        let tag = args.image_tag.as_deref().or(of("DOCKER_IMAGE_VERSION")).unwrap_or("latest");
        let image = match args.organization.as_deref().or(of("DOCKER_HUB_ORG")) {
            Some(organization) => format!("{organization}/{image_name}:{tag}"),
            None => format!("{image_name}:{tag}"),
        };

        let mut fields = Map::new();
        fields.insert("image".into(), json!(image));
        fields.insert("name".into(), json!(name.unwrap_or(image_name)));
        if let Some(description) = of("REACTOR_DESCRIPTION") {
            fields.insert("description".into(), json!(description));
        }
        let stateful = match (args.stateful, args.stateless) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => of("REACTOR_STATEFUL").map(is_on),
        };
        if let Some(stateful) = stateful {
            fields.insert("stateless".into(), json!(!stateful));
        }
        let token = if args.no_token { Some(false) } else { of("REACTOR_TOKENS").map(is_on) };
        if let Some(token) = token {
            fields.insert("token".into(), json!(token));
        }
        // What is not asked for is not sent: it is not everybody's to say even no to.
        for (name, field) in
            [("REACTOR_PRIVILEGED", "privileged"), ("REACTOR_USE_UID", "use_container_uid")]
        {
            if of(name).is_some_and(is_on) {
                fields.insert(field.into(), json!(true));
            }
        }
        if let Some(hints) = super::hints(&args.hints) {
            fields.insert("hints".into(), json!(hints));
        }
        if Path::new(SECRETS).exists() {
            let environment = super::json_object(Path::new(SECRETS))?;
            fields.insert("default_environment".into(), Value::Object(environment));
        }
        Ok(Self { image, fields })
    }
}

fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

/// The assignments of a shell file: `NAME=value`, with or without quotes. Nothing of
/// it is executed.
fn assignments(text: &str) -> HashMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            Some((name.trim().to_owned(), unquoted(value.trim())))
        })
        .collect()
}

/// A word of the shell: quotes of both kinds, and what they keep.
fn unquoted(word: &str) -> String {
    let mut plain = String::new();
    let mut quote = None;
    let mut letters = word.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None | Some('"'), '\\') => plain.extend(letters.next()),
            (None, ' ' | '\t' | '#') => break,
            (_, letter) => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_the_shell_would() {
        let settings = assignments(
            "# a comment\nREACTOR_NAME='counter'\nexport A=\"two words\"\nB=plain # why\n\
             C='it'\\''s'\nD=\nnot an assignment\n",
        );
        for (name, value) in [
            ("REACTOR_NAME", "counter"),
            ("A", "two words"),
            ("B", "plain"),
            ("C", "it's"),
            ("D", ""),
        ] {
            assert_eq!(settings.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(settings.len(), 5);
    }
}
