"""Faults of disks, archive and slots."""

import os

from .. import probe, proc, settings
from ..base import LabError, now, run, wait_for
from .fault import Fault, churn_wal, require_replica
from .processes import kill_member

FILLER = "filler"


def need_mount(folder, fault):
    if not os.path.ismount(folder):
        raise LabError(f"{fault} needs a file system of its own at {folder}; this machine permitted neither loop nor tmpfs")
    return folder


def fill(mount):
    """Takes all free space of a file system; returns the size."""
    size = 0
    with open(mount / FILLER, "wb") as file:
        free = os.statvfs(mount)
        step = free.f_bsize * free.f_bavail
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
    return size


def disk_full(lab, member):
    mount = need_mount(lab.data_dir(member).parent, "disk-full")
    leads = probe.writable(lab, member)
    if leads:
        probe.must_sql(lab, member, "create table if not exists lab_fill (line text)")
        # A fresh WAL segment: it is data that must find the disk full, not the log (which would end in a PANIC at once).
        probe.must_sql(lab, member, "select pg_switch_wal()")
        probe.must_sql(lab, member, "checkpoint")
    time = now()
    size = fill(mount)
    said = "no write was tried"
    if leads:
        probe.sql(lab, member, "insert into lab_fill select repeat('x', 1000) from generate_series(1, 200)")
        said = "an INSERT that needs a new page was tried"
    return f"the file system of the data was filled with {size // 2**20} MiB; {said}", time


def disk_full_wal(lab, member):
    mount = need_mount(lab.data_dir(member).parent, "disk-full-wal")
    if not probe.writable(lab, member):
        raise LabError(f"{member} takes no writes: only a primary writes WAL of its own")
    time = now()
    size = fill(mount)
    # Segments that were recycled are used up first.
    emit = "select pg_logical_emit_message(false, 'lab', repeat('x', 1000000)) from generate_series(1, 16)"
    for _ in range(40):
        if probe.sql(lab, member, emit) is None:
            break
    return f"the file system of data and WAL was filled with {size // 2**20} MiB, and WAL written until it failed", time


def storage_hang(lab, member):
    mount = need_mount(lab.data_dir(member).parent, "storage-hang")
    run(["fsfreeze", "--freeze", mount])
    return "the file system of the data is frozen: every write to it waits"


def unfreeze(lab):
    """Lets all file systems of a lab go on; returns the members whose was frozen. Processes that wait there cannot even
    be killed."""
    found = []
    for member in lab.members:
        mount = lab.data_dir(member).parent
        if os.path.ismount(mount) and run(["fsfreeze", "--unfreeze", mount], check=False)[0] == 0:
            found.append(member)
    return found


def archive_failing(lab, member):
    if not probe.writable(lab, member):
        raise LabError(f"{member} is no primary: only a primary archives here")
    (lab.data_dir(member).parent / settings.ARCHIVE_FAILS).touch()
    time = now()
    churn_wal(lab, member, 16)
    return "the archive command fails from now on", time


def slot_retention(lab, member):
    leader = require_replica(lab, member)
    time = now()
    did = kill_member(lab, member)
    churn_wal(lab, leader, 96)
    return f"{did}; {leader} then wrote six segments of WAL, which the slot of {member} keeps", time


def wal_removed(lab, member):
    leader = require_replica(lab, member)
    small = {"max_slot_wal_keep_size": "32MB", "wal_keep_size": "0"}
    probe.patch_config(lab, {"postgresql": {"parameters": small}})
    wait_for("the setting to arrive", lambda: probe.sql(lab, leader, "show max_slot_wal_keep_size") == "32MB", 40)
    time = now()
    kill_member(lab, member)

    def lost():
        churn_wal(lab, leader, 32)
        probe.must_sql(lab, leader, "checkpoint")
        return probe.sql(lab, leader, f"select wal_status from pg_replication_slots where slot_name = '{member}'") in ("lost", "")
    wait_for("the slot's WAL to be removed", lost, 60)
    proc.restart(lab, member, "patroni")
    return f"{member} was down while {leader} removed WAL that it needs (max_slot_wal_keep_size), and was started again", time


FAULTS = [
    Fault("disk-full", "leader", "the file system of the data is filled",
          "writes that need space fail (53100, no space left on device), nothing else changes and nobody fails over, "
          "until WAL needs a new segment (PANIC)",
          "removes the filler", disk_full),
    Fault("disk-full-wal", "leader", "the file system of data and WAL is filled, and WAL written until it needs a segment",
          "PostgreSQL ends with a PANIC and cannot start; Patroni gives the key away, a replica is promoted after about 10 s",
          "removes the filler", disk_full_wal),
    Fault("storage-hang", "leader", "the file system of the data is frozen: writes to it wait for ever",
          "commits hang; Patroni keeps the lock, since its queries only read: no failover",
          "unfreezes it", storage_hang),
    Fault("archive-failing", "leader", "archive_command fails",
          "PostgreSQL tries again and again and keeps the WAL; nothing else changes",
          "mends the archive command", archive_failing),
    Fault("slot-retention", "replica", "a replica is killed, and its slot keeps the WAL that the leader then writes",
          "the slot is inactive and retains about 100 MB; the member leaves /cluster after its ttl",
          "starts Patroni", slot_retention),
    Fault("wal-removed", "replica", "a replica was down until the leader removed WAL that it needs",
          "it cannot stream any more (requested WAL segment has already been removed), every 5 s anew",
          "restores the settings and rebuilds the replica", wal_removed),
]
