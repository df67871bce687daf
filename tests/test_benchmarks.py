"""The benchmarks measure, report and compare; no test asserts a time."""

import os
import re
import select
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import compare, control, goals, peers, report, result, scale, throughput
from benchmarks.__main__ import MEASURING, main
from benchmarks.process import Failed, Spent, spend
from benchmarks.result import OURS, Measurement, Result
from benchmarks.rounds import Contender, in_turn
from benchmarks.server import serving
from benchmarks.settings import PARTS, Settings
from benchmarks.shapes import mapped, names

ROOT = Path(__file__).parents[1]
QUICK = {
    "throughput": ["--events=300", "--shapes", "typed"],
    "memory": ["--memory=300", "--shapes", "small"],
    "stages": ["--events=3000", "--shapes", "small"],
    "scale": ["--events=300", "--batches=60", "--parts", "rejects", "batches"],
    "startup": [],
    "control": ["--history=60"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the results."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, Result]:
    """Run each subcommand with --quick, two at a time, since the figures do not matter."""

    def measure(what: str) -> int:
        return main([what, "--quick", "--results", str(folder), *QUICK[what]])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(measure, QUICK)) == [0] * len(QUICK)
    return result.load_all(folder)


def names_in(found: Result, group: str) -> list[str]:
    return [each.name for each in found.of(group) if each.figures]


def test_every_subcommand_measures(measured: dict[str, Result]) -> None:
    """Each subcommand writes a result with figures above 0."""
    assert measured.keys() == QUICK.keys() == MEASURING.keys()
    for found in measured.values():
        values = [v for each in found.measurements for vs in each.figures.values() for v in vs]
        assert values
        assert min(values) >= 0


def test_throughput_is_beside_the_floors(measured: dict[str, Result]) -> None:
    """All contenders read the same lines, and each writes one row per line."""
    found = measured["throughput"]
    contenders = list(found.of("typed"))
    assert [each.name for each in contenders[:4]] == [
        OURS, "DuckDB COPY", "Polars scan_ndjson", "orjson + pyarrow"
    ]  # fmt: skip
    assert {each.events for each in contenders} == {303}
    assert [each.note for each in contenders] == [""] * 6
    assert all(each.figures for each in contenders)


def test_a_peer_that_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The result names the peer for each of its shapes, and the others are measured."""
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path / "venvs")
    python = tmp_path / "python"  # creates half of an environment
    python.write_text('#!/bin/sh\nmkdir -p "$3"\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(throughput, "_one_window", lambda *_: None)
    settings = Settings(shapes=("small", "wide", "typed"), peers=("tap", "dlt"))
    found = throughput.measure(settings)
    assert [(each.group, each.figures, each.note) for each in found.measurements] == [
        (f"{shape} beside {peer}", {}, "failed: it cannot be installed here")
        for peer in ("tap", "dlt")
        for shape in ("small", "wide")
    ]
    assert "tap-mixpanel 1.8.0, no target: it cannot be installed here" in capsys.readouterr().err
    assert list((tmp_path / "venvs").iterdir()) == []


def test_memory_is_watched(measured: dict[str, Result]) -> None:
    """All processes together use at least as much memory as the largest one."""
    (window,) = measured["memory"].of("one window")
    assert window.figures["MiB together"][0] >= window.figures["MiB"][0] > 20


def test_every_stage_is_measured(measured: dict[str, Result]) -> None:
    """Each stage is in the result by its name, on the slow and on the fast path."""
    plain = ["gunzip", "lines", "mapping", "columns", "check", "duplicates"]
    last = "writer with duplicates"
    assert names_in(measured["stages"], "small, the plain way") == [*plain, last]
    short = names_in(measured["stages"], "small, the short way")
    assert short == [*plain[:2], "direct", *plain[2:], last]


def test_scale(measured: dict[str, Result]) -> None:
    """The result has the hardest point of a part; planning and committing are separate."""
    (rejects,) = measured["scale"].of("rejects")
    assert (rejects.name, rejects.note) == ("50 %", "")
    (table,) = measured["scale"].of(scale.BATCHES)
    assert table.name == "60"
    assert table.figures.keys() == {"ms", "ms to plan", "ms to commit"}


@pytest.mark.parametrize("part", [part for part in PARTS if part != "batches"])
def test_scale_changes_one_thing_at_a_time(part: str) -> None:
    """All points have about as many events, except where the number of events grows."""
    points = scale.cases(part, 2_800)
    assert len({point.name for point in points}) == len(points) >= 2
    assert part == "events" or len({point.events * point.days for point in points}) == 1
    assert len({repr(replace(point, name="")) for point in points}) == len(points)


def test_startup_names_what_help_imports(measured: dict[str, Result]) -> None:
    """--help imports no module that reads or writes data."""
    found = measured["startup"].find("imports", "--help")
    assert found
    assert found.note.startswith("imports")
    assert "pyarrow" not in found.note
    commands = names_in(measured["startup"], "before the first event")
    assert commands == ["python alone", "--help", "check", "an empty day"]


def test_a_result_tells_nothing_of_a_host(measured: dict[str, Result], folder: Path) -> None:
    """A result names machine, versions and commit, but no path and no host."""
    for found in measured.values():
        assert found.about["machine"].keys() == {"processor", "cores", "memory GiB", "system"}
        assert found.about["versions"]["python"] == sys.version.split()[0]
        assert found.about["commit"]
    kept = "".join(path.read_text("utf-8") for path in folder.glob("*.json"))
    assert not re.search(r'[" ]/\w', kept)


def test_report(
    measured: dict[str, Result], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report has every figure and links every chart; the charts are SVG with titles."""
    assert main(["report", "--results", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not measured") == len(goals.all_goals())  # --quick reaches no goal
    text = (folder / "report.md").read_text("utf-8")
    assert report.QUICK in text
    for found in measured.values():
        assert f"]({found.what}.svg)" in text
        assert all(f"| {each.name} |" in text for each in found.measurements)
        chart = ElementTree.parse(folder / f"{found.what}.svg").getroot()
        texts = [each.text for each in chart.iter("{http://www.w3.org/2000/svg}text")]
        assert report.TITLES[found.what] in texts
        assert report.SHOWN[found.what][1] in (texts[1] or "")


# What is worked out ----------------------------------------------------------------------

ABOUT: dict[str, Any] = {
    "machine": {"processor": "x", "cores": 2, "memory GiB": 8, "system": "Linux"},
    "versions": {"python": "3.11"},
    "commit": "abc",
    "measured": "today",
    "load before": 0,
    "settings": {"quick": False, "history": 100_000},
}


def of(what: str, *rows: tuple[str, str, int, dict[str, list[float]]]) -> Result:
    return Result(what, ABOUT, [Measurement(*row) for row in rows])


def seconds(*values: float) -> dict[str, list[float]]:
    return {"seconds": list(values)}


def reached(*results: Result) -> dict[str, str]:
    """Return the verdict of each goal, by the beginning of its text."""
    by_name = {each.what: each for each in results}
    return {g.what: g.row(by_name)[-1] for g in goals.all_goals()}


@pytest.mark.parametrize(
    ("ours", "verdict"), [((9, 9, 900), "reached"), ((11, 11, 11), "NOT reached")]
)
def test_goals_are_ratios_of_rounds(ours: tuple[float, ...], verdict: str) -> None:
    """Ratios are taken round by round: a round that was slow for one contender counts once."""
    found = of(
        "throughput",
        ("small", OURS, 100, seconds(*ours)),
        ("small", "DuckDB COPY", 100, seconds(10, 10, 10)),
    )
    goal = next(g for g in goals.all_goals() if g.what.startswith("small, one window"))
    assert goal.row({"throughput": found})[-1] == verdict
    assert goal.row({})[-1] == "not measured"


@pytest.mark.parametrize(
    ("result_", "beginning", "verdict"),
    [
        (of("memory", ("one window", OURS, 5_000_000, {"MiB together": [299.0, 300.0]})),
         "peak memory", "reached"),
        (of("memory", ("one window", OURS, 5_000_000, {"MiB together": [299.0, 301.0]})),
         "peak memory", "NOT reached"),
        (of("memory", ("one window", OURS, 200_000, {"MiB together": [200.0]})),
         "peak memory", "not measured"),
        (of("scale", ("rejects", "0 %", 9, seconds(1)), ("rejects", "50 %", 9, seconds(3))),
         "half of the lines", "reached"),
        (of("scale", ("rejects", "0 %", 9, seconds(1)), ("rejects", "50 %", 9, seconds(3.1))),
         "half of the lines", "NOT reached"),
        (of("scale", (scale.BATCHES, "10,000", 0, {"ms": [150.0]})), "one more day", "reached"),
        (of("scale", (scale.BATCHES, "10,000", 0, {"ms": [151.0]})), "one more day",
         "NOT reached"),
        (of("scale", (scale.BATCHES, "10", 0, {"ms": [1.0]})), "one more day", "not measured"),
        (of("control", (control.PAGES, "all", 0, {"ms": [9.0]}),
            (control.PAGES, "some", 0, {"ms": [50.0]})), "any page of 100,000", "reached"),
        (of("control", (control.PAGES, "all", 0, {"ms": [9.0]}),
            (control.PAGES, "some", 0, {"ms": [51.0]})), "any page of 100,000", "NOT reached"),
        (of("startup", ("before the first event", "--help", 0, seconds(0.2))),
         "`mixpanel-etl --help`", "reached"),
        (of("startup", ("before the first event", "--help", 0, seconds(0.21))),
         "`mixpanel-etl --help`", "NOT reached"),
        (of("throughput", ("wide beside dlt", OURS, 9, seconds(1)),
            ("wide beside dlt", "dlt 1", 9, seconds(15))), "wide, against `dlt`", "reached"),
        (of("throughput", ("wide", f"{OURS}, keep", 9, seconds(1)),
            ("wide", "DuckDB COPY", 9, seconds(0.7))), 'wide, the same, `unmapped = "keep"`',
         "reached"),
        (of("throughput", ("wide", f"{OURS}, drop", 9, seconds(1)),
            ("wide", "DuckDB COPY", 9, seconds(0.7))), 'wide, the same, `unmapped = "drop"`',
         "NOT reached"),
    ],
)  # fmt: skip
def test_goals(result_: Result, beginning: str, verdict: str) -> None:
    """Each goal is reached exactly at its bound; a goal without figures is not measured."""
    first, *_ = (goal for goal in goals.all_goals() if goal.what.startswith(beginning))
    found = reached(result_)
    assert found.pop(first.what) == verdict
    assert set(found.values()) == {"not measured"}


def test_a_short_history_is_no_measure_of_a_long_one() -> None:
    """A short history reaches no goal of a long one, however fast its pages are."""
    short = of("control", (control.PAGES, "all", 0, {"ms": [1.0]}))
    short.about = ABOUT | {"settings": {"quick": False, "history": 99_999}}
    assert set(reached(short).values()) == {"not measured"}


def test_every_kind_of_page_is_measured(measured: dict[str, Result]) -> None:
    """The result has each kind of page, and the requests of one client and of several."""
    assert len(names_in(measured["control"], control.PAGES)) == 16
    notes = [each.note for each in measured["control"].of(control.REQUESTS)]
    assert len(notes) == 2
    assert all(note.endswith(" requests a second") for note in notes)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((10, 10.1, 10.2), (12, 12.1, 12.2), "slower"),
        ((12, 12.1, 12.2), (10, 10.1, 10.2), "faster"),
        ((10, 10.1, 13), (12, 12.1, 12.2), "same"),  # the runs of A differ more
        ((10, 10.1, 10.2), (9, 12.1, 12.2), "same"),  # the runs of B differ more
        ((10, 10, 10), (10.1, 10.1, 10.1), "same"),  # certain, but too small
        ((10, 10.1), (12, 12.1, 12.2), "unsure"),
        ((10,), (20,), "unsure"),
    ],
)
def test_noise_is_no_change(
    before: tuple[float, ...], after: tuple[float, ...], verdict: str
) -> None:
    """Only medians further apart than the runs of either result are a change."""
    key = ("stages", "small", "lines", 1, "ns an event")
    assert compare.Change(key, list(before), list(after)).verdict == verdict


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What got slower comes first, with both figures; what only one result has is counted."""
    steady = ("startup", "check", 0, seconds(1, 1, 1))
    old = of("startup", ("startup", "--help", 0, seconds(1, 1, 1)), steady,
             ("startup", "gone", 0, seconds(1, 1, 1)))  # fmt: skip
    new = of("startup", ("startup", "--help", 0, seconds(2, 2.1, 2)), steady)
    paths = [each.save(tmp_path / name) for each, name in ((old, "a"), (new, "b"))]
    assert main(["compare", *map(str, paths)]) == 0
    printed = capsys.readouterr().out.splitlines()
    (slower,) = (line for line in printed if line.startswith("slower"))
    assert slower.startswith("slower  +100.0 %  startup, startup, --help: seconds 1.000 (1.000 to")
    assert slower.endswith("-> 2.000 (2.000 to 2.100)")
    assert (
        printed[-1] == "1 slower, 0 faster, 1 same, 0 with fewer than 3 runs, 1 in one result only."
    )


def test_other_machines_are_compared_by_ratios(tmp_path: Path) -> None:
    """Results of two machines are compared by their share of DuckDB's time."""

    def throughput_of(cores: int, ours: float, duckdb: float) -> Path:
        found = of("throughput", ("small", OURS, 9, seconds(ours, ours, ours)),
                   ("small", "DuckDB COPY", 9, seconds(duckdb, duckdb, duckdb)))  # fmt: skip
        found.about = ABOUT | {"machine": ABOUT["machine"] | {"cores": cores}}
        return found.save(tmp_path / str(cores))

    changes = compare.compare(throughput_of(2, 10, 10), throughput_of(8, 4, 2))
    assert [(each.key[-1], each.verdict) for each in changes] == [(compare.BESIDE, "slower")]


# When something goes wrong ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("import sys; sys.exit('no such day')", "ended with exit status 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL (9)"),
    ],
)
def test_a_command_that_fails(script: str, how: str) -> None:
    """A failure names the exit status or the signal, and has the output separately."""
    with pytest.raises(Failed, match=re.escape(how)) as caught:
        spend([sys.executable, "-c", script])
    assert caught.value.said == ("no such day" if "day" in script else "it said nothing")
    assert sys.executable not in str(caught.value)


