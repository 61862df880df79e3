//! Images: a resolved manifest and its config, kept in an OCI layout.
