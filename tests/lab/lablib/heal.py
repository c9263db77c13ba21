"""Undoes whatever is wrong with a lab and waits until it is healthy.

Looks at what is, not at what was recorded: it may be called at any time, also when nothing is broken.
"""

import os
import signal
import time

from . import net, probe, proc, settings
from .base import LabError, Progress, wait_for
from .faults import record, storage
from .faults.fault import HELPER
from .model import MONITOR, write_file


def heal(lab, seconds=180, progress=None):
    """Returns what to tell the user; an error if the lab is not healthy after `seconds`."""
    progress = progress or Progress()
    done = []

    def did(text):
        done.append(text)
        progress.say(text)

    repair_network(lab, did)
    repair_storage(lab, did)
    repair_helpers(lab, did)
    repair_processes(lab, did)
    wait_for("etcd to have a quorum", lambda: sum(
        probe.each(lab.members, lambda member: probe.etcd_healthy(lab, member)).values()) > len(lab.members) // 2
        or repair_alarms(lab, did), 30, progress)
    repair_alarms(lab, did)
    repair_proxy(lab, did)
    repair_config(lab, did, seconds, progress)
    for member in lab.members:
        repair_postgres(lab, member, did)
    leader = wait_until_healthy(lab, did, seconds, progress)
    restart_what_waits(lab, did)
    leader = wait_until_healthy(lab, did, seconds, progress)
    remove_tables(lab, leader)
    record(lab, "heal", None, None, "; ".join(done) or "nothing to undo")
    return f"lab {lab.name} is healthy after {progress.elapsed():.1f} s: leader {leader}"


def repair_network(lab, did):
    if not lab.has_namespaces:
        return
    for host in lab.hosts:
        if not net.link_is_up(lab, host):
            net.set_link(lab, host, "up")
            did(f"{host}: network link up")
        if net.stop_dropping(lab, host):
            did(f"{host}: packet filter removed")
        if net.stop_delaying(lab, host):
            did(f"{host}: delay removed")


def repair_storage(lab, did):
    for member in storage.unfreeze(lab):
        did(f"{member}: file system of the data goes on")
    for member in lab.members:
        for mount in (lab.data_dir(member).parent, lab.etcd_dir(member).parent):
            filler = mount / storage.FILLER
            if filler.exists():
                os.unlink(filler)
                did(f"{member}: filler of {mount.name} removed")
        flag = lab.data_dir(member).parent / settings.ARCHIVE_FAILS
        if flag.exists():
            flag.unlink()
            did(f"{member}: archive command works")


def repair_helpers(lab, did):
    """Ends what faults had running."""
    for host, component in proc.components(lab):
        if not component.startswith(HELPER):
            continue
        if proc.alive(lab, host, component):
            proc.send(lab, host, component, signal.SIGKILL)
            did(f"{host}: {component} ended")
        proc.forget(lab, host, component)


