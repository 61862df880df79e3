//! A file system in a tar archive → an image of one layer, as `docker import` makes it.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};

use serde_json::{Map, Value, json};

use super::layer::LayerInProgress;
use super::manifest::Compression;
use super::resolved::{Image, Layer};
use super::store::{Store, StoreError, file_error};
use super::unpack::{LayerError, unpack};
use crate::digest::{DiffId, Hashing};
use crate::platform::Platform;
use crate::reference::Reference;

/// Why an archive did not become an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A change is none of those that there are, or malformed.
    #[error("invalid change {text:?}: {reason}")]
    Change {
        /// The change as it was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive could not be read.
    #[error("could not read the archive")]
    Read {
        /// What the reader said.
        source: io::Error,
    },
    /// The archive could not be unpacked.
    #[error("could not unpack the archive")]
    Unpack {
        /// What is wrong with it, or with the disk.
        source: LayerError,
    },
    /// The store could not keep the image.
    #[error("could not keep the image")]
    Store {
        /// What the store says.
        #[from]
        source: StoreError,
    },
}

/// Makes an image of a file system's archive: a plain tar, or one compressed with gzip or zstd.
///
/// `changes` set its config, each a line of a Dockerfile: `CMD`, `ENTRYPOINT`,
/// `ENV`, `EXPOSE`, `LABEL`, `STOPSIGNAL`, `USER`, `VOLUME` or `WORKDIR`, where
/// lists are JSON or words. Nothing is read before all of them are understood.
///
/// # Errors
///
/// Nothing of the image is left; see [`ImportError`].
pub fn import(
    store: &Store,
    archive: &mut dyn Read,
    changes: &[String],
    reference: Option<&Reference>,
) -> Result<Image, ImportError> {
    let mut config = Map::new();
    for text in changes {
        apply(&mut config, text)
            .map_err(|reason| ImportError::Change { text: text.clone(), reason })?;
    }
    let read_error = |source| ImportError::Read { source };
    let mut archive = BufReader::with_capacity(256 << 10, archive);
    let compression = Compression::detect(archive.fill_buf().map_err(read_error)?);

    let tmp = store.temporary_path("");
    let blob = tempfile::Builder::new()
        .prefix("file.")
        .tempfile_in(&tmp)
        .map_err(file_error("create a file in", &tmp))?;
    let directory = LayerInProgress::create(store)?;
    let mut copying = Copying { reader: archive, copy: Hashing::new(blob.as_file()) };
    let unpacked = unpack(&mut copying, compression, directory.directory(), &store.limits());
    let (diff_id, _) = unpacked.map_err(|source| ImportError::Unpack { source })?;
    // A decompressor may stop before the end; the blob is all of it.
    io::copy(&mut copying, &mut io::sink()).map_err(read_error)?;
    let (digest, size_bytes) = copying.copy.finish();
    let path = store.blob_path(&digest);
    blob.as_file().sync_data().map_err(file_error("sync", &path))?;
    blob.persist(&path).map_err(|error| file_error("write", &path)(error.error))?;
    let diff_id = DiffId(diff_id);
    directory.keep(store, &diff_id)?;

    let layer = Layer { digest, diff_id, size_bytes, media_type: compression.media_type() };
    #[expect(clippy::disallowed_methods, reason = "an image says when it was made, for people")]
    let created = jiff::Timestamp::now();
    let platform = Platform::host();
    let config = json!({
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "history": [{ "created": created, "comment": "imported" }],
    });
    let names = reference.map(std::slice::from_ref).unwrap_or_default();
    Ok(store.create_image_from_json(config, &[layer], names)?)
}

/// Passes on what it reads, and writes a copy.
struct Copying<R, W> {
    reader: R,
    copy: Hashing<W>,
}

impl<R: Read, W: io::Write> Read for Copying<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.copy.write_all(&buffer[..n])?;
        Ok(n)
    }
}

/// One line of a Dockerfile that changes nothing but the config.
fn apply(config: &mut Map<String, Value>, text: &str) -> Result<(), &'static str> {
    let text = text.trim();
    let (instruction, rest) =
        text.split_once(char::is_whitespace).ok_or("an instruction takes an argument")?;
    let rest = rest.trim();
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => drop(config.insert("Cmd".to_owned(), command(rest))),
        "ENTRYPOINT" => drop(config.insert("Entrypoint".to_owned(), command(rest))),
        "ENV" => {
            let mut env: Vec<String> = config
                .remove("Env")
                .and_then(|env| serde_json::from_value(env).ok())
                .unwrap_or_default();
            for (key, value) in pairs(rest)? {
                env.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != key));
                env.push(format!("{key}={value}"));
            }
            config.insert("Env".to_owned(), env.into());
        }
        "LABEL" => {
            for (key, value) in pairs(rest)? {
                insert(config, "Labels", key, value.into());
            }
        }
        "EXPOSE" => {
            for port in words(rest)? {
                insert(config, "ExposedPorts", expose(&port)?, json!({}));
            }
        }
        "VOLUME" => {
            let paths = json_list(rest).map_or_else(|| words(rest), Ok)?;
            for path in paths {
                if path.is_empty() {
                    return Err("a volume needs a path");
                }
                insert(config, "Volumes", path, json!({}));
            }
        }
        "USER" => drop(config.insert("User".to_owned(), single(rest)?.into())),
        "STOPSIGNAL" => drop(config.insert("StopSignal".to_owned(), single(rest)?.into())),
        "WORKDIR" => {
            let directory = words(rest)?.join(" ");
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let joined = std::path::Path::new(before).join(directory);
            let joined = joined.to_str().ok_or("not a path")?.to_owned();
            config.insert("WorkingDir".to_owned(), joined.into());
        }
        _ => {
            return Err(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR \
                        can change an image",
            );
        }
    }
    Ok(())
}

