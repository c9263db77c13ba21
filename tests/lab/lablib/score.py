"""Results of fault runs: kept over several sittings, held against the table of what is expected, and printed."""

import json
import statistics
import subprocess

from .base import HOME, LabError
from .model import write_file

OUTCOMES = ("incident", "alerts", "notice", "nothing")


def load_cases(path):
    """The table of expected outcomes. Patroni's environment has the YAML reader that this Python lacks."""
    script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)"
    done = subprocess.run([HOME / "patroni/bin/python", "-c", script, path], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{path} cannot be read: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)["faults"]


def problems_of(cases, fault_names, cause_names):
    """What is wrong with the table itself."""
    found = []
    for case in cases:
        where = f"{case.get('fault')} on {case.get('member')}"
        if case.get("fault") not in fault_names:
            found.append(f"{where}: there is no such fault")
        if case.get("expect") not in OUTCOMES:
            found.append(f"{where}: expect is none of {', '.join(OUTCOMES)}")
        if (case.get("expect") == "incident") != bool(case.get("cause")):
            found.append(f"{where}: an incident has causes, nothing else has")
        found += [f"{where}: there is no cause {name}" for name in case.get("cause", []) if name not in cause_names]
        unknown = set(case) - {"fault", "member", "expect", "cause", "observe_s", "needs"}
        if unknown:
            found.append(f"{where}: unknown keys {', '.join(sorted(unknown))}")
    found += [f"{name}: not in the table" for name in fault_names if name not in {case["fault"] for case in cases}]
    return found


class Results:
    """One line of JSON per run. A sitting that is cut short loses only the run that it was in."""

    def __init__(self, path):
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget_failures(self):
        """Takes runs that came to no result off the file: they are to be done again."""
        self.rows = [row for row in self.rows if not row.get("error")]
        if self.path.exists():
            write_file(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def has(self, case, number):
        return any((row["fault"], row["role"], row["run"]) == (case["fault"], case["member"], number) for row in self.rows)

    def add(self, row):
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, case):
        return [row for row in self.rows if (row["fault"], row["role"]) == (case["fault"], case["member"])]


def complaints(case, row):
    """What of a run is not as the table wants it."""
    if row.get("error"):
        return [row["error"][:100]]
    found = [f"heal: {row['heal_error'][:60]}"] if row.get("heal_error") else []
    if case["expect"] == "incident":
        if row["incidents"] != 1:
            found.append(f"{row['incidents']} incidents")
        elif row["rank"] != 1:
            first = row["causes"][0] if row["causes"] else None
            found.append(f"cause: {first[0]} ({first[1]})" if first else "cause: none")
        if row["openings"] != 1:
            found.append(f"{row['openings']} openings")
        if row.get("updates", 0) > 1:
            found.append(f"{row['updates']} updates")
    else:
        if row["ha_incidents"]:
            found.append(f"{row['ha_incidents']} incidents")
        if case["expect"] == "alerts" and not row["openings"]:
            found.append("no message")
        if case["expect"] in ("notice", "nothing") and row["openings"]:
            found.append(f"{row['openings']} messages")
        if case["expect"] == "notice" and not row["events"]:
            found.append("no event")
    return found


def is_confident_and_wrong(case, row):
    """The worst outcome: sure, and not so. Where no incident is expected, any sure cause is."""
    return bool(row.get("causes")) and row["causes"][0][1] == "high" and row["causes"][0][0] not in case.get("cause", [])


