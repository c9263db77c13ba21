"""The faults: what each does, what follows, and how it was done. `heal` undoes them all.

A fault is one function that breaks one thing and returns what it did (with the time of the decisive step, where it
first has to prepare), and one line in FAULTS. It leaves no state of its own: heal looks at the lab, not at a list, so
it also repairs what a killed `lab fault` half did.
The times in `expect` hold for Patroni's default timing; with --fast a failover takes about 10 s less.
"""

import json
import os
import signal
from dataclasses import dataclass
from typing import Callable

from . import net, probe, proc
from .base import LabError, now, wait_for

FILLER = "filler"
BLOCKER = "blocker"


@dataclass(frozen=True)
class Fault:
    name: str
    target: str  # the member that it hits unless told otherwise; a word of `default_target`
    does: str
    expect: str
    heal: str
    inject: Callable


def inject(lab, name, member=None):
    """Injects a fault and returns what to tell the user."""
    fault = next((fault for fault in FAULTS if fault.name == name), None)
    if not fault:
        raise LabError(f"no fault {name!r}: there are " + ", ".join(fault.name for fault in FAULTS))
    member = lab.member_at(member) if member else default_target(lab, fault.target)
    time = now()
    did = fault.inject(lab, member)
    if isinstance(did, tuple):
        did, time = did
    record(lab, "fault", name, member, did, time)
    return f"{time} {name} {member}: {did}\nexpect  {fault.expect}\nheal    {fault.heal}: tests/lab/lab heal {lab.name}"


def default_target(lab, word):
    if word == "leader":
        return probe.require_leader(lab)
    if word == "replica":
        return probe.a_replica(lab)
    found = probe.etcd_leader(lab)
    if not found:
        raise LabError(f"etcd of lab {lab.name} has no leader now: heal it first with lab heal {lab.name}")
    return found


