"""`check`: test the mapping, the schema, the credentials and the table of every flow."""

from collections.abc import Callable
from functools import partial
from textwrap import indent
from typing import Any

from engine.cli import options
from engine.cli.console import print_result
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import ConfigFile
from engine.control import declared_flows
from engine.errors import EtlError, status_of
from engine.model.flow import Flow, superseded_in_words
from engine.model.window import DAY, Window
from engine.sync import open_flow

with lazy_imports():
    from engine.sync import sample


def check(config_file: ConfigFile = None) -> int:
    """Check mapping, schema, credentials and table of every flow, and print all problems."""
    flows, home = declared_flows.flows_of(config_file)
    checked, failures = set(), list[EtlError]()

    def report(flow: Flow, subject: str, success: str, test: Callable[[], Any]) -> Any:
        """Run `test` and print its outcome; return its result, or None if it raised."""
        try:
            result = test()
        except EtlError as error:
            failures.append(error)
            print_result(f"wrong  {flow.name}: {subject}\n{indent(str(error), ' ' * 7)}")
            return None
        print_result(f"ok     {flow.name}: {subject} {success}")
        return result

    for flow in flows:
        rules = report(
            flow, f"mapping {flow.mapping}", f"fits schema {flow.schema}",
            partial(open_flow.rules_of, flow),
        )  # fmt: skip
        source = (flow.connection, flow.events, flow.where)
        if source not in checked:  # every request counts against the project's rate limit
            checked.add(source)
            day = options.latest(flow.connection.zone) - DAY
            test = partial(sample.sample, flow, home, Window(day, day), 1)
            report(flow, flow.connection.host, "answers these credentials", test)
        success = f"can be written; {superseded_in_words(flow.keep_superseded_hours)}"
        report(flow, f"dataset {flow.dataset}", success, partial(sample.check_table, flow, rules))
        if rules and sample.has_table(flow):
            files = f"files of dataset {flow.dataset}"
            report(flow, files, "are all there", partial(sample.check_files, flow, rules))
    return max((status_of(error) for error in failures), default=0)
