//! The Dockerfile language: text to stages of instructions.
