"""Network namespaces: hosts with links to one bridge, packet filters, and code that runs inside a namespace.

A lab's network touches nothing outside: the bridge lives in the namespace NAME-hub and has no address, so no
packet leaves, and two labs never see each other.
"""

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path

from .base import LabError, run

CLONE_NEWNET = 0x40000000
FILTER_TABLE = "daraji_lab"
_libc = ctypes.CDLL(None, use_errno=True)


def permitted():
    """Whether namespaces can be made here, and if not, why."""
    probe = f"daraji-probe-{os.getpid()}"
    try:
        run(["ip", "netns", "add", probe])
        run(["ip", "-n", probe, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"])
        run(["ip", "-n", probe, "link", "add", "br0", "type", "bridge"])
        return True, ""
    except LabError as error:
        return False, str(error)
    finally:
        run(["ip", "netns", "delete", probe], check=False)  # and with it its links


def existing():
    """The names of all namespaces of this machine."""
    folder = Path("/run/netns")
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def all_of(lab):
    """The namespaces that a lab of this name has or had, whatever is left of it."""
    return [name for name in existing()
            if name in {f"{lab.name}-{host}" for host in lab.hosts} | {f"{lab.name}-hub"}]


def build(lab):
    """Makes the hub and the hosts."""
    there = all_of(lab)
    if there:
        raise LabError(f"network namespace {there[0]} exists and is not of this lab: remove it with: ip netns delete {there[0]}")
    hub = f"{lab.name}-hub"
    run(["ip", "netns", "add", hub])
    run(["ip", "-n", hub, "link", "add", "br0", "type", "bridge"])
    run(["ip", "-n", hub, "link", "set", "br0", "up"])
    for host in lab.hosts:
        netns = lab.netns(host)
        run(["ip", "netns", "add", netns])
        run(["ip", "link", "add", "eth0", "netns", netns, "type", "veth", "peer", "name", host, "netns", hub])
        run(["ip", "-n", hub, "link", "set", host, "master", "br0", "up"])
        run(["ip", "-n", netns, "link", "set", "lo", "up"])
        run(["ip", "-n", netns, "address", "add", f"{lab.address(host)}/24", "dev", "eth0"])
        run(["ip", "-n", netns, "link", "set", "eth0", "up"])


def remove(lab):
    """Removes all namespaces of a lab; links and filters go with them. Their processes must be gone by now."""
    for netns in all_of(lab):
        run(["ip", "netns", "delete", netns])


def pids(netns):
    """The processes whose network namespace this is."""
    if not Path("/run/netns", netns).exists():
        return []
    _, out, _ = run(["ip", "netns", "pids", netns])
    return [int(line) for line in out.split()]


@contextmanager
def inside(netns):
    """Sockets that this thread opens within belong to that namespace; None changes nothing."""
    if netns is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as before:
        enter(netns)
        try:
            yield
        finally:
            _setns(before.fileno(), "back")


def enter(netns):
    """Moves this thread into a namespace for good."""
    try:
        with open(f"/run/netns/{netns}") as there:
            _setns(there.fileno(), netns)
    except FileNotFoundError:
        raise LabError(f"network namespace {netns} is gone") from None


def _setns(descriptor, name):
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise LabError(f"cannot enter network namespace {name}: {os.strerror(ctypes.get_errno())}")


# --- what faults do to the network ---------------------------------------------------------------------------------

def set_link(lab, host, state):
    """Pulls ('down') or plugs ('up') the cable of a host, at the hub's end: the host itself sees it go too."""
    run(["ip", "-n", f"{lab.name}-hub", "link", "set", host, state])


def link_is_up(lab, host):
    _, out, _ = run(["ip", "-n", f"{lab.name}-hub", "-o", "link", "show", host])
    return "state UP" in out


def drop_traffic(lab, host, peers):
    """Drops all packets between a host and its peers, both ways; what others send it still arrives."""
    addresses = ", ".join(lab.address(peer) for peer in peers)
    rules = (f"table inet {FILTER_TABLE} {{\n"
             f" chain input {{ type filter hook input priority 0; ip saddr {{ {addresses} }} drop; }}\n"
             f" chain output {{ type filter hook output priority 0; ip daddr {{ {addresses} }} drop; }}\n}}\n")
    run(_nft(lab, host) + ["-f", "-"], stdin=rules)


def drop_service(lab, host, servers, ports):
    """Drops all packets between a host as the client and these ports of the servers (of which it may be one)."""
    addresses = ", ".join(lab.address(server) for server in servers)
    numbers = ", ".join(str(port) for port in ports)
    rules = (f"table inet {FILTER_TABLE} {{\n"
             f" chain input {{ type filter hook input priority 0; ip saddr {{ {addresses} }} tcp sport {{ {numbers} }} drop; }}\n"
             f" chain output {{ type filter hook output priority 0; ip daddr {{ {addresses} }} tcp dport {{ {numbers} }} drop; }}\n}}\n")
    run(_nft(lab, host) + ["-f", "-"], stdin=rules)


def stop_delaying(lab, host):
    """Removes what delays packets; returns whether there was anything."""
    status, _, _ = run(["tc", "-n", lab.netns(host), "qdisc", "delete", "dev", "eth0", "root"], check=False)
    return status == 0


def stop_dropping(lab, host):
    """Removes the filter of a host; returns whether there was one."""
    status, _, _ = run(_nft(lab, host) + ["delete", "table", "inet", FILTER_TABLE], check=False)
    return status == 0


def is_dropping(lab, host):
    status, _, _ = run(_nft(lab, host) + ["list", "table", "inet", FILTER_TABLE], check=False)
    return status == 0


def _nft(lab, host):
    return ["nsenter", f"--net=/run/netns/{lab.netns(host)}", "nft"]
