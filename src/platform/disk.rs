//! Files: the seam through which everything durable goes, so that tests can make a disk full or broken.
//!
//! Invariant: bytes of an append that failed half-way may be on disk; callers detect them by checksums and cut them off.

mod faults;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use faults::Breaks;
use faults::Faults;

/// The file system. Clones share the same injected faults.
#[derive(Clone, Debug, Default)]
pub struct Disk(Option<Arc<Faults>>);

impl Disk {
    /// The real file system, no faults.
    pub fn real() -> Self {
        Self(None)
    }

    /// For tests: the real file system that takes only so many more bytes, then answers "no space left on device"
    /// after writing what fits.
    pub fn with_space(bytes: u64) -> Self {
        Self(Some(Arc::new(Faults::with_space(bytes))))
    }

    /// For tests: sets the space that is left.
    pub fn set_space(&self, bytes: u64) {
        if let Some(faults) = &self.0 {
            faults.space_left_bytes.store(bytes, Ordering::SeqCst);
        }
    }

    /// For tests: makes every sync fail, or work again.
    pub fn set_sync_fails(&self, fails: bool) {
        if let Some(faults) = &self.0 {
            faults.sync_fails.store(fails, Ordering::SeqCst);
        }
    }

    /// For tests: how many operations changed something so far.
    pub fn operations(&self) -> u64 {
        self.0.as_ref().map_or(0, |faults| faults.operations())
    }

    /// For tests: makes the operation of a number fail, and those after it too if it breaks for good. A write that fails
    /// leaves half of its bytes.
    pub fn break_at(&self, operation: u64, how: Breaks) {
        if let Some(faults) = &self.0 {
            faults.break_at(operation, how);
        }
    }

    /// For tests: does to the files of some directories what power loss may do: bytes, names and removals that were not
    /// synced are undone. Nothing may have the files open.
    pub fn lose_power(&self, dirs: &[PathBuf]) -> io::Result<()> {
        let Some(faults) = &self.0 else { return Ok(()) };
        for path in
            dirs.iter().filter(|dir| dir.is_dir()).map(|dir| self.list(dir)).collect::<io::Result<Vec<_>>>()?.concat()
        {
            if path.is_file() {
                faults.cut_to_synced(&path)?;
            }
        }
        faults.lose_power()
    }

    fn begin(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |faults| faults.begin())
    }

    /// Takes up to `want` bytes from the space that is left.
    fn take_space(&self, want: u64) -> u64 {
        self.0.as_ref().map_or(want, |faults| faults.take_space(want))
    }

    fn check_sync(&self) -> io::Result<()> {
        self.begin()?;
        match &self.0 {
            Some(faults) if faults.sync_fails.load(Ordering::SeqCst) => Err(io::Error::other("injected sync failure")),
            _ => Ok(()),
        }
    }

    pub fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    /// Opens for appending and reading, creating the file if it is missing.
    pub fn open_append(&self, path: &Path) -> io::Result<DiskFile> {
        if let Some(faults) = &self.0 {
            let is_new = !path.exists();
            if is_new {
                faults.begin()?;
            }
            let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
            faults.opened(&file, path, is_new)?;
            return Ok(DiskFile { file, disk: self.clone() });
        }
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        Ok(DiskFile { file, disk: self.clone() })
    }

    pub fn open_read(&self, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile { file: File::open(path)?, disk: self.clone() })
    }

    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    /// Replaces a file as a whole: afterwards it holds either the old bytes or the new ones, also after power loss.
    pub fn write_atomic(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let written = (|| {
            match self.remove_file(&temporary) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let mut file = self.open_append(&temporary)?;
            file.append(bytes)?;
            file.sync()
        })();
        if let Err(error) = written {
            // The half-written file must not keep eating a full disk; the first error is the one to report.
            drop(self.remove_file(&temporary));
            return Err(error);
        }
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin()?;
        if let Some(faults) = &self.0 {
            faults.renaming(from, to)?;
        }
        fs::rename(from, to)
    }

    /// Gives a file a second name.
    pub fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        if let Some(faults) = self.0.as_ref().filter(|_| path.exists()) {
            faults.begin()?;
            faults.removing(path)?;
        }
        fs::remove_file(path)
    }

    pub fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    /// Paths in a directory, sorted; empty when there is no such directory.
    pub fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    /// Makes renames and new names in a directory durable.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check_sync()?;
        File::open(dir)?.sync_all()?;
        if let Some(faults) = &self.0 {
            faults.synced_dir(dir);
        }
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    disk: Disk,
}

