"""witness.py NAME FILE [all]: writes a line whenever the leader key or the writability of a member changes.

With `all` also whatever else a fault can show: Patroni's and etcd's answers, new connections, streams, slots, archive,
replay, full disks, and telling lines of the logs.

Runs inside the monitor's host with Patroni's Python (it has psycopg). Polls the first two every 100 ms and knows
nothing of the server under test, so that its times can judge the server's.
"""

import base64
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg  # noqa: E402

from lablib import model  # noqa: E402

EVERY = 0.1
MORE_EVERY = 0.5
FULL = 0.03

# One row: what a member's PostgreSQL shows beside its role. None of it may need the disk.
MORE_SQL = """
SELECT (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'),
       (SELECT count(*) FROM pg_replication_slots WHERE NOT active),
       (SELECT count(*) FROM pg_settings WHERE pending_restart),
       (SELECT failed_count FROM pg_stat_archiver),
       (SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND clock_timestamp() - state_change > '1 s'),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()::text END,
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END
"""

TELLING = {
    "postgresql.log": re.compile(
        r"(PANIC|FATAL|ERROR):|archive command failed|recovery still waiting|recovery has paused|was terminated by signal|"
        r"received (fast|immediate|smart) shutdown|received promote request|could not receive data from WAL stream|"
        r"unexpected EOF on standby|terminating walsender|invalidating obsolete"),
    "patroni.log": re.compile(r"ERROR|CRITICAL|not running|[Dd]emoting|promoted self|failed|received (switchover|failover|restart)|restart might be"),
    "etcd.log": re.compile(r"lost leader|elected leader|no leader|alarm|no space|prober detected unhealthy|lost TCP streaming|failed to send out heartbeat"),
}


class Notes:
    """The file of what changed when."""

    def __init__(self, path):
        self.path, self.lock, self.last = path, threading.Lock(), {}

    def changed(self, what, member, value):
        with self.lock:
            if self.last.get((what, member), "nothing yet") == value:
                return
            self.last[what, member] = value
            self._write(what, member, value)

    def happened(self, what, member, value):
        with self.lock:
            self._write(what, member, value)

    def _write(self, what, member, value):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), "what": what, "member": member, "value": value}) + "\n")


def answer(url, body=None, timeout=1.0):
    """The JSON of an answer, whatever its status; a word for what went wrong otherwise."""
    try:
        with urllib.request.urlopen(url, body, timeout=timeout) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except ValueError:
        return "not JSON"
    except OSError as error:
        return "refused" if "refused" in str(error) else "no answer"


def watch_key(lab, notes):
    body = json.dumps({"key": base64.b64encode(f"/service/{lab.name}/leader".encode()).decode()}).encode()
    while True:
        for member in lab.members:
            found = answer(f"{lab.etcd_url(member)}/v3/kv/range", body)
            if isinstance(found, dict):
                values = found.get("kvs") or []
                notes.changed("leader", None, base64.b64decode(values[0]["value"]).decode() if values else None)
                break
        time.sleep(EVERY)


def connect(lab, member):
    password = (lab.dir / "postgres.password").read_text().strip()
    return psycopg.connect(host=lab.address(member), port=model.POSTGRES_PORT, user="daraji", dbname="postgres",
                           password=password, connect_timeout=2, application_name="witness", autocommit=True)


def watch_member(lab, notes, member, more):
    replay = Replay(notes, member)
    while True:
        try:
            with connect(lab, member) as connection:
                next_more = 0.0
                while True:
                    in_recovery = connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]
                    notes.changed("writable", member, not in_recovery)
                    if more and time.monotonic() >= next_more:
                        next_more = time.monotonic() + MORE_EVERY
                        row = connection.execute(MORE_SQL).fetchone()
                        for what, value in zip(("streams", "inactive slots", "pending restart", "archive failures", "commits wait"), row):
                            notes.changed(what, member, value)
                        replay.look(*row[5:])
                    time.sleep(EVERY)
        except psycopg.Error:
            notes.changed("writable", member, False)
            time.sleep(EVERY)


class Replay:
    """Whether replay stands still while WAL arrives."""

    def __init__(self, notes, member):
        self.notes, self.member, self.at, self.seen = notes, member, time.monotonic(), (None, None)

    def look(self, received, replayed):
        if replayed is None or replayed != self.seen[1] or received == replayed:
            self.at, self.seen = time.monotonic(), (received, replayed)
            self.notes.changed("replay stands", self.member, False)
        elif time.monotonic() - self.at > 1.5:
            self.notes.changed("replay stands", self.member, True)


def watch_connections(lab, notes, member):
    while True:
        try:
            with connect(lab, member) as connection:
                connection.execute("SELECT 1")
            notes.changed("connects", member, True)
        except psycopg.Error:
            notes.changed("connects", member, False)
        time.sleep(1)


def watch_patroni(lab, notes, member):
    while True:
        said = answer(f"{lab.patroni_url(member)}/patroni", timeout=2.0)
        if isinstance(said, dict):
            said = {name: said.get(name) for name in ("role", "state", "replication_state", "pending_restart", "pause",
                                                      "cluster_unlocked", "failsafe_mode_is_active") if said.get(name) is not None}
        notes.changed("patroni", member, said)
        time.sleep(MORE_EVERY)


def watch_etcd(lab, notes, member):
    while True:
        health = answer(f"{lab.etcd_url(member)}/health", timeout=2.0)
        notes.changed("etcd", member, health.get("health") if isinstance(health, dict) else health)
        status = answer(f"{lab.etcd_url(member)}/v3/maintenance/status", b"{}", timeout=2.0)
        if isinstance(status, dict):
            notes.changed("etcd leader", member, status.get("leader", "0"))
        time.sleep(MORE_EVERY)


def watch_disks(lab, notes, member):
    while True:
        for mount in (lab.data_dir(member).parent, lab.etcd_dir(member).parent):
            space = os.statvfs(mount)
            notes.changed(f"{mount.name} full", member, space.f_bavail < FULL * space.f_blocks)
        time.sleep(MORE_EVERY)


def watch_log(lab, notes, member, name):
    """Lines that are written from now on."""
    path, pattern = lab.log_dir(member) / name, TELLING[name]
    with open(path, encoding="utf-8", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            line = file.readline()
            if not line:
                time.sleep(EVERY)
            elif pattern.search(line) and "witness" not in line:
                notes.happened(f"log {name.removesuffix('.log')}", member, line.strip()[:300])


def main():
    lab, notes, more = model.load(sys.argv[1]), Notes(sys.argv[2]), sys.argv[3:] == ["all"]
    watches = [(watch_member, member, more) for member in lab.members]
    if more:
        for member in lab.members:
            watches += [(watch_connections, member), (watch_patroni, member), (watch_etcd, member), (watch_disks, member)]
            watches += [(watch_log, member, name) for name in TELLING]
    for watch, *arguments in watches:
        threading.Thread(target=watch, args=(lab, notes, *arguments), daemon=True).start()
    watch_key(lab, notes)


if __name__ == "__main__":
    main()
