"""Forwards a port of the machine's loopback into a namespace: forward.py LISTEN_ADDRESS PORT NETNS ADDRESS PORT.

A socket belongs to the namespace in which it was made. So this listens first, then moves into the namespace for good,
and every connection that it makes starts there.
"""

import asyncio
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lablib import net  # noqa: E402  (the path must be set first)

MAX_CONNECTIONS = 200
CONNECT_TIMEOUT = 5
CHUNK = 64 * 1024


async def pump(reader, writer):
    """Copies one direction until its end, then closes that direction only."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


async def serve(listen_address, listen_port, netns, address, port):
    slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def connection(reader, writer):
        async with slots:
            try:
                far = asyncio.open_connection(address, port)
                far_reader, far_writer = await asyncio.wait_for(far, CONNECT_TIMEOUT)
            except (OSError, asyncio.TimeoutError):
                writer.close()
                return
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            for end in (writer, far_writer):
                end.close()

    server = await asyncio.start_server(connection, listen_address, listen_port)
    net.enter(netns)
    async with server:
        await server.serve_forever()


def main():
    listen_address, listen_port, netns, address, port = sys.argv[1:]
    asyncio.run(serve(listen_address, int(listen_port), netns, address, int(port)))


if __name__ == "__main__":
    main()