impl DiskFile {
    /// Writes at the end. After an error any prefix of the bytes may have been written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.disk.begin() {
            self.file.write_all(bytes.get(..bytes.len() / 2).unwrap_or_default())?;
            return Err(error);
        }
        let granted = self.disk.take_space(bytes.len() as u64);
        let fits = usize::try_from(granted).unwrap_or(usize::MAX);
        if let Some(part) = bytes.get(..fits).filter(|_| fits < bytes.len()) {
            self.file.write_all(part)?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.file.write_all(bytes)
    }

    /// A second handle to the same file, to sync it while the first one writes on.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, disk: self.disk.clone() })
    }

    /// Makes what was written survive power loss.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.check_sync()?;
        self.file.sync_data()?;
        self.disk.0.as_ref().map_or(Ok(()), |faults| faults.synced(&self.file))
    }

    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file off.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.begin()?;
        self.file.set_len(len)?;
        self.disk.0.as_ref().map_or(Ok(()), |faults| faults.truncated(&self.file, len))
    }

    /// Fills `buffer` from `offset` on; an error when the file ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_keeps_a_prefix_and_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::with_space(10);
        let path = dir.path().join("state");
        disk.write_atomic(&path, b"old").unwrap();
        let error = disk.write_atomic(&path, b"much longer").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.read(&path).unwrap(), b"old");
        assert_eq!(disk.list(dir.path()).unwrap().len(), 1, "no temporary file is left");

        disk.set_space(2);
        let mut file = disk.open_append(&path).unwrap();
        assert!(file.append(b"abc").is_err());
        assert_eq!(disk.read(&path).unwrap(), b"oldab");
    }
    #[test]
    fn power_loss_leaves_what_was_synced() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::with_space(1 << 20);
        let path = |name: &str| dir.path().join(name);
        let put = |name: &str, bytes: &[u8]| {
            let mut file = disk.open_append(&path(name)).unwrap();
            file.append(bytes).unwrap();
            file
        };
        put("kept", b"syn").sync().unwrap();
        disk.sync_dir(dir.path()).unwrap();
        put("kept", b"ced");
        put("removed", b"r").sync().unwrap();
        put("renamed", b"n").sync().unwrap();
        disk.sync_dir(dir.path()).unwrap();
        disk.remove_file(&path("removed")).unwrap();
        disk.rename(&path("renamed"), &path("other")).unwrap();
        put("new", b"x").sync().unwrap();
        disk.lose_power(&[dir.path().to_owned()]).unwrap();
        let names: Vec<_> = disk.list(dir.path()).unwrap();
        assert_eq!(names, ["kept", "removed", "renamed"].map(path));
        assert_eq!(disk.read(&path("kept")).unwrap(), b"syn");
        assert_eq!(disk.read(&path("removed")).unwrap(), b"r");
    }

    #[test]
    fn a_disk_breaks_at_one_operation_or_for_good() {
        for (how, later_works) in [(Breaks::Once, true), (Breaks::ForGood, false)] {
            let dir = tempfile::tempdir().unwrap();
            let disk = Disk::with_space(1 << 20);
            let mut file = disk.open_append(&dir.path().join("f")).unwrap();
            file.append(b"one").unwrap();
            disk.break_at(disk.operations(), how);
            assert!(file.append(b"four").is_err());
            assert_eq!(file.len().unwrap(), 5, "half of a write is there");
            assert_eq!(file.append(b"x").is_ok(), later_works, "{how:?}");
        }
    }
}
