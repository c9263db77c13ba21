"""What a lab looks like now: `lab status` and `lab list`."""

import json

from . import model, net, probe, proc
from .base import LabError
from .model import MONITOR


def status(lab):
    """Everything about a lab as one JSON value."""
    answer = probe.cluster(lab) or {}
    seen = {member["name"]: member for member in answer.get("members", [])}
    own = probe.each(lab.members, lambda member: probe.patroni(lab, member))
    etcd = probe.each(lab.members, lambda member: probe.etcd_healthy(lab, member))
    can_write = probe.each(lab.members, lambda member: probe.writable(lab, member))
    etcd_leader = probe.etcd_leader(lab)
    members = [{
        "name": member, "address": lab.address(member),
        "role": seen.get(member, {}).get("role"), "state": seen.get(member, {}).get("state"),
        "says": f"{own[member]['role']}/{own[member]['state']}" if own[member] else None,
        "timeline": seen.get(member, {}).get("timeline"), "lag_bytes": seen.get(member, {}).get("lag"),
        "writable": can_write[member], "etcd": "leader" if member == etcd_leader else "ok" if etcd[member] else "down",
        "processes": running(lab, member),
        "network": network(lab, member),
    } for member in lab.members]
    return {"name": lab.name, "net": lab.options["net"], "url": url(lab),
            "healthy": is_healthy(lab), "paused": bool(answer.get("pause")), "leader_key": probe.leader_key(lab),
            "members": members, "monitor": running(lab, MONITOR), "faults": faults(lab)[-5:]}


def url(lab):
    return f"http://127.0.0.1:{lab.options['port']}/" if lab.options["server"] else None


def is_healthy(lab):
    try:
        return bool(probe.check_healthy(lab))
    except probe.Pending:
        return False


def running(lab, host):
    """{component: runs | stopped | dead} of a host."""
    result = {}
    for where, component in proc.components(lab):
        if where == host:
            pid = proc.pid_of(lab, host, component)
            result[component] = "dead" if pid is None else "stopped" if proc.stopped(pid) else "runs"
    return result


def network(lab, host):
    if not lab.has_namespaces:
        return "loopback"
    try:
        if not net.link_is_up(lab, host):
            return "link down"
        return "partitioned" if net.is_dropping(lab, host) else "ok"
    except LabError:
        return "gone"


def faults(lab):
    """The record of faults and heals, oldest first."""
    try:
        return [json.loads(line) for line in lab.faults_file.read_text().splitlines() if line.strip()]
    except OSError:
        return []


def as_text(report):
    """The status as a table for people."""
    rows = [("MEMBER", "ROLE", "STATE", "SAYS", "TL", "LAG", "WRITABLE", "ETCD", "NETWORK", "PROCESSES")]
    for member in report["members"]:
        writable = {True: "yes", False: "no", None: "?"}[member["writable"]]
        rows.append((member["name"], member["role"] or "-", member["state"] or "-", member["says"] or "no answer",
                     str(member["timeline"] or "-"), "-" if member["lag_bytes"] is None else str(member["lag_bytes"]),
                     writable, member["etcd"], member["network"], process_text(member["processes"])))
    key = {None: "unreadable (no etcd with quorum)", "": "nobody"}.get(report["leader_key"], report["leader_key"])
    lines = [f"lab {report['name']}: {'healthy' if report['healthy'] else 'NOT HEALTHY'}"
             f"{', paused' if report['paused'] else ''}; leader key: {key}; {report['url'] or 'no server'}", "", *table(rows), "",
             f"monitor: {process_text(report['monitor'])}"]
    lines += [f"{entry['time']} {' '.join(filter(None, (entry['action'], entry['fault'], entry['member'])))}: {entry['did']}"
              for entry in report["faults"]]
    return "\n".join(lines)


def process_text(processes):
    wrong = [f"{component} {state}" for component, state in processes.items() if state != "runs"]
    return ", ".join(wrong) if wrong else f"all {len(processes)} run"


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def list_labs():
    """One row per lab."""
    rows = [("NAME", "NET", "MEMBERS", "PROCESSES", "URL")]
    for name in model.names():
        try:
            lab = model.load(name)
            rows.append((name, lab.options["net"], str(len(lab.members)), str(len(proc.of_lab(lab))),
                         url(lab) or "(no server)"))
        except LabError:
            rows.append((name, "?", "?", "?", "record unreadable: lab down " + name))
    return rows
