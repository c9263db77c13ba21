"""The faults: what each does, what follows, and how it was done. `heal` undoes them all.

A fault is one function that breaks one thing and returns what it did, and one line in the FAULTS of its module. Faults
may be combined, and repeated on other members. The times in `expect` hold for Patroni's default timing; with --fast a
failover takes about 10 s less.

Not here, because hosts that share one kernel have no such thing: steps and skew of a host's clock (there is no clock
per namespace), power and kernel faults, a watchdog; and certificates, as nothing in the lab speaks TLS.
"""

import json

from .. import probe
from ..base import LabError, now
from . import dcs, network, operators, processes, replication, storage

FAULTS = [*processes.FAULTS, *network.FAULTS, *dcs.FAULTS, *operators.FAULTS, *storage.FAULTS, *replication.FAULTS]


def inject(lab, name, member=None):
    """Injects a fault and returns what to tell the user."""
    fault = by_name(name)
    member = lab.member_at(member) if member else default_target(lab, fault.target)
    time = now()
    did = fault.inject(lab, member)
    if isinstance(did, tuple):
        did, time, *victim = did
        member = victim[0] if victim else member
    record(lab, "fault", name, member, did, time)
    return f"{time} {name} {member}: {did}\nexpect  {fault.expect}\nheal    {fault.heal}: tests/lab/lab heal {lab.name}"


def by_name(name):
    fault = next((fault for fault in FAULTS if fault.name == name), None)
    if not fault:
        raise LabError(f"no fault {name!r}: there are " + ", ".join(fault.name for fault in FAULTS))
    return fault


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
        lines.append(f"  {fault.name:26}{fault.does} (default: {fault.target})")
        lines.append(f"  {'':26}expect: {fault.expect}")
    return "\n".join(lines)
