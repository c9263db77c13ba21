"""The configuration of everything that runs in a lab, as files and command lines.

Patroni's and the server's files are written as JSON, which is YAML too.
"""

import json
import os
import secrets
from pathlib import Path

from .base import HOME, STATE_ROOT
from .model import (ETCD_PEER_PORT, ETCD_PORT, HAPROXY_METRICS_PORT, HAPROXY_PRIMARY_PORT, HAPROXY_REPLICA_PORT,
                    MONITOR, PATRONI_PORT, PGBOUNCER_PORT, POSTGRES_PORT, SERVER_PORT, SMTP_PORT, WEBHOOK_PORT, write_file)
from .probe import postgres_bin, postgres_major

LOG_LINE_PREFIX = "%m [%p] sid=%c,line=%l,user=%u,db=%d,app=%a,client=%h,vxid=%v,xid=%x,sqlstate=%e "


def passwords(lab):
    """The lab's passwords, made up at the first call."""
    path = lab.dir / "passwords.json"
    if not path.exists():
        users = ("postgres", "replicator", "rewinder", "daraji", "app")
        write_file(path, json.dumps({user: secrets.token_hex(12) for user in users}) + "\n", mode=0o600)
        write_file(lab.dir / "postgres.password", json.loads(path.read_text())["daraji"] + "\n", mode=0o600)
    return json.loads(path.read_text())


# --- etcd ------------------------------------------------------------------------------------------------------------

def etcd_argv(lab, member):
    address = lab.address(member)
    peers = ",".join(f"{other}=http://{lab.address(other)}:{ETCD_PEER_PORT}" for other in lab.members)
    local = f",http://127.0.0.1:{ETCD_PORT}" if lab.has_namespaces else ""
    return [HOME / "bin/etcd", "--name", member, "--data-dir", lab.host_dir(member) / "etcd",
            "--listen-client-urls", f"http://{address}:{ETCD_PORT}{local}",
            "--advertise-client-urls", f"http://{address}:{ETCD_PORT}",
            "--listen-peer-urls", f"http://{address}:{ETCD_PEER_PORT}",
            "--initial-advertise-peer-urls", f"http://{address}:{ETCD_PEER_PORT}",
            "--initial-cluster", peers, "--initial-cluster-token", f"lab-{lab.name}", "--initial-cluster-state", "new",
            "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h",
            "--logger", "zap", "--log-outputs", lab.log_dir(member) / "etcd.log"]


# --- PostgreSQL and Patroni ----------------------------------------------------------------------------------------

def postgres_parameters(lab):
    """Parameters of all members. Small, so that three fit beside other work; logs of all three formats."""
    return {
        "shared_buffers": "48MB", "max_connections": 60, "max_wal_size": "256MB", "wal_keep_size": "64MB",
        "wal_log_hints": "on", "hot_standby": "on", "track_io_timing": "on",
        "shared_preload_libraries": "pg_stat_statements",
        "archive_mode": "on", "archive_command": f"{lab.dir}/archive.sh %p %f", "archive_timeout": "600s",
        "logging_collector": "on", "log_destination": "stderr,csvlog" + (",jsonlog" if postgres_major() >= 15 else ""), "log_filename": "postgresql.log",
        "log_file_mode": "0644", "log_rotation_age": 0, "log_rotation_size": 0, "log_timezone": "UTC",
        "log_line_prefix": LOG_LINE_PREFIX, "log_checkpoints": "on", "log_connections": "on",
        "log_disconnections": "on", "log_lock_waits": "on", "log_replication_commands": "on",
        "log_recovery_conflict_waits": "on", "log_min_duration_statement": "1s",
    }


FAST_TIMING = {"ttl": 20, "loop_wait": 2, "retry_timeout": 3}
DEFAULT_TIMING = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}


def patroni_timing(lab):
    """How a lab runs. All are built with the fast timing: with the default one, `up` would wait for loops."""
    return FAST_TIMING if lab.options["fast"] else DEFAULT_TIMING


