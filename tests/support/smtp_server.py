"""A mail server for tests: STARTTLS and a login are required, what arrives is written to a directory.

usage: smtp_server.py DIR PORT CERT KEY        prints the port it listens on

The address decides what happens to a recipient: refused@ gets 550, busy@ gets 451 the first time.
The login is daraji / s3cret.
"""

import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

DIRECTORY = pathlib.Path(sys.argv[1])


class Handler:
    def __init__(self):
        self.count = 0
        self.was_busy = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 5.1.1 no such user"
        if address.startswith("busy@") and address not in self.was_busy:
            self.was_busy.add(address)
            return "451 4.3.0 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        head = f"X-Test-To: {','.join(envelope.rcpt_tos)}\r\nX-Test-From: {envelope.mail_from}\r\n"
        head += f"X-Test-Tls: {session.ssl is not None}\r\nX-Test-Login: {session.auth_data}\r\n"
        part = DIRECTORY / f"{self.count:04}.part"
        part.write_bytes(head.encode() + envelope.original_content)
        part.rename(DIRECTORY / f"{self.count:04}.eml")
        return "250 accepted"


def authenticate(server, session, envelope, mechanism, data):
    good = data.login == b"daraji" and data.password == b"s3cret"
    return AuthResult(success=good, handled=False, auth_data=data.login.decode(errors="replace"))


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    handler = Handler()

    def factory():
        return SMTP(
            handler,
            hostname="mail.test",
            tls_context=context,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
        )

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", int(sys.argv[2]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
