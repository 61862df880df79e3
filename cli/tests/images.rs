//! The image verbs as a user runs them. Needs root.

mod machine;

use abax_testbed::{Registry, busybox_image};
use machine::Machine;

#[test]
fn an_imported_image_is_listed_tagged_and_removed() {
    let machine = Machine::with_busybox();
    let table = machine.ok(&["images"]);
    let mut lines = table.lines();
    let headings: Vec<&str> =
        lines.next().unwrap().split("   ").filter(|h| !h.is_empty()).collect();
    let headings: Vec<&str> = headings.iter().map(|h| h.trim()).collect();
    assert_eq!(headings, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1]), ("busybox", "latest"));
    let id = machine.ok(&["images", "-q"]);
    assert_eq!((row[2], id.len()), (id.as_str(), 12));

    machine.ok(&["tag", "busybox", "team/tool:v2"]);
    assert_eq!(machine.ok(&["images", "-q"]), id, "an image with two names has one id");
    assert!(machine.ok(&["images", "team/tool"]).contains("v2"));
    machine.abax(&["rmi", &id]).fails(1, &["2 names"]);
    assert_eq!(machine.ok(&["rmi", "team/tool:v2"]), "Untagged: team/tool:v2");
    machine.abax(&["rmi", "team/tool:v2"]).fails(1, &["team/tool:v2"]);
    let json: serde_json::Value =
        serde_json::from_str(&machine.ok(&["images", "--format", "json"])).unwrap();
    assert_eq!(json[0]["repository"], "busybox");
}

#[test]
fn a_pull_ends_with_dockers_lines() {
    let registry = Registry::start().unwrap();
    registry.push(&busybox_image().unwrap(), "latest", "team/busybox:1").unwrap();
    let top = format!("registries.plain_http = [\"{}\"]", registry.address());
    let machine = Machine::with_settings(&top, "");
    let name = format!("{}/team/busybox:1", registry.address());
    let first = machine.ok(&["pull", &name]);
    let lines: Vec<&str> = first.lines().collect();
    let [.., digest, status, reference] = lines[..] else { panic!("{first}") };
    assert!(digest.starts_with("Digest: sha256:"), "{first}");
    assert_eq!(status, format!("Status: Downloaded newer image for {name}"));
    assert_eq!(reference, name);
    let again = machine.ok(&["pull", &name]);
    assert!(again.contains(&format!("Status: Image is up to date for {name}")), "{again}");
    assert_eq!(machine.ok(&["pull", "-q", &name]), name);

    let missing = format!("{}/team/none:1", registry.address());
    machine.abax(&["pull", "-q", &missing]).fails(1, &[&missing]);
    let ran = machine.abax(&["run", "--rm", &name, "echo", "pulled"]);
    assert_eq!(ran.success(), "pulled\n");
}

#[test]
fn a_missing_image_is_pulled_by_run() {
    let registry = Registry::start().unwrap();
    registry.push(&busybox_image().unwrap(), "latest", "tool:1").unwrap();
    let top = format!("registries.plain_http = [\"{}\"]", registry.address());
    let machine = Machine::with_settings(&top, "");
    let name = format!("{}/tool:1", registry.address());
    let ran = machine.abax(&["run", "--rm", &name, "echo", "there"]);
    assert_eq!(ran.success(), "there\n");
    assert!(
        ran.stderr.starts_with(&format!("Unable to find image '{name}' locally\n")),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_registry_that_is_down_is_said_in_one_line() {
    // Bound, so that nobody else takes it, and never listening.
    let machine = Machine::with_settings("registries.plain_http = [\"127.0.0.1:1\"]", "");
    let ran = machine.abax(&["pull", "-q", "127.0.0.1:1/tool:1"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("127.0.0.1:1"), "{}", ran.stderr);
}

#[test]
fn what_is_built_runs() {
    let machine = Machine::with_busybox();
    let context = machine.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("file"), "copied\n").unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM busybox\nARG WHO=nobody\nCOPY file /file\nRUN echo built for $WHO >/built\n\
         CMD [\"cat\", \"/file\", \"/built\"]\n",
    )
    .unwrap();
    let path = context.display().to_string();
    let built = machine.ok(&[
        "build",
        "-t",
        "tool:v1",
        "--build-arg",
        "WHO=me",
        "--network",
        "none",
        &path,
    ]);
    assert!(built.contains("Step 1/5 : FROM busybox"), "{built}");
    assert!(built.contains("Successfully tagged tool:v1"), "{built}");
    assert_eq!(machine.ok(&["run", "--rm", "tool:v1"]), "copied\nbuilt for me");
    let id = machine.ok(&["build", "-q", "-t", "tool:v2", "--network", "none", &path]);
    assert!(id.starts_with("sha256:"), "{id}");
}

#[test]
fn a_dockerfile_error_names_its_line() {
    let machine = Machine::with_busybox();
    let context = machine.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\n\nRUNN echo\n").unwrap();
    let before = machine.ok(&["images", "-q"]);
    let ran = machine.abax(&["build", "-q", &context.display().to_string()]);
    ran.fails(1, &["3", "RUNN"]);
    assert_eq!(machine.ok(&["images", "-q"]), before);
    machine.abax(&["build", "-q", "/no/such/context"]).fails(1, &["/no/such/context"]);
}
