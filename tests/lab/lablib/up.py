"""Builds a lab: hosts, etcd, Patroni with PostgreSQL, the proxies, load, and Daraji itself.

Cold start to a leader with streaming replicas takes 15 to 30 s on two cores, with Patroni's default timing.
"""

import os
import shutil
import socket
import sys
from pathlib import Path

from . import down, model, net, probe, proc, settings
from .base import HOME, STATE_ROOT, EndedAtOnce, LabError, Progress, run, tail, wait_for
from .model import HAPROXY_METRICS_PORT, MONITOR, PATRONI_PORT, PGBOUNCER_PORT, POSTGRES_PORT, SERVER_PORT

DATA_MEGABYTES = 900
ETCD_MEGABYTES = 500
NEEDED = ["bin/etcd", "patroni/bin/patroni", "tools/bin/python"]
NEEDED_PROGRAMS = ["haproxy", "pgbouncer", "ip", "nft", "mkfs.ext4", "setpriv", "nsenter"]


def up(name, options, progress=None, keep=False):
    """Starts a lab; on failure or interruption removes it again, unless `keep` says to leave it for a look."""
    progress = progress or Progress()
    check_machine()
    options = choose_network(options, progress)
    options["port"] = choose_port(options["port"], options["port_given"])
    lab = model.create(name, options)
    try:
        build(lab, progress)
    except BaseException as error:
        if isinstance(error, LabError) and not isinstance(error, EndedAtOnce):
            show_logs(lab)
        if not keep:
            progress.say(f"removing lab {name}")
            down.down(lab, progress)
        raise
    return lab


def build(lab, progress):
    make_hosts(lab, progress)
    start_etcd(lab, progress)
    start_cluster(lab, progress)
    if lab.options["load"]:
        start_load(lab, progress)
    settings.write_server(lab)
    for member in lab.members:
        settings.write_agent(lab, member)
    if lab.options["messages"]:
        start_receivers(lab)
    if lab.options["server"]:
        start_daraji(lab, progress)
    if forwards(lab):
        start_forwarder(lab)
    progress.say(f"lab {lab.name} is up")


# --- before anything is made ---------------------------------------------------------------------------------------

def check_machine():
    missing = [str(HOME / path) for path in NEEDED if not (HOME / path).exists()]
    missing += [program for program in NEEDED_PROGRAMS if not shutil.which(program, path=os.environ["PATH"])]
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}; run tests/lab/install lab")
    probe.postgres_bin()


def choose_network(options, progress):
    """Decides between namespaces and loopback where the user left it open."""
    options = dict(options)
    if options["net"] == "auto":
        permitted, why = net.permitted()
        options["net"] = "namespaces" if permitted else "loopback"
        if not permitted:
            progress.say(f"network namespaces are not permitted here ({why[-150:]}): falling back to loopback addresses; "
                         "faults of the network do not work there, and host-loss only kills")
    return options


def choose_port(port, given):
    """The port on the machine's loopback: the wanted one, or the next free one if the user named none."""
    for candidate in [port] if given else range(port, port + 50):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", candidate))
                return candidate
            except OSError as error:
                why = error
    raise LabError(f"127.0.0.1:{port} cannot be used ({why}): name another with --port")


# --- hosts -----------------------------------------------------------------------------------------------------------

def make_hosts(lab, progress):
    (lab.dir / "run").mkdir()
    (lab.dir / "archive").mkdir()
    shutil.chown(lab.dir / "archive", "postgres", "postgres")
    if lab.has_namespaces:
        net.build(lab)
    for host in lab.hosts:
        for folder in (lab.host_dir(host), lab.log_dir(host)):
            folder.mkdir()
            shutil.chown(folder, "postgres", "postgres")
    kinds = {make_data_disk(lab, member) for member in lab.members}
    for member in lab.members:
        make_etcd_disk(lab, member)
    settings.passwords(lab)
    settings.write_scripts(lab)
    where = "network namespaces" if lab.has_namespaces else "loopback addresses"
    progress.say(f"{len(lab.hosts)} hosts on {where} {lab.address('n1')} .., data on {'/'.join(sorted(kinds))}")


def make_data_disk(lab, member):
    """A small file system for the data of one member, so that filling it harms nobody else."""
    mount_point, image = lab.host_dir(member) / "data", lab.host_dir(member) / "disk.img"
    mount_point.mkdir()
    (lab.host_dir(member) / "run").mkdir()
    kind = (mount_loop(image, mount_point, DATA_MEGABYTES) or mount_tmpfs(mount_point, DATA_MEGABYTES)
            or "plain folders (disk-full does not work)")
    data = lab.data_dir(member)
    data.mkdir(mode=0o700)
    for folder in (data, lab.host_dir(member) / "run"):
        shutil.chown(folder, "postgres", "postgres")
    return kind


