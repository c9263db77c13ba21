"""Errors, progress, deadlines, and running programs.

Every wait in the lab goes through `wait_for` and every program through `run`: both end by a deadline.
"""

import os
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

HOME = Path(os.environ.get("DARAJI_LAB_HOME", "/opt/daraji-lab"))
STATE_ROOT = Path(os.environ.get("DARAJI_LAB_STATE", "/var/tmp/daraji-lab"))


class LabError(Exception):
    """Something that the user must know; shown without a traceback."""


class EndedAtOnce(LabError):
    """A program that ended as soon as it was started; the message has the end of its log."""


class NoEnd(LabError):
    """A program that did not end by its deadline."""


class Progress:
    """Lines on stderr with the seconds since the start."""

    def __init__(self, quiet=False):
        self.started = time.monotonic()
        self.quiet = quiet

    def elapsed(self):
        return time.monotonic() - self.started

    def say(self, text):
        if not self.quiet:
            print(f"[{self.elapsed():5.1f} s] {text}", file=sys.stderr, flush=True)


def now():
    """The time of day in UTC with milliseconds, as logs have it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wait_for(what, check, seconds, progress=None, interval=0.2):
    """Calls `check` until it returns something true, and returns that.

    `check` may raise `Pending` to say what it still waits for. After `seconds` this is an error that names it.
    A progress line appears every three seconds.
    """
    started = time.monotonic()
    told = started
    detail = ""
    while True:
        try:
            result = check()
            if result:
                return result
        except Pending as pending:
            detail = str(pending)
        elapsed = time.monotonic() - started
        if elapsed > seconds:
            raise LabError(f"gave up waiting for {what} after {seconds:.0f} s" + (f": {detail}" if detail else ""))
        if progress and time.monotonic() - told >= 3:
            told = time.monotonic()
            progress.say(f"waiting for {what}" + (f": {detail}" if detail else " ..."))
        time.sleep(interval)


class Pending(Exception):
    """Raised by a check of `wait_for`: not yet, and why."""


def run(argv, seconds=30, check=True, stdin=None, **options):
    """Runs a program to its end and returns (exit status, stdout, stderr)."""
    argv = [str(argument) for argument in argv]
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds,
            stdin=None if stdin is not None else subprocess.DEVNULL, **options)
    except subprocess.TimeoutExpired:
        raise NoEnd(f"{' '.join(argv)[:200]}: no end after {seconds} s") from None
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed: run tests/lab/install lab") from None
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise LabError(f"{' '.join(argv)[:200]}: exit status {done.returncode}: {said}")
    return done.returncode, done.stdout, done.stderr


def tail(path, lines=15):
    """The last lines of a text file, or a note that there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"({path}: {error.strerror})"
    return "\n".join(text.splitlines()[-lines:]) or f"({path} is empty)"
