//! Control groups: limits, usage and the end of everything in a container.
