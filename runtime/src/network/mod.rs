//! What a container gets of the network, from namespace to resolv.conf.

/// What a container sees of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A namespace with a loopback interface only.
    #[default]
    None,
    /// The host's own.
    Host,
}
