"""A lab with the server, load and receivers, and those who watch it: what tests of the whole run on."""

import os
import time

from . import down, model, up
from .base import Progress, wait_for
from .baseline import Baseline
from .observe import Mailboxes, Server, Witness, wait_ok

# The cause engine compares with what was usual before: give it a usual.
USUAL_S = 60


class World:
    """Builds it; `end` takes it down."""

    def __init__(self, options, progress, rules=None):
        """`options` are the arguments of the command line: name, port, server, fast. `rules` adds the baseline with them."""
        name, port = options.name, options.port
        wanted = {"members": 3, "dcs": "etcd", "load": True, "fast": options.fast, "port": port, "port_given": True,
                  "net": "namespaces", "server": os.path.abspath(options.server), "agents": True, "messages": True}
        if name in model.names():
            progress.say(f"removing the lab {name} of an earlier run")
            down.down_name(name, Progress(quiet=True))
        self.lab = up.up(name, wanted, Progress(quiet=True))
        progress.say(f"lab {name} is up: http://127.0.0.1:{port}/")
        self.server = Server(port)
        self.witness, self.boxes = Witness(self.lab, self.lab.dir, everything=True), Mailboxes(self.lab)
        wait_ok(self.server, 90)
        self.server.listen()
        wait_for("the event stream", lambda: self.server.views, 20)
        self.baseline = Baseline(self.lab, rules) if rules else None
        time.sleep(USUAL_S)

    def end(self):
        down.down(self.lab, Progress(quiet=True))
