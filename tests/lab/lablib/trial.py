"""One run of one fault against a running server: inject, look, heal, look again, and say what was seen."""

import threading
import time
from datetime import datetime

from . import faults, heal, probe, report
from .base import LabError, Pending, Progress, wait_for
from .baseline import BaselineWatch
from .observe import firing

OBSERVE_S = 60
CALM_S = 300
HEAL_S = 240
# An incident settles 30 s after the cluster is well, and its closing message waits for the group's interval.
SETTLE_S = 180
QUIET_S = 12
LATE_S = 35


class Watch:
    """What the server says while a fault goes on, looked at every second; with the time of each change."""

    def __init__(self, lab, world, since):
        self.lab, self.server, self.since = lab, world.server, since
        self.baseline = BaselineWatch(world.baseline) if world.baseline else None
        self.alerts = {}    # name: first seen firing
        self.openings = {}  # incident: first seen
        self.verdicts = []  # (time, incident, first cause or None, its confidence)
        self.incidents = []
        self.stop = threading.Event()
        self.before = set(firing(self.server))
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stop.wait(1):
            try:
                self.look()
            except (OSError, ValueError):
                continue  # the next look may work; one that never does shows in what is missing

    def look(self):
        if self.baseline:
            self.baseline.look()
        now = time.time()
        for name in firing(self.server):
            if name not in self.before:
                self.alerts.setdefault(name, now)
        rows = self.server.get("/api/daraji/v1/incidents", cluster=self.lab.name)
        self.incidents = [row for row in rows if concerns(row, self.since)]
        for row in self.incidents:
            self.openings.setdefault(row["id"], now)
            first = row["causes"][0] if row["causes"] else {}
            said = (row["id"], first.get("name"), first.get("confidence"))
            if said != next((past[1:] for past in reversed(self.verdicts) if past[1] == row["id"]), None):
                self.verdicts.append((now, *said))

    def end(self):
        self.stop.set()
        self.thread.join(15)
        self.look()


def concerns(incident, since):
    """Whether an incident opened, or was opened again, after a time."""
    times = [incident["opened_at"], *(incident.get("reopened_at") or [])]
    return any(seconds_of(text) >= since - 1 for text in times)


