//! The only unsafe code of the workspace: one safe function per kernel call that no dependency wraps.
