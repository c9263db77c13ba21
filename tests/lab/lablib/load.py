"""Light load that never gives up: pgbench at a fixed rate, started again when its connection breaks.

Runs as a process of its own: load.py PGBENCH RATE, with libpq's environment. Its output is pgbench's.
"""

import subprocess
import sys
import time
from datetime import datetime, timezone


def main():
    program, rate = sys.argv[1], sys.argv[2]
    # Prepared statements do not work through PgBouncer's transaction pooling: simple protocol (the default).
    command = [program, "--no-vacuum", "--client=2", "--jobs=1", f"--rate={rate}", "--time=86400", "--progress=10"]
    while True:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        print(f"{datetime.now(timezone.utc).isoformat(timespec='milliseconds')} pgbench ended with status {status}, "
              "again in 1 s", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
