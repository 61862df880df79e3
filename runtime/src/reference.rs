//! Image references by Docker's rules: registry, repository, tag, digest, and their defaults.
