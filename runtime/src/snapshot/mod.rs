//! A stack of unpacked layers, made mountable.
