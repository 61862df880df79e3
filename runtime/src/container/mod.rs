//! Containers: create, start, wait, kill, delete.
