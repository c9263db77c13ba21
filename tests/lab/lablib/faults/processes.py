"""Faults of processes and whole hosts."""

import os
import signal

from .. import net, probe, proc
from .fault import Fault, require_postmaster, signal_to, start_session


def kill_postmaster(lab, member):
    pid = require_postmaster(lab, member)
    os.kill(pid, signal.SIGKILL)
    return f"SIGKILL to the postmaster (pid {pid})"


def stop_postmaster(lab, member):
    pid = require_postmaster(lab, member)
    os.kill(pid, signal.SIGSTOP)
    return f"SIGSTOP to the postmaster (pid {pid}); its sessions run on"


def freeze_postgres(lab, member):
    require_postmaster(lab, member)
    pids = proc.postgres(lab, member)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return f"SIGSTOP to all {len(pids)} processes of PostgreSQL"


def freeze_host(lab, member):
    pids = proc.of_host(lab, member)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return f"SIGSTOP to all {len(pids)} processes of the host; its kernel still answers the network"


def crash_backend(lab, member):
    require_postmaster(lab, member)
    # A session of our own: whether any other runs at this moment is chance.
    pid = start_session(lab, member, "crash-backend", ["select pg_sleep(60)"])
    os.kill(pid, signal.SIGKILL)
    return f"SIGKILL to a backend of PostgreSQL (pid {pid})"


def pg_ctl_stop(lab, member):
    require_postmaster(lab, member)
    argv = [f"{probe.postgres_bin()}/pg_ctl", "stop", "-s", "-m", "fast", "-W", "-D", lab.data_dir(member)]
    proc.as_postgres(argv)
    return "pg_ctl stop -m fast, without Patroni's knowledge"


def kill_member(lab, member):
    """Patroni first: it must not start again what follows."""
    pids = [proc.send(lab, member, "patroni", signal.SIGKILL)]
    pids += proc.postgres(lab, member)
    proc.kill_all(lambda: proc.postgres(lab, member), f"PostgreSQL of {member}")
    return f"SIGKILL to Patroni and PostgreSQL ({len(pids)} processes)"


def host_loss(lab, member):
    cut = ""
    if lab.has_namespaces:
        # First the cable: no connection is closed politely, peers hear nothing more.
        net.set_link(lab, member, "down")
        cut = "network link down, "
    count = len(proc.of_host(lab, member))
    proc.kill_all(lambda: proc.of_host(lab, member), f"host {member}")
    return f"{cut}SIGKILL to all {count} processes of the host"


FAULTS = [
    Fault("kill-postmaster", "leader", "kill -9 of PostgreSQL's main process",
          "no failover: Patroni starts it again; about 7 s without writes, same timeline, no change in etcd",
          "nothing to undo", kill_postmaster),
    Fault("crash-backend", "leader", "kill -9 of one backend of PostgreSQL, as the OOM killer does",
          "PostgreSQL ends all sessions and recovers: about 2 s without writes; same postmaster, no change in Patroni",
          "nothing to undo", crash_backend),
    Fault("pg-ctl-stop", "leader", "PostgreSQL is shut down behind Patroni's back",
          "no failover: Patroni starts it again; about 7 s without writes, same timeline",
          "nothing to undo", pg_ctl_stop),
    Fault("stop-postmaster", "leader", "SIGSTOP to PostgreSQL's main process only",
          "new connections hang, sessions that are there go on; Patroni keeps the lock, nobody fails over",
          "SIGCONT", stop_postmaster),
    Fault("freeze-postgres", "leader", "SIGSTOP to all processes of PostgreSQL",
          "Patroni's own query hangs: its lease ends, a replica is promoted; the old leader writes again after SIGCONT "
          "until Patroni demotes it",
          "SIGCONT", freeze_postgres),
    Fault("kill-patroni", "leader", "kill -9 of Patroni; its PostgreSQL runs on",
          "the leader key ends with its lease after 20 to 30 s, a replica is promoted; the old leader stays writable and "
          "is gone from /cluster: two writable primaries until the heal",
          "starts Patroni, which demotes and rewinds the old leader",
          signal_to("patroni", signal.SIGKILL, "; PostgreSQL runs on")),
    Fault("stop-patroni", "leader", "SIGSTOP to Patroni; its PostgreSQL runs on",
          "as kill-patroni, but its REST interface hangs instead of refusing; two writable primaries until the heal",
          "SIGCONT: Patroni demotes and rewinds the old leader",
          signal_to("patroni", signal.SIGSTOP, "; PostgreSQL runs on")),
    Fault("shutdown-patroni", "leader", "SIGTERM to Patroni, as a service manager does",
          "PostgreSQL shuts down in order, the key is released, a replica is promoted within 5 s; nothing is lost",
          "starts Patroni", signal_to("patroni", signal.SIGTERM, ": an orderly end")),
    Fault("kill-member", "replica", "kill -9 of Patroni and all of PostgreSQL; the host and etcd live on",
          "a replica: gone from /cluster when its member key ends, its slot stays; the leader: failover after 20 to 30 s",
          "starts Patroni", kill_member),
    Fault("host-loss", "leader", "the cable is pulled and everything on the host is killed",
          "silence, then a new leader after 23 to 35 s (longer if etcd's leader was lost too)",
          "plugs the cable, starts etcd and Patroni", host_loss),
    Fault("freeze-host", "leader", "SIGSTOP to everything on the host: a paused virtual machine",
          "timeouts everywhere, a new leader after 20 to 35 s; after SIGCONT the old one writes for half a second more",
          "SIGCONT: Patroni demotes and rewinds the old leader", freeze_host),
]
