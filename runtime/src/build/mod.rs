//! Dockerfile and context to image: the order of work.