def span(values):
    """A number, or the smallest and largest."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    low, high = f"{min(known):.1f}", f"{max(known):.1f}"
    text = low if low == high else f"{low}..{high}"
    return text + ("" if len(known) == len(values) else f" ({len(known)}/{len(values)})")


def counts(values):
    return "/".join(str(value) for value in sorted(set(values)))


def table(cases, results):
    """Rows for people, then the summary."""
    rows = [("FAULT", "ON", "EXPECT", "RUNS", "DETECTED s", "AFTER SIGN s", "INCIDENTS", "MESSAGES", "RANK", "CONFIDENCE", "VERDICT", "HELD")]
    for case in cases:
        runs = results.of(case)
        done = [row for row in runs if not row.get("error")]
        if not runs:
            rows.append((case["fault"], case["member"], case["expect"], "0", *["-"] * 7, "not run"))
            continue
        skipped = [row for row in runs if row.get("left_out")]
        if skipped:
            rows.append((case["fault"], case["member"], case["expect"], "0", *["-"] * 7, f"left out: {skipped[0]['left_out']}"))
            continue
        verdicts = sorted({row["causes"][0][0] if row["causes"] else "none" for row in done if row["incidents"]}) if done else []
        said = [text for row in runs for text in complaints(case, row)]
        good = sum(not complaints(case, row) for row in runs)
        rows.append((
            case["fault"], case["member"], case["expect"], str(len(runs)), span([row["detected_s"] for row in done]),
            span([row["after_sign_s"] for row in done]), counts([row["incidents"] for row in done]),
            counts([row["openings"] for row in done]), counts([row["rank"] or "-" for row in done if row["incidents"]]) or "-",
            counts([row["confidence"] or "-" for row in done if row["incidents"]]) or "-", ", ".join(verdicts) or "-",
            f"{good}/{len(runs)}" + (f": {'; '.join(dict.fromkeys(said))}" if said else "")))
    return rows


def middle(values):
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.1f}" if known else "-"


def beside(cases, results):
    """The server and the baseline on the same faults in the same runs; no rows where the baseline never ran."""
    rows = []
    for case in cases:
        runs = [row for row in results.of(case) if row.get("baseline")]
        if not runs:
            continue
        theirs = [row["baseline"] for row in runs]
        named = sorted({row["causes"][0][0] for row in runs if row["causes"]})
        rows.append((case["fault"], case["member"], middle([row["detected_s"] for row in runs]), middle([row["told_s"] for row in runs]),
                     counts([row["openings"] for row in runs]), ", ".join(named) or "-",
                     middle([one["fired_s"] for one in theirs]), middle([one["told_s"] for one in theirs]),
                     counts([one["messages"] for one in theirs]), ", ".join(sorted({name for one in theirs for name in one["alerts"]})) or "-"))
    head = ("FAULT", "ON", "DETECTED", "TOLD", "MESSAGES", "CAUSE", "| FIRED", "TOLD", "MESSAGES", "ALERTS")
    return [head, *rows] if rows else []


def summary(cases, results):
    """The goals, and how far they are met."""
    pairs = [(case, row) for case in cases for row in results.of(case) if not row.get("error") and not row.get("left_out")]
    incidents = [(case, row) for case, row in pairs if case["expect"] == "incident"]
    calm = [(case, row) for case, row in pairs if case["expect"] != "incident"]
    errors = sum(bool(row.get("error")) for case in cases for row in results.of(case))
    lines = [f"runs: {len(pairs)}, as expected: {sum(not complaints(case, row) for case, row in pairs)}; runs that failed: {errors}"]
    if incidents:
        total = len(incidents)
        first = sum(row["rank"] == 1 for _, row in incidents)
        three = sum((row["rank"] or 99) <= 3 for _, row in incidents)
        lines += [f"true cause first: {first} of {total} ({100 * first / total:.0f} %; goal 95 %)",
                  f"true cause in the first three: {three} of {total} ({100 * three / total:.0f} %; goal 100 %)",
                  f"exactly one incident: {sum(row['incidents'] == 1 for _, row in incidents)} of {total}",
                  f"exactly one opening message: {sum(row['openings'] == 1 for _, row in incidents)} of {total}, "
                  f"updates of it: {sum(row.get('updates', 0) for _, row in incidents)}"]
    wrong = [(case, row) for case, row in pairs if is_confident_and_wrong(case, row)]
    lines.append(f"confident and wrong: {len(wrong)} (goal 0)" + "".join(
        f"\n  {row['fault']} on {row['role']}, run {row['run']}: {row['causes'][0][0]}" for _, row in wrong))
    ever = [row for _, row in pairs if row.get("ever_wrong")]
    lines.append(f"confident and wrong for a while: {len(ever)}" + "".join(
        f"\n  {row['fault']} on {row['role']}, run {row['run']}: {', '.join(row['ever_wrong'])}" for row in ever))
    if calm:
        lines.append(f"faults that are no incident: {sum(not row['ha_incidents'] for _, row in calm)} of {len(calm)} opened none")
    finals = [row["after_evidence_s"] for _, row in incidents if row.get("after_evidence_s") is not None]
    if finals:
        lines.append(f"verdict final after the last evidence before it: median {statistics.median(finals):.1f} s, largest {max(finals):.1f} s "
                     f"({sum(delay <= 10 for delay in finals)} of {len(finals)} within 10 s)")
    delays = [row["after_sign_s"] for _, row in pairs if row["after_sign_s"] is not None]
    if delays:
        lines.append(f"first sign to first word: median {statistics.median(delays):.1f} s, largest {max(delays):.1f} s "
                     f"({sum(delay <= 4 for delay in delays)} of {len(delays)} within 4 s)")
    return lines
