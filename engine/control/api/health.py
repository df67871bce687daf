"""/healthz, /readyz and /metrics: liveness, readiness, and metrics for Prometheus.

Metrics are read from the catalog at each request; this module counts nothing.
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

from engine.catalog import flow_totals as catalog_metrics
from engine.catalog.resources import Resource
from engine.control.api.app_state import AppState, State
from engine.control.to_flow import connection_of, name_of
from engine.control.validation import DISABLED, only, options_of, schedule_of
from engine.errors import EtlError
from engine.model import retry
from engine.model import schedule as plan
from engine.model.flow import DELAY_MINUTES, Flow, Schedule
from engine.model.run_record import IN_PROGRESS, SCHEDULED

router = APIRouter(tags=["health"])

UNFINISHED = (IN_PROGRESS, SCHEDULED)
# The counters of each flow: name, description, second label, and the totals by that label.
COUNTERS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("runs", "Runs that have ended.", "status", catalog_metrics.RUNS),
    ("events_in", "Events received: out, rejected and duplicate.", "", {"": "events in"}),
    ("events_out", "Events written to the table.", "", {"": "events out"}),
    ("events_rejected", "Events rejected, or of failed runs.", "", {"": "events rejected"}),
    ("events_duplicate", "Events that were received before.", "", {"": "events duplicate"}),
    ("read_bytes", "Bytes received, after decompression.", "", {"": "bytes in"}),
    ("written_bytes", "Bytes of files written to the table.", "", {"": "bytes out"}),
    ("stage_seconds", "Seconds of runs, by stage.", "stage", catalog_metrics.MS),
)


Ready = dict[str, str | list[str]]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Return 200 as long as the program runs, without I/O and without a thread."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "The problems.", "model": Ready}})
def readyz(response: Response, state: State) -> Ready:
    """Return whether every flow can run and is up to date, else 503 and the problems."""
    problems = list(state.unready())
    try:
        state.catalog.check()
        problems += behind(state)
    except EtlError as error:
        problems.append(str(error))
    response.status_code = 503 if problems else 200
    return {"status": "not ready" if problems else "ready", "problems": problems}


def behind(state: AppState) -> list[str]:
    """Return a sentence for each enabled flow without data for two intervals and its delay."""
    query = "SELECT flow, value FROM totals WHERE what = ?"
    reached = dict(state.catalog.read(query, [catalog_metrics.REACHED]))
    sentences = []
    for resource in state.resources.all("flows"):
        if resource.body.get("state") == DISABLED:
            continue
        with suppress(EtlError):  # it cannot run, and `unready` reports it
            schedule, _ = schedule_of(resource.body, needed=False)
            options, _ = options_of(resource.body)
            name = name_of(resource)
            since = _since(schedule, reached.get(name, 0), resource.created_at)
            delay = options.get("delay_minutes", DELAY_MINUTES)
            if schedule and since and state.now() - since > plan.stale_after(schedule, delay):
                moment = f"{datetime.fromtimestamp(since / plan.SECOND, UTC):%F %R} UTC"
                sentences.append(f"Flow {name} is behind: nothing was brought since {moment}.")
    return sentences


def _since(schedule: Schedule | None, reached: int, created: int) -> int | None:
    """Return the time in ms from which a flow has to bring data; None if it has none to bring."""
    if schedule is None or (reached and plan.is_once(schedule)):
        return None
    return max(reached or created, schedule.start_time * plan.SECOND)


@router.get("/metrics", response_class=Response)
def metrics(state: State) -> Response:
    """Return the metrics for Prometheus."""
    registry = CollectorRegistry()
    registry.register(CatalogMetrics(state))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class CatalogMetrics(Collector):
    """Reads metrics from the catalog.

    Labels are existing flows, their projects, and closed lists. Deleted flows of clients are left
    out: their ids would stay labels forever.
    """

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._read = state.catalog.read

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, with names and units by Prometheus' rules."""
        flows = {name_of(each): each for each in self._state.resources.all("flows")}
        totals: dict[str, Counter[str]] = {name: Counter() for name in flows}
        for flow, what, value in self._read("SELECT flow, what, value FROM totals"):
            if flow in flows or not _is_uuid(flow):
                totals.setdefault(flow, Counter())[what] = value
        for name, description, label, parts in COUNTERS:
            labels = ["flow", label] if label else ["flow"]
            counter = CounterMetricFamily(f"mixpanel_etl_{name}", description, labels=labels)
            for flow, of in totals.items():
                for part, what in parts.items():
                    value = (
                        of[what] / plan.SECOND if what in catalog_metrics.MS.values() else of[what]
                    )
                    counter.add_metric([flow, part] if label else [flow], value)
            yield counter
        yield self._unfinished(totals)
        yield self._lag(flows, totals)
        yield from self._requests(flows.values())

    def _unfinished(self, known: Container[str]) -> Metric:
        gauge = GaugeMetricFamily(
            "mixpanel_etl_runs_unfinished", "Runs that have not ended.", labels=["flow", "status"]
        )
        query = "SELECT flow, status, count(*) FROM runs WHERE status IN (?, ?) GROUP BY 1, 2"
        for flow, status, count in self._read(query, UNFINISHED):
            if flow in known or not _is_uuid(flow):
                gauge.add_metric([flow, status], count)
        return gauge

    def _lag(self, flows: Mapping[str, Resource], totals: Mapping[str, Counter[str]]) -> Metric:
        gauge = GaugeMetricFamily(
            "mixpanel_etl_flow_lag_seconds",
            "Seconds since the moment up to which an enabled flow has events, or, without any, "
            "since its creation.",
            labels=["flow"],
        )
        for name, resource in flows.items():
            once = resource.body.get("scheduleParams", {}).get("frequency") == "once"
            if not once and resource.body.get("state") != DISABLED:
                since = totals[name][catalog_metrics.REACHED] or resource.created_at
                gauge.add_metric([name], max(0, self._state.now() - since) / plan.SECOND)
        return gauge

    def _requests(self, flows: Iterable[Resource]) -> Iterator[Metric]:
        requests = GaugeMetricFamily(
            "mixpanel_etl_requests_last_hour",
            "Requests to Mixpanel in the last hour, of each project that has a flow.",
            labels=["project"],
        )
        now = self._state.now()
        for project in sorted(set(self._projects(flows))):
            requests.add_metric([project], len(self._state.catalog.recent_requests(project, now)))
        yield requests
        yield GaugeMetricFamily(
            "mixpanel_etl_requests_hourly_budget",
            "Requests that Mixpanel allows a project in an hour.",
            value=retry.DEFAULT_RATE_LIMIT.per_hour,
        )

    def _projects(self, flows: Iterable[Resource]) -> Iterator[str]:
        """Yield the projects of flows, without those that clients only explored."""
        resources = self._state.resources
        for each in flows:
            with suppress(EtlError):  # it cannot run, and sends no request
                source = only(each.body, "sourceConnectionIds", "source")
                source_connection = resources.get("sourceConnections", source)
                connection = connection_of(source_connection, resources, self._state.secret_store)
                yield Flow(each.id, connection, "").project


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True
