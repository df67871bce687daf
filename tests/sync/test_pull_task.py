"""A pull task travels as plain data, and its credentials travel apart from it."""

import pickle
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mapping import evaluate
from engine.mixpanel.timeouts import Timeouts
from engine.model.flow import Connection, Flow, Run, Secret
from engine.model.window import Window
from engine.sandbox import PROJECT_ID, Sandbox
from engine.sync import pull as pull_module
from engine.sync.executors.processes import LONGEST_CREDENTIALS, ProcessExecutor
from engine.sync.pull import Rules
from engine.sync.pull_task import Credentials, PullTask
from engine.sync.reject_limits import Tolerance
from engine.sync.rejected_lines import RejectedLines
from tests.support.pulling import DAYS, QUICK, RULES, flow_of, pull

USER, PASSWORD = "reader.77.service", 'pä"ss/wo&rd'
MS = st.integers(0, 1 << 42)
DATES = st.dates(date(2000, 1, 1), date(2100, 1, 1))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    first = draw(DATES)
    last = first + timedelta(draw(st.integers(0, 40)))
    kind = draw(st.sampled_from(["days", "arrival", "before"]))
    if kind == "arrival":
        start, overlap, again = draw(MS), draw(MS), draw(st.booleans())
        return Window(first, last, (start, start + 1), None, overlap, draw(MS), again)
    return Window(first, last, before=draw(MS) if kind == "before" else None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
DOCUMENTS = st.tuples(st.text(), JSON)
REJECTS = st.builds(
    RejectedLines, st.text(), st.lists(DATES).map(tuple), st.frozensets(DATES, max_size=3)
)
TASKS = st.builds(
    PullTask,
    run=st.builds(Run, st.text(), st.text(), windows(), st.text(), MS),
    connection=st.text(),
    host=st.text(),
    project_id=st.integers(),
    timezone=st.text(),
    events=st.lists(st.text()).map(tuple),
    where=st.none() | st.text(),
    delay_minutes=st.integers(0, 99),
    unmapped=st.text(),
    tolerance=st.builds(Tolerance, st.floats(0, 100), st.integers(0, 99)),
    mapping=DOCUMENTS,
    schema=DOCUMENTS,
    directory=st.text(),
    table=st.none() | st.text(),
    timeouts=st.builds(Timeouts, st.floats(0, 99)),
    rejects=st.none() | REJECTS,
)


@given(TASKS)
def test_a_task_survives_json(task: PullTask) -> None:
    """A task that is sent as JSON arrives unchanged: every field has a JSON form."""
    assert msgspec.json.decode(msgspec.json.encode(task), type=PullTask) == task


def test_a_task_holds_no_secret() -> None:
    """P7: neither name nor password is in its JSON, its repr or its pickle."""
    connection = Connection("https://x", USER, Secret(PASSWORD), 1)
    run = Run("run", "events", Window(DAYS[0], DAYS[0]), "batch", 0)
    flow = Flow("events", connection, "table")
    task = PullTask.of(flow, RULES.mapping, RULES.schema, run, Path("staged"))
    shapes = [msgspec.json.encode(task).decode(), repr(task)]
    for secret in (USER, PASSWORD):
        assert not [shape for shape in shapes if secret in shape]
        assert secret.encode() not in pickle.dumps(task)
    assert task.connect(Credentials.of(connection)) == connection


def test_credentials_are_never_pickled() -> None:
    """P7: credentials raise at the attempt to pickle them."""
    credentials = Credentials(USER, Secret(PASSWORD))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(credentials)
    assert PASSWORD not in repr(credentials)
    assert Credentials.from_bytes(credentials.as_bytes()) == credentials


def test_workers_get_each_request_its_credentials(tmp_path: Path) -> None:
    """A worker process signs in with the credentials that were sent with its task."""
    with Sandbox() as sandbox:
        options = replace(QUICK, workers=2, days_per_request=1)
        done = pull(sandbox.url, tmp_path / "table", options=options)
        assert done.statuses == ["success"] * 2
        wrong = Connection(sandbox.url, USER, Secret(PASSWORD), PROJECT_ID)
        refused = pull(sandbox.url, tmp_path / "other", options=options, connection=wrong)
    assert "failed" in refused.statuses
    assert PASSWORD not in repr(refused)


def test_credentials_that_a_pipe_cannot_hold() -> None:
    """Credentials too long for a pipe fail the pull: a write of them would block for ever."""
    flow = flow_of("http://127.0.0.1:1", Path("table"))
    run = Run("run", "events", Window(DAYS[0], DAYS[0]), "batch", 0)
    task = PullTask.of(flow, RULES.mapping, RULES.schema, run, Path("staged"))
    executor = ProcessExecutor(1, lambda *_: None, None)  # type: ignore[arg-type]
    try:
        long = Credentials("a", Secret("b" * LONGEST_CREDENTIALS))
        assert "too long" in str(executor.submit(task, long).exception(timeout=5))
    finally:
        executor.stop()


def test_a_mapping_set_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five windows of a flow and the opening of its table compile the documents once."""
    compiled: list[str] = []
    parse = evaluate.parse

    def counted(name: str, *rest: object) -> object:
        compiled.append(name)
        return parse(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pull_module, "parse", counted)
    pull_module._compile.cache_clear()
    with Sandbox() as sandbox:
        days = [DAYS[0] + timedelta(number) for number in range(5)]
        done = pull(sandbox.url, tmp_path / "table", days, replace(QUICK, days_per_request=1))
    assert done.statuses == ["success"] * 5
    assert compiled == [RULES.mapping[0]]
    Rules(("another", RULES.mapping[1]), RULES.schema).compile()
    assert compiled == [RULES.mapping[0], "another"]
