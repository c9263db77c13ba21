"""receivers.py WEBHOOK_PORT DIR SMTP_PORT DIR: keeps every webhook and mail as a file, in order of arrival."""

import email
import email.policy
import itertools
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller


def main():
    webhook_port, webhooks, smtp_port, mails = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    hook_numbers, mail_numbers = itertools.count(1), itertools.count(1)

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            name = webhooks / f"{next(hook_numbers):04}"
            name.with_suffix(".part").write_bytes(body)
            name.with_suffix(".part").rename(name.with_suffix(".json"))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    class Mail:
        async def handle_DATA(self, server, session, envelope):
            name = mails / f"{next(mail_numbers):04}"
            name.with_suffix(".eml").write_bytes(envelope.content)
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            name.with_suffix(".subject").write_text(f"{message['Subject']}\n")
            return "250 kept"

    Controller(Mail(), hostname="127.0.0.1", port=smtp_port).start()
    threading.Thread(target=HTTPServer(("127.0.0.1", webhook_port), Hook).serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
