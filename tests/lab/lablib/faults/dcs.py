"""Faults of etcd."""

import signal

from .. import probe, proc
from ..base import LabError, now, wait_for
from .fault import Fault, signal_to, start_script
from .storage import fill, need_mount

SCRATCH_KEY = "/lab/scratch"
PULSES = 12


def quorum_loss(lab, member):
    """`member` is the one whose etcd survives longest: etcd ends on others first, until the quorum is lost."""
    others = [other for other in lab.members if other != member]
    victims = (others + [member])[:len(lab.members) - len(lab.members) // 2]
    pids = [proc.send(lab, victim, "etcd", signal.SIGKILL) for victim in victims]
    return f"SIGKILL to etcd on {', '.join(victims)} (pids {', '.join(map(str, pids))})"


def quorum_loss_failsafe(lab, member):
    probe.patch_config(lab, {"failsafe_mode": True})
    # The leader writes this key in the first loop that knows of the setting; without it failsafe mode does not hold.
    wait_for("Patroni to be ready for failsafe mode",
             lambda: any(probe.etcd_get(lab, f"/service/{lab.name}/failsafe", other) for other in lab.members), 40)
    # The members read it in their next loop.
    seen = {}

    def all_know():
        said = probe.each(lab.members, lambda other: (probe.patroni(lab, other) or {}).get("dcs_last_seen", 0))
        return all(at > seen.setdefault(other, at) for other, at in said.items())
    wait_for("a loop of every Patroni", all_know, 40)
    time = now()
    return f"failsafe_mode is on, then {quorum_loss(lab, member)}", time


def pulses(lab, member):
    pid = proc.pid_of(lab, member, "etcd")
    if pid is None:
        raise LabError(f"etcd does not run on {member} (heal the lab first: lab heal {lab.name})")
    start_script(lab, member, "pulse", pid, PULSES, 3, 2, user="root")
    return f"{PULSES} times 3 s SIGSTOP and 2 s SIGCONT to etcd (pid {pid})"


def no_space(lab, member):
    status = probe.etcd_status(lab, member)
    if not status:
        raise LabError(f"etcd on {member} does not answer (heal the lab first: lab heal {lab.name})")
    probe.etcd_alarm(lab, member, {"action": "ACTIVATE", "alarm": "NOSPACE", "memberID": status["header"]["member_id"]})
    return "the alarm NOSPACE was raised, as etcd does at its quota: it refuses all writes"


def disk_full(lab, member):
    mount = need_mount(lab.host_dir(member) / "etcd", "etcd-disk-full")
    size = fill(mount)
    time = now()
    # Its log grows in files that are allocated ahead: it needs another one only after 64 MB.
    value = "x" * 1_000_000
    for _ in range(90):
        probe.etcd_put(lab, SCRATCH_KEY, value, [other for other in lab.members if other != member])
        if not proc.alive(lab, member, "etcd"):
            break
    ended = "it ended" if not proc.alive(lab, member, "etcd") else "it runs on"
    return f"the file system of etcd was filled with {size // 2**20} MiB and its log made to grow: {ended}", time


FAULTS = [
    Fault("etcd-leader-kill", "etcd leader", "kill -9 of the etcd that leads",
          "a new etcd leader within 1 to 2 s; Patroni and clients hardly notice",
          "starts etcd", signal_to("etcd", signal.SIGKILL)),
    Fault("etcd-quorum-loss", "leader", "kill -9 of etcd on all members but --member, until no quorum is left",
          "after about 14 s the leader demotes itself, nobody is promoted; /cluster keeps claiming a healthy leader",
          "starts etcd; the leader returns after 15 to 20 s", quorum_loss),
    Fault("etcd-quorum-loss-failsafe", "leader", "the same with Patroni's failsafe_mode switched on before",
          "the leader goes on, since all members answer it; no client notices",
          "starts etcd, switches failsafe_mode off", quorum_loss_failsafe),
    Fault("etcd-pulses", "etcd leader", f"etcd is stopped for 3 s and runs for 2 s, {PULSES} times: a starved or slow etcd",
          "elections of etcd; Patroni and clients hardly notice",
          "ends the pulses", pulses),
    Fault("etcd-nospace", "etcd leader", "etcd raises its alarm NOSPACE and refuses writes",
          "leases are still renewed and the leader stays; members, lag and switchover are frozen, no failover is possible",
          "disarms the alarm", no_space),
    Fault("etcd-disk-full", "etcd leader", "the file system of an etcd member is filled",
          "this etcd ends when its log needs space; the others elect a leader, Patroni and clients hardly notice",
          "removes the filler, starts etcd", disk_full),
]
