//! docs/contract.md against the tests that it names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where `api/actors` or `api/src/dialect` is.
fn source(workspace: &Path, place: &str) -> Option<PathBuf> {
    let (room, rest) = place.split_once('/')?;
    let file = match rest.strip_prefix("src/") {
        Some(module) => workspace.join(room).join("src").join(module),
        None => workspace.join(room).join("tests").join(rest),
    };
    [file.with_extension("rs"), file.join("mod.rs")].into_iter().find(|file| file.exists())
}

/// Whether `name` is a test of this source, or what one of its tests runs.
fn runs(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    let above = before.rsplit_once('\n').map_or("", |(above, _)| above);
    let attribute = above.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let is_test = attribute
        .is_some_and(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"));
    let word = |c: char| c.is_alphanumeric() || c == '_';
    is_test || text.split(|c| !word(c)).filter(|part| *part == name).count() > 1
}

#[test]
fn every_line_is_proved_by_tests_that_there_are() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(workspace.join("docs/contract.md")).unwrap();
    let mut sources: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut lines = Vec::new();
    for row in page.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(number) = cells.get(1).and_then(|cell| cell.parse::<u32>().ok()) else { continue };
        lines.push(number);
        // Between backquotes; a line without a test says why instead.
        let named: Vec<&str> = row.split('`').filter(|part| part.contains("::")).collect();
        if named.is_empty() && !row.contains("not proved") {
            wrong.push(format!("line {number} names no test"));
        }
        for test in named {
            let (place, name) = test.split_once("::").unwrap();
            let Some(path) = source(workspace, place) else {
                wrong.push(format!("line {number}: there is no {place}"));
                continue;
            };
            let text = sources
                .entry(path.clone())
                .or_insert_with(|| std::fs::read_to_string(&path).unwrap());
            if !runs(text, name) {
                wrong.push(format!("line {number}: {place} has no test {name}"));
            }
        }
    }
    assert_eq!(lines, (1..=256).collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{wrong:#?}");
}
