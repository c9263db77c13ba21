"""What a lab is: its name, hosts, addresses and folders, and its record on disk.

Everything about a lab lies under STATE_ROOT/NAME. The folder is made first and removed last, so what a killed
run left behind can always be found again.

    lab.json            the record (this module)
    faults.jsonl        what was broken and healed, and when
    run/                one file per started process
    daraji.yml, agent-nX.yml, token.*, postgres.password    for the server, the agents and the command line
    nX/data, nX/etcd    PGDATA and etcd, each on a file system of its own; nX/log, nX/run (socket), nX/patroni.yml
    mon/                HAProxy, PgBouncer, load, and the server's data
"""

import fcntl
import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from .base import STATE_ROOT, LabError

POSTGRES_PORT = 5432
PATRONI_PORT = 8008
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
HAPROXY_PRIMARY_PORT = 5000
HAPROXY_REPLICA_PORT = 5001
HAPROXY_METRICS_PORT = 7000
PGBOUNCER_PORT = 6432
SERVER_PORT = 7432
WEBHOOK_PORT = 9911
SMTP_PORT = 9925
MAX_MEMBERS = 5
MONITOR = "mon"


class Lab:
    """One lab. `options` is what `up` was told; it never changes afterwards."""

    def __init__(self, name, index, options):
        self.name = name
        self.index = index
        self.options = options
        self.dir = STATE_ROOT / name

    # --- names -------------------------------------------------------------------------------------------------

    @property
    def members(self):
        return [f"n{number}" for number in range(1, self.options["members"] + 1)]

    @property
    def hosts(self):
        return self.members + [MONITOR]

    @property
    def has_namespaces(self):
        return self.options["net"] == "namespaces"

    def netns(self, host):
        """The network namespace of a host; None where the lab lives on loopback addresses."""
        return f"{self.name}-{host}" if self.has_namespaces else None

    def address(self, host):
        last = 100 if host == MONITOR else 10 + int(host[1:])
        return f"10.77.{self.index}.{last}" if self.has_namespaces else f"127.0.{self.index}.{last}"

    def member_at(self, text):
        """Checks a member's name that a user gave."""
        if text not in self.members:
            raise LabError(f"no member {text!r} in lab {self.name}: there are {', '.join(self.members)}")
        return text

    # --- places ------------------------------------------------------------------------------------------------

    def host_dir(self, host):
        return self.dir / host

    def data_dir(self, member):
        return self.dir / member / "data" / "pg"

    def etcd_dir(self, member):
        return self.dir / member / "etcd" / "data"

    def socket_dir(self, member):
        return self.dir / member / "run"

    def log_dir(self, host):
        return self.dir / host / "log"

    @property
    def faults_file(self):
        return self.dir / "faults.jsonl"

    # --- addresses of services -----------------------------------------------------------------------------------

    def patroni_url(self, member):
        return f"http://{self.address(member)}:{PATRONI_PORT}"

    def etcd_url(self, member):
        return f"http://{self.address(member)}:{ETCD_PORT}"

    @property
    def server_url(self):
        """Where agents and the command line inside the lab reach the server; needs a token."""
        return f"http://{self.address(MONITOR)}:{SERVER_PORT}"

    # --- record --------------------------------------------------------------------------------------------------

    def save(self):
        record = {"name": self.name, "index": self.index, "options": self.options}
        write_file(self.dir / "lab.json", json.dumps(record, indent=1) + "\n")

    def forget(self):
        """Removes the folder: the last step of `down`."""
        shutil.rmtree(self.dir, ignore_errors=False)


def check_name(name):
    # 15 bytes is the longest interface name; namespaces and cluster names have room for more, users less so.
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name):
        raise LabError(f"{name!r} is no name for a lab: use lower-case letters, digits and '-', at most 20")
    return name


def names():
    """All labs that have a folder, also those that never came up."""
    if not STATE_ROOT.is_dir():
        return []
    return sorted(entry.name for entry in STATE_ROOT.iterdir() if entry.is_dir())


def load(name):
    """The lab of that name."""
    check_name(name)
    path = STATE_ROOT / name / "lab.json"
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        there = ", ".join(names()) or "none"
        raise LabError(f"no lab {name!r} (there are: {there}); start it with: lab up {name}") from None
    except ValueError as error:
        raise LabError(f"{path} cannot be read ({error}); remove the lab with: lab down {name}") from None
    return Lab(record["name"], record["index"], record["options"])


def create(name, options):
    """Takes the name and the lowest free index, under a lock: labs may start at the same time."""
    check_name(name)
    STATE_ROOT.mkdir(parents=True, exist_ok=True)
    # Its parent may be open to all: nobody else may have put it there.
    if STATE_ROOT.stat().st_uid != os.geteuid():
        raise LabError(f"{STATE_ROOT} belongs to another user: remove it, or set DARAJI_LAB_STATE")
    with locked():
        if (STATE_ROOT / name).exists():
            raise LabError(f"there is a lab {name!r} already: see lab status {name}, or remove it with lab down {name}")
        taken = set()
        for other in names():
            try:
                taken.add(load(other).index)
            except LabError:
                continue
        index = next(number for number in range(1, 255) if number not in taken)
        lab = Lab(name, index, options)
        lab.dir.mkdir()
        os.chmod(lab.dir, 0o755)
        lab.save()
    return lab


@contextmanager
def locked():
    """One program at a time changes which labs there are. Held for moments only."""
    with open(STATE_ROOT / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_file(path, text, mode=0o644, owner=None):
    """Replaces a file in one step; `owner` is a user's name."""
    path = Path(path)
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.chmod(new, mode)
    if owner:
        shutil.chown(new, owner, owner)
    os.replace(new, path)
