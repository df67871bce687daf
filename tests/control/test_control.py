"""The control plane in the daemon: a door that is there with [api] alone, and what it lets in."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from textwrap import dedent
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from engine.catalog.database import Catalog
from engine.catalog.resources import Resource, Resources, new
from engine.config.file import Api
from engine.control.api import server
from engine.control.api.app import FLOWSERVICE
from engine.control.api.server import Server
from engine.control.secrets import NAME
from engine.daemon import scheduler
from engine.daemon.scheduler import Daemon
from engine.daemon.turns import MORE
from engine.errors import InputError
from engine.model.flow import Flow, Run, Secret, flow_id
from engine.model.window import Window
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from engine.sync import open_flow
from engine.sync.run_records import scheduled
from tests.support.commands import here, put
from tests.support.daemons import Trial, alive_below, clock_of, until
from tests.support.planes import CONNECTIONS, MIXPANEL, problem

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
    """A trial whose daemon has a control plane, and no flow of its own."""
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


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    assert process.wait(20) == 0


def test_the_door(tried: Trial) -> None:
    """It is open while the daemon runs, for who has the token, whose value no log ever shows."""
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


def test_a_port_that_is_taken(tried: Trial) -> None:
    """One sentence, exit status 2, and nothing was begun."""
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
def test_what_it_costs(tmp_path: Path, api: str, loaded: list[str]) -> None:
    """Nothing of it is even imported where it is not asked for, and never what pulls."""
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
        from engine.daemon.scheduler import Daemon
        Daemon._watch = lambda _: None
        assert Daemon(Path({str(config)!r}), {{"WHO": "x"}}).run() == 0
        print([name for name in {sorted(heavy)!r} if name in sys.modules])
        """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=30,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == str(loaded)


def test_a_request_that_hangs(tmp_path: Path) -> None:
    """P8: it does not keep the daemon from ending, for a thread that waits cannot be ended."""
    config = tmp_path / "etl.toml"
    config.write_text(f'home = "{tmp_path}/home"\n{API}')
    script = f"""
        import os, threading, urllib.request
        from pathlib import Path
        from engine.daemon import scheduler as daemon
        from engine.control.api import server

        reached, app_of = threading.Event(), server.app_of

        def hang():
            reached.set()
            threading.Event().wait(60)

        def with_one_that_hangs(plane):
            app = app_of(plane)
            app.get("/hang")(hang)
            return app

        def watch(self):
            token = (Path({str(tmp_path)!r}) / "home" / "api.token").read_text()
            address, headers = self._api.address + "/hang", {{"x-api-key": token}}
            asked = urllib.request.Request(address, headers=headers)
            threading.Thread(target=urllib.request.urlopen, args=[asked], daemon=True).start()
            assert reached.wait(10)

        server.app_of, daemon.Daemon._watch, daemon.GRACE = with_one_that_hangs, watch, 0.5
        daemon.Daemon(Path({str(config)!r}), os.environ).run()
        """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0
    assert "stopped" in done.stdout + done.stderr


def is_writing(catalog: Catalog) -> bool:
    """Whether one of its threads writes, or waits to."""
    if catalog._lock.acquire(blocking=False):
        catalog._lock.release()
        return False
    return True


