//! The distribution protocol, seen from outside: pull an image.
