"""The effect that each fault promises, looked for on a lab with the fast timing. `selftest` runs them all."""

import time

from . import probe, proc
from .base import wait_for

FAILOVER = 60  # seconds that an unplanned change of leader may take with the fast timing


class Failed(Exception):
    """An expectation that did not hold."""


def expect(what, check, seconds=FAILOVER):
    wait_for(what, check, seconds, interval=0.3)


def hold(what, check, seconds):
    """`check` has to be true all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not check():
            raise Failed(f"did not hold: {what}")
        time.sleep(0.5)


class Before:
    """What was true before a fault."""

    def __init__(self, lab):
        self.leader = probe.require_leader(lab)
        self.timeline = timeline(lab, self.leader)
        self.postmaster = proc.postmaster(lab, self.leader)
        self.etcd_leader = probe.etcd_leader(lab)
        self.replica = probe.a_replica(lab) if len(lab.members) > 1 else None
        self.log_sizes = {member: (lab.log_dir(member) / "postgresql.log").stat().st_size for member in lab.members}


def timeline(lab, member):
    return (probe.patroni(lab, member) or {}).get("timeline")


def logged(lab, before, member, text):
    """Whether PostgreSQL of a member has logged this since."""
    with open(lab.log_dir(member) / "postgresql.log", encoding="utf-8", errors="replace") as file:
        file.seek(before.log_sizes[member])
        return text in file.read()


def expect_logged(lab, before, member, text, seconds=20):
    expect(f"{text!r} in the log of PostgreSQL on {member}", lambda: logged(lab, before, member, text), seconds)


def new_leader(lab, old):
    found = probe.leader_key(lab)
    return found and found != old and probe.check_of(lab, found, "/primary") == 200


def same_leader(lab, before):
    expect(f"{before.leader} to lead again", lambda: probe.leader(lab) == before.leader, 30)
    if timeline(lab, before.leader) != before.timeline:
        raise Failed("the timeline changed")


def states(lab):
    return {member["name"]: member["state"] for member in (probe.cluster(lab) or {"members": []})["members"]}


# --- processes and hosts -------------------------------------------------------------------------------------------------

def after_kill_postmaster(lab, before):
    expect("a new postmaster on the same leader", lambda: (
        proc.postmaster(lab, before.leader) not in (None, before.postmaster) and probe.writable(lab, before.leader)))
    same_leader(lab, before)


def after_crash_backend(lab, before):
    expect_logged(lab, before, before.leader, "was terminated by signal 9")
    expect("recovery", lambda: probe.writable(lab, before.leader), 30)
    if proc.postmaster(lab, before.leader) != before.postmaster:
        raise Failed("the postmaster changed")
    same_leader(lab, before)


def after_pg_ctl_stop(lab, before):
    expect_logged(lab, before, before.leader, "received fast shutdown request")
    after_kill_postmaster(lab, before)


def after_stop_postmaster(lab, before):
    if probe.sql(lab, before.leader, "select 1", seconds=3) is not None:
        raise Failed("a new connection was answered")
    hold(f"{before.leader} leads", lambda: probe.leader(lab) == before.leader, 15)


def two_primaries(lab, before):
    if probe.patroni(lab, before.leader):
        raise Failed(f"Patroni of {before.leader} still answers")
    after_failover(lab, before)
    if not probe.writable(lab, before.leader):
        raise Failed(f"the old leader {before.leader} is not writable any more")


def after_failover(lab, before):
    expect("a new leader", lambda: new_leader(lab, before.leader), FAILOVER + 20)


def after_shutdown_patroni(lab, before):
    expect("a new leader", lambda: new_leader(lab, before.leader), 20)
    if proc.postmaster(lab, before.leader):
        raise Failed("PostgreSQL of the old leader runs on")


def after_kill_member(lab, before):
    if proc.postgres(lab, before.replica) or proc.alive(lab, before.replica, "patroni"):
        raise Failed("something runs on")
    expect("the member to leave the cluster", lambda: before.replica not in states(lab), 40)
    same_leader(lab, before)


def after_host_loss(lab, before):
    if proc.of_host(lab, before.leader):
        raise Failed("processes of the lost host are left")
    after_failover(lab, before)


# --- network -------------------------------------------------------------------------------------------------------------

def after_partition(lab, before):
    after_failover(lab, before)
    expect("the old leader to have stepped down", lambda: not probe.writable(lab, before.leader), 30)
    expect("the monitor to reach the old leader", lambda: probe.patroni(lab, before.leader), 30)


def after_isolate_host(lab, before):
    after_failover(lab, before)
    if not proc.alive(lab, before.leader, "patroni"):
        raise Failed("Patroni of the isolated host ended")


def after_partition_monitor(lab, before):
    if probe.patroni(lab, before.leader):
        raise Failed("the monitor still reaches it")
    hold(f"{before.leader} leads", lambda: probe.leader_key(lab) == before.leader, 25)
    if not probe.writable(lab, before.leader):
        raise Failed("the leader stopped writing")


def after_partition_replication(lab, before):
    position = probe.must_sql(lab, before.replica, "select pg_last_wal_receive_lsn()")
    expect("WAL that does not arrive", lambda: probe.sql(
        lab, before.leader, f"select pg_wal_lsn_diff(pg_current_wal_lsn(), '{position}') > 100000") == "t", 60)
    if probe.must_sql(lab, before.replica, "select pg_last_wal_receive_lsn()") != position:
        raise Failed("WAL still arrives")
    same_leader(lab, before)


def after_replicas_lose_dcs(lab, before):
    expect("the replicas to leave the cluster", lambda: set(states(lab)) <= {before.leader}, 60)
    if probe.leader_key(lab) != before.leader or not probe.writable(lab, before.leader):
        raise Failed("the leader did not stay")


def after_dcs_latency(lab, before):
    expect("a slow answer of etcd", lambda: slow(lambda: probe.etcd_healthy(lab, before.etcd_leader)), 30)


def slow(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started > 1


def after_proxy_wrong_primary(lab, before):
    expect_logged(lab, before, before.replica, "in a read-only transaction")
    same_leader(lab, before)


# --- etcd ----------------------------------------------------------------------------------------------------------------

def after_etcd_leader_loss(lab, before):
    expect("another etcd leader", lambda: probe.etcd_leader(lab) not in (None, before.etcd_leader), 30)
    same_leader(lab, before)


def after_etcd_disk_full(lab, before):
    if proc.alive(lab, before.etcd_leader, "etcd"):
        raise Failed("etcd runs on")
    after_etcd_leader_loss(lab, before)


def after_quorum_loss(lab, before):
    expect("etcd without quorum", lambda: probe.leader_key(lab) is None, 20)
    expect("no writable member", lambda: not any(probe.writable(lab, member) for member in lab.members))
    claimed = probe.cluster(lab)
    if not any(member["role"] == "leader" for member in (claimed or {"members": []})["members"]):
        raise Failed(f"/cluster does not claim a leader any more: {claimed}")


def after_quorum_loss_failsafe(lab, before):
    expect("failsafe mode", lambda: (probe.patroni(lab, before.leader) or {}).get("failsafe_mode_is_active"), 40)
    hold("the leader takes writes", lambda: probe.writable(lab, before.leader), 25)


def after_etcd_nospace(lab, before):
    if probe.etcd_put(lab, "/lab/scratch", "x", lab.members):
        raise Failed("etcd took a write")
    hold(f"{before.leader} leads", lambda: probe.leader(lab) == before.leader, 15)


# --- operators -----------------------------------------------------------------------------------------------------------

def after_switchover(lab, before):
    expect("the switch", lambda: new_leader(lab, before.leader), 30)
    expect("the next timeline", lambda: timeline(lab, probe.leader(lab) or before.leader) == before.timeline + 1, 30)


def after_promote(lab, _before):
    expect("two writable members", lambda: sum(bool(probe.writable(lab, member)) for member in lab.members) == 2, 20)


def after_promote_by_hand(lab, before):
    expect_logged(lab, before, before.replica, "selected new timeline ID")
    expect("one writable member again", lambda: not probe.writable(lab, before.replica), 30)
    if probe.leader(lab) != before.leader:
        raise Failed("the leader changed")


def after_pending_restart(lab, _before):
    def all_pend():
        members = (probe.cluster(lab) or {"members": []})["members"]
        return members and all(member.get("pending_restart") for member in members)
    expect("pending_restart on all members", all_pend, 30)


def after_connections_exhausted(lab, before):
    expect_logged(lab, before, before.leader, "remaining connection slots")
    same_leader(lab, before)


def after_wrong_hba(lab, before):
    expect_logged(lab, before, before.leader, "no pg_hba.conf entry for replication connection")
    if probe.must_sql(lab, before.leader, "select count(*) from pg_stat_replication") != "0":
        raise Failed("a replica streams")
    same_leader(lab, before)


# --- storage and replication ---------------------------------------------------------------------------------------------

def after_disk_full(lab, before):
    expect_logged(lab, before, before.leader, "No space left on device")
    if probe.sql(lab, before.leader, "insert into lab_fill select repeat('x', 1000) from generate_series(1, 200)") is not None:
        raise Failed("a write that needs space worked")
    same_leader(lab, before)


def after_disk_full_wal(lab, before):
    expect_logged(lab, before, before.leader, "PANIC")
    after_failover(lab, before)


def after_storage_hang(lab, before):
    if probe.sql(lab, before.leader, "select pg_logical_emit_message(true, 'lab', 'x')", seconds=4) is not None:
        raise Failed("a commit worked")
    hold(f"{before.leader} leads", lambda: probe.leader(lab) == before.leader, 10)


def after_archive_failing(lab, before):
    expect_logged(lab, before, before.leader, "archive command failed")


def after_slot_retention(lab, before):
    query = f"select not active and pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 64 * 1024 * 1024 from pg_replication_slots where slot_name = '{before.replica}'"
    expect("a slot that retains WAL", lambda: probe.sql(lab, before.leader, query) == "t", 10)


def after_wal_removed(lab, before):
    expect("a replica that cannot stream", lambda: logged(lab, before, before.replica, "has already been removed")
           or logged(lab, before, before.leader, "can no longer get changes from replication slot"), 60)


def replay_stands(lab, before):
    query = "select pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > 0"
    blocked = before.replica

    def lags():
        probe.must_sql(lab, before.leader, "insert into pgbench_history (tid, bid, aid, delta) values (1, 1, 1, 1)", "app")
        return probe.sql(lab, blocked, query) == "t"
    expect("WAL that is received and not replayed", lags, 30)
    held = probe.must_sql(lab, blocked, "select pg_last_wal_replay_lsn()")
    received = probe.must_sql(lab, blocked, "select pg_last_wal_receive_lsn()")
    expect("more WAL received", lambda: lags() and probe.must_sql(lab, blocked, f"select pg_last_wal_receive_lsn() > '{received}'") == "t", 30)
    if probe.must_sql(lab, blocked, "select pg_last_wal_replay_lsn()") != held:
        raise Failed("the replay went on")


def after_recovery_conflict(lab, before):
    expect_logged(lab, before, before.replica, "canceling statement due to conflict with recovery", 60)


def after_sync_standby_loss(lab, before):
    expect("another synchronous standby", lambda: any(
        member["role"] == "sync_standby" and proc.alive(lab, member["name"], "patroni")
        for member in (probe.cluster(lab) or {"members": []})["members"]), 60)
    same_leader(lab, before)


def after_sync_strict_alone(lab, before):
    write = "insert into pgbench_history (tid, bid, aid, delta) values (1, 1, 1, 1)"
    if probe.sql(lab, before.leader, write, "app", seconds=5) is not None:
        raise Failed("a commit did not wait")


EFFECTS = {
    "kill-postmaster": after_kill_postmaster, "crash-backend": after_crash_backend, "pg-ctl-stop": after_pg_ctl_stop,
    "stop-postmaster": after_stop_postmaster, "freeze-postgres": after_failover, "kill-patroni": two_primaries,
    "stop-patroni": two_primaries, "shutdown-patroni": after_shutdown_patroni, "kill-member": after_kill_member,
    "host-loss": after_host_loss, "freeze-host": after_failover,
    "partition-leader": after_partition, "isolate-host": after_isolate_host, "partition-monitor": after_partition_monitor,
    "partition-replication": after_partition_replication, "leader-loses-dcs": after_partition,
    "replicas-lose-dcs": after_replicas_lose_dcs, "dcs-latency": after_dcs_latency, "proxy-wrong-primary": after_proxy_wrong_primary,
    "etcd-leader-kill": after_etcd_leader_loss, "etcd-quorum-loss": after_quorum_loss,
    "etcd-quorum-loss-failsafe": after_quorum_loss_failsafe, "etcd-pulses": after_etcd_leader_loss,
    "etcd-nospace": after_etcd_nospace, "etcd-disk-full": after_etcd_disk_full,
    "switchover": after_switchover, "restart": after_kill_postmaster, "promote-while-paused": after_promote,
    "promote-by-hand": after_promote_by_hand, "pending-restart": after_pending_restart,
    "connections-exhausted": after_connections_exhausted, "wrong-hba": after_wrong_hba,
    "disk-full": after_disk_full, "disk-full-wal": after_disk_full_wal, "storage-hang": after_storage_hang,
    "archive-failing": after_archive_failing, "slot-retention": after_slot_retention, "wal-removed": after_wal_removed,
    "replay-blocked": replay_stands, "recovery-conflict": after_recovery_conflict, "replay-paused": replay_stands,
    "sync-standby-loss": after_sync_standby_loss, "sync-strict-alone": after_sync_strict_alone,
    "unclean-failover": after_failover,
}

# What only some machines have: there the fault has to say so.
NOT_EVERYWHERE = {"dcs-latency": "netem"}