def test_a_home_that_cannot_be_read(tried: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told for as long as it is so: what runs meanwhile is what was known before."""
    asked = Daemon(tried.config, {})
    asked._listen(Api(port=0, token=Secret("a-token")))
    assert asked._api
    plane = asked._api._plane
    plane.vault.seal(1)
    key = (tried.home / NAME).read_text()
    plane.resources.create(new("flows", {}, 1))
    unread = ["What the home keeps cannot be read: The key for"]
    for text, told in ((key, []), ("junk", unread), (key, [])):
        (tried.home / NAME).write_text(text)
        asked._read()
        assert [each[:47] for each in plane.unready() if "home keeps" in each] == told
    asked._api.start()
    asked._api.stop()
    asked._api.join(5)


def test_a_change_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: while another process writes the catalog for long, everything is read, the end comes in
    its time, and who waits to write hears of it in the form of every problem.
    """
    monkeypatch.setattr(server, "STOP", 0.1)
    api = Api(port=0, token=Secret("a-token"))
    served = server.Server(tmp_path, api, {}, open_flow.now, lambda: None, tuple)
    catalog = served._plane.catalog
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


def test_a_token_that_changes(tried: Trial) -> None:
    """SIGHUP: the new one lets in, and the old one no more, and so with the address that it is
    called by; where it listens cannot change.
    """
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


def test_apply(tried: Trial, apply: Apply) -> None:
    """The flows of a file run in a daemon without it, from then on, until they are not in it."""
    with tried.daemon() as process:
        until(lambda: tried.lines("started"))
        path = other_file(tried, "events", "second")
        lines, told = apply(path)
        assert f"made flows {flow_id('events')}" in lines
        assert f"process {process.pid}, follows" in told
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


def test_its_own_file(tried: Trial) -> None:
    """Its flows are run from the file, and shown as what was applied from it; once."""
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


def test_a_flow_that_goes_while_it_runs(tried: Trial, sandbox: Sandbox, apply: Apply) -> None:
    """Its window drains as at a stop, and no other is begun; all this without [api], too."""
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


def test_what_cannot_run(tried: Trial, apply: Apply) -> None:
    """A flow that has the table of another, or a connection of another key, is told of once."""
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


# Without a process -----------------------------------------------------------------------


@pytest.fixture
def idle(tried: Trial, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """A daemon that was not started, with one flow."""
    put(ENVIRON, monkeypatch)
    tried.write()
    return Daemon(tried.config, os.environ)


@pytest.mark.parametrize(("news", "count"), [(False, 2), (True, 3)])
def test_a_tick_that_falls_into_a_turn(
    idle: Daemon, monkeypatch: pytest.MonkeyPatch, news: bool, count: int
) -> None:
    """What runs sees to it, unless it began before there was news: then it is done once more."""
    turns: list[int] = []

    def turn(name: str, began: int) -> int:
        turns.append(began)
        if len(turns) > 1:
            return 0
        if news:
            idle._due.add(name)
        idle._tick(name)
        idle._tick(name)
        return MORE

    monkeypatch.setattr(idle, "_turn", turn)
    idle._tick("events")
    assert len(turns) == count
    idle._tick("events")
    assert len(turns) == count + 1


def test_a_flow_that_went_before_its_process_came(idle: Daemon) -> None:
    """Between the decision to start one and its start, a flow may have been deleted."""
    flow = idle._flows["events"]
    idle._flows = {}
    assert idle._start(flow, 0) is None
    assert idle._turn("events", 0) == 0


def soon(idle: Daemon) -> list[str]:
    """The flows of all ticks that were to be at once."""
    return [job.args[0] for job in idle._scheduler.get_jobs() if job.id != job.args[0]]


def test_changes_of_a_flow(idle: Daemon) -> None:
    """Whatever changes, a turn is due at once; a new schedule is followed from now on."""
    idle._flows = {}
    idle._read()
    first = idle._scheduler.get_job("events")
    flow = idle._config.flows["events"]
    assert flow.schedule

    def change(flow: Flow) -> Any:
        """The job of its ticks, once it is this one."""
        idle._due.clear()
        before, idle._flows = idle._flows, {"events": flow}
        idle._follow(before)
        return idle._scheduler.get_job("events")

    assert change(replace(flow, where="true")) is first
    assert (idle._due, soon(idle)) == ({"events"}, ["events"])
    assert change(replace(flow, schedule=None)) is None
    assert idle._due == set()
    other = replace(flow, schedule=replace(flow.schedule, interval=30))
    second = change(other)
    assert second
    assert second is not first
    assert (idle._due, soon(idle)) == ({"events"}, ["events"])
    change(other)
    assert (idle._due, soon(idle)) == (set(), ["events"])
    idle._forget("events")  # as it is of a flow that runs once, and has
    assert change(replace(other, where="true")) is None
    assert (idle._due, soon(idle)) == ({"events"}, ["events"] * 2)
    change(flow)
    before, idle._flows = idle._flows, {}
    idle._follow(before)
    assert idle._scheduler.get_job("events") is None


def test_a_job_that_ends_while_it_is_forgotten(
    idle: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler removes a job whose last tick has come, from a thread of its own."""
    idle._flows = {}
    idle._read()
    found = idle._scheduler.get_job

    def get_job(name: str) -> Any:
        job = found(name)
        assert job
        job.remove()
        return job

    monkeypatch.setattr(idle._scheduler, "get_job", get_job)
    idle._forget("events")
    monkeypatch.setattr(idle._scheduler, "get_job", found)
    assert found("events") is None
    idle._forget("events")


def test_a_change_during_a_turn(idle: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs goes on with what it has, and one more turn follows, with what is new."""
    idle._read()
    turns: list[str | None] = []

    def turn(name: str, began: int) -> int:
        turns.append(idle._flows[name].where)
        if len(turns) == 1:
            before = idle._flows
            idle._flows = {name: replace(before[name], where="true")}
            idle._follow(before)
        return 0

    monkeypatch.setattr(idle, "_turn", turn)
    monkeypatch.setattr(idle, "_end", pytest.fail)
    idle._tick("events")
    assert turns == [None, "true"]


def test_what_the_home_keeps_changes(
    tried: Trial, idle: Daemon, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read it again makes nothing due; a new password makes all due that use it."""
    path = other_file(tried, "second")
    apply(path)
    idle._read()
    idle._due.clear()
    idle._read()
    assert idle._due == set()
    monkeypatch.setenv("TRIAL_PASSWORD", "another")
    apply(path)
    idle._read()
    assert idle._due == {"second"}


def test_many_changes_are_read_once(idle: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: what clients change is read while they go on, and a stop waits for none of it; what
    changes during a reading is read after it.
    """
    changed: list[Callable[[], None]] = []
    reads: list[None] = []

    def server(*given: Any) -> Any:
        changed.append(given[4])
        return SimpleNamespace(token_file=None, address="")

    def read() -> None:
        reads.append(None)
        if len(reads) == 1:
            changed[0]()

    monkeypatch.setattr("engine.control.api.server.Server", server)
    monkeypatch.setattr(idle, "_read", read)
    monkeypatch.setattr(idle, "_hurry", lambda: None)
    monkeypatch.setattr(idle._scheduler, "wakeup", lambda: None)
    with scheduler._heard() as (idle._signals, idle._signalling):
        idle._listen(Api())
        for _ in range(300):
            changed[0]()
        signal.raise_signal(signal.SIGTERM)
        idle._watch()
        assert len(reads) == 1
        signal.raise_signal(signal.SIGTERM)
        idle._watch()
        assert len(reads) == 2


def test_the_door_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is none ends the daemon before it begins; its lock is free again."""
    path = tmp_path / "etl.toml"
    path.write_text(f'home = "{tmp_path}/home"\n{API}key = {{ env = "KEY" }}\n')
    monkeypatch.setattr(scheduler.Daemon, "_watch", lambda _: None)
    with pytest.raises(InputError, match="key for secrets is none"):
        Daemon(path, {"KEY": "x"}).run()


def test_what_is_asked_for(idle: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that somebody asked for is begun at once, also of a flow that has no tick any more."""

    class Asked:
        def asked(self, running: AbstractSet[str]) -> AbstractSet[str]:
            return {"events"} & running

    monkeypatch.setattr(idle, "_api", Asked())
    idle._hurry()
    assert soon(idle) == ["events"]
    assert idle._due == {"events"}
    idle._forget("events")
    idle._hurry()
    assert soon(idle) == ["events"] * 2


def test_what_is_asked_for_of_a_flow_that_is_gone(tried: Trial, idle: Daemon) -> None:
    """It is withdrawn, however the flow went and whoever was faster; that of others waits."""
    server = Server(tried.home, Api(port=0), {}, lambda: 5, lambda: None, tuple)
    catalog, flow = server._plane.catalog, idle._config.flows["events"]
    with server._socket, catalog:
        for name in ("off", "broken"):
            body = {"name": name, "state": "disabled" if name == "off" else "enabled"}
            made = new("flows", body, 0, id_=flow_id(name), origin="/etc/flows.toml")
            server._plane.resources.create(made)
        day = Window(date(2024, 1, 1), date(2024, 1, 1))
        for name in ("events", "off", "broken", "gone", flow_id("deleted")):
            run = Run(flow_id(f"run of {name}"), name, day, "", 0)
            catalog.save(scheduled(replace(flow, name=name), "data", run, {}))
        idle._flows, idle._api = {}, server
        idle._read()
        assert catalog.scheduled_flows() == {"events", "off", "broken"}
        withdrawn = {run.flow for run in catalog.history(status="failed")}
        assert withdrawn == {"gone", flow_id("deleted")}
        assert idle._due == {"events"}


class Ended:
    """A process that ends by SIGTERM, as one does that was about to end anyway."""

    exitcode = -signal.SIGTERM

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.join = meanwhile

    def terminate(self) -> None: ...


@pytest.mark.parametrize(("ours", "status"), [(True, 0), (False, -signal.SIGTERM)])
def test_who_ended_it(
    idle: Daemon, monkeypatch: pytest.MonkeyPatch, ours: bool, status: int
) -> None:
    """A process that we asked to end is no failure of its flow; any other one is told of."""

    def start(flow: Flow, began: int) -> Any:
        process: Any = Ended(lambda: idle._end(flow.name) if ours else None)
        idle._running[flow.name] = process
        return process

    monkeypatch.setattr(idle, "_start", start)
    assert idle._turn("events", 0) == status
    assert not idle._draining
