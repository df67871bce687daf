"""The control plane in the daemon: the table [api] opens it, and the token lets clients in."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from textwrap import dedent
from time import perf_counter

import httpx
import pytest

from engine.catalog.database import Catalog
from engine.catalog.resources import Resource, Resources, new
from engine.config.file import Api, load
from engine.control.api import server
from engine.control.api.app import FLOWSERVICE
from engine.control.api.server import Server
from engine.model import clock
from engine.model.flow import Run, Secret, flow_id
from engine.model.window import Window
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from engine.sync.run_records import scheduled
from tests.support.api_client import CONNECTIONS, MIXPANEL, problem
from tests.support.commands import here, put
from tests.support.daemons import Trial, alive_below, clock_of, stop, until

ROOT = Path(__file__).parents[2]
HOUR = 3_600_000
SPEC = Spec(shape="small", events_per_day=200)
API = '[api]\nlisten = "127.0.0.1:0"\n'
ENVIRON = {"TRIAL_USERNAME": USERNAME, "TRIAL_PASSWORD": PASSWORD}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


@pytest.fixture
def tried(sandbox: Sandbox, tmp_path: Path) -> Trial:
    """A trial whose daemon has a control plane and no flow in its file."""
    clock = clock_of(3600)
    sandbox.project.now = clock.now
    tried = Trial(tmp_path, sandbox, clock)
    tried.config.write_text(f'home = "{tried.home}"\n{API}')
    return tried


def other_file(tried: Trial, *names: str, more: str = "") -> Path:
    """A file beside the daemon's own, with these flows."""
    own = tried.config.read_text()
    tried.write(*names, more=more)
    path = tried.folder / "other.toml"
    path.write_text(tried.config.read_text())
    tried.config.write_text(own)
    return path


Apply = Callable[[Path], tuple[list[str], str]]


