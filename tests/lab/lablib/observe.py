"""What tests look at from outside: the server's API, the witness, and what the one on call received."""

import email
import email.policy
import json
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from . import proc, settings
from .base import HOME, STATE_ROOT, Progress, wait_for

progress = Progress()


class Server:
    """The running server, asked through the forwarded port as a user on this machine would."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        self.seen = []
        self.views = []

    def get(self, path, **parameters):
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"{self.base}{path}{query}", timeout=10) as answer:
            return json.loads(answer.read())

    def cluster(self):
        found = self.get("/api/daraji/v1/clusters")
        return found[0] if found else None

    def listen(self):
        """Follows the event stream in the background; keeps events and what the cluster looked like, with arrival times."""
        def follow_once():
            with urllib.request.urlopen(f"{self.base}/api/daraji/v1/events?stream=1", timeout=60) as stream:
                kind = None
                for raw in stream:
                    line = raw.decode("utf-8", "replace").rstrip("\n")
                    if line.startswith("event:"):
                        kind = line[6:].strip()
                    elif line.startswith("data:"):
                        self._keep(kind, json.loads(line[5:]), time.time())

        def follow():
            while True:
                try:
                    follow_once()
                except (OSError, ValueError):
                    time.sleep(0.5)
        threading.Thread(target=follow, daemon=True).start()

    def _keep(self, kind, data, at):
        if kind == "event" and all(known["id"] != data["id"] for _, known in self.seen[-200:]):
            self.seen.append((at, data))
        elif kind == "clusters" and data:
            self.views.append((at, data[0]))

    def wait_event(self, name, since, seconds, **fields):
        """The first event of that name that arrived after `since`: (arrival, event)."""
        def find():
            for at, event in self.seen:
                if at >= since and event["event"] == name and all(event["fields"].get(k) == v for k, v in fields.items()):
                    return at, event
            return None
        return wait_for(f"the event {name}", find, seconds, progress)

    def events_since(self, since, name):
        return [event for at, event in self.seen if at >= since and event["event"] == name]


class Witness:
    """An observer beside the server: polls the leader key and every member's PostgreSQL, and keeps what changed when.

    It runs inside the monitor's host and asks every 100 ms, so that its times are good to about that. With `everything`
    it also notes whatever else a fault can show; see witness.py.
    """

    def __init__(self, lab, directory, everything=False):
        self.path = directory / "witness.ndjson"
        self.path.touch()
        more = ["all"] if everything else []
        script = Path(__file__).with_name("witness.py")
        proc.start(lab, "mon", "witness", [HOME / "patroni/bin/python", script, lab.name, self.path, *more],
                   user="root", env={"DARAJI_LAB_STATE": str(STATE_ROOT)})

    def records(self, since):
        """All records from then on, oldest first."""
        found = (json.loads(line) for line in self.path.read_text().splitlines())
        return [record for record in found if record["at"] >= since]

    def first(self, since, wanted):
        """The time of the first record after `since` that `wanted` accepts; None so far."""
        return next((record["at"] for record in self.records(since) if wanted(record)), None)

    def wait(self, what, since, wanted, seconds):
        return wait_for(what, lambda: self.first(since, wanted), seconds, progress)


class Mailboxes:
    """What the webhook receiver and the mail server got."""

    def __init__(self, lab):
        self.directory = settings.messages_dir(lab)

    def webhooks(self):
        return [post for _, post in self.webhook_times()]

    def webhook_times(self):
        """(time of arrival, content) of each."""
        return [(path.stat().st_mtime, json.loads(path.read_text())) for path in sorted(self.directory.glob("webhook-*.json"))]

    def mail_subjects(self):
        mails = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
                 for path in sorted(self.directory.glob("mail-*.eml"))]
        return [mail["Subject"] for mail in mails]

    def counts(self):
        return len(self.webhooks()), len(self.mail_subjects())


def firing(server):
    """Alerts about the lab. The agents also see the machine's own disks, and those may be as full as they like."""
    alerts = [alert for alert in server.get("/api/v1/alerts")["data"]["alerts"] if alert["state"] == "firing"]
    disks = str(STATE_ROOT)
    ours = [alert["labels"] for alert in alerts if alert["labels"].get("mountpoint", disks).startswith(disks)]
    return sorted({labels["alertname"] for labels in ours})


def wait_ok(server, seconds=180):
    wait_for("health ok", lambda: (server.cluster() or {}).get("health") == "ok", seconds, progress)
