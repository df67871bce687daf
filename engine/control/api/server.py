"""The control plane of a daemon: its application on a socket, in a thread of its own."""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from engine.catalog.database import Catalog
from engine.config.file import Api, Config
from engine.control import from_config, to_flow
from engine.control.api.app import app_of
from engine.control.api.guard import NAME, AuthMiddleware, token_of
from engine.control.api.plane import AppState
from engine.control.api.wire import BACKLOG, Listener, allowed_with, config_of, raise_file_limit
from engine.control.secrets import secret_store_of
from engine.errors import InputError
from engine.sync.run_records import withdraw

STOP = 3  # seconds that answers under way may take, once the daemon is asked to end


class Server:
    """Listens from the first moment on, and answers once it is started."""

    def __init__(
        self,
        home: Path,
        api: Api,
        environ: Mapping[str, str],
        now: Callable[[], int],
        changed: Callable[[], None],
        unready: Callable[[], Sequence[str]],
    ) -> None:
        """InputError where the address cannot be had, or a secret is none."""
        vault = secret_store_of(home, api.key)
        self.token_file = None if api.token else home / NAME
        self._socket = _listening(api.host, api.port)
        catalog = Catalog(home)
        self._plane = AppState(
            home, catalog, vault, api.datasets, environ, now, changed, unready,
            hosts=set(api.mixpanel_hosts),
        )  # fmt: skip
        token = api.token or token_of(home)
        self._guard = AuthMiddleware(app_of(self._plane), token, _names(api), api.url)
        allowed = allowed_with(raise_file_limit())
        self._server = Listener(config_of(self._guard, allowed, STOP))
        # Signals are the daemon's: uvicorn takes them in the main thread only.
        self._thread = threading.Thread(
            target=self._server.run, args=[[self._socket]], name="api", daemon=True
        )

    @property
    def address(self) -> str:
        """The URL that it answers under."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{_shown(host)}:{port}"

    def follow(self, config: Config, origin: str) -> None:
        """Let in who a configuration says, and show its flows as resources of that origin."""
        api, plane = config.api or Api(), self._plane
        self._guard.admit(api.token or token_of(plane.home), _names(api), api.url)
        plane.files.add(origin)
        plane.hosts.update(api.mixpanel_hosts)
        plane.hosts.intersection_update(api.mixpanel_hosts)
        from_config.apply(config, plane.resources, plane.vault, plane.now(), origin)

    def asked(self, running: AbstractSet[str]) -> set[str]:
        """Those of the flows that run of which a run was asked for.

        What was asked for of one that is not there any more is withdrawn: no turn will take it.
        """
        plane = self._plane
        asked = plane.catalog.scheduled_flows()
        if gone := asked - running:
            gone -= {to_flow.name_of(each) for each in plane.resources.all("flows")}
        for name in gone:
            withdraw(plane.catalog, name, plane.now(), "Its flow was deleted.")
        return asked & running

    def start(self) -> None:
        """Answer, from a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests; those under way have STOP seconds. Returns at once."""
        self._server.should_exit = True

    def join(self, seconds: float) -> None:
        """Wait for the last answer. A thread that gives none, or still waits to write, ends with
        the program, as at a kill: every change is one transaction.
        """
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._plane.catalog.close(0)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Told its protocol, asyncio sends answers at once: without, each waits 40 ms for the client.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(
            f"The control plane cannot listen on {_shown(host)}:{port} ({error.strerror}). Give "
            "`listen` in the table [api] another address, or end what holds this one."
        ) from error
    return listening


def _names(api: Api) -> tuple[str, ...]:
    return api.host, *api.hosts


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
