//! What a container gets of the network, from namespace to resolv.conf.
