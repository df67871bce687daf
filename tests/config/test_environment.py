"""The environment variables: what they declare, and errors that repeat none of their values."""

from pathlib import Path

import pytest

from engine.config import environment
from engine.config.environment import connection_of
from engine.errors import InputError

ENVIRON = {
    "MIXPANEL_USERNAME": "reader.6d4ee7.mp-service-account",
    "MIXPANEL_PASSWORD": "8iQbnjuk5",
    "MIXPANEL_PROJECT_ID": "2384945",
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_are_no_part_of_any_variable(end: str) -> None:
    """Line ends are trimmed from every variable, the project's number and the home among them."""
    whole = ENVIRON | {"MIXPANEL_HOST": "eu", "MIXPANEL_TIMEZONE": "UTC"}
    ended = {name: value + end for name, value in whole.items()}
    assert connection_of(ended) == connection_of(whole)
    assert environment.home({"MIXPANEL_ETL_HOME": "/srv/etl" + end}) == Path("/srv/etl")
    assert environment.home({"MIXPANEL_ETL_HOME": end}) == Path(".mixpanel-etl")


def test_the_environment_alone_describes_a_connection() -> None:
    """Every documented variable is read; those that are not set have their documented defaults."""
    connection = connection_of(ENVIRON)
    assert connection.host == "https://data.mixpanel.com"
    assert connection.username == ENVIRON["MIXPANEL_USERNAME"]
    assert connection.password.reveal() == "8iQbnjuk5"
    assert (connection.project_id, connection.timezone) == (2384945, "UTC")
    other = connection_of(
        ENVIRON | {"MIXPANEL_HOST": "data-eu", "MIXPANEL_TIMEZONE": "Pacific Standard Time"}
    )
    assert other.host == "https://data-eu.mixpanel.com"
    assert other.timezone == "America/Los_Angeles"


def test_all_missing_variables_are_reported_at_once() -> None:
    """One error names all missing variables, empty ones too, and every other problem."""
    with pytest.raises(InputError) as error:
        connection_of({"MIXPANEL_PASSWORD": "", "MIXPANEL_TIMEZONE": "Mars"})
    missing, zone = str(error.value).split("\n")
    names = "MIXPANEL_USERNAME, MIXPANEL_PASSWORD, MIXPANEL_PROJECT_ID"
    assert missing.startswith(f"environment: {names}: not set")
    assert zone.startswith("environment: MIXPANEL_TIMEZONE: is not a time zone")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MIXPANEL_PROJECT_ID", "shop"),
        ("MIXPANEL_PROJECT_ID", "-1"),
        ("MIXPANEL_PROJECT_ID", "٣"),
        ("MIXPANEL_HOST", "data.mixpanel.com"),
        ("MIXPANEL_HOST", "https://data.mixpanel.com/api"),
        ("MIXPANEL_USERNAME", "a:b"),
    ],
)
def test_a_wrong_variable_is_named_and_not_repeated(variable: str, value: str) -> None:
    """P7: variables get mixed up, so the error shows the name alone."""
    with pytest.raises(InputError, match=f"^environment: {variable}: must be ") as error:
        connection_of(ENVIRON | {variable: value})
    assert f'"{value}"' not in str(error.value)


@pytest.mark.parametrize("variable", sorted(ENVIRON))
def test_a_variable_that_is_no_text_is_named(variable: str) -> None:
    """P7: the error does not repeat bytes that are not UTF-8."""
    with pytest.raises(InputError, match=f"{variable} is not a text in UTF-8$") as error:
        connection_of(ENVIRON | {variable: "sec\udcffret"})
    assert "sec" not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({}, ".mixpanel-etl"),
        ({"MIXPANEL_ETL_HOME": ""}, ".mixpanel-etl"),
        ({"MIXPANEL_ETL_HOME": "/srv/etl"}, "/srv/etl"),
    ],
)
def test_the_home_is_the_variables_or_the_default(environ: dict[str, str], path: str) -> None:
    """An empty MIXPANEL_ETL_HOME counts as unset."""
    assert environment.home(environ) == Path(path)
