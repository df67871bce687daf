"""The control plane's application, served on loopback for as long as a test needs it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address at which `app` answers."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    # Only of a socket whose protocol is named does asyncio send small answers at once.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    host, port = listening.getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
