"""What PostgreSQL, Patroni and etcd say, asked from the monitor's host (or over a member's own socket).

Nothing here raises on a component that is down: it answers None, since in a lab that is normal.
"""

import base64
import glob
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from . import net
from .base import LabError, NoEnd, Pending, run
from .model import MONITOR, POSTGRES_PORT

TIMEOUT = 2.5
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http(lab, url, method="GET", body=None, timeout=TIMEOUT, host=MONITOR):
    """(status, text) of a request from inside a host; (None, reason) if nobody answers."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with net.inside(lab.netns(host)), _opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        return None, str(getattr(error, "reason", error))


def http_json(lab, url, **options):
    """The JSON of a 200 answer; None otherwise."""
    status, text = http(lab, url, **options)
    try:
        return json.loads(text) if status == 200 else None
    except ValueError:
        return None


def each(names, ask):
    """{name: ask(name)} for all names at once."""
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        return dict(zip(names, pool.map(ask, names)))


# --- Patroni ---------------------------------------------------------------------------------------------------------

def patroni(lab, member):
    """GET /patroni of one member: what it says of itself."""
    return http_json(lab, f"{lab.patroni_url(member)}/patroni")


def cluster(lab, asked=None):
    """GET /cluster of the first member that answers (or of the one that is `asked`)."""
    for member in [asked] if asked else lab.members:
        answer = http_json(lab, f"{lab.patroni_url(member)}/cluster")
        if answer:
            return answer
    return None


def dynamic_config(lab):
    """The cluster's dynamic configuration; None if no Patroni answers."""
    answers = each(lab.members, lambda member: http_json(lab, f"{lab.patroni_url(member)}/config"))
    return next(filter(None, answers.values()), None)


def patch_config(lab, changes):
    """Changes the cluster's dynamic configuration through the first member that takes it."""
    said = "no Patroni answers"
    for member in lab.members:
        status, text = http(lab, f"{lab.patroni_url(member)}/config", method="PATCH", body=changes, timeout=15)
        if status == 200:
            return
        said = f"{member}: {status or ''} {text}"
    raise LabError(f"Patroni did not take the configuration {json.dumps(changes)}: {said}")


def check_of(lab, member, path):
    """The HTTP status of one of Patroni's checks such as /primary; None if it does not answer."""
    return http(lab, f"{lab.patroni_url(member)}{path}")[0]


def leader(lab):
    """The member that holds the lock and says that it is the primary; None if there is no such one."""
    statuses = each(lab.members, lambda member: check_of(lab, member, "/primary"))
    holders = [member for member, status in statuses.items() if status == 200]
    return holders[0] if len(holders) == 1 else None


def require_leader(lab):
    found = leader(lab)
    if not found:
        raise LabError(f"lab {lab.name} has no leader now: heal it first with lab heal {lab.name}")
    return found


def a_replica(lab):
    """The last member that is a streaming replica."""
    answer = cluster(lab) or {"members": []}
    found = [member["name"] for member in answer["members"] if member["role"] != "leader" and member["state"] == "streaming"]
    if not found:
        raise LabError(f"lab {lab.name} has no streaming replica now: heal it first with lab heal {lab.name}")
    return sorted(found)[-1]


def check_healthy(lab):
    """For wait_for: true if all members are in order; raises Pending with what is not."""
    answer = cluster(lab)
    if not answer:
        raise Pending("no Patroni answers")
    seen = {member["name"]: member for member in answer["members"]}
    missing = [member for member in lab.members if member not in seen]
    if missing:
        raise Pending(f"{', '.join(missing)} not in the cluster yet")
    leaders = [member for member in seen.values() if member["role"] == "leader" and member["state"] == "running"]
    if len(leaders) != 1:
        raise Pending("no running leader: " + _states(answer))
    if answer.get("pause"):
        raise Pending("the cluster is paused")
    if any(member["role"] != "leader" and member["state"] != "streaming" for member in seen.values()):
        raise Pending(_states(answer))
    if len({member.get("timeline") for member in seen.values()}) != 1:
        raise Pending("timelines differ: " + _states(answer))
    # /cluster alone may repeat what was true before: ask each member, and the leader's own PostgreSQL.
    own = each(lab.members, lambda member: patroni(lab, member))
    for member, said in own.items():
        if not said:
            raise Pending(f"Patroni of {member} does not answer")
        expected = "primary" if member == leaders[0]["name"] else "replica"
        if said.get("role") != expected or said.get("state") not in ("running", "streaming"):
            raise Pending(f"{member} says {said.get('role')}/{said.get('state')}")
    if check_of(lab, leaders[0]["name"], "/primary") != 200:
        raise Pending(f"{leaders[0]['name']} is not confirmed as the primary")
    streaming = sql(lab, leaders[0]["name"], "select count(*) from pg_stat_replication where state = 'streaming'")
    if streaming != str(len(lab.members) - 1):
        raise Pending(f"{streaming or 'no'} replicas stream from {leaders[0]['name']}")
    return leaders[0]["name"]


