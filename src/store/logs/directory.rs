//! tantivy's directory over our disk seam: reads are tantivy's own memory maps, every written byte goes through [`Disk`].

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::directory::error::{DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, DirectoryLock, FileHandle, Lock, MmapDirectory, TerminatingWrite, WatchCallback, WatchHandle,
    WritePtr,
};
use tantivy::{Directory, TantivyError};

use crate::platform::disk::{Disk, DiskFile};

/// Memory a file being written buffers.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(super) struct DiskDirectory {
    disk: Disk,
    root: PathBuf,
    maps: MmapDirectory,
}

impl DiskDirectory {
    pub(super) fn open(disk: &Disk, root: &Path) -> Result<Self, OpenDirectoryError> {
        Ok(Self { disk: disk.clone(), root: root.to_owned(), maps: MmapDirectory::open(root)? })
    }
}

struct Writer(DiskFile);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for Writer {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.0.sync()
    }
}

impl Directory for DiskDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.maps.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.maps.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.maps.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let full = self.root.join(path);
        if full.exists() {
            return Err(OpenWriteError::FileAlreadyExists(path.to_owned()));
        }
        let file =
            self.disk.open_append(&full).map_err(|error| OpenWriteError::wrap_io_error(error, path.to_owned()))?;
        let writer: Box<dyn TerminatingWrite + Send + Sync> = Box::new(Writer(file));
        Ok(BufWriter::with_capacity(WRITE_BUFFER_BYTES, writer))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.maps.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.disk.write_atomic(&self.root.join(path), data)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_dir(&self.root)
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.maps.acquire_lock(lock)
    }

    /// Readers are reloaded by hand after a commit.
    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

/// Whether an error of tantivy means that the disk is full.
pub(super) fn is_disk_full(error: &TantivyError) -> bool {
    let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
    match error {
        TantivyError::IoError(error) => full(error),
        TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, .. }) => full(io_error),
        _ => false,
    }
}
