"""Faults of the network between hosts."""

from .. import net, proc, settings
from ..base import LabError, run
from ..model import ETCD_PEER_PORT, ETCD_PORT, MONITOR, POSTGRES_PORT
from .fault import Fault, needs_namespaces, require_replica


def partition_leader(lab, member):
    needs_namespaces(lab, "partition-leader")
    peers = [peer for peer in lab.members if peer != member]
    net.drop_traffic(lab, member, peers)
    return f"all packets between {member} and {', '.join(peers)} are dropped; clients and the monitor still reach it"


def isolate_host(lab, member):
    needs_namespaces(lab, "isolate-host")
    net.set_link(lab, member, "down")
    return "network link down; everything on the host runs on"


def partition_monitor(lab, member):
    needs_namespaces(lab, "partition-monitor")
    net.drop_traffic(lab, member, [MONITOR])
    return f"all packets between {member} and the monitor's host are dropped; the cluster does not notice"


def partition_replication(lab, member):
    needs_namespaces(lab, "partition-replication")
    leader = require_replica(lab, member)
    net.drop_service(lab, member, [leader], [POSTGRES_PORT])
    return f"all packets between {member} and PostgreSQL of {leader} are dropped"


def leader_loses_dcs(lab, member):
    needs_namespaces(lab, "leader-loses-dcs")
    net.drop_service(lab, member, lab.members, [ETCD_PORT])
    return f"all packets between Patroni of {member} and etcd are dropped; its peers and clients still reach it"


def replicas_lose_dcs(lab, member):
    """`member` is the one that keeps it."""
    needs_namespaces(lab, "replicas-lose-dcs")
    others = [other for other in lab.members if other != member]
    for other in others:
        net.drop_service(lab, other, lab.members, [ETCD_PORT])
    return f"all packets between Patroni of {', '.join(others)} and etcd are dropped"


def dcs_latency(lab, member):
    needs_namespaces(lab, "dcs-latency")
    device = ["tc", "-n", lab.netns(member)]
    try:
        run([*device, "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "prio"])
        run([*device, "qdisc", "add", "dev", "eth0", "parent", "1:3", "netem", "delay", "2s", "500ms"])
    except LabError as error:
        run([*device, "qdisc", "delete", "dev", "eth0", "root"], check=False)
        if "qdisc kind is unknown" in str(error):
            raise LabError("dcs-latency needs the kernel's netem (CONFIG_NET_SCH_NETEM, module sch_netem), which is not there; "
                           "etcd-pulses makes a slow etcd without it") from None
        raise
    for port in (ETCD_PORT, ETCD_PEER_PORT):
        for side in ("dport", "sport"):
            run([*device, "filter", "add", "dev", "eth0", "parent", "1:", "protocol", "ip", "u32",
                 "match", "ip", side, port, "0xffff", "flowid", "1:3"])
    return f"packets of etcd that leave {member} are late by 1.5 to 2.5 s"


def proxy_wrong_primary(lab, member):
    leader = require_replica(lab, member)
    settings.write_haproxy(lab, wrong_primary=member)
    proc.replace(lab, MONITOR, "haproxy")
    return f"HAProxy sends writes to {member} instead of {leader}, since it no longer asks Patroni"


FAULTS = [
    Fault("partition-leader", "leader", "packets between a member and its peers are dropped; clients still reach it",
          "the leader demotes itself after about 13 s, a peer is promoted after about 25 s",
          "removes the packet filter", partition_leader),
    Fault("isolate-host", "leader", "the cable of a host is pulled; everything on it runs on",
          "as partition-leader, but clients and the monitor cannot reach it either; with etcd's leader about 8 s later",
          "plugs the cable", isolate_host),
    Fault("partition-monitor", "leader", "packets between a member and the monitor's host are dropped",
          "nothing in the cluster; the monitor (and clients, which sit there too) lose the member from sight",
          "removes the packet filter", partition_monitor),
    Fault("partition-replication", "replica", "packets between a replica and the leader's PostgreSQL are dropped",
          "no failover; the stream freezes at once and ends after 60 s (wal_sender_timeout), lag grows",
          "removes the packet filter", partition_replication),
    Fault("leader-loses-dcs", "leader", "a member's Patroni loses all of etcd; its peers still reach it",
          "the leader demotes itself after 10 to 15 s, a peer is promoted after 20 to 30 s",
          "removes the packet filter", leader_loses_dcs),
    Fault("replicas-lose-dcs", "leader", "Patroni of all members but this one loses etcd",
          "no failover and no loss; the replicas leave /cluster after ttl, nobody could take over",
          "removes the packet filter", replicas_lose_dcs),
    Fault("dcs-latency", "etcd leader", "what etcd sends from this host is 2 s late (needs the kernel's netem)",
          "slow loops of Patroni, elections of etcd, perhaps a needless failover",
          "removes the delay", dcs_latency),
    Fault("proxy-wrong-primary", "replica", "HAProxy sends writes to a replica: its check does not ask Patroni",
          "clients get 25006 cannot execute ... in a read-only transaction; the cluster itself is healthy",
          "restores HAProxy's configuration", proxy_wrong_primary),
]
