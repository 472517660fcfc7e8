//! The file of the audit log, put aside when it is full.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Options;

/// The time in the names of files put aside; sorts as it runs.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.6f";

pub(super) struct File {
    options: Options,
    out: Box<dyn Write + Send>,
    /// What is in the file; standard output is never full.
    size: u64,
    clock: fn() -> Timestamp,
}

impl File {
    pub(super) fn open(options: Options, clock: fn() -> Timestamp) -> io::Result<Self> {
        let (out, size): (Box<dyn Write + Send>, u64) = if options.path == Path::new("-") {
            (Box::new(io::stdout()), 0)
        } else {
            let file = create(&options.path)?;
            let size = file.metadata()?.len();
            (Box::new(file), size)
        };
        Ok(File { options, out, size, clock })
    }

    /// Writes lines that end in a newline each.
    pub(super) fn append(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        let mut pending = Vec::new();
        for line in lines {
            let size = self.size + pending.len() as u64;
            if size > 0 && size + line.len() as u64 > self.options.max_size {
                self.put(&pending)?;
                pending.clear();
                self.put_aside()?;
            }
            pending.extend_from_slice(line);
        }
        self.put(&pending)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn put_aside(&mut self) -> io::Result<()> {
        if self.options.path == Path::new("-") {
            return Ok(());
        }
        // Later than all others also when the clock is not: the oldest are deleted by their names.
        let mut old = self.put_aside_before()?;
        let now = match old.last() {
            Some(last) => (self.clock)().max(*last + SignedDuration::from_micros(1)),
            None => (self.clock)(),
        };
        fs::rename(&self.options.path, self.aside(now))?;
        self.out = Box::new(create(&self.options.path)?);
        self.size = 0;
        old.push(now);
        for at in &old[..old.len().saturating_sub(self.options.max_backups)] {
            fs::remove_file(self.aside(*at))?;
        }
        Ok(())
    }

    /// `audit.log` put aside is `audit-2026-11-24T10-00-00.000000.log`.
    fn aside(&self, at: Timestamp) -> PathBuf {
        let (stem, extension) = self.name();
        self.options.path.with_file_name(format!("{stem}-{}{extension}", at.strftime(STAMP)))
    }

    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| {
            part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let extension = text(self.options.path.extension());
        let dot = if extension.is_empty() { "" } else { "." };
        (text(self.options.path.file_stem()), format!("{dot}{extension}"))
    }

    /// When the files that are there were put aside, the oldest first.
    fn put_aside_before(&self) -> io::Result<Vec<Timestamp>> {
        let (stem, extension) = self.name();
        let dir = match self.options.path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let stamp = name
                .strip_prefix(&stem)
                .and_then(|rest| rest.strip_prefix('-')?.strip_suffix(&extension))
                .and_then(|stamp| DateTime::strptime(STAMP, stamp).ok())
                .and_then(|at| at.to_zoned(TimeZone::UTC).ok());
            found.extend(stamp.map(|at| at.timestamp()));
        }
        found.sort();
        Ok(found)
    }
}

/// Who may read the log is for the operator to widen.
fn create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        fs::write(dir.path().join("audit-notes.log"), "mine").unwrap();
        let policy = crate::audit::Policy::default();
        let options = Options { path: path.clone(), max_size: 10, max_backups: 2, policy };
        let mut file = File::open(options.clone(), || Timestamp::UNIX_EPOCH).unwrap();
        let lines: Vec<Vec<u8>> = (0..9).map(|n| format!("line{n}\n").into_bytes()).collect();
        file.append(&lines[..4]).unwrap();
        drop(file);
        // The one that is there goes on.
        let mut file = File::open(options, || Timestamp::UNIX_EPOCH).unwrap();
        for line in lines[4..].chunks(2) {
            file.append(line).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line8\n");
        let found = names(dir.path());
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[3], "audit.log");
        assert_eq!(found[2], "audit-notes.log");
        assert_eq!(fs::read_to_string(dir.path().join(&found[1])).unwrap(), "line7\n");
        assert_eq!(fs::read_to_string(dir.path().join(&found[0])).unwrap(), "line6\n");
    }
}