def make_etcd_disk(lab, member):
    """The same for etcd, so that a full disk of the one is not that of the other."""
    mount_point, image = lab.host_dir(member) / "etcd", lab.host_dir(member) / "etcd.img"
    mount_point.mkdir()
    kind = mount_loop(image, mount_point, ETCD_MEGABYTES) or mount_tmpfs(mount_point, ETCD_MEGABYTES)
    data = lab.etcd_dir(member)
    data.mkdir(mode=0o700)
    shutil.chown(data, "postgres", "postgres")
    return kind


def mount_loop(image, mount_point, megabytes):
    try:
        with open(image, "wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", image])
        # A loop device made by mount goes away with its umount.
        run(["mount", "-o", "loop,noatime", image, mount_point])
        return "ext4"
    except LabError:
        image.unlink(missing_ok=True)
        return None


def mount_tmpfs(mount_point, megabytes):
    try:
        run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "daraji-lab", mount_point])
        return "tmpfs"
    except LabError:
        return None


# --- the cluster -----------------------------------------------------------------------------------------------------

def start_etcd(lab, progress):
    for member in lab.members:
        proc.start(lab, member, "etcd", settings.etcd_argv(lab, member))
    wait_for("etcd", lambda: all(probe.each(lab.members, lambda member: probe.etcd_healthy(lab, member)).values()), 30, progress)
    progress.say(f"etcd: {len(lab.members)} members healthy")


def start_cluster(lab, progress):
    """The first member initializes; the others join once it leads, else they would idle through a loop_wait."""
    first, *others = lab.members
    for member in lab.members:
        settings.write_member(lab, member)
    settings.write_haproxy(lab)
    settings.write_pgbouncer(lab)
    proc.start(lab, first, "patroni", settings.patroni_argv(lab, first))
    # HAProxy and PgBouncer start now: when the cluster is ready, their health checks are too.
    proc.start(lab, MONITOR, "haproxy", settings.haproxy_argv(lab))
    proc.start(lab, MONITOR, "pgbouncer", settings.pgbouncer_argv(lab))

    def leads():
        proc.must_stay(lab, first, "patroni", seconds=0.1)
        return probe.check_of(lab, first, "/primary") == 200
    wait_for(f"the leader ({first}: initdb, start, promote)", leads, 90, progress)
    progress.say(f"leader: {first}")
    for member in others:
        proc.start(lab, member, "patroni", settings.patroni_argv(lab, member))
    wait_for("streaming replicas", lambda: probe.check_healthy(lab), 120, progress)
    probe.patch_config(lab, settings.patroni_timing(lab))
    for component in ("haproxy", "pgbouncer"):
        proc.must_stay(lab, MONITOR, component, seconds=0.1)
    progress.say(f"healthy: leader {first}, {len(others)} streaming replicas")


def start_load(lab, progress):
    """pgbench through PgBouncer and HAProxy at about 10 transactions per second."""
    environment = {**os.environ, **settings.app_environment(lab, "n1", POSTGRES_PORT)}
    prefix = ["nsenter", f"--net=/run/netns/{lab.netns(MONITOR)}"] if lab.has_namespaces else []
    run([*prefix, f"{probe.postgres_bin()}/pgbench", "--initialize", "--quiet", "--scale=1"], 60, env=environment)
    settings.write_load(lab)
    proc.start(lab, MONITOR, "load", settings.load_argv(lab), env=settings.app_environment(lab))

    def runs():
        count = probe.sql(lab, "n1", "select count(*) from pgbench_history", "app")
        return count is not None and int(count) > 0
    wait_for("the first transaction of the load through the proxies", runs, 40, progress)
    progress.say("load: 10 transactions per second through PgBouncer and HAProxy")


# --- Daraji ----------------------------------------------------------------------------------------------------------

def start_receivers(lab):
    """The mailbox and the webhook of whoever is on call."""
    settings.messages_dir(lab).mkdir()
    proc.start(lab, MONITOR, "receivers", settings.receivers_argv(lab), user="root")
    proc.must_stay(lab, MONITOR, "receivers", seconds=0.5)