def test_a_command_that_hangs(tmp_path: Path) -> None:
    """A command that hangs is ended with all processes that it started."""
    alive, never = tmp_path / "alive", tmp_path / "never"
    for path in (alive, never):
        os.mkfifo(path)
    listening = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    child = f"exec 3> {alive}; echo here >&3; read line < {never}"
    with pytest.raises(Failed, match=r"^sh -c did not end in 0\.5 s"):
        spend(["sh", "-c", f"sh -c '{child}'; true"], longest=0.5)
    assert os.read(listening, 100) == b"here\n"
    assert select.select([listening], [], [], 10)[0]  # once no process can write any more
    assert os.read(listening, 100) == b""
    os.close(listening)


def test_a_small_child_of_a_large_parent() -> None:
    """The peak is that of the command, however much memory the benchmark itself uses."""
    ballast = bytearray(200 << 20)
    assert spend([sys.executable, "-c", "pass"]).mib < 60
    del ballast


def test_what_fails_is_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A contender that fails in a later round has no figures; the others go on, in order."""
    rounds: list[str] = []

    def run(name: str, fails_at: int = -1) -> Callable[[Path], tuple[Spent, int]]:
        def contend(folder: Path) -> tuple[Spent, int]:
            assert list(folder.iterdir()) == []
            rounds.append(name)
            if rounds.count(name) == fails_at:
                raise Failed("it broke", "in /some/file")
            return Spent(1, 1, 1, None, ""), 9

        return contend

    found = Result("x", ABOUT)
    contenders = [Contender("a", 9, run("a")), Contender("b", 9, run("b", 3)),
                  Contender("c", 10, run("c"))]  # fmt: skip
    in_turn(found, "g", contenders, runs=3, warm=1)
    assert rounds == ["a", "b", "c", "a", "b", "c", "a", "b", "c", "a", "c"]
    a, b, c = found.measurements
    assert (a.figures["seconds"], a.note) == ([1, 1, 1], "")
    assert (b.figures, b.note) == ({}, "failed: it broke")
    assert c.note == "made 9 rows of 10 lines"
    assert "in /some/file" in capsys.readouterr().err
    rounds.clear()
    with pytest.raises(Failed, match="it broke"):
        in_turn(found, "g", [replace(contenders[1], required=True)], runs=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["throughput", "--peers", "tap", "pentaho"], "pentaho is not one of dlt, headless, tap"),
        (["throughput", "--events", "0"], "--events must be at least 1"),
        (["memory", "--memory", "5", "-1"], "--memory must be at least 1"),
        (["report", "--results", "nowhere"], "nowhere: cannot be read (No such file or directory)"),
        (["compare", str(ROOT / "pyproject.toml"), "x"], "pyproject.toml: is no result"),
    ],
)
def test_wrong_input(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one sentence: what is wrong, where, and what to do."""
    assert main(words) == 1
    assert said in capsys.readouterr().err


