//! Real servers for tests: started on free ports, stopped on drop.
#![forbid(unsafe_code)]