fn insert(config: &mut Map<String, Value>, field: &str, key: String, value: Value) {
    let map = config.entry(field).or_insert_with(|| json!({}));
    map[key] = value;
}

/// The exec form where it is a JSON list of strings, else the shell form.
fn command(text: &str) -> Value {
    match json_list(text) {
        Some(words) => words.into(),
        None => json!(["/bin/sh", "-c", text]),
    }
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn single(text: &str) -> Result<String, &'static str> {
    match &words(text)?[..] {
        [word] => Ok(word.clone()),
        _ => Err("it takes one word"),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn expose(text: &str) -> Result<String, &'static str> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.parse::<u16>(), last.parse::<u16>(), protocol) {
        (Ok(first), Ok(last), "tcp" | "udp" | "sctp") if 0 < first && first <= last => {
            Ok(format!("{ports}/{protocol}"))
        }
        _ => Err("a port is a number or a range, as in 80 or 8000-8010/udp"),
    }
}

/// `KEY=VALUE …`, or the old form `KEY VALUE`, where the value is the rest of the line.
fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let words = words(text)?;
    match text.split_once(char::is_whitespace) {
        Some((key, value)) if !key.contains('=') => {
            return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
        }
        _ => {}
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err("it takes KEY=VALUE"),
        })
        .collect()
}

/// Words between spaces; quotes and backslashes as in a Dockerfile.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                let escaped = characters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(escaped);
            }
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    if words.is_empty() { Err("an instruction takes an argument") } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> Result<Value, &'static str> {
        let mut config = Map::new();
        changes.iter().try_for_each(|text| apply(&mut config, text))?;
        Ok(config.into())
    }

    #[test]
    fn changes_set_what_a_dockerfile_would() {
        for (changes, expected) in [
            (&["CMD [\"a\", \"b c\"]"][..], json!({ "Cmd": ["a", "b c"] })),
            (&["cmd a  b"], json!({ "Cmd": ["/bin/sh", "-c", "a  b"] })),
            (&["ENTRYPOINT [\"/init\"]"], json!({ "Entrypoint": ["/init"] })),
            (
                &["ENV A=1 B=\"two words\" C=a\\ b"],
                json!({ "Env": ["A=1", "B=two words", "C=a b"] }),
            ),
            (&["ENV A one two", "ENV A=3"], json!({ "Env": ["A=3"] })),
            (&["ENV A=x=y"], json!({ "Env": ["A=x=y"] })),
            (&["LABEL a=b 'c d'=e"], json!({ "Labels": { "a": "b", "c d": "e" } })),
            (
                &["EXPOSE 80 53/udp", "EXPOSE 8000-8010"],
                json!({ "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "8000-8010/tcp": {} } }),
            ),
            (
                &["VOLUME [\"/a b\"]", "VOLUME /c /d"],
                json!({ "Volumes": { "/a b": {}, "/c": {}, "/d": {} } }),
            ),
            (&["USER 1000:1000"], json!({ "User": "1000:1000" })),
            (&["WORKDIR /a", "WORKDIR b"], json!({ "WorkingDir": "/a/b" })),
            (&["WORKDIR /a", "WORKDIR /b"], json!({ "WorkingDir": "/b" })),
            (&["STOPSIGNAL SIGINT"], json!({ "StopSignal": "SIGINT" })),
        ] {
            assert_eq!(config(changes).unwrap(), expected, "{changes:?}");
        }
    }

    #[test]
    fn changes_that_are_none_are_refused() {
        for change in [
            "",
            "CMD",
            "RUN true",
            "FROM x",
            "ENV",
            "ENV =x",
            "ENV A=1 B",
            "ENV A=\"open",
            "EXPOSE http",
            "EXPOSE 0",
            "EXPOSE 9-8",
            "EXPOSE 80/icmp",
            "USER a b",
            "LABEL a",
            "ENV A=\\",
            "VOLUME [\"\"]",
        ] {
            assert!(config(&[change]).is_err(), "{change:?}");
        }
    }
}
