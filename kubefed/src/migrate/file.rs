//! What is to be moved, in a file: one object a line, in the order in which they are made.

use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::old::Found;
use super::piece::{Item, Piece};

/// The last line: without it a file is not whole.
const END: &str = "end";

pub(super) struct Writer {
    path: PathBuf,
    out: std::io::BufWriter<std::fs::File>,
    count: usize,
}

impl Writer {
    /// Begins a file that nobody else may read.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot make {} (--to-file)", path.display()))?;
        Ok(Writer { path: path.to_owned(), out: std::io::BufWriter::new(file), count: 0 })
    }

    pub(super) fn write(&mut self, item: &Item) -> anyhow::Result<()> {
        self.count += 1;
        self.line(&to_value(item))
    }

    /// Ends the file; how many objects it has.
    pub(super) fn finish(mut self) -> anyhow::Result<usize> {
        self.line(&json!({END: self.count}))?;
        let flushed = self.out.into_inner().map_err(std::io::IntoInnerError::into_error);
        let synced = flushed.and_then(|file| file.sync_all());
        synced.with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.count)
    }

    fn line(&mut self, value: &Value) -> anyhow::Result<()> {
        writeln!(self.out, "{value}")
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Reads a file, if it is whole.
pub(super) async fn read(
    path: &Path,
    mut each: impl AsyncFnMut(Found) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = path.display();
    let open = || {
        let file = std::fs::File::open(path);
        let file = file.with_context(|| format!("cannot read {shown} (--from-file)"))?;
        anyhow::Ok(std::io::BufReader::new(file).lines())
    };
    let parse = |line: std::io::Result<String>| anyhow::Ok(serde_json::from_str::<Value>(&line?)?);
    let last = open()?.last().map(parse).transpose().ok().flatten();
    if last.is_none_or(|last| last[END].is_null()) {
        bail!("{shown} is not whole: make it again by --to-file");
    }
    for (at, line) in open()?.enumerate() {
        let value = parse(line).with_context(|| format!("{shown}, line {}", at + 1))?;
        if value[END].is_null() {
            each(Found::Item(from_value(value))).await?;
        }
    }
    Ok(())
}

fn to_value(item: &Item) -> Value {
    let piece = |piece: &Piece| json!({"collection": piece.collection, "object": piece.object});
    let mut value = piece(&item.piece);
    if let Some(record) = &item.record {
        value["record"] = piece(record);
    }
    value
}

fn from_value(mut value: Value) -> Item {
    let piece = |value: &mut Value| Piece {
        collection: value["collection"].as_str().unwrap_or("").to_owned(),
        object: value["object"].take(),
    };
    let mut record = value["record"].take();
    let record = (!record.is_null()).then(|| piece(&mut record));
    Item { piece: piece(&mut value), record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_survives_its_line() {
        let piece = |name: &str| Piece {
            collection: "/apis/a/v1/bs".into(),
            object: json!({"kind": "B", "metadata": {"name": name}}),
        };
        let plain = Item::of(piece("a"));
        let recorded = Item { record: Some(piece("b-a")), ..plain.clone() };
        for item in [plain, recorded] {
            assert_eq!(from_value(to_value(&item)), item);
        }
    }
}