@pytest.fixture
def apply(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Apply:
    """What `mixpanel-etl apply` prints on stdout and on stderr."""
    put(ENVIRON, monkeypatch)

    def apply(path: Path) -> tuple[list[str], str]:
        said = here(capsys)("apply", str(path))
        assert said.status == 0, said.err
        return said.out.splitlines(), said.err

    return apply


@contextmanager
def client_of(tried: Trial) -> Iterator[httpx.Client]:
    """A client of the daemon that runs."""
    until(lambda: tried.lines("started"))
    token = (tried.home / "api.token").read_text()
    address = tried.lines("listening")[-1]["address"]
    with httpx.Client(base_url=address, headers={"x-api-key": token}) as client:
        yield client


def kept(tried: Trial, kind: str) -> list[Resource]:
    with Catalog(tried.home) as catalog:
        return Resources(catalog).all(kind)


def test_the_api_needs_the_token(tried: Trial) -> None:
    """The API answers while the daemon runs, to clients with the token, which no log shows (P7)."""
    with tried.daemon() as process:
        with client_of(tried) as client:
            assert client.get("/openapi.json").status_code == 200
            assert client.get("/openapi.json", headers={"x-api-key": "no"}).status_code == 401
            assert client.get("/openapi.json", headers={"Host": "evil"}).status_code == 403
            assert "server" not in client.get("/openapi.json").headers
        stop(process)
        with pytest.raises(httpx.ConnectError):
            httpx.get(str(client.base_url))
    path = tried.home / "api.token"
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = tried.lines("listening")
    assert line["token_file"] == str(path)
    assert path.read_text() not in tried.log.read_text()
    statuses = {line["event"] for line in tried.lines()}
    assert statuses == {"listening", "started", "stopping", "stopped"}


def test_a_port_in_use(tried: Trial) -> None:
    """A port in use is an error of one line with exit status 2, before anything is created."""
    with tried.daemon(), client_of(tried) as client:
        port = client.base_url.port
        tried.home.rename(tried.folder / "first")
        tried.config.write_text(f'home = "{tried.home}"\n[api]\nlisten = "127.0.0.1:{port}"\n')
        done = subprocess.run(
            [sys.executable, "-m", "engine", "daemon", "--config", str(tried.config)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=tried.folder, capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: The control plane cannot listen on 127.0.0.1:{port} (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("api", "loaded"), [("", []), (API, ["cryptography", "fastapi", "sqlite3", "uvicorn"])]
)
def test_an_idle_daemon_imports_little(tmp_path: Path, api: str, loaded: list[str]) -> None:
    """An idle daemon imports no module that pulls and, without [api], none of the API."""
    heavy = ["cryptography", "fastapi", "httpx", "pyarrow", "deltalake", "sqlite3", "uvicorn"]
    config = tmp_path / "etl.toml"
    config.write_text(
        f'home = "{tmp_path}/home"\n{api}'
        "[connections.shop]\nusername = { env = 'WHO' }\npassword = { env = 'WHO' }\n"
        "project_id = 1\n[flows.events]\nconnection = 'shop'\n"
        f"dataset = '{tmp_path}/data'\n"
    )
    script = f"""
        import sys
        from pathlib import Path
        from contextlib import nullcontext
        from signal import SIGTERM
        from types import SimpleNamespace
        from engine.daemon.daemon import Daemon
        signals = nullcontext(SimpleNamespace(wait=lambda seconds: SIGTERM))
        config = Path({str(config)!r})
        assert Daemon(config, {{"WHO": "x"}}, signals=lambda: signals).run() == 0
        print([name for name in {sorted(heavy)!r} if name in sys.modules])
        """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=30,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == str(loaded)


def test_a_hanging_request_does_not_delay_the_stop(tmp_path: Path) -> None:
    """P8: the daemon ends although a request hangs in a thread."""
    config = tmp_path / "etl.toml"
    config.write_text(f'home = "{tmp_path}/home"\n{API}')
    script = f"""
        import os, threading, urllib.request
        from contextlib import nullcontext
        from pathlib import Path
        from signal import SIGTERM
        from types import SimpleNamespace
        from engine.control.api import server
        from engine.daemon.daemon import Daemon

        reached, app_of, servers = threading.Event(), server.app_of, []

        def hang():
            reached.set()
            threading.Event().wait(60)

        def with_one_that_hangs(state):
            app = app_of(state)
            app.get("/hang")(hang)
            return app

        class Known(server.Server):
            def start(self):
                servers.append(self)
                super().start()

        def stop_while_it_hangs(seconds):
            token = (Path({str(tmp_path)!r}) / "home" / "api.token").read_text()
            address, headers = servers[0].address + "/hang", {{"x-api-key": token}}
            asked = urllib.request.Request(address, headers=headers)
            threading.Thread(target=urllib.request.urlopen, args=[asked], daemon=True).start()
            assert reached.wait(10)
            return SIGTERM

        server.app_of, server.Server = with_one_that_hangs, Known
        signals = nullcontext(SimpleNamespace(wait=stop_while_it_hangs))
        config = Path({str(config)!r})
        Daemon(config, os.environ, signals=lambda: signals, grace=0.5).run()
        """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0
    assert "stopped" in done.stdout + done.stderr


def is_writing(catalog: Catalog) -> bool:
    """Return whether a thread of the catalog writes, or waits to write."""
    if catalog._lock.acquire(blocking=False):
        catalog._lock.release()
        return False
    return True


def test_a_locked_catalog_delays_changes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: while another process locks the catalog, reads are answered, a stop ends in time, and a
    waiting change is answered with a 503.
    """
    monkeypatch.setattr(server, "STOP", 0.1)
    api = Api(port=0, token=Secret("a-token"))
    served = server.Server(tmp_path, api, {}, clock.now, lambda: None, tuple)
    catalog = served.state.catalog
    served.start()
    client = httpx.Client(base_url=served.address, headers={"x-api-key": "a-token"}, timeout=20)
    params = {"username": USERNAME, "password": PASSWORD}
    auth = {"specName": "Basic Authentication", "params": params}
    body = {"name": "shop", "connectionSpec": {"id": MIXPANEL, "version": "1.0"}, "auth": auth}
    with (
        client,
        closing(sqlite3.connect(catalog.path, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        asked = pool.submit(client.post, CONNECTIONS, json=body)
        until(lambda: is_writing(catalog), 5)
        started = perf_counter()
        for path in (CONNECTIONS, "/readyz"):
            assert client.get(path).status_code == 200
        served.stop()
        served.join(5)
        assert perf_counter() - started < 4
        assert "stops" in problem(asked.result(), "1400-503")
        other.execute("ROLLBACK")
    catalog.close()


def test_sighup_replaces_token_and_url(tried: Trial) -> None:
    """SIGHUP replaces the token and the URL; a change of `listen` or of `datasets` is refused."""
    path = tried.folder / "token"
    path.write_text("the-first-token-of-all\n")
    own = f'home = "{tried.home}"\n{API}'
    with_token = f'{own}token = {{ file = "{path}" }}\n'
    tried.config.write_text(with_token)
    with tried.daemon() as process:
        until(lambda: tried.lines("started"))
        (line,) = tried.lines("listening")
        assert "token_file" not in line
        assert not (tried.home / "api.token").exists()

        def status(token: str) -> int:
            answer = httpx.get(f"{line['address']}/openapi.json", headers={"x-api-key": token})
            return answer.status_code

        assert status("the-first-token-of-all") == 200
        path.write_text("the-second-token-of-all\n")
        assert status("the-second-token-of-all") == 401
        process.send_signal(signal.SIGHUP)
        until(lambda: status("the-second-token-of-all") == 200)
        assert status("the-first-token-of-all") == 401
        named = {"x-api-key": "the-second-token-of-all", "Host": "etl.example.org"}
        assert httpx.get(f"{line['address']}/readyz", headers=named).status_code == 403
        tried.config.write_text(f'{with_token}url = "https://etl.example.org"\n')
        process.send_signal(signal.SIGHUP)
        until(lambda: httpx.get(f"{line['address']}/readyz", headers=named).status_code == 200)
        for text in (own.replace(":0", ":1"), own + 'datasets = "elsewhere"\n'):
            before = len(tried.lines("configuration refused, the old one stays"))
            tried.config.write_text(text)
            process.send_signal(signal.SIGHUP)
            until(lambda: len(tried.lines("configuration refused, the old one stays")) > before)  # noqa: B023
        assert "api: cannot change" in tried.lines()[-1]["error"]
        assert status("the-second-token-of-all") == 200
        stop(process)


# What runs -------------------------------------------------------------------------------


def test_applied_flows_run_until_they_are_removed(tried: Trial, apply: Apply) -> None:
    """A daemon runs the flows that `apply` copies from another file until the file lacks them."""
    with tried.daemon() as process:
        until(lambda: tried.lines("started"))
        path = other_file(tried, "events", "second")
        lines, hint = apply(path)
        assert f"made flows {flow_id('events')}" in lines
        assert f"process {process.pid}, follows" in hint
        until(lambda: tried.reached() and tried.reached("second"))
        assert apply(path) == ([], "Nothing changed.\n")
        other_file(tried, "second")
        lines, _ = apply(path)
        assert f"removed flows {flow_id('events')}" in lines
        until(lambda: tried.lines("configuration read")[-1]["flows"] == 1)
        until(lambda: not alive_below(process))
        before, there = tried.reached(), tried.reached("second")
        until(lambda: tried.reached("second") > there + HOUR)
        assert tried.reached() == before
        stop(process)
    assert PASSWORD not in tried.log.read_text()
    assert PASSWORD.encode() not in (tried.home / "catalog.sqlite3").read_bytes()


def test_flows_of_its_own_file_run_once(tried: Trial) -> None:
    """The daemon runs the flows of its own file once each, and the API shows them as applied from
    it.
    """
    tried.write("events", "second")
    text = tried.config.read_text() + API
    tried.config.write_text(text)
    with tried.daemon() as process:
        until(tried.reached)
        assert tried.lines("started")[0]["flows"] == 2
        flows = kept(tried, "flows")
        assert {flow.body["name"] for flow in flows} == {"events", "second"}
        assert {flow.origin for flow in flows} == {os.path.realpath(tried.config)}
        tried.write("events")
        tried.config.write_text(tried.config.read_text() + API)
        process.send_signal(signal.SIGHUP)
        until(lambda: tried.lines("configuration read"))
        assert [flow.body["name"] for flow in kept(tried, "flows")] == ["events"]
        assert len(kept(tried, "connections")) == 1
        tried.config.unlink()  # what runs is what was read
        with client_of(tried) as client:
            assert client.delete(f"{FLOWSERVICE}/flows/{flow_id('events')}").status_code == 400
        stop(process)
    assert not [line for line in tried.lines() if line["level"] == "error"]


def test_a_deleted_flow_ends_its_window(tried: Trial, sandbox: Sandbox, apply: Apply) -> None:
    """A window of a deleted flow is finished, and no other one starts, also without [api]."""
    apply(other_file(tried, more='backfill_from = "2024-01-01"'))
    tried.write("idle")
    own = tried.config.read_text().splitlines()
    tried.config.write_text("\n".join(line for line in own if not line.startswith("schedule")))
    sandbox.faults({"fault": "delay", "seconds": 1.5, "times": None})
    with tried.daemon() as process:
        until(lambda: any(path.is_dir() for path in tried.table().glob("_staging/*")))
        with Catalog(tried.home) as catalog:
            Resources(catalog).delete("flows", flow_id("events"))
        process.send_signal(signal.SIGHUP)
        until(lambda: not alive_below(process), 12)
        assert process.poll() is None
        stop(process)
    with Catalog(tried.home) as catalog:
        (run,) = catalog.history()
    assert run.status == "success"
    assert len(sandbox.requests) == 1


def test_a_flow_that_cannot_run_is_logged_once(tried: Trial, apply: Apply) -> None:
    """A flow with the table of another flow, or a password of another key, is logged once."""
    apply(other_file(tried, "events", "second"))
    tried.write("third")
    own = tried.config.read_text().replace(str(tried.table("third")), str(tried.table("second")))
    tried.config.write_text(own + API)
    with tried.daemon() as process:
        until(lambda: tried.lines("started"))
        process.send_signal(signal.SIGHUP)
        until(lambda: tried.lines("configuration read"))
        with client_of(tried) as client:
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert 'Flow "third"' in answer.json()["problems"][0]
        stop(process)
    (line,) = tried.lines("this flow cannot run")
    assert (line["flow"], line["level"]) == ("second", "error")
    assert 'Flow "third"' in line["error"]
    (tried.home / "secrets.key").unlink()
    with tried.daemon() as process:
        until(lambda: len(tried.lines("started")) == 2)
        stop(process)
    assert "another key" in tried.lines("this flow cannot run")[-1]["error"]


def test_requested_runs_of_deleted_flows_are_withdrawn(tried: Trial) -> None:
    """Requested runs of deleted flows fail at once; those of disabled or broken flows wait."""
    tried.write()
    flow = load(tried.config, ENVIRON).flows["events"]
    server = Server(tried.home, Api(port=0), {}, lambda: 5, lambda: None, tuple)
    server.start()
    with Catalog(tried.home) as catalog:
        for name in ("off", "broken"):
            body = {"name": name, "state": "disabled" if name == "off" else "enabled"}
            made = new("flows", body, 0, id_=flow_id(name), origin="/etc/flows.toml")
            Resources(catalog).create(made)
        day = Window(date(2024, 1, 1), date(2024, 1, 1))
        for name in ("events", "off", "broken", "gone", flow_id("deleted")):
            run = Run(flow_id(f"run of {name}"), name, day, "", 0)
            catalog.save(scheduled(replace(flow, name=name), "data", run, {}))
        assert server.requested_flows({"events"}) == {"events"}
        assert catalog.scheduled_flows() == {"events", "off", "broken"}
        withdrawn = {run.flow for run in catalog.history(status="failed")}
        assert withdrawn == {"gone", flow_id("deleted")}
    server.stop()
    server.join(5)