def patroni_config(lab, member):
    address, secret = lab.address(member), passwords(lab)
    log = {"level": "INFO", "dir": str(lab.log_dir(member)), "mode": "0644", "file_size": 50_000_000, "file_num": 3}
    if member == "n3":
        log |= {"type": "json", "format": ["asctime", "levelname", "message"]}
    return {
        "scope": lab.name, "namespace": "/service", "name": member, "log": log,
        "restapi": {"listen": f"{address}:{PATRONI_PORT}", "connect_address": f"{address}:{PATRONI_PORT}"},
        "etcd3": {"hosts": [f"{lab.address(other)}:{ETCD_PORT}" for other in lab.members]},
        "bootstrap": {
            "dcs": {**FAST_TIMING, "maximum_lag_on_failover": 1048576,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": postgres_parameters(lab)}},
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            "post_init": str(lab.dir / "post_init.sh"),
        },
        "postgresql": {
            "listen": f"{address}:{POSTGRES_PORT}", "connect_address": f"{address}:{POSTGRES_PORT}",
            "data_dir": str(lab.data_dir(member)), "bin_dir": postgres_bin(),
            "pgpass": str(lab.host_dir(member) / "pgpass"), "basebackup": [{"checkpoint": "fast"}],
            "authentication": {
                "superuser": {"username": "postgres", "password": secret["postgres"]},
                "replication": {"username": "replicator", "password": secret["replicator"]},
                "rewind": {"username": "rewinder", "password": secret["rewinder"]}},
            "parameters": {"unix_socket_directories": str(lab.socket_dir(member)), "log_directory": str(lab.log_dir(member))},
            "pg_hba": ["local all all trust", "host all all all scram-sha-256", "host replication replicator all scram-sha-256"],
        },
    }


def write_member(lab, member):
    write_file(lab.host_dir(member) / "patroni.yml", json.dumps(patroni_config(lab, member), indent=1) + "\n",
               mode=0o600, owner="postgres")


def patroni_argv(lab, member):
    return [HOME / "patroni/bin/patroni", lab.host_dir(member) / "patroni.yml"]


def write_scripts(lab):
    """What Patroni runs after initdb, and where PostgreSQL archives to: the newest 16 segments only."""
    secret = passwords(lab)
    write_file(lab.dir / "post_init.sql", f"""\
CREATE ROLE daraji LOGIN PASSWORD '{secret["daraji"]}' IN ROLE pg_monitor;
CREATE ROLE app LOGIN PASSWORD '{secret["app"]}';
CREATE DATABASE app OWNER app;
CREATE EXTENSION pg_stat_statements;
\\connect app
CREATE EXTENSION pg_stat_statements;
""", mode=0o600, owner="postgres")
    write_file(lab.dir / "post_init.sh", f"""\
#!/bin/sh
exec {postgres_bin()}/psql -Xq -v ON_ERROR_STOP=1 -f {lab.dir}/post_init.sql "$1"
""", mode=0o755)
    write_file(lab.dir / "archive.sh", f"""\
#!/bin/sh
# archive.sh PATH NAME: keeps the newest 16 files.
set -e
cd {lab.dir}/archive
cp "$OLDPWD/$1" "$2.part"
mv "$2.part" "$2"
ls -t | tail -n +17 | xargs -r rm -f
""", mode=0o755)


# --- HAProxy, PgBouncer, load --------------------------------------------------------------------------------------

def write_haproxy(lab):
    address = lab.address(MONITOR)

    def listen(name, port, check):
        servers = "\n".join(f"    server {member} {lab.address(member)}:{POSTGRES_PORT} maxconn 50 check port {PATRONI_PORT}"
                            for member in lab.members)
        return (f"listen {name}\n    bind {address}:{port}\n    option httpchk OPTIONS {check}\n    http-check expect status 200\n"
                f"    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions\n{servers}\n")

    write_file(lab.host_dir(MONITOR) / "haproxy.cfg", f"""\
global
    maxconn 200
    log stdout format iso local0
defaults
    log global
    mode tcp
    option tcplog
    retries 2
    timeout connect 4s
    timeout client 30m
    timeout server 30m
    timeout check 5s
listen metrics
    mode http
    bind {address}:{HAPROXY_METRICS_PORT}
    option httplog
    option dontlog-normal
    timeout client 30s
    timeout server 30s
    http-request use-service prometheus-exporter if {{ path /metrics }}
    stats enable
    stats uri /
{listen("primary", HAPROXY_PRIMARY_PORT, "/primary")}{listen("replicas", HAPROXY_REPLICA_PORT, "/replica")}""")


def haproxy_argv(lab):
    return ["/usr/sbin/haproxy", "-db", "-f", lab.host_dir(MONITOR) / "haproxy.cfg"]


def write_pgbouncer(lab):
    """Transaction pooling in front of HAProxy. The user stats may look at its statistics without a password."""
    directory, address = lab.host_dir(MONITOR), lab.address(MONITOR)
    write_file(directory / "pgbouncer.users", f'"app" "{passwords(lab)["app"]}"\n"stats" ""\n', mode=0o600, owner="postgres")
    write_file(directory / "pgbouncer.hba", "host pgbouncer stats 0.0.0.0/0 trust\nhost all all 0.0.0.0/0 scram-sha-256\n", owner="postgres")
    write_file(directory / "pgbouncer.ini", f"""\
[databases]
app = host={address} port={HAPROXY_PRIMARY_PORT} dbname=app
[pgbouncer]
listen_addr = {address}
listen_port = {PGBOUNCER_PORT}
unix_socket_dir =
auth_type = hba
auth_hba_file = {directory}/pgbouncer.hba
auth_file = {directory}/pgbouncer.users
stats_users = stats
pool_mode = transaction
default_pool_size = 10
server_login_retry = 3
ignore_startup_parameters = extra_float_digits
log_stats = 1
stats_period = 60
""", owner="postgres")


def pgbouncer_argv(lab):
    return ["/usr/sbin/pgbouncer", lab.host_dir(MONITOR) / "pgbouncer.ini"]


def app_environment(lab, host=MONITOR, port=PGBOUNCER_PORT):
    """libpq's environment to reach the application's database, by default through PgBouncer and HAProxy."""
    return {"PGHOST": lab.address(host), "PGPORT": str(port), "PGUSER": "app", "PGDATABASE": "app",
            "PGPASSWORD": passwords(lab)["app"], "PGCONNECT_TIMEOUT": "5"}


def write_load(lab):
    """The load's program where the user postgres can read it: the checkout may lie in somebody's closed home."""
    write_file(lab.host_dir(MONITOR) / "load.py", Path(__file__).with_name("load.py").read_text())


def load_argv(lab, rate=10):
    return ["/usr/bin/python3", lab.host_dir(MONITOR) / "load.py", f"{postgres_bin()}/pgbench", rate]


# --- Daraji ----------------------------------------------------------------------------------------------------------

def write_server(lab):
    """daraji.yml: the server listens on loopback inside the monitor's host (open) and on its address (tokens)."""
    address, directory = lab.address(MONITOR), lab.log_dir(MONITOR)
    loopback_port = SERVER_PORT if lab.has_namespaces else lab.options["port"]
    config = {
        "listen": [f"127.0.0.1:{loopback_port}", f"{address}:{SERVER_PORT}"],
        "external_url": f"http://127.0.0.1:{lab.options['port']}",
        "clusters": [{
            "patroni": [lab.patroni_url(member) for member in lab.members],
            "postgres": {"user": "daraji", "password_file": str(lab.dir / "postgres.password")},
            "dcs": {"etcd": [lab.etcd_url(member) for member in lab.members], "namespace": "/service"},
            "haproxy": [f"http://{address}:{HAPROXY_METRICS_PORT}/metrics"],
            "pgbouncer": [f"postgres://stats@{address}:{PGBOUNCER_PORT}/pgbouncer"],
        }],
        "logs": [{"source": "haproxy", "path": f"{directory}/haproxy.log", "cluster": lab.name},
                 {"source": "pgbouncer", "path": f"{directory}/pgbouncer.log", "cluster": lab.name}],
        "storage": {"path": str(lab.host_dir(MONITOR) / "daraji"),
                    "metrics": {"retention": "2d"}, "logs": {"retention": "2d", "max_bytes": "2GiB"}},
    }
    if lab.options["messages"]:
        config |= _receivers(lab)
    write_file(lab.dir / "daraji.yml", json.dumps(config, indent=1) + "\n")


def _receivers(lab):
    address = lab.address(MONITOR)
    receiver = {
        "name": "oncall",
        "webhook_configs": [{"url": f"http://{address}:{WEBHOOK_PORT}/", "send_resolved": True}],
        "email_configs": [{"to": "dba@example.org", "from": "daraji@example.org", "smarthost": f"{address}:{SMTP_PORT}",
                           "require_tls": False, "send_resolved": True}],
    }
    # The agents see the machine's own disks too, which are none of the lab's business.
    elsewhere = {"receiver": "nobody", "matchers": [f'mountpoint!~"|{STATE_ROOT}/.*"']}
    route = {"receiver": "oncall", "group_by": ["cluster"], "group_wait": "5s", "group_interval": "30s",
             "repeat_interval": "1h", "routes": [elsewhere]}
    return {"route": route, "receivers": [receiver, {"name": "nobody"}]}


def messages_dir(lab):
    return lab.host_dir(MONITOR) / "messages"


def receivers_argv(lab):
    script = Path(__file__).with_name("receivers.py")
    return [HOME / "tools/bin/python", script, lab.address(MONITOR), WEBHOOK_PORT, SMTP_PORT, messages_dir(lab)]


def write_agent(lab, member):
    logs = lab.log_dir(member)
    patroni_log = {"source": "patroni", "path": f"{logs}/patroni.log"}
    config = {
        "cluster": lab.name, "member": member, "server": lab.server_url, "token_file": str(lab.dir / "token.agent"),
        "spool": {"path": str(lab.host_dir(member) / "spool"), "max_bytes": "256MiB"}, "host": True,
        "logs": [{"source": "postgresql", "path": f"{logs}/postgresql*.csv"}, patroni_log,
                 {"source": "etcd", "path": f"{logs}/etcd.log"}],
    }
    write_file(lab.dir / f"agent-{member}.yml", json.dumps(config, indent=1) + "\n")


def invoking_user():
    """The user who called through sudo, so that what is meant for them can be theirs."""
    return os.environ.get("SUDO_USER") or "root"
