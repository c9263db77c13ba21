"""witness.py NAME FILE: writes a line whenever the leader key or the writability of a member changes.

Runs inside the monitor's host with Patroni's Python (it has psycopg). Polls every 100 ms and knows nothing of the
server under test, so that its times can judge the server's.
"""

import base64
import json
import sys
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psycopg  # noqa: E402

from lablib import model  # noqa: E402

EVERY = 0.1


def main():
    lab, path = model.load(sys.argv[1]), sys.argv[2]
    lock, last = threading.Lock(), {}

    def note(what, member, value):
        with lock:
            if last.get((what, member), "nothing yet") == value:
                return
            last[what, member] = value
            with open(path, "a") as file:
                file.write(json.dumps({"at": time.time(), "what": what, "member": member, "value": value}) + "\n")

    def watch_key():
        body = json.dumps({"key": base64.b64encode(f"/service/{lab.name}/leader".encode()).decode()}).encode()
        while True:
            for member in lab.members:
                try:
                    with urllib.request.urlopen(f"{lab.etcd_url(member)}/v3/kv/range", body, timeout=1) as answer:
                        found = json.loads(answer.read()).get("kvs") or []
                except (OSError, ValueError):
                    continue
                note("leader", None, base64.b64decode(found[0]["value"]).decode() if found else None)
                break
            time.sleep(EVERY)

    def watch_member(member):
        password = (lab.dir / "postgres.password").read_text().strip()
        while True:
            try:
                with psycopg.connect(host=lab.address(member), port=model.POSTGRES_PORT, user="daraji", dbname="postgres",
                                     password=password, connect_timeout=2, application_name="witness", autocommit=True) as connection:
                    while True:
                        in_recovery = connection.execute("SELECT pg_is_in_recovery()").fetchone()[0]
                        note("writable", member, not in_recovery)
                        time.sleep(EVERY)
            except psycopg.Error:
                note("writable", member, False)
                time.sleep(EVERY)

    for member in lab.members:
        threading.Thread(target=watch_member, args=(member,), daemon=True).start()
    watch_key()


if __name__ == "__main__":
    main()
