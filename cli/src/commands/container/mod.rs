//! The container verbs, on this machine.

pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;

use abax_runtime::network::Mode;

use crate::args::NetworkMode;
use crate::config::Settings;

/// What `--network` means here.
pub(crate) fn network(settings: &Settings, mode: NetworkMode) -> Mode {
    match mode {
        NetworkMode::None => Mode::None,
        NetworkMode::Host => Mode::Host,
        NetworkMode::Bridge => Mode::Bridge(settings.bridge()),
    }
}
