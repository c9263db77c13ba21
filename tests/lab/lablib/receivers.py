"""receivers.py ADDRESS WEBHOOK_PORT SMTP_PORT DIR: keeps every webhook and mail as a file, in order of arrival.

Each is also a line of DIR/list: time, kind, what it says, file.
"""

import email
import email.policy
import itertools
import json
import sys
import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller


def main():
    address, webhook_port, smtp_port, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    numbers = {"webhook": itertools.count(1), "mail": itertools.count(1)}
    lock = threading.Lock()

    def keep(kind, suffix, content, says):
        with lock:
            path = directory / f"{kind}-{next(numbers[kind]):04}{suffix}"
            part = path.with_suffix(".part")
            part.write_bytes(content)
            part.rename(path)
            with open(directory / "list", "a", encoding="utf-8") as listed:
                print(f"{datetime.now(timezone.utc):%H:%M:%S}  {kind:7}  {says}  ({path})", file=listed)

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = json.loads(body)
            says = content.get("commonAnnotations", {}).get("summary") or content.get("groupKey")
            keep("webhook", ".json", body, f"{content.get('status')}: {says}")
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Mail:
        async def handle_DATA(self, server, session, envelope):
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            keep("mail", ".eml", envelope.content, message["Subject"])
            return "250 kept"

    Controller(Mail(), hostname=address, port=smtp_port).start()
    threading.Thread(target=HTTPServer((address, webhook_port), Hook).serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
