"""How the program is: whether it lives, what it cannot do, and its figures for Prometheus.

The figures are read from the catalog when they are asked for; nothing is counted here.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from engine.catalog import metrics as figures
from engine.catalog.resources import Resource
from engine.control.api.plane import AppState, Shared
from engine.control.to_flow import connection_of, name_of
from engine.control.validation import DISABLED, only, options_of, schedule_of
from engine.errors import EtlError
from engine.model import retry
from engine.model import schedule as plan
from engine.model.flow import DELAY_MINUTES, Flow, Schedule
from engine.model.run_record import IN_PROGRESS, SCHEDULED

router = APIRouter(tags=["health"])

UNFINISHED = (IN_PROGRESS, SCHEDULED)
# The counters of each flow: name, meaning, a second label, and what of the totals it counts.
COUNTERS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("runs", "Runs that are over.", "status", figures.RUNS),
    ("events_in", "Events that came: out, rejected and duplicate ones.", "", {"": "events in"}),
    ("events_out", "Events that were put into the table.", "", {"": "events out"}),
    ("events_rejected", "Events rejected, or of failed runs.", "", {"": "events rejected"}),
    ("events_duplicate", "Events that had come before.", "", {"": "events duplicate"}),
    ("read_bytes", "Bytes that came, after decompression.", "", {"": "bytes in"}),
    ("written_bytes", "Bytes of files put into the table.", "", {"": "bytes out"}),
    ("stage_seconds", "Seconds of runs, by stage.", "stage", figures.MS),
)


Ready = dict[str, str | list[str]]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the program lives. It looks at nothing, and waits for no thread."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "What is not ready.", "model": Ready}})
def readyz(response: Response, plane: Shared) -> Ready:
    """Whether all that is declared can run, and what cannot."""
    problems = list(plane.unready())
    try:
        plane.catalog.check()
        problems += behind(plane)
    except EtlError as error:
        problems.append(str(error))
    response.status_code = 503 if problems else 200
    return {"status": "not ready" if problems else "ready", "problems": problems}


def behind(plane: AppState) -> list[str]:
    """The enabled flows that brought nothing for more than two intervals and their delay."""
    query = "SELECT flow, value FROM totals WHERE what = ?"
    reached = dict(plane.catalog.read(query, [figures.REACHED]))
    found = []
    for resource in plane.resources.all("flows"):
        if resource.body.get("state") == DISABLED:
            continue
        with suppress(EtlError):  # it cannot run, and `unready` says so
            schedule, _ = schedule_of(resource.body, needed=False)
            options, _ = options_of(resource.body)
            name = name_of(resource)
            since = _since(schedule, reached.get(name, 0), resource.created_at)
            delay = options.get("delay_minutes", DELAY_MINUTES)
            if schedule and since and plane.now() - since > plan.stale_after(schedule, delay):
                moment = f"{datetime.fromtimestamp(since / plan.SECOND, UTC):%F %R} UTC"
                found.append(f"Flow {name} is behind: nothing was brought since {moment}.")
    return found


def _since(schedule: Schedule | None, reached: int, created: int) -> int | None:
    """Since when a flow should have brought something, in ms; None where nobody waits for it."""
    if schedule is None or (reached and plan.is_once(schedule)):
        return None
    return max(reached or created, schedule.start_time * plan.SECOND)


@router.get("/metrics", response_class=Response)
def metrics(plane: Shared) -> Response:
    """The figures, for Prometheus."""
    registry = CollectorRegistry()
    registry.register(Figures(plane))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class Figures(Collector):
    """What the catalog knows at the moment that it is asked.

    The labels are flows that there are, their projects, and closed lists. A flow that a client has
    deleted is left out: its id would be a label forever.
    """

    def __init__(self, plane: AppState) -> None:
        self._plane = plane
        self._read = plane.catalog.read

    def collect(self) -> Iterator[Metric]:
        """Every figure; the names and units are as Prometheus advises."""
        flows = {name_of(each): each for each in self._plane.resources.all("flows")}
        totals: dict[str, Counter[str]] = {name: Counter() for name in flows}
        for flow, what, value in self._read("SELECT flow, what, value FROM totals"):
            if flow in flows or not _is_uuid(flow):
                totals.setdefault(flow, Counter())[what] = value
        for name, words, label, parts in COUNTERS:
            labels = ["flow", label] if label else ["flow"]
            counter = CounterMetricFamily(f"mixpanel_etl_{name}", words, labels=labels)
            for flow, of in totals.items():
                for part, what in parts.items():
                    value = of[what] / plan.SECOND if what in figures.MS.values() else of[what]
                    counter.add_metric([flow, part] if label else [flow], value)
            yield counter
        yield self._unfinished(totals)
        yield self._lag(flows, totals)
        yield from self._requests(flows.values())

    def _unfinished(self, known: Container[str]) -> Metric:
        gauge = GaugeMetricFamily(
            "mixpanel_etl_runs_unfinished", "Runs that are not over.", labels=["flow", "status"]
        )
        query = "SELECT flow, status, count(*) FROM runs WHERE status IN (?, ?) GROUP BY 1, 2"
        for flow, status, count in self._read(query, UNFINISHED):
            if flow in known or not _is_uuid(flow):
                gauge.add_metric([flow, status], count)
        return gauge

    def _lag(self, flows: Mapping[str, Resource], totals: Mapping[str, Counter[str]]) -> Metric:
        gauge = GaugeMetricFamily(
            "mixpanel_etl_flow_lag_seconds",
            "How long ago the moment is up to which an enabled flow has events; of one that has "
            "brought nothing yet, how long ago it was made.",
            labels=["flow"],
        )
        for name, resource in flows.items():
            once = resource.body.get("scheduleParams", {}).get("frequency") == "once"
            if not once and resource.body.get("state") != DISABLED:
                since = totals[name][figures.REACHED] or resource.created_at
                gauge.add_metric([name], max(0, self._plane.now() - since) / plan.SECOND)
        return gauge

    def _requests(self, flows: Iterable[Resource]) -> Iterator[Metric]:
        asked = GaugeMetricFamily(
            "mixpanel_etl_requests_last_hour",
            "Requests to Mixpanel in the last hour, of each project that has a flow.",
            labels=["project"],
        )
        now = self._plane.now()
        for project in sorted(set(self._projects(flows))):
            asked.add_metric([project], len(self._plane.catalog.recent_requests(project, now)))
        yield asked
        yield GaugeMetricFamily(
            "mixpanel_etl_requests_hourly_budget",
            "Requests that Mixpanel allows a project in an hour.",
            value=retry.DEFAULT_RATE_LIMIT.per_hour,
        )

    def _projects(self, flows: Iterable[Resource]) -> Iterator[str]:
        """Those of flows: a client can look into any other, which would be a label forever."""
        resources = self._plane.resources
        for each in flows:
            with suppress(EtlError):  # it cannot run, and asks nobody
                source = only(each.body, "sourceConnectionIds", "source")
                found = resources.get("sourceConnections", source)
                connection = connection_of(found, resources, self._plane.vault)
                yield Flow(each.id, connection, "").project


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
