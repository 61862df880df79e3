//! Revisions: which image each state of an actor's settings runs.

/// The image of a revision of an actor. What the reference names may change in its
/// registry; the revision runs what the first host found under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionImage {
    /// Which revision.
    pub revision: i64,
    /// The reference, as the owner gave it.
    pub reference: String,
    /// What the first host found; `None` until one has looked.
    pub pinned: Option<PinnedImage>,
    /// Whether that host asks the registry although it has an image of that name:
    /// the owner forced the update.
    pub anew: bool,
}

/// What a host found under a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedImage {
    /// The digest of its manifest, on hosts of one architecture.
    pub digest: String,
    /// Whether it was made on a host, so that others have only what was made on
    /// them under the same name.
    pub made: bool,
}
