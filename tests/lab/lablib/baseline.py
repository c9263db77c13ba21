"""What most people have: Prometheus with the usual exporters and rules, beside the server under test.

It runs on the monitor's host of the same lab: Prometheus asks every 15 s, Alertmanager writes to a webhook of its own.
"""

import json
import time
from pathlib import Path

from . import probe, proc, settings
from .base import HOME, LabError, wait_for
from .model import ETCD_PORT, HAPROXY_METRICS_PORT, MONITOR, PATRONI_PORT, POSTGRES_PORT, write_file
from .up import own_mounts

PROMETHEUS_PORT = 9090
ALERTMANAGER_PORT = 9093
NODE_PORT = 9100
EXPORTER_PORT = 9187  # of n1 on the monitor's host, then one up per member
WEBHOOK_PORT = 9912
SMTP_PORT = 9926
PROGRAMS = ("prometheus", "alertmanager", "postgres_exporter", "node_exporter")
INTERVAL = "15s"


class Baseline:
    """Starts it on a lab; the lab's `down` ends it."""

    def __init__(self, lab, rules):
        missing = [name for name in PROGRAMS if not (HOME / "bin" / name).exists()]
        if missing:
            raise LabError(f"not installed: {', '.join(missing)}; run tests/lab/install tests")
        self.lab = lab
        self.folder = lab.host_dir(MONITOR) / "baseline"
        self.messages = self.folder / "messages"
        self.messages.mkdir(parents=True)
        self.url = f"http://{lab.address(MONITOR)}:{PROMETHEUS_PORT}"
        write_file(self.folder / "rules.yml", Path(rules).read_text())
        write_file(self.folder / "prometheus.yml", json.dumps(self._prometheus(), indent=1) + "\n")
        write_file(self.folder / "alertmanager.yml", json.dumps(self._alertmanager(), indent=1) + "\n")
        self._start()
        wait_for("Prometheus to see all targets", self._all_up, 60)

    def _start(self):
        lab, address = self.lab, self.lab.address(MONITOR)
        password = settings.passwords(lab)["daraji"]
        for number, member in enumerate(lab.members):
            source = f"postgresql://daraji:{password}@{lab.address(member)}:{POSTGRES_PORT}/postgres?sslmode=disable&connect_timeout=5"
            proc.start(lab, MONITOR, f"postgres_exporter-{member}",
                       [HOME / "bin/postgres_exporter", f"--web.listen-address={address}:{EXPORTER_PORT + number}"],
                       user="root", env={"DATA_SOURCE_NAME": source})
            proc.start(lab, member, "node_exporter", [*own_mounts(lab, member), HOME / "bin/node_exporter",
                       f"--web.listen-address={lab.address(member)}:{NODE_PORT}"], user="root")
        script = Path(__file__).with_name("receivers.py")
        proc.start(lab, MONITOR, "baseline-receivers", [HOME / "tools/bin/python", script, address, WEBHOOK_PORT, SMTP_PORT, self.messages],
                   user="root")
        proc.start(lab, MONITOR, "alertmanager", [
            HOME / "bin/alertmanager", f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/alertmanager",
            f"--web.listen-address={address}:{ALERTMANAGER_PORT}", "--cluster.listen-address="], user="root")
        proc.start(lab, MONITOR, "prometheus", [
            HOME / "bin/prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={address}:{PROMETHEUS_PORT}"], user="root")

    def _prometheus(self):
        lab, monitor = self.lab, self.lab.address(MONITOR)

        def job(name, targets):
            return {"job_name": name, "static_configs": [{"targets": targets}]}
        return {
            "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": ["rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{monitor}:{ALERTMANAGER_PORT}"]}]}]},
            "scrape_configs": [
                job("patroni", [f"{lab.address(member)}:{PATRONI_PORT}" for member in lab.members]),
                job("etcd", [f"{lab.address(member)}:{ETCD_PORT}" for member in lab.members]),
                job("postgres", [f"{monitor}:{EXPORTER_PORT + number}" for number in range(len(lab.members))]),
                job("node", [f"{lab.address(member)}:{NODE_PORT}" for member in lab.members]),
                job("haproxy", [f"{monitor}:{HAPROXY_METRICS_PORT}"]),
            ],
        }

    def _alertmanager(self):
        hook = {"url": f"http://{self.lab.address(MONITOR)}:{WEBHOOK_PORT}/", "send_resolved": True}
        return {"route": {"receiver": "oncall", "group_by": ["alertname"], "group_wait": "30s", "group_interval": "5m"},
                "receivers": [{"name": "oncall", "webhook_configs": [hook]}]}

    def _all_up(self):
        answer = probe.http_json(self.lab, f"{self.url}/api/v1/targets?state=active")
        targets = answer["data"]["activeTargets"] if answer else []
        return targets and all(target["health"] == "up" for target in targets)

    def firing(self):
        """Names of the alerts that fire now."""
        answer = probe.http_json(self.lab, f"{self.url}/api/v1/alerts")
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"} if answer else set()

    def posts(self):
        """(time, names of the alerts, firing or resolved) of each message to the one on call."""
        found = []
        for path in sorted(self.messages.glob("webhook-*.json")):
            post = json.loads(path.read_text())
            found.append((path.stat().st_mtime, sorted({alert["labels"]["alertname"] for alert in post["alerts"]}), post["status"]))
        return found


class BaselineWatch:
    """What it says while a fault goes on."""

    def __init__(self, baseline):
        self.baseline, self.alerts, self.before = baseline, {}, baseline.firing()

    def look(self):
        for name in self.baseline.firing() - self.before:
            self.alerts.setdefault(name, time.time())

    def seen(self, started):
        posts = [post for post in self.baseline.posts() if post[0] >= started]
        first = min(self.alerts.values(), default=None)
        told = min((at for at, _, status in posts if status == "firing"), default=None)
        return {"fired_s": None if first is None else round(first - started, 1), "told_s": None if told is None else round(told - started, 1),
                "alerts": sorted(self.alerts), "messages": sum(status == "firing" for _, _, status in posts)}
