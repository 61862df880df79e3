//! What the test servers promise to the tests that use them.

use std::process::Command;

use abax_testbed::{Access, Registry, busybox_image};

#[test]
fn a_registry_takes_and_lists_an_image() {
    let registry = Registry::start().unwrap();
    let layout = busybox_image().unwrap();
    let reference = registry.push(&layout, "latest", "busybox:1").unwrap();
    assert_eq!(reference, format!("{}/busybox:1", registry.address()));
}

#[test]
fn registries_with_basic_and_token_access_take_pushes_of_their_user() {
    let layout = busybox_image().unwrap();
    for access in [Access::Basic, Access::Token] {
        let registry = Registry::start_with(access).unwrap();
        registry
            .push(&layout, "latest", "team/busybox:1")
            .unwrap_or_else(|e| panic!("{access:?}: {e:#}"));
        let anonymous = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false"])
            .arg(format!("docker://{}/team/busybox:1", registry.address()))
            .output()
            .unwrap();
        assert!(!anonymous.status.success(), "{access:?} let a stranger in");
    }
}

#[test]
fn a_registry_ends_with_its_handle() {
    let registry = Registry::start().unwrap();
    let address = registry.address();
    std::net::TcpStream::connect(&address).unwrap();
    drop(registry);
    std::net::TcpStream::connect(&address).unwrap_err();
}
