//! Operating system and architecture, and which manifest of an index fits them.
