"""The process that serves HTTP: ``python -m p2premap.web``, told what it is by its first line of input.

It lives as long as its standard input is open, which is as long as the daemon does; and where it was not told to stay,
until nobody has used it for an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from typing import Final

import msgspec

from p2premap.node.processes import set_name
from p2premap.node.webtold import WebReady, WebSettings

UNUSED_S: Final = 3600.0
LOOK_S: Final = 10.0
BYE_S: Final = 0.15
END_S: Final = 0.5
NICE: Final = 5
"""Gossip and work come first."""


def main() -> int:
    """Serve until told to end; the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=WebSettings)
    set_name(b"p2premap-web")
    return asyncio.run(_serve(settings))


async def _serve(settings: WebSettings) -> int:
    from p2premap.web.app import Site  # with Starlette

    try:
        site = Site(settings)
    except OSError as error:
        _say(WebReady(error=f"no port from {settings.port} on is free ({error.strerror})."))
        return 0
    gc.collect()
    gc.freeze()
    running = asyncio.create_task(site.run())
    _say(WebReady(origins=site.origins, port=site.port))
    with contextlib.suppress(OSError):
        os.nice(NICE)  # only now: somebody waits for the start
    eof, unused = asyncio.create_task(_end_of_input()), asyncio.create_task(_unused(site, settings))
    await asyncio.wait((running, eof, unused), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
        return 1
    site.web.hub.bye()
    await asyncio.sleep(BYE_S)
    site.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await asyncio.wait((running,))
    os._exit(0)  # whoever is still connected would be waited for


async def _end_of_input() -> None:
    """Until the daemon has gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass


async def _unused(site: object, settings: WebSettings) -> None:
    from p2premap.web.app import Site

    assert isinstance(site, Site)
    while True:
        await asyncio.sleep(LOOK_S)
        if not (settings.stays or site.web.hub.followers) and time.monotonic() - site.last_used > UNUSED_S:
            return


def _say(ready: WebReady) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
