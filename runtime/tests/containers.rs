//! What containers promise, on a real kernel. Needs root and busybox-static.

mod machine;

use abax_runtime::container::{ExitStatus, Isolation, Options, StartError};
use machine::{Machine, args};

#[test]
fn a_program_s_exit_code_is_the_container_s() {
    let machine = Machine::new();
    for code in [0, 3, 255] {
        let outcome = machine.sh(&format!("exit {code}"), Options::default());
        assert_eq!(outcome.exit.status, ExitStatus::Exited(code), "{outcome:?}");
    }
    let outcome = machine
        .sh("kill -TERM $$; kill -KILL $$; exit 7", Options { init: true, ..Options::default() });
    assert_eq!(outcome.exit.exit_code(), 128 + libc::SIGTERM, "{outcome:?}");
}
