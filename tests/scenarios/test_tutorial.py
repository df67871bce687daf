"""The tutorial's eleven calls, by curl, against a daemon: the flow that they make pulls, and shows
its runs. Each is as it is printed, but for the host, what stands in braces, the ids, and the
backslash that two of them lack.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from tests.support.api_server import curls
from tests.support.daemons import Trial, clock_of, until

ROOT = Path(__file__).parents[2]
PLANE = (ROOT / "docs/control-plane.md").read_text("utf-8")
WALK = (ROOT / "docs/tutorial-walk.md").read_text("utf-8")
SHIPPED = "https://ns.adobe.com/extconndev/schemas/mixpanel-events"
CONFIG = """
home = "{home}"
[api]
listen = "127.0.0.1:0"
datasets = "{data}"
mixpanel_hosts = ["{mixpanel}"]
"""


@dataclass
class Person:
    """A person who follows the tutorial: the ids of responses so far, by name."""

    folder: Path
    address: str
    token: str
    mixpanel: str
    ids: dict[str, str] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    walk: list[tuple[str, int, Any]] = field(default_factory=list)

    def curl(self, command: str) -> tuple[int, Any]:
        """Run a command in a shell; return the response's status and body."""
        (self.folder / ".curlrc").write_text('silent\nshow-error\nwrite-out = "\\n%{http_code}"\n')
        said = subprocess.run(
            ["bash", "-c", command], env=os.environ | {"CURL_HOME": str(self.folder)},
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        body, _, status = said.stdout.rpartition("\n")
        self.walk.append((command, int(status), json.loads(body) if body.strip() else None))
        return self.walk[-1][1:]

    def call(self, printed: str) -> tuple[int, Any]:
        """Run a call as the tutorial prints it."""
        return self.curl(self.mine(printed))

    def mine(self, printed: str) -> str:
        """A call with the person's own ids, hosts and secrets in it."""
        command = printed.replace("https://platform.adobe.io", self.address)
        command = command.replace("https://data.mixpanel.com", self.mixpanel)
        command = re.sub(r"https://ns\.adobe\.com/[^\"]+", SHIPPED, command)
        for name, value in {
            "ACCESS_TOKEN": self.token, "API_KEY": self.token, "ORG_ID": "org",
            "SANDBOX_NAME": "prod", "MIXPANEL_SERVICEACCOUNT_USERNAME": USERNAME,
            "MIXPANEL_SERVICEACCOUNT_PASSWORD": PASSWORD, "MIXPANEL_PROJECT_ID": str(PROJECT_ID),
            "NEW_PASSWORD": "new", "NEW_SECURITY_TOKEN": "new",
        }.items():  # fmt: skip
            command = command.replace(f"{{{name}}}", value)
        for kind, pattern in {
            "connections": r'(?<=/connections/)[0-9a-f-]{36}|(?<="baseConnectionId": ")[^"]+',
            "sourceConnections": r'(?<="sourceConnectionIds": \[)\s*"[^"]+"',
            "targetConnections": r'(?<="targetConnectionIds": \[)\s*"[^"]+"',
            "mappingSets": r'(?<="mappingId": ")[^"]+',
            "dataSets": r'(?<="dataSetId": ")[^"]+',
            "flows": r"(?<=/flows/)[0-9a-f-]{36}|(?<=flowId==)[0-9a-f-]{36}",
        }.items():
            if kind in self.ids:
                quote = '"' if kind in ("sourceConnections", "targetConnections") else ""
                command = re.sub(pattern, f"{quote}{self.ids[kind]}{quote}", command)
        for kind, etag in self.etags.items():
            if f"/{kind}/" in command:  # quoted or not, as it is printed
                command = re.sub(r"(?<=If-Match: )(\"?)[0-9a-f-]+", rf"\g<1>{etag}", command)
        return re.sub(r"'\n(\s+-H 'If-Match)", r"' \\\n\1", command)

    def make(self, kind: str, printed: str, status: int = 201) -> Any:
        """Make a resource, and store its id."""
        found, answer = self.call(printed)
        assert found == status, answer
        self.ids[kind] = answer["id"]
        if "etag" in answer:
            assert answer["etag"][0] == answer["etag"][-1] == '"'
            self.etags[kind] = answer["etag"].strip('"')
        return answer


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    # Where the tutorial explores, only this knows the project: its `sourceParams` are another's.
    monkeypatch.setenv("MIXPANEL_PROJECT_ID", str(PROJECT_ID))
    clock = clock_of(1)
    with Sandbox(Spec(events_per_day=200)) as sandbox:
        sandbox.project.now = clock.now
        tried = Trial(tmp_path, sandbox, clock)
        tried.config.write_text(
            CONFIG.format(home=tried.home, data=tmp_path / "data", mixpanel=sandbox.url)
        )
        with tried.daemon():
            until(lambda: tried.lines("listening"))
            (said,) = tried.lines("listening")
            token = Path(said["token_file"]).read_text()
            yield Person(tmp_path, said["address"], token, sandbox.url)
            log = tried.log.read_text()
            assert PASSWORD not in log
            assert token not in log


def printed() -> list[str]:
    """The eleven, in order."""
    return [each["raw"] for each in curls()]


def test_the_eleven_calls(person: Person) -> None:
    """Base connection, explore, source, target, mapping, flow, runs, update, delete."""
    (base, explore, source, target, mapping, flow, runs, update, delete, renew, remove) = printed()
    person.make("connections", base)
    status, seen = person.call(explore)
    assert status == 200, seen
    assert (seen["format"], len(seen["data"])) == ("hierarchical", 10)
    person.make("sourceConnections", source)
    person.ids["dataSets"] = dataset_of(person)
    person.make("targetConnections", target)
    assert set(person.make("mappingSets", mapping, 200)) == {
        "id", "version", "createdDate", "modifiedDate", "createdBy", "modifiedBy",
    }  # fmt: skip
    person.make("flows", flow)

    until(lambda: successes(person.call(runs)[1]))
    status, found = person.call(runs)
    (run,) = successes(found)
    assert (status, run["flowId"]) == (200, person.ids["flows"])
    copy, promotion = run["activities"]
    assert copy["sourceInfo"][0]["id"] == person.ids["sourceConnections"]
    assert promotion["targetInfo"][0]["id"] == person.ids["targetConnections"]
    table = DeltaTable(person.folder / "data" / person.ids["dataSets"]).to_pyarrow_table()
    assert table.num_rows == run["metrics"]["recordSummary"]["outputRecordCount"] > 500

    assert 'If-Match: "' in update  # its etag is quoted there, and the connection's is not
    status, changed = person.call(update)
    assert (status, changed["id"]) == (200, person.ids["flows"])
    assert changed["etag"] != f'"{person.etags["flows"]}"'
    assert person.call(delete) == (204, None)
    assert person.call(delete.replace("DELETE", "GET"))[0] == 404
    assert 'If-Match: "' not in renew
    status, renewed = person.call(renew)
    assert (status, renewed["id"]) == (200, person.ids["connections"])
    assert person.call(remove) == (204, None)
    assert person.call(remove.replace("DELETE", "GET"))[0] == 404
    with Catalog(person.folder / "home") as catalog:
        assert PASSWORD not in repr(catalog.read("SELECT * FROM resources"))
    service = [each for each in person.walk if "/data/" in each[0]]
    walked = "".join(f"$ {command}\nHTTP {status}\n" for command, status, _ in service)
    assert calls_of(WALK) == list(dict.fromkeys(calls_of(walked)))
    assert {call[:2] for call in calls_of("".join(f"$ {each}\nHTTP 0\n" for each in printed()))} < {
        call[:2] for call in calls_of(WALK)
    }
    assert not {PASSWORD, person.token, USERNAME} & set(re.findall(r"[\w.-]+", WALK))


def calls_of(transcript: str) -> list[tuple[str, str, int]]:
    """Method, path and status of the calls in a transcript; what is an id there is `{}`."""
    found = re.findall(r"^\$ (curl .*?)^HTTP (\d+)$", transcript, re.DOTALL | re.MULTILINE)
    calls = []
    for command, status in found:
        method = re.search(r"-X ([A-Z]+)", command)
        (path,) = re.findall(r"https?://[^/\s]+(/data/[^\s']+)", command)
        path = re.sub(r"[0-9a-f-]{36}", "{}", path)
        calls.append((method[1] if method else "POST", path, int(status)))
    return calls


def test_as_it_is_printed_a_patch_is_none(person: Person) -> None:
    """A call without its backslash has no version and no body: an error names each."""
    base, *_, renew, _ = printed()
    person.make("connections", base)
    broken = person.mine(renew).replace("' \\\n    -H 'If-Match", "'\n    exit; -H 'If-Match")
    status, told = person.curl(broken)
    assert (status, told["type"][-8:]) == (400, "1405-400")


def test_a_run_that_is_asked_for(person: Person) -> None:
    """POST /runs starts a run at once, whatever the schedule."""
    base, _, source, target, mapping, flow, runs, *_ = printed()
    for kind, call in (
        ("connections", base), ("sourceConnections", source),
    ):  # fmt: skip
        person.make(kind, call)
    person.ids["dataSets"] = dataset_of(person)
    person.make("targetConnections", target)
    person.make("mappingSets", mapping, 200)
    person.make("flows", flow)
    until(lambda: successes(person.call(runs)[1]))
    day = 1_704_758_400  # 2024-01-09
    params = {"windowStartTime": day, "windowEndTime": day + 86_400}
    body = json.dumps({"flowId": person.ids["flows"], "params": params})
    service = f"{person.address}/data/foundation/flowservice/runs"
    status, asked = person.curl(f"curl -H 'x-api-key: {person.token}' {service} -d '{body}'")
    assert (status, asked["metrics"]["statusSummary"]["status"]) == (201, "scheduled")
    until(lambda: asked["id"] in [run["id"] for run in successes(person.call(runs)[1])])


def dataset_of(person: Person) -> str:
    """The id of a dataset that is made as docs/control-plane.md does, whose commands all work."""
    answers = []
    for command in re.findall(r"^curl [^`]*?(?:json|'$)", PLANE, re.MULTILINE):
        for theirs, mine in {
            "$(cat .mixpanel-etl/api.token)": person.token,
            "http://127.0.0.1:8787": person.address,
        }.items():
            assert theirs in command
            command = command.replace(theirs, mine)
        answers.append(person.curl(command))
    (described, calls), (made, answer) = answers
    assert (described, made) == (200, 201), answer
    assert "/data/foundation/catalog/dataSets" in calls["paths"]
    return str(answer[0].removeprefix("@/dataSets/"))


def successes(answer: Any) -> list[Any]:
    """The runs that succeeded."""
    found = answer["items"]
    return [run for run in found if run["metrics"]["statusSummary"]["status"] == "success"]
