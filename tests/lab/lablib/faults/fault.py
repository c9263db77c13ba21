"""What a fault is, and what several of them need."""

import signal
from dataclasses import dataclass
from typing import Callable

from .. import probe, proc
from ..base import HOME, LabError, wait_for

# Components with this start of their name are a fault's own: heal ends them and takes them off the record.
HELPER = "lab-"


@dataclass(frozen=True)
class Fault:
    """One thing that can be broken.

    `inject(lab, member)` breaks it and returns what it did; with the time of the decisive step where it had to
    prepare first, and with the member where it hit another. It leaves no state of its own: heal looks at the lab.
    """
    name: str
    target: str  # the member that it hits unless told otherwise; a word of `default_target`
    does: str
    expect: str
    heal: str
    inject: Callable


def signal_to(component, number, also=""):
    """A fault that sends one signal to a component of the member."""
    def inject(lab, member):
        pid = proc.send(lab, member, component, number)
        return f"{signal.Signals(number).name} to {component} (pid {pid}){also}"
    return inject


def needs_namespaces(lab, name):
    if not lab.has_namespaces:
        raise LabError(f"{name} needs network namespaces; this lab lives on loopback addresses")


def require_replica(lab, member):
    """The leader, when `member` is another."""
    leader = probe.require_leader(lab)
    if member == leader:
        raise LabError(f"{member} is the leader: name a replica")
    return leader


def require_postmaster(lab, member):
    pid = proc.postmaster(lab, member)
    if not pid:
        raise LabError(f"PostgreSQL does not run on {member} (heal the lab first: lab heal {lab.name})")
    return pid


def start_helper(lab, host, name, argv, user="postgres", env=None):
    """Starts a process that belongs to a fault."""
    proc.start(lab, host, HELPER + name, argv, user, env)


def start_script(lab, host, name, *arguments, **options):
    """Starts a helper in Python, with what Patroni's environment has (psycopg). Its text goes by the command line: the
    checkout may lie where the user postgres cannot read."""
    text = SCRIPTS[name]
    start_helper(lab, host, name, [HOME / "patroni/bin/python", "-c", text, *arguments], **options)


def start_session(lab, member, name, statements, database="postgres"):
    """A session of the superuser that runs the statements, the last of which sleeps; returns the backend's pid.

    Its application_name is `lab-NAME`.
    """
    mark = HELPER + name
    argv = probe.psql_argv(lab, member, database) + ["-c", f"set application_name = '{mark}'"]
    for statement in statements:
        argv += ["-c", statement]
    start_helper(lab, member, name, argv)
    query = f"select pid from pg_stat_activity where application_name = '{mark}' and query like '%pg_sleep%'"
    return int(wait_for(f"the session {mark}", lambda: probe.sql(lab, member, query), 10).split()[0])


def churn_wal(lab, leader, megabytes):
    """Writes that much WAL, in segments that end: what slots keep and archives take."""
    for _ in range(0, megabytes, 16):
        probe.must_sql(lab, leader, "select pg_logical_emit_message(false, 'lab', repeat('x', 1000000)) from generate_series(1, 2)")
        probe.must_sql(lab, leader, "select pg_switch_wal()")


def wait_replayed(lab, leader, member):
    """Waits until a replica has replayed what the leader has written by now."""
    position = probe.must_sql(lab, leader, "select pg_current_wal_lsn()")
    query = f"select pg_last_wal_replay_lsn() >= '{position}'"
    wait_for(f"{member} to replay {position}", lambda: probe.sql(lab, member, query) == "t", 30)


SCRIPTS = {
    # Opens sessions until the server refuses more, keeps them, and takes each slot that becomes free.
    "hog": """\
import sys, time, psycopg
kept = []
while True:
    try:
        kept.append(psycopg.connect(connect_timeout=5, application_name="lab-hog"))
    except psycopg.OperationalError:
        time.sleep(0.5)
    if len(kept) > 2000:
        sys.exit("no limit found")
""",
    # Stops a process for some seconds, lets it run, and again: pid, count, seconds stopped, seconds running.
    "pulse": """\
import os, signal, sys, time
pid, count, stopped, running = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
for _ in range(count):
    os.kill(pid, signal.SIGSTOP)
    time.sleep(stopped)
    os.kill(pid, signal.SIGCONT)
    time.sleep(running)
""",
}
