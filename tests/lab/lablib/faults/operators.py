"""What people do: planned work, and mistakes."""

from .. import probe, proc, settings
from ..base import LabError, now, wait_for
from ..model import MONITOR, POSTGRES_PORT, write_file
from .fault import Fault, start_script


def switchover(lab, member):
    """`member` becomes the leader."""
    old = probe.require_leader(lab)
    body = {"leader": old, "candidate": member}
    status, text = probe.http(lab, f"{lab.patroni_url(old)}/switchover", method="POST", body=body, timeout=60)
    if status != 200:
        raise LabError(f"Patroni refused the switchover from {old} to {member}: {status or ''} {text}")
    return f"switchover from {old} through Patroni: {text}"


def promote(lab, member):
    proc.as_postgres([f"{probe.postgres_bin()}/pg_ctl", "promote", "-s", "-D", lab.data_dir(member)])


def promote_while_paused(lab, member):
    probe.patch_config(lab, {"pause": True})
    seen = {}

    def idle_in_pause():
        """True after a whole loop of the member's Patroni under the pause: an action begun before would undo the promotion."""
        said = probe.patroni(lab, member) or {}
        if not said.get("pause") or said.get("replication_state") != "streaming":
            seen.clear()
            return False
        return said["dcs_last_seen"] > seen.setdefault("loop", said["dcs_last_seen"])
    wait_for(f"Patroni of {member} to be idle in the pause", idle_in_pause, 60)
    time = now()
    promote(lab, member)
    wait_for(f"{member} to be writable", lambda: probe.writable(lab, member), 20)
    return "Patroni paused, then pg_ctl promote: a second writable primary", time


def promote_by_hand(lab, member):
    if probe.writable(lab, member):
        raise LabError(f"{member} is a primary already: name a replica")
    promote(lab, member)
    return "pg_ctl promote, without Patroni's knowledge"


def pending_restart(lab, _member):
    wanted = settings.postgres_parameters(lab)["max_connections"] + 10
    probe.patch_config(lab, {"postgresql": {"parameters": {"max_connections": wanted}}})
    return f"max_connections set to {wanted} through Patroni"


def restart_leader(lab, member):
    status, text = probe.http(lab, f"{lab.patroni_url(member)}/restart", method="POST", body={}, timeout=90)
    if status != 200:
        raise LabError(f"Patroni refused the restart of {member}: {status or ''} {text}")
    return f"restart through Patroni: {text}"


def connections_exhausted(lab, member):
    environment = settings.app_environment(lab, member, POSTGRES_PORT)
    start_script(lab, MONITOR, "hog", env=environment)
    query = "select count(*) from pg_stat_activity where application_name = 'lab-hog'"

    def settled():
        count = probe.sql(lab, member, query)
        before, seen["count"] = seen.get("count"), count
        return count not in (None, "0") and count == before
    seen = {}
    wait_for("all connections to be taken", settled, 30, interval=1)
    return f"{seen['count']} idle sessions of an application took all connections"


def wrong_hba(lab, member):
    path = lab.data_dir(member) / "pg_hba.conf"
    write_file(path, settings.hba_text(without="replicator"), mode=0o600, owner="postgres")
    probe.must_sql(lab, member, "select pg_reload_conf()")
    probe.must_sql(lab, member, "select count(pg_terminate_backend(pid)) from pg_stat_replication")
    return "pg_hba.conf has no line for replication any more, and the streams that were there were ended"


FAULTS = [
    Fault("switchover", "replica", "an orderly change of leader to --member, through Patroni",
          "a new timeline within 4 s, clients are back after 6 to 10 s", "nothing to undo", switchover),
    Fault("restart", "leader", "a restart of PostgreSQL through Patroni",
          "5 to 7 s without writes; no failover", "nothing to undo", restart_leader),
    Fault("promote-while-paused", "replica", "Patroni is paused and a replica promoted by hand",
          "two writable primaries at once, the second on a new timeline; /cluster still calls it a replica",
          "ends the pause and rebuilds the replica if it does not stream again", promote_while_paused),
    Fault("promote-by-hand", "replica", "a replica is promoted by hand, without a pause",
          "two writable primaries until Patroni's next loop (10 s at most) demotes the second and rewinds it",
          "rebuilds the replica if it does not stream again", promote_by_hand),
    Fault("pending-restart", "leader", "a setting is changed that needs a restart (max_connections)",
          "pending_restart on all members after one loop of Patroni; nothing else",
          "restores the setting, and restarts what was restarted with it", pending_restart),
    Fault("connections-exhausted", "leader", "an application takes all connections",
          "new connections are refused (53300); Patroni, replicas and sessions that are there go on: no failover",
          "ends the application", connections_exhausted),
    Fault("wrong-hba", "leader", "somebody loses the line for replication in pg_hba.conf",
          "no replica streams any more, and each tries every 5 s; the leader and its clients go on",
          "restores pg_hba.conf", wrong_hba),
]