def record(lab, action, fault, member, did, time=None):
    """Appends to faults.jsonl. `time` is when it began."""
    entry = {"time": time or now(), "action": action, "fault": fault, "member": member, "did": did}
    with open(lab.faults_file, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def catalogue():
    """All faults for people."""
    lines = ["faults:"]
    for fault in FAULTS:
        lines.append(f"  {fault.name:22}{fault.does} (default: {fault.target})")
        lines.append(f"  {'':22}expect: {fault.expect}")
    return "\n".join(lines)


# --- processes -------------------------------------------------------------------------------------------------------

def kill_postmaster(lab, member):
    pid = require_postmaster(lab, member)
    os.kill(pid, signal.SIGKILL)
    return f"SIGKILL to the postmaster (pid {pid})"


def kill_patroni(lab, member):
    return f"SIGKILL to Patroni (pid {proc.send(lab, member, 'patroni', signal.SIGKILL)}); PostgreSQL runs on"


def stop_patroni(lab, member):
    return f"SIGSTOP to Patroni (pid {proc.send(lab, member, 'patroni', signal.SIGSTOP)}); PostgreSQL runs on"


def crash_backend(lab, member):
    require_postmaster(lab, member)
    # A session of our own: whether any other runs at this moment is chance.
    mark = "lab-crash-backend"
    sleeper = probe.psql_argv(lab, member) + ["-c", f"set application_name = '{mark}'", "-c", "select pg_sleep(60)"]
    proc.start(lab, member, mark, sleeper)
    query = f"select pid from pg_stat_activity where application_name = '{mark}' and query like '%pg_sleep%'"
    pid = int(wait_for("a session to kill", lambda: probe.sql(lab, member, query), 10).split()[0])
    os.kill(pid, signal.SIGKILL)
    proc.forget(lab, member, mark)
    return f"SIGKILL to a backend of PostgreSQL (pid {pid})"


def host_loss(lab, member):
    cut = ""
    if lab.has_namespaces:
        # First the cable: no connection is closed politely, peers hear nothing more.
        net.set_link(lab, member, "down")
        cut = "network link down, "
    count = len(proc.of_host(lab, member))
    proc.kill_all(lambda: proc.of_host(lab, member), f"host {member}")
    return f"{cut}SIGKILL to all {count} processes of the host"


def require_postmaster(lab, member):
    pid = proc.postmaster(lab, member)
    if not pid:
        raise LabError(f"PostgreSQL does not run on {member} (heal the lab first: lab heal {lab.name})")
    return pid


# --- network and etcd --------------------------------------------------------------------------------------------------

def partition_leader(lab, member):
    if not lab.has_namespaces:
        raise LabError("partition-leader needs network namespaces; this lab lives on loopback addresses")
    peers = [peer for peer in lab.members if peer != member]
    net.drop_traffic(lab, member, peers)
    return f"all packets between {member} and {', '.join(peers)} are dropped; clients and the monitor still reach it"


def etcd_leader_kill(lab, member):
    return f"SIGKILL to etcd (pid {proc.send(lab, member, 'etcd', signal.SIGKILL)})"


def etcd_quorum_loss(lab, member):
    """`member` is the one whose etcd survives longest: etcd ends on others first, until the quorum is lost."""
    others = [other for other in lab.members if other != member]
    victims = (others + [member])[:len(lab.members) - len(lab.members) // 2]
    pids = [proc.send(lab, victim, "etcd", signal.SIGKILL) for victim in victims]
    return f"SIGKILL to etcd on {', '.join(victims)} (pids {', '.join(map(str, pids))})"


# --- operators ---------------------------------------------------------------------------------------------------------

def switchover(lab, member):
    """`member` becomes the leader."""
    old = probe.require_leader(lab)
    body = {"leader": old, "candidate": member}
    status, text = probe.http(lab, f"{lab.patroni_url(old)}/switchover", method="POST", body=body, timeout=60)
    if status != 200:
        raise LabError(f"Patroni refused the switchover from {old} to {member}: {status or ''} {text}")
    return f"switchover from {old} through Patroni: {text}"


def promote_while_paused(lab, member):
    probe.patch_config(lab, {"pause": True})
    seen = {}

    def idle_in_pause():
        """True after a whole loop of the member's Patroni under the pause: an action begun before would undo the promotion."""
        said = probe.patroni(lab, member) or {}
        if not said.get("pause") or said.get("replication_state") != "streaming":
            seen.clear()
            return False
        return said["dcs_last_seen"] > seen.setdefault("loop", said["dcs_last_seen"])
    wait_for(f"Patroni of {member} to be idle in the pause", idle_in_pause, 60)
    time = now()
    proc.as_postgres([f"{probe.postgres_bin()}/pg_ctl", "promote", "-s", "-D", lab.data_dir(member)])
    wait_for(f"{member} to be writable", lambda: probe.writable(lab, member), 20)
    return "Patroni paused, then pg_ctl promote: a second writable primary", time


# --- storage and queries -------------------------------------------------------------------------------------------------

def disk_full(lab, member):
    mount = lab.data_dir(member).parent
    if not os.path.ismount(mount):
        raise LabError("disk-full needs a file system of its own for the data; this machine permitted neither loop nor tmpfs")
    leads = probe.writable(lab, member)
    if leads:
        probe.must_sql(lab, member, "create table if not exists lab_fill (line text)")
        # A fresh WAL segment: it is data that must find the disk full, not the log (which would end in a PANIC at once).
        probe.must_sql(lab, member, "select pg_switch_wal()")
        probe.must_sql(lab, member, "checkpoint")
    time = now()
    size = fill(mount / FILLER, mount)
    said = "no write was tried"
    if leads:
        probe.sql(lab, member, "insert into lab_fill select repeat('x', 1000) from generate_series(1, 200)")
        said = "an INSERT that needs a new page was tried"
    return f"the file system of the data was filled with {size // 2**20} MiB; {said}", time


def fill(path, mount):
    """Takes all free space of a file system; returns the size."""
    size = 0
    with open(path, "wb") as file:
        step = os.statvfs(mount).f_bsize * os.statvfs(mount).f_bavail
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError:
                step //= 2
    return size


def replay_blocked(lab, member):
    leader = probe.require_leader(lab)
    if member == leader:
        raise LabError(f"{member} is the leader: replay can only be blocked on a replica")
    probe.must_sql(lab, leader, "create table if not exists lab_block as select generate_series(1, 1000) as id")
    probe.must_sql(lab, leader, "insert into lab_block select generate_series(1, 1000)")
    probe.must_sql(lab, member, "alter system set max_standby_streaming_delay = -1")
    probe.must_sql(lab, member, "select pg_reload_conf()")
    position = probe.must_sql(lab, leader, "select pg_current_wal_lsn()")
    wait_for(f"{member} to replay {position}", lambda: probe.sql(
        lab, member, f"select pg_last_wal_replay_lsn() >= '{position}'") == "t", 30)
    proc.start(lab, member, BLOCKER, probe.psql_argv(lab, member) + [
        "-c", f"set application_name = 'lab-{BLOCKER}'", "-c", "begin isolation level repeatable read",
        "-c", "select count(*) from lab_block", "-c", "select pg_sleep(86400)"])
    query = f"select pid from pg_stat_activity where application_name = 'lab-{BLOCKER}' and query like '%pg_sleep%'"
    pid = wait_for("the blocking query", lambda: probe.sql(lab, member, query), 10)
    probe.must_sql(lab, leader, "delete from lab_block")
    time = now()
    probe.must_sql(lab, leader, "vacuum lab_block")
    return f"a query (pid {pid}) needs rows that the leader vacuumed away, and max_standby_streaming_delay is -1", time


FAULTS = [
    Fault("kill-postmaster", "leader", "kill -9 of PostgreSQL's main process",
          "no failover: Patroni starts it again; about 7 s without writes, same timeline, no change in etcd",
          "nothing to undo", kill_postmaster),
    Fault("kill-patroni", "leader", "kill -9 of Patroni; its PostgreSQL runs on",
          "the leader key ends with its lease after 20 to 30 s, a replica is promoted; the old leader stays writable and "
          "is gone from /cluster: two writable primaries until the heal",
          "starts Patroni, which demotes and rewinds the old leader", kill_patroni),
    Fault("stop-patroni", "leader", "SIGSTOP to Patroni; its PostgreSQL runs on",
          "as kill-patroni, but its REST interface hangs instead of refusing; two writable primaries until the heal",
          "SIGCONT: Patroni demotes and rewinds the old leader", stop_patroni),
    Fault("host-loss", "leader", "the cable is pulled and everything on the host is killed",
          "silence, then a new leader after 23 to 35 s (longer if etcd's leader was lost too)",
          "plugs the cable, starts etcd and Patroni", host_loss),
    Fault("partition-leader", "leader", "packets between the leader and its peers are dropped; clients still reach it",
          "the leader demotes itself after about 13 s, a peer is promoted after about 25 s",
          "removes the packet filter", partition_leader),
    Fault("etcd-leader-kill", "etcd leader", "kill -9 of the etcd that leads",
          "a new etcd leader within 1 to 2 s; Patroni and clients hardly notice",
          "starts etcd", etcd_leader_kill),
    Fault("etcd-quorum-loss", "leader", "kill -9 of etcd on all members but --member, until no quorum is left",
          "after about 14 s the leader demotes itself, nobody is promoted; /cluster keeps claiming a healthy leader",
          "starts etcd; the leader returns after 15 to 20 s", etcd_quorum_loss),
    Fault("switchover", "replica", "an orderly change of leader to --member, through Patroni",
          "a new timeline within 4 s, clients are back after 6 to 10 s", "nothing to undo", switchover),
    Fault("promote-while-paused", "replica", "Patroni is paused and a replica promoted by hand",
          "two writable primaries at once, the second on a new timeline; /cluster still calls it a replica",
          "ends the pause and rebuilds the replica if it does not stream again", promote_while_paused),
    Fault("disk-full", "leader", "the file system of the data is filled",
          "writes that need space fail (53100, no space left on device), nothing else changes and nobody fails over, "
          "until WAL needs a new segment (PANIC)",
          "removes the filler", disk_full),
    Fault("replay-blocked", "replica", "a long query on a replica holds back the replay of WAL",
          "replay lag grows with time while the receive lag stays 0 and the state stays streaming",
          "ends the query", replay_blocked),
    Fault("crash-backend", "leader", "kill -9 of one backend of PostgreSQL",
          "PostgreSQL ends all sessions and recovers: about 2 s without writes; same postmaster, no change in Patroni",
          "nothing to undo", crash_backend),
]