def seconds_of(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def wait_calm(lab, server, boxes, progress):
    """Waits until lab and server are well, and nobody was written to for a while: what comes then belongs to the fault."""
    quiet = {"counts": None, "since": time.monotonic()}

    def calm():
        view = server.cluster() or {}
        if view.get("health") != "ok":
            raise Pending(f"health {view.get('health')}")
        going_on = [row["title"] for row in server.get("/api/daraji/v1/incidents", cluster=lab.name) if row["state"] != "settled"]
        if going_on:
            raise Pending(f"incident goes on: {going_on[0]}")
        alerts = firing(server)
        if alerts:
            raise Pending(f"firing: {', '.join(alerts)}")
        if boxes.counts() != quiet["counts"]:
            quiet.update(counts=boxes.counts(), since=time.monotonic())
        if time.monotonic() - quiet["since"] < QUIET_S:
            raise Pending("messages may still come")
        return True
    wait_for("calm", calm, CALM_S, progress, interval=1)


def choose(lab, role, number):
    """The member with that role, another one in each run where there are several."""
    if role != "replica":
        return faults.default_target(lab, role)
    leader = probe.require_leader(lab)
    replicas = [member for member in lab.members if member != leader]
    return replicas[number % len(replicas)]


def run(world, case, number, progress=None):
    """Runs one fault to its end and returns what was seen, as one flat record."""
    progress = progress or Progress()
    lab, server, boxes = world.lab, world.server, world.boxes
    wait_calm(lab, server, boxes, progress)
    if world.baseline:
        wait_for("the baseline's alerts to end", lambda: not world.baseline.firing(), CALM_S, progress, interval=2)
    member = choose(lab, case["member"], number)
    before = boxes.counts()
    progress.say(f"{case['fault']} on {member} ({case['member']}), run {number}")
    watch = Watch(lab, world, time.time())
    try:
        entry, healed_at, heal_error = break_and_heal(lab, case, member, watch)
        settle(lab, server, progress)
    finally:
        watch.end()
    started = watch.since
    events = [(at, event) for at, event in server.seen if at >= started and event["cluster"] == lab.name]
    seen = {"fault": case["fault"], "role": case["member"], "run": number, "member": entry["member"], "at": entry["time"],
            "did": entry["did"], "fault_s": round(healed_at - started, 1), "heal_error": heal_error}
    beside = {"baseline": watch.baseline.seen(started)} if watch.baseline else {}
    return {**seen, **detection(watch, world.witness, events, healed_at), **told(watch, boxes, before), **verdict(watch, case), **beside}


def break_and_heal(lab, case, member, watch):
    """(record of the fault, time of the heal, what went wrong with the heal). The watch learns when it began."""
    heal_error = None
    try:
        faults.inject(lab, case["fault"], member)
        entry = report.faults(lab)[-1]
        watch.since = seconds_of(entry["time"])
        time.sleep(max(0.0, watch.since + case.get("observe_s", OBSERVE_S) - time.time()))
    finally:
        healed_at = time.time()
        try:
            heal.heal(lab, HEAL_S, Progress(quiet=True))
        except LabError as error:
            heal_error = str(error)
    return entry, healed_at, heal_error


def settle(lab, server, progress):
    """Waits for the end of what the fault brought about; goes on without it after a while."""
    def settled():
        rows = server.get("/api/daraji/v1/incidents", cluster=lab.name)
        open_rows = [row for row in rows if row["state"] != "settled"]
        if open_rows or firing(server) or (server.cluster() or {}).get("health") != "ok":
            raise Pending("something goes on")
        return True
    try:
        wait_for("everything to settle", settled, SETTLE_S, progress, interval=1)
    except LabError as error:
        progress.say(str(error))
    time.sleep(LATE_S)  # what would come late and too much


def detection(watch, witness, events, healed_at):
    """When it could be seen, and when the server told it."""
    started = watch.since
    signs = [record for record in witness.records(started - 0.02) if record["at"] < healed_at]
    words = [(at, f"event {event['event']}") for at, event in events if at < healed_at]
    words += [(at, f"alert {name}") for name, at in watch.alerts.items() if started <= at < healed_at]
    words += [(at, "incident") for at in watch.openings.values() if started <= at < healed_at]
    first = min(words, default=None)
    sign = signs[0] if signs else None
    after = None if not first or not sign else first[0] - sign["at"]
    opened = min(watch.openings.values(), default=None)
    return {"detected_s": since(first and first[0], started), "detected_by": first and first[1],
            "sign_s": since(sign and sign["at"], started), "sign": sign and f"{sign['what']} {sign['member'] or ''}: {sign['value']}"[:120],
            "after_sign_s": None if after is None else round(after, 2), "opened_s": since(opened, started),
            "events": [event["event"] for _, event in events][:60],
            "signs": [f"{record['at'] - started:.2f} {record['what']} {record['member'] or ''}: {record['value']}"[:160] for record in signs[:8]]}


def since(at, started):
    return None if at is None else round(at - started, 2)


def told(watch, boxes, before):
    """Incidents and messages."""
    posts = boxes.webhooks()[before[0]:]
    firing_posts = [post for post in posts if post["status"] == "firing"]
    first = next((at for at, post in boxes.webhook_times()[before[0]:] if post["status"] == "firing"), None)
    names = sorted({alert["labels"]["alertname"] for post in posts for alert in post["alerts"]})
    # What tells of nothing but what was told before, such as a split brain that was found in it, is an update.
    known, openings = set(), 0
    for post in firing_posts:
        told_now = {alert["fingerprint"] for alert in post["alerts"] if alert["status"] == "firing"}
        openings += bool(told_now - known)
        known |= told_now
    # One that says no more than the alert that opened it is that alert.
    own = [row for row in watch.incidents if row.get("is_ha", True)]
    return {"incidents": len(watch.incidents), "ha_incidents": len(own), "alerts": sorted(watch.alerts), "told": names,
            "openings": openings, "updates": len(firing_posts) - openings, "closings": len(posts) - len(firing_posts), "mails": boxes.counts()[1] - before[1],
            "told_s": since(first, watch.since), "threads": len({post["groupKey"] for post in posts})}


def verdict(watch, case):
    """What was concluded, when, and how far from the truth."""
    accepted, started = case.get("cause", []), watch.since
    main = max(watch.incidents, key=lambda row: (row.get("is_ha", True), len(row["causes"]), row["opened_at"]), default=None)
    if not main:
        return {"causes": [], "rank": None, "confidence": None, "verdict": None, "named_s": None, "final_s": None, "ever_wrong": [],
                "after_evidence_s": None}
    names = [cause["name"] for cause in main["causes"]]
    rank = next((place for place, name in enumerate(names, 1) if name in accepted), None)
    history = [past for past in watch.verdicts if past[1] == main["id"]]
    final = (main["causes"][0]["name"], main["causes"][0]["confidence"]) if main["causes"] else (None, None)
    named = next((at for at, _, name, _ in history if name in accepted), None)
    last_change = next((at for at, _, name, confidence in reversed(history) if (name, confidence) == final), None)
    wrong = [f"{name} ({confidence}) at {at - started:.0f} s" for at, _, name, confidence in history
             if name and name not in accepted and confidence == "high"]
    evidence = [seconds_of(one["time"]) for one in main["causes"][0]["evidence"]] if main["causes"] else []
    last_seen = max((at for at in evidence if last_change and at <= last_change), default=None)
    return {"causes": [[cause["name"], cause["confidence"], cause.get("member"), round(cause["score"], 2)] for cause in main["causes"][:6]],
            "rank": rank, "confidence": final[1], "verdict": main.get("verdict"), "title": main["title"],
            "named_s": since(named, started), "final_s": since(last_change, started), "ever_wrong": wrong,
            "after_evidence_s": None if last_seen is None else round(last_change - last_seen, 1),
            "missing": main.get("missing", [])[:6], "outage_s": main.get("impact", {}).get("write_outage_seconds")}
