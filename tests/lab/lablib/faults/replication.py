"""Faults of replicas: replay, conflicts, synchronous replication."""

from .. import probe, settings
from ..base import now, wait_for
from .fault import Fault, require_replica, start_session, wait_replayed
from .network import partition_leader
from .processes import kill_member


def make_conflict_table(lab, leader, member):
    probe.must_sql(lab, leader, "create table if not exists lab_block as select generate_series(1, 1000) as id")
    probe.must_sql(lab, leader, "insert into lab_block select generate_series(1, 1000)")
    wait_replayed(lab, leader, member)


READER = ["begin isolation level repeatable read", "select count(*) from lab_block", "select pg_sleep(86400)"]


def replay_blocked(lab, member):
    leader = require_replica(lab, member)
    probe.must_sql(lab, member, "alter system set max_standby_streaming_delay = -1")
    probe.must_sql(lab, member, "select pg_reload_conf()")
    make_conflict_table(lab, leader, member)
    pid = start_session(lab, member, "blocker", READER)
    probe.must_sql(lab, leader, "delete from lab_block")
    time = now()
    probe.must_sql(lab, leader, "vacuum lab_block")
    return f"a query (pid {pid}) needs rows that the leader vacuumed away, and max_standby_streaming_delay is -1", time


def recovery_conflict(lab, member):
    leader = require_replica(lab, member)
    make_conflict_table(lab, leader, member)
    pid = start_session(lab, member, "blocker", READER)
    time = now()
    probe.must_sql(lab, leader, "drop table lab_block")
    return f"a query (pid {pid}) reads a table that the leader dropped: it is cancelled after max_standby_streaming_delay", time


def replay_paused(lab, member):
    require_replica(lab, member)
    probe.must_sql(lab, member, "select pg_wal_replay_pause()")
    return "pg_wal_replay_pause()"


def enter_sync_mode(lab, **more):
    """Switches synchronous replication on and returns the synchronous standbys."""
    probe.patch_config(lab, {"synchronous_mode": True, **more})

    def standbys():
        members = (probe.cluster(lab) or {"members": []})["members"]
        return [member["name"] for member in members if member["role"] == "sync_standby"]
    return wait_for("a synchronous standby", standbys, 60)


def sync_standby_loss(lab, _member):
    """Whom it hits is what Patroni has chosen."""
    victim = enter_sync_mode(lab)[0]
    time = now()
    return f"synchronous_mode is on; on the synchronous standby: {kill_member(lab, victim)}", time, victim


def sync_strict_alone(lab, member):
    """`member` is the one that stays."""
    enter_sync_mode(lab, synchronous_mode_strict=True)
    others = [other for other in lab.members if other != member]
    time = now()
    for other in others:
        kill_member(lab, other)
    return f"synchronous_mode_strict is on; SIGKILL to Patroni and PostgreSQL of {', '.join(others)}", time


def unclean_failover(lab, member):
    """The leader goes on writing what its replicas never get, and dies before Patroni demotes it (after retry_timeout)."""
    seconds = max(2, settings.patroni_timing(lab)["retry_timeout"] - 1)
    probe.must_sql(lab, member, "create table if not exists lab_lost (line text)")
    time = now()
    did = partition_leader(lab, member)
    probe.must_sql(lab, member, f"select pg_sleep({seconds}); insert into lab_lost select 'lost' from generate_series(1, 100)")
    return f"{did}; it wrote for {seconds} s more, then {kill_member(lab, member)}", time


FAULTS = [
    Fault("replay-blocked", "replica", "a long query on a replica holds back the replay of WAL",
          "replay lag grows with time while the receive lag stays 0 and the state stays streaming",
          "ends the query", replay_blocked),
    Fault("recovery-conflict", "replica", "a query on a replica reads a table that the leader drops",
          "replay waits for 30 s (max_standby_streaming_delay), then the query is cancelled (40001)",
          "nothing to undo", recovery_conflict),
    Fault("replay-paused", "replica", "somebody pauses the replay of a replica",
          "replay lag grows with time; the state stays streaming", "resumes the replay", replay_paused),
    Fault("sync-standby-loss", "replica", "synchronous_mode, and the synchronous standby is killed (whoever it is)",
          "commits hang until Patroni's next loop takes another standby", "starts Patroni, ends synchronous_mode",
          sync_standby_loss),
    Fault("sync-strict-alone", "leader", "synchronous_mode_strict, and all replicas are killed",
          "all commits hang until a standby is back", "starts Patroni, ends synchronous_mode", sync_strict_alone),
    Fault("unclean-failover", "leader", "the leader is cut off, writes on, and is killed",
          "a replica is promoted without the last writes; after the heal pg_rewind throws them away",
          "removes the packet filter, starts Patroni, which rewinds the old leader", unclean_failover),
]
