"""The application on a socket, in a thread of the daemon. The only importer of uvicorn."""

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from engine.config import Api
from engine.errors import InputError

STOP = 3  # seconds that answers under way may take, once the daemon is asked to end


class Server:
    """Listens from the first moment on, and answers once it is started."""

    def __init__(self, api: Api) -> None:
        """InputError where the address cannot be had."""
        self._socket = _listening(api.host, api.port)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The URL that it answers under."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self, app: ASGIApp) -> None:
        """Answer, from a thread of its own. Signals stay the daemon's."""
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, loop="asyncio", http="h11", ws="none", lifespan="off", interface="asgi3",
                log_config=None, log_level="critical", access_log=False,
                proxy_headers=False, server_header=False, timeout_graceful_shutdown=STOP,
            )
        )  # fmt: skip
        self._thread = threading.Thread(
            target=self._server.run, args=[[self._socket]], name="api", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests; those under way have STOP seconds. Returns at once."""
        if self._server:
            self._server.should_exit = True

    def join(self, seconds: float) -> None:
        """Wait for the last answer."""
        if self._thread:
            self._thread.join(seconds)
        self._socket.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise InputError(
            f"The control plane cannot listen on {shown} ({error.strerror}). Give api.listen in "
            "the configuration another address, or end what holds this one."
        ) from error
    return listening