def repair_processes(lab, did):
    """Wakes what is stopped, starts what is dead: etcd first, as Patroni needs it."""
    for host in lab.hosts:
        stopped = [pid for pid in proc.of_host(lab, host) if proc.stopped(pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        if stopped:
            did(f"{host}: {len(stopped)} stopped processes continue")
    for host, component in sorted(proc.components(lab), key=lambda one: one[1] != "etcd"):
        if not proc.alive(lab, host, component):
            proc.restart(lab, host, component)
            did(f"{host}: {component} started")


def repair_alarms(lab, did):
    """Ends etcd's alarms. False, so that a wait can go on."""
    for member in lab.members:
        alarms = probe.etcd_alarm(lab, member, {"action": "GET"})
        if alarms is None:
            continue
        for alarm in alarms:
            probe.etcd_alarm(lab, member, {"action": "DEACTIVATE", **alarm})
            did(f"etcd: alarm {alarm['alarm']} ended")
        break
    return False


def repair_proxy(lab, did):
    if settings.haproxy_file(lab).read_text() != settings.haproxy_text(lab):
        settings.write_haproxy(lab)
        proc.replace(lab, MONITOR, "haproxy")
        did("HAProxy asks Patroni again")


def repair_config(lab, did, seconds, progress):
    """Puts the dynamic configuration back to what the lab was built with."""
    found = wait_for("Patroni to answer", lambda: probe.dynamic_config(lab), min(60, seconds), progress)
    changes = difference(settings.dynamic_config(lab), found)
    if changes:
        # A leader that has to be elected first cannot take it at once.
        def patched():
            try:
                probe.patch_config(lab, changes)
                return True
            except LabError:
                return False
        wait_for("Patroni to take its configuration", patched, min(60, seconds), progress, interval=1)
        did(f"configuration restored: {', '.join(sorted(changes))}")


def difference(wanted, found):
    """The patch that makes `wanted` of `found`: null removes a key."""
    changes = {key: None for key in found if key not in wanted}
    for key, value in wanted.items():
        there = found.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            inner = difference(value, there)
            if inner:
                changes[key] = inner
        elif value != there:
            changes[key] = value
    return changes


def repair_postgres(lab, member, did):
    """What was changed inside one PostgreSQL, as far as it answers."""
    hba = lab.data_dir(member) / "pg_hba.conf"
    reload = False
    if hba.exists() and not all(line in hba.read_text() for line in settings.HBA):
        write_file(hba, settings.hba_text(), mode=0o600, owner="postgres")
        did(f"{member}: pg_hba.conf restored")
        reload = True
    # The backends of a helper sleep, and would notice only at the end that their client is gone.
    probe.sql(lab, member, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'lab-%'")
    auto = lab.data_dir(member) / "postgresql.auto.conf"
    if auto.exists() and any(line.strip() and not line.startswith("#") for line in auto.read_text().splitlines()):
        if probe.sql(lab, member, "alter system reset all") is not None:
            did(f"{member}: settings of ALTER SYSTEM removed")
            reload = True
    if probe.sql(lab, member, "select pg_is_in_recovery() and pg_is_wal_replay_paused()") == "t":
        probe.sql(lab, member, "select pg_wal_replay_resume()")
        did(f"{member}: replay resumed")
    if reload:
        probe.sql(lab, member, "select pg_reload_conf()")


def restart_what_waits(lab, did):
    """Restarts members that still wait for one: a setting that was changed back has no effect on those that took it."""
    for member in lab.members:
        if (probe.patroni(lab, member) or {}).get("pending_restart"):
            probe.http(lab, f"{lab.patroni_url(member)}/restart", method="POST", body={"restart_pending": True}, timeout=60)
            did(f"{member}: restarted for its settings")


def remove_tables(lab, leader):
    tables = "lab_fill, lab_block, lab_lost"
    if probe.sql(lab, leader, "select count(*) from pg_tables where tablename like 'lab\\_%'") not in (None, "0"):
        probe.sql(lab, leader, f"drop table if exists {tables}")


def wait_until_healthy(lab, did, seconds, progress):
    """Waits; a replica that runs but does not stream for too long is rebuilt, each member once."""
    patience = 2 * settings.patroni_timing(lab)["loop_wait"] + 12
    since, rebuilt = {}, set()

    def check():
        for member in broken_replicas(lab):
            since.setdefault(member, time.monotonic())
            if member not in rebuilt and time.monotonic() - since[member] > patience:
                status, text = probe.http(lab, f"{lab.patroni_url(member)}/reinitialize", method="POST",
                                          body={"force": True}, timeout=15)
                did(f"{member}: did not stream for {patience} s, rebuilt from the leader ({status or ''} {text.strip()})")
                rebuilt.add(member)
        for member in set(since) - set(broken_replicas(lab)):
            del since[member]
        return probe.check_healthy(lab)
    try:
        return wait_for("a healthy cluster", check, seconds, progress, interval=0.5)
    except LabError as error:
        raise LabError(f"{error}; see tests/lab/lab status {lab.name} and the logs under {lab.dir}/n*/log") from None


def broken_replicas(lab):
    """Members that stand as replicas beside a running leader and do not stream."""
    members = (probe.cluster(lab) or {"members": []})["members"]
    if not any(member["role"] == "leader" and member["state"] == "running" for member in members):
        return []
    return [member["name"] for member in members if member["role"] != "leader"
            and member["state"] in ("running", "start failed", "stopped")]
