//! What executions are given, see of their hosts, and send back. Needs root.

#![allow(clippy::unwrap_used, reason = "tests fail where something is missing")]

mod machine;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use abax_testbed::{Compression, Layout, Registry};

use machine::{Machine, Served, eventually};
use serde_json::json;

fn has_ended(execution: &serde_json::Value) -> bool {
    execution["status"] != "SUBMITTED" && execution["status"] != "RUNNING"
}

/// One request of the administrator whose answer has no envelope: status and body.
fn bytes(machine: &Machine, served: &Served<'_>, method: &str, path: &str, body: &str) -> String {
    let token = machine.ok(&["token"]);
    let answer = served.raw(&format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    body.to_owned()
}

fn id(served: &Served<'_>, actor: &str) -> String {
    served.json(&["show", actor])["id"].as_str().unwrap().to_owned()
}

/// A script that sends each word as a result: busybox' `logger` is a sender of datagrams.
const SENDS: &str = "ln -s /_abaco_results.sock /dev/log; for word in one two three; do \
                     logger -t result $word; done";

#[test]
fn bytes_come_as_a_file_that_ends_and_text_comes_without_one() {
    let machine = Machine::new();
    let script = "echo MSG=${MSG-unset} type=$_abaco_Content_Type; f=/_abaco_binary_data; \
                  if [ -e $f ]; then [ -f $f ] && echo regular; stat -c %a $f; cat $f | md5sum; \
                  echo x 2>/dev/null >$f || echo read-only; fi";
    machine.import_script("reads", script);
    let served = machine.serve();
    served.ok(&["create", "--name", "reads", "reads"]);
    let id = id(&served, "reads");
    let body: String = ('a'..='w').cycle().take(1_000_000).collect();
    let path = format!("/v3/actors/{id}//messages");
    let answer = bytes(&machine, &served, "POST", &path, &body);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["result"]["msg"], "binary - omitted");
    let execution = answer["result"]["execution_id"].as_str().unwrap();
    let ended = served.wait_for("reads", execution, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    let logs = served.ok(&["logs", "reads", execution]);
    let first = "MSG=unset type=application/octet-stream\nregular\n444\n";
    assert!(logs.starts_with(first), "{logs}");
    assert!(logs.contains("9fc5bffa2717cd3889d83b6fee311e5a  -"), "{logs}");
    assert!(logs.ends_with("read-only"), "{logs}");

    let execution = served.ok(&["send", "reads", "text"]);
    served.wait_for("reads", &execution, has_ended);
    assert_eq!(served.ok(&["logs", "reads", &execution]), "MSG=text type=str");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn results_are_read_one_after_the_other_while_it_runs_and_afterwards() {
    let machine = Machine::new();
    machine.import_script("sends", &format!("{SENDS}; sleep 2; logger -t result last"));
    let served = machine.serve();
    served.ok(&["create", "--name", "sends", "sends"]);
    let id = id(&served, "sends");

    let path = format!("/actors/v2/{id}/messages?_abaco_synchronous=true&message=x");
    let answer = bytes(&machine, &served, "POST", &path, "");
    assert!(answer.ends_with("result: one"), "the first result, whatever follows: {answer}");
    let all = served.json(&["executions", "sends"]);
    let execution =
        all["executions"][0]["id"].as_str().unwrap_or_else(|| panic!("{all:#}")).to_owned();
    let running = served.wait_for("sends", &execution, |_| true);
    assert_eq!(running["status"], "RUNNING", "{running:#}");
    let ended = served.wait_for("sends", &execution, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");

    let path = format!("/actors/v2/{id}/executions/{execution}/results");
    for word in ["two", "three", "last"] {
        let result = bytes(&machine, &served, "GET", &path, "");
        assert!(result.ends_with(&format!("result: {word}")), "{word}: {result}");
    }
    assert_eq!(bytes(&machine, &served, "GET", &path, ""), "");
    let (status, listed) =
        served.http("GET", &format!("/actors/{id}/executions/{execution}/results"), "");
    assert_eq!((status, listed["result"].as_array().unwrap().len()), (200, 4), "{listed:#}");
    let path = format!("/actors/{id}/executions/{execution}/results/4");
    assert!(bytes(&machine, &served, "GET", &path, "").ends_with("result: last"));
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

/// Registers an actor of an administrator's, past the short words of the command.
fn register(served: &Served<'_>, settings: &serde_json::Value) {
    let (status, answer) = served.http("POST", "/actors", &settings.to_string());
    assert_eq!(status, 201, "{answer:#}");
}

fn output_of(served: &Served<'_>, actor: &str) -> String {
    let execution = served.ok(&["send", actor, "x"]);
    let ended = served.wait_for(actor, &execution, has_ended);
    assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
    served.ok(&["logs", actor, &execution])
}

#[test]
fn executions_see_of_their_hosts_what_the_operator_says_and_as_whom() {
    let shared = tempfile::tempdir().unwrap();
    let path = shared.path().display();
    for name in ["ro", "rw/ada", "rw/admin", "more"] {
        std::fs::create_dir_all(shared.path().join(name)).unwrap();
        std::fs::write(shared.path().join(name).join("file"), name).unwrap();
    }
    let open = |name: &str| {
        let path = shared.path().join(name);
        std::os::unix::fs::chown(path, Some(12_345), Some(70_000)).unwrap();
    };
    ["rw/admin", "more", "ro", "ro/file"].into_iter().for_each(open);
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = format!(
        "uid = 12345\ngid = 70000\nhome = \"{path}/rw/{{username}}\"\n\
         mounts = [\"{path}/ro:/ro:ro\", \"{{tasdir}}:/home/{{username}}:rw\"]\n\
         privileged_mounts = [\"{path}/more:/more:rw\"]"
    );
    let machine = Machine::with_settings("", &settings);
    let script = "echo $(id -u):$(id -g) $(cat /ro/file) $(cat /home/admin/file); \
                  (echo x >/ro/file) 2>/dev/null && echo wrote to ro; \
                  (echo made >/home/admin/made) 2>/dev/null && echo made; \
                  ls /more 2>/dev/null; grep -c '^CapEff:.0000000000000000' /proc/self/status";
    machine.import_script("looks", script);
    let served = machine.serve();
    for (name, setting) in
        [("plain", "description"), ("own", "useContainerUid"), ("privileged", "privileged")]
    {
        let value = if name == "plain" { json!("") } else { json!(true) };
        register(&served, &json!({ "image": "looks", "name": name, setting: value }));
    }
    let shown = served.json(&["show", "plain"]);
    assert_eq!((&shown["uid"], &shown["gid"]), (&json!(12_345), &json!(70_000)), "{shown:#}");
    assert_eq!(
        shown["mounts"],
        json!([
            { "host_path": format!("{path}/ro"), "container_path": "/ro", "mode": "ro" },
            { "host_path": format!("{path}/rw/admin"), "container_path": "/home/admin", "mode": "rw" },
        ])
    );
    assert_eq!(output_of(&served, "plain"), "12345:70000 ro rw/admin\nmade\n1");
    let made = std::fs::metadata(shared.path().join("rw/admin/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (12_345, 70_000));
    // The image's user is root there, and nobody here.
    assert_eq!(output_of(&served, "own"), "0:0 ro rw/admin\n1");
    assert_eq!(served.json(&["show", "own"])["uid"], json!(null));
    // With all rights but the user's own: a mount that is read-only stays so.
    assert_eq!(output_of(&served, "privileged"), "12345:70000 ro rw/admin\nmade\nfile\n1");
    assert_eq!(std::fs::read_to_string(shared.path().join("ro/file")).unwrap(), "ro");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn executions_run_as_those_who_sent_them_where_the_operator_knows_these() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut users = String::new();
    for (name, uid) in [("admin", 12_345), ("grace", 12_346)] {
        let home = shared.path().join(name);
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(uid), Some(70_000)).unwrap();
        users += &format!("{name}:x:{uid}:70000::{}:/bin/sh\n", home.display());
    }
    let list = shared.path().join("users");
    std::fs::write(&list, users).unwrap();
    let settings =
        format!("identities_file = {list:?}\nmounts = [\"{}:/homes:rw\"]", shared.path().display());
    let machine = Machine::with_settings("", &settings);
    let script = "id -u; id -g; for name in admin grace; do \
                  (echo x >/homes/$name/made) 2>/dev/null && echo wrote to $name; done; true";
    machine.import_script("who", script);
    let served = machine.serve();
    register(&served, &json!({ "image": "who", "name": "owner" }));
    assert_eq!(output_of(&served, "owner"), "12345\n70000\nwrote to admin");
    register(&served, &json!({ "image": "who", "name": "sender", "runAsExecutor": true }));
    assert_eq!(output_of(&served, "sender"), "12345\n70000\nwrote to admin");

    let id = id(&served, "sender");
    let send_as = |user: &str| {
        let permission = json!({ "user": user, "level": "EXECUTE" }).to_string();
        let (status, answer) =
            served.http("POST", &format!("/v3/actors/{id}/permissions"), &permission);
        assert_eq!(status, 200, "{answer:#}");
        let token = machine.ok(&["token", "--user", user]);
        served.raw(&format!(
            "POST /v3/actors/{id}/messages?message=x HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {token}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))
    };
    let answer = send_as("grace");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let sent: serde_json::Value = serde_json::from_str(body).unwrap();
    let execution = sent["result"]["execution_id"].as_str().unwrap();
    let ended = served.wait_for("sender", execution, has_ended);
    assert_eq!((&ended["executor"], &ended["executor_uid"]), (&json!("grace"), &json!(12_346)));
    let log = served.ok(&["logs", "sender", execution]);
    assert_eq!(log, "12346\n70000\nwrote to grace", "{ended:#}");
    let refused = send_as("mallory");
    assert!(refused.contains("list of users does not have mallory"), "{refused}");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn a_privileged_actor_sees_the_socket_of_a_container_runtime_where_the_operator_says_so() {
    let shared = tempfile::tempdir().unwrap();
    let socket = shared.path().join("runtime.sock");
    let _runtime = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let script = "find / -xdev -name '*.sock' 2>/dev/null | grep -v /_abaco_results.sock; \
                  test -S /var/run/docker.sock && echo there; echo looked";
    let mount = format!("privileged_mounts = [\"{}:/var/run/docker.sock:rw\"]", socket.display());
    for (settings, seen) in [("", "looked"), (&*mount, "/var/run/docker.sock\nthere\nlooked")] {
        let machine = Machine::with_settings("", settings);
        machine.import_script("looks", script);
        let served = machine.serve();
        register(&served, &json!({ "image": "looks", "name": "plain" }));
        register(&served, &json!({ "image": "looks", "name": "privileged", "privileged": true }));
        assert_eq!(output_of(&served, "plain"), "looked", "{settings}");
        assert_eq!(output_of(&served, "privileged"), seen, "{settings}");
        served.stop(Duration::from_secs(20));
        machine.assert_clean();
    }
}

#[test]
fn an_actor_has_a_limit_on_time_of_its_own_within_the_hosts() {
    let machine = Machine::with_settings("", "time_limit_seconds = 2");
    machine.import_script("sleeps", "echo begun; sleep 1000");
    let served = machine.serve();
    for (name, limit, seconds) in [("less", 1, 1), ("more", 1_000, 2)] {
        register(&served, &json!({ "image": "sleeps", "name": name, "maxRunTime": limit }));
        let execution = served.ok(&["send", name, "x"]);
        let ended = served.wait_for(name, &execution, has_ended);
        assert_eq!(
            (&ended["status"], &ended["outcome"]),
            (&json!("COMPLETE"), &json!("timed_out"))
        );
        assert_eq!(ended["runtime"], seconds, "{ended:#}");
        assert_ne!(ended["exit_code"], 0, "{ended:#}");
        let said = ended["final_state"]["Error"].as_str().unwrap();
        assert!(said.contains(&format!("longer than the limit of {seconds} s")), "{ended:#}");
    }
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}

#[test]
fn a_revision_runs_the_image_that_was_found_for_it_until_an_update_is_forced() {
    let registry = Registry::start().unwrap();
    let push = |word: &str| {
        let layout = Layout::new().unwrap();
        let tar = abax_testbed::busybox_rootfs_tar().unwrap();
        let config = json!({ "Cmd": ["/bin/sh", "-c", format!("echo {word}")] });
        layout.image("v1", &[(&tar, Compression::Gzip)], &config).unwrap();
        registry.push(&layout, "v1", "it/says:v1").unwrap()
    };
    let image = push("one");
    let machine = Machine::new();
    let served = machine.serve();
    let is_ready = |actor: &str| served.json(&["show", actor])["status"] == "READY";
    served.ok(&["create", "--name", "pinned", &image]);
    eventually("the first is ready", || is_ready("pinned"));
    push("two");
    machine.ok(&["pull", &image]);
    assert_eq!(output_of(&served, "pinned"), "one", "whatever its name is now");
    served.ok(&["create", "--name", "later", &image]);
    assert_eq!(output_of(&served, "later"), "two");

    push("three");
    assert_eq!(output_of(&served, "later"), "two");
    served.ok(&["update", "pinned", "--force"]);
    eventually("the update is ready", || is_ready("pinned"));
    assert_eq!(served.json(&["show", "pinned"])["revision"], 2);
    assert_eq!(output_of(&served, "pinned"), "three", "it was pulled anew");
    assert_eq!(output_of(&served, "later"), "two");
    // What has gone from the host comes from the registry by its digest.
    machine.ok(&["rmi", &image]);
    assert_eq!(output_of(&served, "pinned"), "three");

    // What was made here stands above the registry.
    let local = format!("{}/made/here:v1", registry.address());
    machine.import_script(&local, "echo local one");
    served.ok(&["create", "--name", "local", &local]);
    eventually("the local one is ready", || is_ready("local"));
    machine.import_script(&local, "echo local two");
    assert_eq!(output_of(&served, "local"), "local one");
    served.ok(&["update", "local", "--force"]);
    eventually("the local update is ready", || is_ready("local"));
    assert_eq!(output_of(&served, "local"), "local two");
    served.stop(Duration::from_secs(20));
    machine.assert_clean();
}