def start_daraji(lab, progress):
    """The server on the monitor's host with tokens for agents and for the command line, then the agents."""
    program = Path(lab.options["server"]).resolve()
    if not os.access(program, os.X_OK):
        raise LabError(f"{program} is no program: build it first, or use --no-server")
    data = lab.host_dir(MONITOR) / "daraji"
    data.mkdir(mode=0o700)
    for role in ("agent", "operator", "admin"):
        _, out, _ = run([program, "token", "add", "--data", data, "--role", role, f"lab-{role}"])
        model.write_file(lab.dir / f"token.{role}", out.strip() + "\n", mode=0o600, owner=settings.invoking_user())
    proc.start(lab, MONITOR, "server", [program, "serve", "--config", lab.dir / "daraji.yml"], user="root")

    def ready():
        proc.must_stay(lab, MONITOR, "server", seconds=0.1)
        return probe.http(lab, f"http://127.0.0.1:{loopback_port(lab)}/-/ready")[0] == 200
    wait_for("the server to be ready", ready, 30, progress)
    progress.say("daraji server: ready")
    if lab.options["agents"]:
        for member in lab.members:
            command = [program, "agent", "--config", lab.dir / f"agent-{member}.yml"]
            proc.start(lab, member, "agent", own_mounts(lab, member) + command, user="root")
        for member in lab.members:
            proc.must_stay(lab, member, "agent", seconds=0.5)
        progress.say(f"daraji agents on {', '.join(lab.members)}")


# $0 is the folder of the host, $1 that of all labs; the rest is the program. The mounts go in its namespace only.
UNMOUNT_OTHERS = (
    'for at in $(cut -d" " -f2 /proc/self/mounts); do case $at in "$0"/*) ;; /run/netns|"$1"/*) umount --lazy "$at" ;; esac; done; '
    'shift; exec "$@"')


def own_mounts(lab, member):
    """The start of a command that sees the file systems of its own host, not those of the other hosts and labs.

    Without it a full disk of one member is reported by the agents of all, also by those of the lab beside it.
    """
    if not lab.netns(member):
        return []
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", UNMOUNT_OTHERS,
            lab.host_dir(member), STATE_ROOT]


def loopback_port(lab):
    """The port on which the server listens on 127.0.0.1 of its own host."""
    return SERVER_PORT if lab.has_namespaces else lab.options["port"]


def forwards(lab):
    """Without a server the port is left alone, unless the user named it: for a server that they start by hand."""
    return lab.has_namespaces and (lab.options["server"] or lab.options["port_given"])


def start_forwarder(lab):
    """127.0.0.1:PORT of the machine leads to the server's open address, whenever there is one."""
    argv = ["/usr/bin/python3", Path(__file__).with_name("forward.py"), "127.0.0.1", lab.options["port"],
            lab.netns(MONITOR), "127.0.0.1", SERVER_PORT]
    proc.start(lab, MONITOR, "forward", argv, user="root", outside=True)
    proc.must_stay(lab, MONITOR, "forward", seconds=0.5)


# --- what to say -----------------------------------------------------------------------------------------------------

def show_logs(lab):
    """The ends of the logs that most likely say why a lab did not come up."""
    paths = [lab.log_dir(member) / log for member in lab.members for log in ("etcd.log", "patroni.log", "postgresql.log")]
    paths += sorted(lab.log_dir(MONITOR).glob("*.log")) + sorted(lab.log_dir(MONITOR).glob("*.err"))
    for path in paths:
        if path.exists():
            print(f"--- {path}\n{tail(path, 6)}", file=sys.stderr)


def summary(lab):
    """What a user can do with this lab now."""
    address, lines = lab.address(MONITOR), []
    where = f"inside: tests/lab/lab exec {lab.name} mon ..." if lab.has_namespaces else "on this machine"
    if lab.options["server"]:
        lines += [f"Daraji          http://127.0.0.1:{lab.options['port']}/        (tokens: {lab.dir}/token.*)"]
    elif forwards(lab):
        lines += [f"no server; 127.0.0.1:{lab.options['port']} leads to 127.0.0.1:{SERVER_PORT} of the monitor's host"]
    lines += [f"configuration   {lab.dir}/daraji.yml, agent-nX.yml"]
    lines += [f"Patroni         http://{lab.address(member)}:{PATRONI_PORT}/cluster   PostgreSQL {lab.address(member)}:{POSTGRES_PORT}"
              for member in lab.members]
    lines += [f"PgBouncer       {address}:{PGBOUNCER_PORT}   HAProxy http://{address}:{HAPROXY_METRICS_PORT}/metrics   ({where})",
              "",
              "try             " + f"tests/lab/lab status {lab.name}",
              "                " + f"tests/lab/lab fault {lab.name} kill-patroni      (all: lab fault --list)",
              "                " + f"tests/lab/lab heal {lab.name}",
              "                " + f"tests/lab/lab exec {lab.name} n1 psql",
              "                " + f"tests/lab/lab down {lab.name}"]
    return "\n".join(lines)
