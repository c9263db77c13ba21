"""Undoes whatever is wrong with a lab and waits until it is healthy.

Looks at what is, not at what was recorded: it may be called at any time, also when nothing is broken.
"""

import os
import signal
import time

from . import net, probe, proc, settings
from .base import LabError, Progress, wait_for
from .faults import BLOCKER, FILLER, record


def heal(lab, seconds=180, progress=None):
    """Returns what to tell the user; an error if the lab is not healthy after `seconds`."""
    progress = progress or Progress()
    done = []

    def did(text):
        done.append(text)
        progress.say(text)

    repair_network(lab, did)
    repair_storage(lab, did)
    repair_processes(lab, did)
    wait_for("etcd to have a quorum", lambda: sum(
        probe.each(lab.members, lambda member: probe.etcd_healthy(lab, member)).values()) > len(lab.members) // 2, 30, progress)
    repair_pause(lab, did, seconds, progress)
    leader = wait_until_healthy(lab, did, seconds, progress)
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


def repair_storage(lab, did):
    for member in lab.members:
        filler = lab.data_dir(member).parent / FILLER
        if filler.exists():
            os.unlink(filler)
            did(f"{member}: filler removed")
        if probe.writable(lab, member):
            probe.sql(lab, member, "drop table if exists lab_fill")


def repair_processes(lab, did):
    """Ends the blocker, wakes what is stopped, starts what is dead: etcd first, as Patroni needs it."""
    for member in lab.members:
        if (member, BLOCKER) in proc.components(lab):
            if proc.alive(lab, member, BLOCKER):
                proc.send(lab, member, BLOCKER, signal.SIGKILL)
            # The backend sleeps and would notice only at the end that its client is gone.
            probe.sql(lab, member, "select pg_terminate_backend(pid) from pg_stat_activity "
                                   f"where application_name = 'lab-{BLOCKER}'")
            probe.sql(lab, member, "alter system reset max_standby_streaming_delay")
            probe.sql(lab, member, "select pg_reload_conf()")
            proc.forget(lab, member, BLOCKER)
            did(f"{member}: blocking query ended")
    for host, component in proc.components(lab):
        if component.startswith("lab-"):
            proc.forget(lab, host, component)  # a step of a fault that was interrupted
    for host, component in sorted(proc.components(lab), key=lambda one: one[1] != "etcd"):
        pid = proc.pid_of(lab, host, component)
        if pid is None:
            proc.restart(lab, host, component)
            did(f"{host}: {component} started")
        elif proc.stopped(pid):
            proc.send(lab, host, component, signal.SIGCONT)
            did(f"{host}: {component} continues")


def repair_pause(lab, did, seconds, progress):
    def config():
        return next(filter(None, probe.each(lab.members, lambda member: probe.http_json(
            lab, f"{lab.patroni_url(member)}/config")).values()), None)
    if wait_for("Patroni to answer", config, min(60, seconds), progress).get("pause"):
        probe.patch_config(lab, {"pause": None})
        did("pause ended")


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


