"""The processes of a lab: start, find again, signal, and make sure that none is left.

A process is found by the file that `start` wrote (pid and start time, so a reused pid is never taken for ours), by
its network namespace, or by its working directory under the lab's folder together with the lab's mark in its
environment or PostgreSQL as its program. Nothing is ever looked up by its name alone.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from . import net
from .base import EndedAtOnce, LabError, run, tail, wait_for
from .model import write_file

MARK = "DARAJI_LAB"
# These write their log themselves; what they print otherwise goes to a second file.
OWN_LOG = ("etcd", "patroni")
# What these print on stderr repeats their log in another form.
ERRORS_APART = ("haproxy",)


def start(lab, host, component, argv, user="postgres", env=None, outside=False):
    """Starts a program on a host, detached, with its output appended to its log. Returns its pid.

    `outside` leaves it in the machine's own network namespace.
    """
    if alive(lab, host, component):
        return pid_of(lab, host, component)
    command = []
    if lab.netns(host) and not outside:
        command += ["nsenter", f"--net=/run/netns/{lab.netns(host)}"]
    if user != "root":
        command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    command += [str(argument) for argument in argv]
    log = lab.log_dir(host) / f"{component}.{'out' if component in OWN_LOG else 'log'}"
    clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(lab.host_dir(host)), "TZ": "UTC",
             MARK: f"{lab.dir}", **(env or {})}
    with open(log, "ab") as out, open(log.with_suffix(".err") if component in ERRORS_APART else log, "ab") as errors:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=clean,
                                     cwd=lab.host_dir(host), start_new_session=True)
        except OSError as error:
            raise LabError(f"cannot start {component} on {host}: {error}") from None
    record = {"pid": child.pid, "start_time": start_time(child.pid), "argv": argv, "user": user, "log": str(log),
              "env": env or {}, "outside": outside}
    write_file(_record_path(lab, host, component), json.dumps(record, default=str) + "\n", mode=0o600)
    _children.append(child)
    return child.pid


# Kept so that children of this very process are reaped by it and do not look alive as zombies.
_children = []


def restart(lab, host, component):
    """Starts a component again exactly as it was started before."""
    record = _record(lab, host, component)
    if not record:
        raise LabError(f"{component} was never started on {host}")
    return start(lab, host, component, record["argv"], record["user"], record["env"], record["outside"])


def replace(lab, host, component):
    """Ends a component and starts it again, with what its configuration says now."""
    if alive(lab, host, component):
        pid = send(lab, host, component, signal.SIGKILL)
        wait_for(f"the end of {component}", lambda: not alive(lab, host, component), 10, interval=0.05)
    return restart(lab, host, component)


def components(lab):
    """All (host, component) that were started, in name order."""
    return [tuple(path.name.removesuffix(".json").split(".", 1)) for path in sorted((lab.dir / "run").glob("*.json"))]


def forget(lab, host, component):
    """Takes a component off the record: it shall not be started again."""
    _record_path(lab, host, component).unlink(missing_ok=True)


def pid_of(lab, host, component):
    """The pid of a component that runs; None if it does not."""
    record = _record(lab, host, component)
    return record["pid"] if record and _is(record["pid"], record["start_time"]) else None


def alive(lab, host, component):
    return pid_of(lab, host, component) is not None


def log_of(lab, host, component):
    record = _record(lab, host, component)
    return record["log"] if record else None


def send(lab, host, component, number):
    """Sends a signal to a component; an error if it does not run."""
    pid = pid_of(lab, host, component)
    if pid is None:
        raise LabError(f"{component} does not run on {host} (heal the lab first: lab heal {lab.name})")
    os.kill(pid, number)
    return pid


def stopped(pid):
    """Whether a process is held by SIGSTOP."""
    return _stat(pid)[:1] == ["T"]


def must_stay(lab, host, component, seconds=1.0):
    """An error with the last lines of its log if a component ends within the first moments."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive(lab, host, component):
            raise EndedAtOnce(f"{component} on {host} ended at once; the end of {log_of(lab, host, component)}:\n"
                           + tail(log_of(lab, host, component)))
        time.sleep(0.1)


def postmaster(lab, member):
    """The pid of the PostgreSQL server of a member; None if there is none."""
    try:
        pid = int((lab.data_dir(member) / "postmaster.pid").read_text().split("\n")[0])
        is_ours = os.readlink(f"/proc/{pid}/cwd") == str(lab.data_dir(member))
    except (OSError, ValueError):
        return None
    return pid if is_ours and _stat(pid) else None


def postgres(lab, member):
    """The pids of all processes of a member's PostgreSQL, the postmaster first."""
    main = postmaster(lab, member)
    found = []
    for pid in _by_folder(lab, lab.data_dir(member)):
        try:
            if _program(pid) == "postgres" and _stat(pid):
                found.append(pid)
        except OSError:
            continue  # it ended meanwhile
    return sorted(found, key=lambda pid: (pid != main, pid))


def of_host(lab, host):
    """All processes of a host: by namespace, by record, by working directory."""
    found = set()
    if lab.netns(host):
        found.update(net.pids(lab.netns(host)))
    for where, component in components(lab):
        if where == host and alive(lab, host, component):
            found.add(pid_of(lab, host, component))
    found.update(_by_folder(lab, lab.host_dir(host)))
    return sorted(pid for pid in found if _stat(pid) and pid != os.getpid())


def of_lab(lab):
    """All processes of a lab, also those of which there is no record."""
    found = set(_by_folder(lab, lab.dir))
    for host in lab.hosts:
        found.update(of_host(lab, host))
    return sorted(found)


def kill_all(find, what, seconds=20):
    """SIGKILL to all that `find` returns, again and again until it returns nothing."""
    def gone():
        left = find()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        reap()
        return not left
    wait_for(f"the end of all processes of {what}", gone, seconds, interval=0.1)


def reap():
    """Takes the exit status of children that ended."""
    for child in _children:
        child.poll()


def start_time(pid):
    """The kernel's start time of a process in clock ticks since boot: with the pid it names one process for ever."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


# --- /proc ---------------------------------------------------------------------------------------------------------

def _stat(pid):
    """The fields of /proc/PID/stat from the state on; empty for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []
    return [] if fields[0] in "ZX" else fields


def _is(pid, started):
    reap()
    return started is not None and start_time(pid) == started


def _by_folder(lab, folder):
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            cwd = os.readlink(entry / "cwd").removesuffix(" (deleted)")
            if not (cwd + "/").startswith(f"{folder}/"):
                continue
            program = _program(entry.name)
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if program == "postgres" or f"{MARK}={lab.dir}".encode() in environment:
            found.append(int(entry.name))
    return found


def _program(pid):
    return os.path.basename(os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)"))


def _record_path(lab, host, component):
    return lab.dir / "run" / f"{host}.{component}.json"


def _record(lab, host, component):
    try:
        return json.loads(_record_path(lab, host, component).read_text())
    except (OSError, ValueError):
        return None


def as_postgres(argv, seconds=60, check=True):
    """Runs a program as the user postgres to its end."""
    return run(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *argv], seconds, check, cwd="/")
