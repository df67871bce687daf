"""The API server of a daemon: the application on a socket, in a thread."""

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from engine.catalog.database import Catalog
from engine.config.file import Api, Config
from engine.control import from_config, to_flow
from engine.control.api.app import app_of
from engine.control.api.app_state import AppState
from engine.control.api.auth import FILE_NAME, AuthMiddleware, token_of
from engine.control.api.connection_limits import (
    BACKLOG,
    Listener,
    config_of,
    limits_for,
    raise_file_limit,
)
from engine.control.secrets import secret_store_of
from engine.errors import InputError
from engine.sync.run_records import withdraw

STOP = 3  # seconds that responses under way may take after a stop


class Server:
    """Listens from its creation on, and answers after `start`."""

    def __init__(
        self,
        home: Path,
        api: Api,
        environ: Mapping[str, str],
        now: Callable[[], int],
        changed: Callable[[], None],
        unready: Callable[[], Sequence[str]],
    ) -> None:
        """Open the socket and the catalog.

        InputError for an address that cannot be used, or an invalid secret.
        """
        secret_store = secret_store_of(home, api.key)
        self.token_file = None if api.token else home / FILE_NAME
        self._socket = _listening(api.host, api.port)
        catalog = Catalog(home)
        self.state = AppState(
            home, catalog, secret_store, api.datasets, environ, now, changed, unready,
            hosts=set(api.mixpanel_hosts),
        )  # fmt: skip
        token = api.token or token_of(home)
        self._auth = AuthMiddleware(app_of(self.state), token, (api.host, *api.hosts), api.url)
        limits = limits_for(raise_file_limit())
        self._server = Listener(config_of(self._auth, limits, STOP))
        # Signals are the daemon's: uvicorn takes them in the main thread only.
        self._thread = threading.Thread(
            target=self._server.run, args=[[self._socket]], name="api", daemon=True
        )

    @property
    def address(self) -> str:
        """Return the URL of the server."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{_shown(host)}:{port}"

    def follow(self, config: Config, origin: str) -> None:
        """Apply a configuration: its token, hosts and flows, as resources of `origin`."""
        api, state = config.api or Api(), self.state
        self._auth.configure(api.token or token_of(state.home), (api.host, *api.hosts), api.url)
        state.files.add(origin)
        state.hosts.update(api.mixpanel_hosts)
        state.hosts.intersection_update(api.mixpanel_hosts)
        from_config.apply(config, state.resources, state.secret_store, state.now(), origin)

    def requested_flows(self, running: AbstractSet[str]) -> set[str]:
        """Return the running flows with a requested run; withdraw those of deleted flows."""
        state = self.state
        requested = state.catalog.scheduled_flows()
        if deleted := requested - running:
            deleted -= {to_flow.name_of(each) for each in state.resources.all("flows")}
        for name in deleted:
            withdraw(state.catalog, name, state.now(), "Its flow was deleted.")
        return requested & running

    def start(self) -> None:
        """Start to answer, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more requests; those under way have STOP seconds. Return at once."""
        self._server.should_exit = True

    def join(self, seconds: float) -> None:
        """Wait for the last response.

        A thread that hangs, or still waits to write, ends with the program, as at a kill: every
        change is one transaction.
        """
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self.state.catalog.close(0)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With IPPROTO_TCP asyncio turns Nagle's algorithm off: else each response waits 40 ms.
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


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
