//! A storage directory on a disk that can be full.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Enough for a round, and filled quickly.
const SIZE_MIB: usize = 64;

/// A file system of its own where this process may mount one, else a directory that a file takes
/// the place of: everything written then fails too, with another error.
#[derive(Debug)]
pub(super) struct Disk {
    place: TempDir,
    /// Unmounts when this process is killed.
    guard: Option<Child>,
}

impl Disk {
    pub(super) fn new() -> Self {
        let place = tempfile::Builder::new().prefix("tidemark-disk-").tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE_MIB}m"), "tmpfs"])
            .arg(place.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let guard = mounted.then(|| {
            Command::new("sh")
                .args(["-c", r#"trap '' INT TERM HUP; read -r _; umount -l "$1"; rmdir "$1""#, "guard"])
                .arg(place.path())
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("there is a shell")
        });
        let disk = Self { place, guard };
        fs::create_dir_all(disk.data()).unwrap();
        disk
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        if self.guard.is_some() { "a full tmpfs" } else { "no tmpfs here: a file in place of the directory" }
    }

    /// The directory to store in.
    pub(super) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// From now on nothing can be stored. Again, until it is noticed: what a writer gives up, or
    /// removes, makes room.
    pub(super) fn fill(&self) {
        if self.guard.is_none() {
            if !self.away().exists() {
                fs::rename(self.data(), self.away()).unwrap();
                fs::write(self.data(), "the disk is full").unwrap();
            }
            return;
        }
        let mut file = File::options().create(true).append(true).open(self.away()).unwrap();
        let block = vec![0; 1 << 16];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    /// There is room again.
    pub(super) fn free(&self) {
        if self.guard.is_none() {
            fs::remove_file(self.data()).unwrap();
            fs::rename(self.away(), self.data()).unwrap();
        } else {
            fs::remove_file(self.away()).unwrap();
        }
    }

    fn away(&self) -> PathBuf {
        self.place.path().join("away")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // The end of its input ends it.
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}