def _states(answer):
    return ", ".join(f"{member['name']} {member['role']}/{member['state']}/{member.get('timeline', '?')}"
                     for member in answer["members"])


# --- etcd ------------------------------------------------------------------------------------------------------------

def etcd_status(lab, member):
    """The status of one etcd member from its own view, e.g. {"leader": ID, "header": {"member_id": ID}}."""
    return http_json(lab, f"{lab.etcd_url(member)}/v3/maintenance/status", method="POST", body={})


def etcd_leader(lab):
    """The member whose etcd leads; None if nobody knows one."""
    for member, status in each(lab.members, lambda member: etcd_status(lab, member)).items():
        if status and status.get("leader", "0") != "0" and status["leader"] == status["header"]["member_id"]:
            return member
    return None


def etcd_healthy(lab, member):
    """Whether this etcd can serve a linearizable read: it is up and has a quorum."""
    answer = http_json(lab, f"{lab.etcd_url(member)}/health")
    return bool(answer) and answer.get("health") == "true"


def etcd_get(lab, key, member):
    """The value of a key by a linearizable read through one member; "" if there is no such key, None if no answer."""
    body = {"key": base64.b64encode(key.encode()).decode()}
    answer = http_json(lab, f"{lab.etcd_url(member)}/v3/kv/range", method="POST", body=body)
    if answer is None:
        return None
    values = answer.get("kvs", [])
    return base64.b64decode(values[0]["value"]).decode() if values else ""


def etcd_put(lab, key, value, members):
    """Writes a key through the first member that takes it; returns whether one did."""
    body = {name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))}
    return any(http(lab, f"{lab.etcd_url(member)}/v3/kv/put", method="POST", body=body, timeout=10)[0] == 200 for member in members)


def etcd_alarm(lab, member, body):
    """Asks for, raises or ends alarms; returns those that there are, e.g. [{"memberID": ID, "alarm": "NOSPACE"}]."""
    answer = http_json(lab, f"{lab.etcd_url(member)}/v3/maintenance/alarm", method="POST", body=body)
    return None if answer is None else answer.get("alarms", [])


def leader_key(lab):
    """The owner of the leader key: a member's name, "" for nobody, None if no etcd with quorum answers."""
    for member in lab.members:
        value = etcd_get(lab, f"/service/{lab.name}/leader", member)
        if value is not None:
            return value
    return None


# --- PostgreSQL --------------------------------------------------------------------------------------------------------

def postgres_bin():
    """The folder of the newest PostgreSQL that the release ships."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda path: int(path.split("/")[4]))
    if not folders:
        raise LabError("PostgreSQL is not installed: run tests/lab/install lab")
    return folders[-1].removesuffix("/postgres")


def postgres_major():
    return int(postgres_bin().split("/")[4])


def psql_argv(lab, member, database="postgres"):
    """psql of the superuser over the member's own socket: works whatever the network does."""
    return [f"{postgres_bin()}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(lab.socket_dir(member)),
            "-p", str(POSTGRES_PORT), "-U", "postgres", "-d", database]


def sql(lab, member, statement, database="postgres", seconds=10):
    """The output of a statement; None if it fails (PostgreSQL's log says why) or does not end in time."""
    try:
        status, out, _ = run([*psql_argv(lab, member, database), "-c", statement], seconds, check=False)
    except NoEnd:
        return None
    return out.strip() if status == 0 else None


def must_sql(lab, member, statement, database="postgres", seconds=30):
    """The output of a statement that has to work."""
    _, out, _ = run([*psql_argv(lab, member, database), "-c", statement], seconds)
    return out.strip()


def writable(lab, member):
    """Whether this PostgreSQL takes writes: True, False, or None if it does not answer."""
    answer = sql(lab, member, "select not pg_is_in_recovery()", seconds=5)
    return None if answer is None else answer == "t"