def test_peers_are_chosen_by_name() -> None:
    """Peers are chosen as all, none or by name, once each; each has a driver."""
    assert peers.chosen(["all"]) == list(peers.PEERS)
    assert peers.chosen(["none"]) == []
    assert [peer.key for peer in peers.chosen(["tap", "dlt", "tap"])] == ["tap", "dlt"]
    drivers = {path.stem for path in (ROOT / "benchmarks" / "peers").glob("drive_*.py")}
    assert drivers == {f"drive_{peer.key}" for peer in peers.PEERS}


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names its versions; with other versions, it is installed again."""
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    peer = peers.chosen(["tap"])[0]
    peer.folder.mkdir()
    (peer.folder / "installed").write_text("\n".join(peer.needs))
    peers.install(peer)
    with pytest.raises(Failed, match="cannot be installed"):
        peers.install(replace(peer, needs=("tap-mixpanel==0",)))


def test_without_curl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without curl, Python downloads and unpacks, and the name says so."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with serving("small", 50) as server:
        contender = throughput.plain(throughput.GUNZIP, server, server.fetch())
        spent, rows = contender.run(Path())
    assert contender.name == "the server alone, Python's urllib and zlib"
    assert (spent.said, rows) == ("", None)


def test_shapes_are_the_sandbox_s() -> None:
    """Each column of a shape is a property of its events."""
    for shape in ("small", "wide", "typed"):
        assert mapped(shape).keys() <= set(names(shape))
    assert (len(names("small")), len(mapped("typed"))) == (10, len(names("typed")))


def test_its_readme_names_what_there_is() -> None:
    """benchmarks/README.md names each subcommand and peer, and no other."""
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    named = set(re.findall(r"^python -m benchmarks (\w+)", text, re.MULTILINE))
    assert named == {*MEASURING, "all", "report", "compare"}
    for peer in peers.PEERS:
        assert f"\n| `{peer.key}` |" in text
