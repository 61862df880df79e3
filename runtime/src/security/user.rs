//! Users and groups of a root file system, and id mappings.
