//! File systems: how full, from `statvfs` of every local mount.

use std::collections::BTreeSet;

use super::Reading;

/// Mounts that are asked.
const MOUNTS_MAX: usize = 200;

/// Without data of their own, or asking could hang.
const IGNORED_TYPES: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "9p",
    "glusterfs",
    "lustre",
    "virtiofs",
];
const IGNORED_PLACES: &[&str] =
    &["/dev", "/proc", "/sys", "/run/credentials", "/var/lib/docker", "/var/lib/containers", "/snap"];

/// A line of `/proc/self/mounts`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    place: String,
    kind: String,
    read_only: bool,
}

/// Reads the list of mounts and asks each.
pub(super) fn read(mounts: &str, out: &mut Vec<Reading>) {
    for mount in parse(mounts) {
        let put = |name: &str, value: f64| {
            Reading::new(name, value)
                .with("device", mount.device.clone())
                .with("fstype", mount.kind.clone())
                .with("mountpoint", mount.place.clone())
        };
        match rustix::fs::statvfs(mount.place.as_str()) {
            Ok(stat) => {
                let block = stat.f_frsize as f64;
                out.push(put("node_filesystem_size_bytes", stat.f_blocks as f64 * block));
                out.push(put("node_filesystem_free_bytes", stat.f_bfree as f64 * block));
                out.push(put("node_filesystem_avail_bytes", stat.f_bavail as f64 * block));
                out.push(put("node_filesystem_files", stat.f_files as f64));
                out.push(put("node_filesystem_files_free", stat.f_ffree as f64));
                out.push(put("node_filesystem_readonly", f64::from(u8::from(mount.read_only))));
                out.push(put("node_filesystem_device_error", 0.0));
            }
            Err(_error) => out.push(put("node_filesystem_device_error", 1.0)),
        }
    }
}

fn parse(mounts: &str) -> Vec<Mount> {
    let mut seen = BTreeSet::new();
    let mount = |line: &str| {
        let mut words = line.split(' ');
        let (device, place, kind, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let mount = Mount {
            device: unescape(device),
            place: unescape(place),
            kind: kind.to_owned(),
            read_only: options.split(',').any(|option| option == "ro"),
        };
        let wanted = !IGNORED_TYPES.contains(&kind)
            && !kind.starts_with("fuse.")
            && !IGNORED_PLACES.iter().any(|ignored| {
                mount.place.strip_prefix(ignored).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
        wanted.then_some(mount)
    };
    mounts.lines().filter_map(mount).filter(|mount| seen.insert(mount.place.clone())).take(MOUNTS_MAX).collect()
}

/// Spaces and the like are written in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "/dev/vda1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\nnas:/x /mnt nfs4 rw 0 0\n\
        /dev/vdb /var/lib/post\\040gres xfs ro,noatime 0 0\n/dev/vda1 / ext4 rw 0 0\nsshfs /m fuse.sshfs rw 0 0\n\
        udev /dev/shm tmpfs rw 0 0\nbroken\n";

    #[test]
    fn only_local_mounts_with_data_are_asked() {
        let places: Vec<_> = parse(MOUNTS).into_iter().map(|mount| (mount.place, mount.read_only)).collect();
        assert_eq!(places, [("/".to_owned(), false), ("/var/lib/post gres".to_owned(), true)]);
    }

    #[test]
    fn a_mount_that_cannot_be_asked_says_so() {
        let mut readings = Vec::new();
        read(MOUNTS, &mut readings);
        let value = |name: &str, place: &str| {
            let found = readings
                .iter()
                .find(|reading| reading.name == name && reading.labels.contains(&("mountpoint", place.to_owned())));
            found.map(|reading| reading.value)
        };
        assert!(value("node_filesystem_size_bytes", "/").unwrap() > 0.0);
        assert_eq!(value("node_filesystem_device_error", "/"), Some(0.0));
        assert_eq!(value("node_filesystem_device_error", "/var/lib/post gres"), Some(1.0));
    }
}
