"""The configuration file: documented keys are read, others refused, and no error shows a secret."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import environment, fields
from engine.config.environment import connection_of
from engine.config.file import load
from engine.errors import InputError
from engine.model.flow import Flow, Schedule

ENVIRON = {
    "MIXPANEL_USERNAME": "reader.6d4ee7.mp-service-account",
    "MIXPANEL_PASSWORD": "8iQbnjuk5",
    "MIXPANEL_PROJECT_ID": "2384945",
}
CONTRACT = """
home = "./.mixpanel-etl"                       # the catalog

[connections.shop]                             # a Mixpanel project
host = "https://data.mixpanel.com"
username = { env = "MIXPANEL_USERNAME" }       # or { file = "/run/secrets/…" }
password = { env = "MIXPANEL_PASSWORD" }       # a literal password is refused
project_id = 2384945
timezone = "Pacific Standard Time"             # IANA or Windows name

[flows.events]
connection = "shop"
dataset = "data/events"
mapping = "mixpanel-events"                    # a name in mappings/ or a path
schema = "mixpanel-events"
schedule = { frequency = "minute", interval = 15, start_time = 1625040887 }
"""
SHORT = """
[connections.shop]
{connection}
[flows.events]
connection = "shop"
dataset = "data/events"
{flow}
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `shop.toml` and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "shop.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def short(connection: str = "", flow: str = "") -> str:
    return SHORT.format(connection=connection, flow=flow)


def problems(path: Path, environ: dict[str, str] = ENVIRON) -> list[str]:
    """Return the lines of the error, without the file's name at the start of each."""
    with pytest.raises(InputError) as error:
        load(path, environ)
    lines = str(error.value).split("\n")
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_the_documented_example_is_read(write: Write) -> None:
    """Every key of the documented example arrives; a Windows zone becomes its IANA name."""
    read = load(write(CONTRACT), ENVIRON)
    flow = read.flows["events"]
    assert read.home == Path("./.mixpanel-etl")
    assert flow.connection.host == "https://data.mixpanel.com"
    assert flow.connection.username == ENVIRON["MIXPANEL_USERNAME"]
    assert flow.connection.password.reveal() == "8iQbnjuk5"
    assert (flow.connection.project_id, flow.connection.name) == (2384945, "shop")
    assert flow.connection.timezone == "America/Los_Angeles"
    assert (flow.name, flow.dataset) == ("events", "data/events")
    assert flow.schedule == Schedule("minute", 15, 1625040887)
    assert (flow.mapping, flow.schema, flow.windows) == (
        "mixpanel-events",
        "mixpanel-events",
        "arrival",
    )


def test_what_is_left_out_has_its_documented_value(write: Write) -> None:
    """A flow without settings has those of Flow; the environment fills in the connection."""
    read = load(write(short()), ENVIRON)
    flow = read.flows["events"]
    assert flow == Flow("events", flow.connection, "data/events", windows="day")
    assert read.home == Path(".mixpanel-etl")
    assert (flow.connection.host, flow.connection.timezone) == ("https://data.mixpanel.com", "UTC")
    assert flow.connection.project_id == 2384945


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('windows = "arrival"', "windows", "arrival"),
        ('windows = "day"', "windows", "day"),
        ("lookback_days = 9", "lookback_days", 9),
        ("delay_minutes = 0", "delay_minutes", 0),
        ('backfill_from = "2024-01-01"', "backfill_from", date(2024, 1, 1)),
        ("backfill_from = 2024-01-01", "backfill_from", date(2024, 1, 1)),
        ('events = ["Items sold", "Sign up"]', "events", ("Items sold", "Sign up")),
        ("where = 'properties[\"a\"] == 1'", "where", 'properties["a"] == 1'),
        ("partial_ingestion_percent = 0", "partial_ingestion_percent", 0.0),
        ("partial_ingestion_min = 0", "partial_ingestion_min", 0),
        ("partial_ingestion_percent = 100", "partial_ingestion_percent", 100.0),
        ("partial_ingestion_percent = 0.5", "partial_ingestion_percent", 0.5),
        ('unmapped = "drop"', "unmapped", "drop"),
        ("shrink_guard_percent = 50", "shrink_guard_percent", 50.0),
        ("keep_superseded_hours = 168", "keep_superseded_hours", 168.0),
        ("keep_batches_days = 0", "keep_batches_days", 0.0),
        ("keep_batches_days = 100000", "keep_batches_days", 100_000.0),
    ],
)
def test_a_setting_of_a_flow_is_read(write: Write, line: str, name: str, value: object) -> None:
    """Each documented setting, at the ends of what is allowed, arrives with its type."""
    flow = load(write(short(flow=line)), ENVIRON).flows["events"]
    assert getattr(flow, name) == value
    assert type(getattr(flow, name)) is type(value)


@pytest.mark.parametrize(
    ("line", "key", "sentence"),
    [
        ("mapping = 5", "mapping", "must be the name of a shipped mapping set or a path, not 5"),
        ('dataset = ""', "dataset", 'not ""'),
        ('windows = "days"', "windows", 'must be "arrival" or "day", not "days"'),
        (
            'lookback_days = "5"',
            "lookback_days",
            'must be a whole number from 1 to 100000, not "5"',
        ),
        ("lookback_days = 0", "lookback_days", "not 0"),
        ("lookback_days = 5.0", "lookback_days", "not 5.0"),
        ("lookback_days = true", "lookback_days", "not true"),
        ("delay_minutes = -1", "delay_minutes", "must be a whole number from 0"),
        ('backfill_from = "20240101"', "backfill_from", 'must be a date, as "2024-01-01"'),
        ('backfill_from = "2024-02-30"', "backfill_from", "is no date: February 2024 has 29 days"),
        ('backfill_from = "2023-02-29"', "backfill_from", "is no date: February 2023 has 28 days"),
        ('backfill_from = "2024-04-31"', "backfill_from", "is no date: April 2024 has 30 days"),
        ('backfill_from = "2024-01-00"', "backfill_from", "is no date: January 2024 has 31 days"),
        ('backfill_from = "2024-13-01"', "backfill_from", "is no date: a year has the months"),
        ('backfill_from = "0000-01-01"', "backfill_from", "is no date: year 0 is out of range"),
        ("backfill_from = 2024-01-01T00:00:00Z", "backfill_from", "must be a date"),
        ('events = "Items sold"', "events", "must be a list of names of events"),
        ("events = []", "events", "must be a list of names of events"),
        ("events = [1]", "events", "must be a list of names of events"),
        ("partial_ingestion_percent = 101", "partial_ingestion_percent", "a number from 0 to 100"),
        ("partial_ingestion_percent = nan", "partial_ingestion_percent", "a number from 0 to 100"),
        ("shrink_guard_percent = -0.1", "shrink_guard_percent", "a number from 0 to 100"),
        ("keep_superseded_hours = inf", "keep_superseded_hours", "a number from 0"),
        ("keep_batches_days = -1", "keep_batches_days", "a number from 0 to 100000"),
        ('unmapped = "keeep"', "unmapped", 'must be "keep" or "drop"'),
        ("schedule = 15", "schedule", "must be { frequency = …"),
        ('maping = "x"', "maping", 'is not known here; did you mean "mapping"? Allowed: connec'),
        ("colour = 5", "colour", "is not known here. Allowed: connection, dataset"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    write: Write, line: str, key: str, sentence: str
) -> None:
    """One problem, with the whole path of the key and the values that would do."""
    text = short(flow=line)
    if key == "dataset":
        text = text.replace('dataset = "data/events"\n', "")
    (problem,) = problems(write(text))
    assert problem.startswith(f"flows.events.{key}: ")
    assert sentence in problem


@pytest.mark.parametrize(
    ("schedule", "read"),
    [
        ('frequency = "once", start_time = 0', Schedule("once", None, 0)),
        ('frequency = "minute", interval = 15, start_time = 1', Schedule("minute", 15, 1)),
        ('frequency = "hour", interval = 1, start_time = 1', Schedule("hour", 1, 1)),
        ('frequency = "day", interval = 2, start_time = 1', Schedule("day", 2, 1)),
        ('frequency = "week", interval = 1, start_time = 1', Schedule("week", 1, 1)),
        ('frequency = "minute", interval = 15', Schedule("minute", 15, 0)),
        ('frequency = "day", interval = 1', Schedule("day", 1, 0)),
    ],
)
def test_the_tutorials_schedules_are_read(write: Write, schedule: str, read: Schedule) -> None:
    """All five frequencies at their smallest interval; a schedule brings arrival windows."""
    flow = load(write(short(flow=f"schedule = {{ {schedule} }}")), ENVIRON).flows["events"]
    assert flow.schedule == read
    assert flow.windows == "arrival"


@pytest.mark.parametrize(
    ("schedule", "key", "sentence"),
    [
        (
            'frequency = "minute", interval = 5',
            "interval",
            "is 5 minutes, and the least is 15: each tick costs one of the 60 requests an hour",
        ),
        ('frequency = "minute", interval = 14', "interval", "is 14 minutes, and the least is 15"),
        ('frequency = "minute", interval = 0', "interval", "from 15 to 100000, not 0"),
        ('frequency = "minute", interval = 15.0, start_time = 1', "interval", "whole number"),
        ('frequency = "hour", interval = 0, start_time = 1', "interval", "from 1 to 100000"),
        ('frequency = "day", start_time = 1', "interval", "is missing. It must be a whole number"),
        ('frequency = "once", interval = 1, start_time = 1', "interval", "leave it out"),
        ('frequency = "hourly", start_time = 1', "frequency", '"once" or "minute" or "hour"'),
        ("interval = 1, start_time = 1", "frequency", "is missing"),
        ('frequency = "once"', "start_time", "is missing"),
        ('frequency = "once", start_time = 1625040887000', "start_time", "seconds (not ms)"),
        ('frequency = "once", start_time = "1625040887"', "start_time", "whole seconds"),
        ('frequency = "once", start_time = true', "start_time", "whole seconds"),
        ('frequency = "once", starttime = 1, start_time = 1', "starttime", '"start_time"?'),
    ],
)
def test_a_wrong_schedule_is_named(write: Write, schedule: str, key: str, sentence: str) -> None:
    """The tutorial's rules: 15 for minute, 1 for the rest, none for once; all else is refused."""
    (problem,) = problems(write(short(flow=f"schedule = {{ {schedule} }}")))
    assert problem.startswith(f"flows.events.schedule.{key}: ")
    assert sentence in problem


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('host = "https://data-eu.mixpanel.com/"', "host", "https://data-eu.mixpanel.com"),
        ('host = "http://127.0.0.1:8080"', "host", "http://127.0.0.1:8080"),
        ('host = "eu"', "host", "https://data-eu.mixpanel.com"),
        ('host = "data-in"', "host", "https://data-in.mixpanel.com"),
        ('username = "someone"', "username", "someone"),
        ('username = { env = "WHO" }', "username", "from WHO"),
        ("project_id = 7", "project_id", 7),
        ('project_id = { env = "NUMBER" }', "project_id", 12),
        ('timezone = "Europe/Berlin"', "timezone", "Europe/Berlin"),
        ('timezone = "europe/berlin"', "timezone", "Europe/Berlin"),
    ],
)
def test_a_setting_of_a_connection_is_read(
    write: Write, line: str, name: str, value: object
) -> None:
    """The file's value arrives, and wins over the environment's."""
    environ = ENVIRON | {
        "WHO": "from WHO",
        "NUMBER": "12",
        "MIXPANEL_HOST": "https://elsewhere.example",
        "MIXPANEL_TIMEZONE": "Asia/Tokyo",
    }
    connection = load(write(short(line)), environ).flows["events"].connection
    assert getattr(connection, name) == value


@pytest.mark.parametrize(
    ("line", "key", "sentence"),
    [
        ('host = "data.mixpanel.com"', "host", 'as "https://data.mixpanel.com"'),
        ('host = "https://data.mixpanel.com/api/2.0"', "host", "must be the scheme and host"),
        ('host = "https://"', "host", "must be"),
        ('host = "ftp://data.mixpanel.com"', "host", "must be"),
        ('host = "https://h?x=1"', "host", "must be"),
        ('host = "https://a b"', "host", "must be"),
        ('host = "https://h:99999"', "host", "must be"),
        ('username = ""', "username", "must be the name of a service account"),
        ("username = 5", "username", "must be"),
        ('project_id = "2384945"', "project_id", "must be the number of a project"),
        ("project_id = 0", "project_id", "must be"),
        ("project_id = true", "project_id", "must be"),
        ('project_id = { env = "MIXPANEL_USERNAME" }', "project_id", "must be the number"),
        ("project_id = { env = 'QUOTED' }", "project_id", "without quotation marks"),
        ("host = { env = 'QUOTED' }", "host", "without quotation marks"),
        ("timezone = \"'UTC'\"", "timezone", "without quotation marks"),
        ('timezone = "Pacific Standart Time"', "timezone", "Pacific Standard Time"),
        ('password = { env = "NOT_THERE" }', "password", "variable NOT_THERE is not set"),
        ('password = { env = "EMPTY_ONE" }', "password", "variable EMPTY_ONE is not set"),
        ('password = { env = "P40" }', "password", "variable P40 is not set"),
        ('password = { env = "TOKEN" }', "password", "variable TOKEN is not set"),
        ('username = { env = "USER2" }', "username", "variable USER2 is not set"),
        ('password = { file = "/no/such/file" }', "password", "file /no/such/file cannot be read"),
        ('username = { file = "/no/such/file" }', "username", "(No such file or directory)"),
        ('password = { file = "/" }', "password", "cannot be read (Is a directory)"),
        ("password = {}", "password", 'must be { env = "NAME" } or { file = "PATH" }'),
        ('password = { env = "A", file = "B" }', "password", "must be { env ="),
        ('password = { environ = "A" }', "password", "must be { env ="),
        ("password = { env = 5 }", "password", "must be { env ="),
        ('passwort = "x"', "passwort", 'did you mean "password"?'),
    ],
)
def test_a_wrong_connection_is_named(write: Write, line: str, key: str, sentence: str) -> None:
    """One problem, with the whole path of the key and the values that would do."""
    (problem,) = problems(write(short(line)), ENVIRON | {"EMPTY_ONE": "", "QUOTED": '"1"'})
    assert problem.startswith(f"connections.shop.{key}: ")
    assert sentence in problem


def test_a_secret_can_stand_in_a_file(write: Write, tmp_path: Path) -> None:
    """The secret is the file's text without its line end; blanks stay."""
    (tmp_path / "secret").write_text(" pass word \r\n")
    text = short(f'password = {{ file = "{tmp_path}/secret" }}')
    connection = load(write(text), ENVIRON).flows["events"].connection
    assert connection.password.reveal() == " pass word "


@pytest.mark.parametrize(
    "content",
    [b"secret", b"secret\n", b"secret\r\n", b"\r\n\nsecret\n\n", b"\xef\xbb\xbfsecret\r\n"],
)
def test_line_ends_are_no_part_of_a_value_wherever_it_stands(
    write: Write, tmp_path: Path, content: bytes
) -> None:
    """Line ends are trimmed in a secret's file, in variables, and in the configuration."""
    (tmp_path / "secret").write_bytes(content)
    text = content.decode("utf-8-sig")
    lines = [f'password = {{ file = "{tmp_path}/secret" }}', 'password = { env = "P" }', ""]
    read = [
        load(write(short(line)), ENVIRON | {"P": text, "MIXPANEL_PASSWORD": text})
        .flows["events"]
        .connection
        for line in lines
    ]
    read.append(connection_of(ENVIRON | {"MIXPANEL_PASSWORD": text}))
    assert {each.password.reveal() for each in read} == {"secret"}
    for line in (f"username = {json.dumps(text)}", 'username = { env = "P" }'):
        flows = load(write(short(line)), ENVIRON | {"P": text}).flows
        assert flows["events"].connection.username == "secret"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"\xef\xbb\xbf\r\n"])
def test_a_secrets_file_without_a_secret_is_a_problem(
    write: Write, tmp_path: Path, content: bytes
) -> None:
    """An empty or unreadable file is no password."""
    (tmp_path / "secret").write_bytes(content)
    (problem,) = problems(write(short(f'password = {{ file = "{tmp_path}/secret" }}')))
    assert problem.startswith(f"connections.shop.password: the file {tmp_path}/secret is ")


def test_credentials_in_files_are_read_again(write: Write, tmp_path: Path) -> None:
    """New content replaces credentials; content that is no credential, and variables, do not."""
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("before\n")
    password.write_text("old\n")
    text = short(f'password = {{ file = "{password}" }}\nusername = {{ file = "{user}" }}')
    connection = load(write(text), ENVIRON).flows["events"].connection
    assert environment.read_again(connection) == connection
    user.write_text("after\n")
    password.write_text("new\n")
    fresh = environment.read_again(connection)
    assert (fresh.username, fresh.password.reveal()) == ("after", "new")
    for content in ("", "a:b\n"):  # the name of an account has no colon
        user.write_text(content)
        password.write_text("newer\n")
        kept = environment.read_again(fresh)
        assert (kept.username, kept.password.reveal()) == ("after", "newer")
    password.unlink()
    assert environment.read_again(fresh) == fresh
    plain = load(write(short()), ENVIRON).flows["events"].connection
    assert environment.read_again(plain) == plain


def test_a_variable_that_is_missing_has_one_line(write: Write) -> None:
    """A missing variable or file has one line, however many keys refer to it."""
    text = short('password = { env = "P40" }\nusername = { file = "/no/such/file" }')
    more = '[connections.other]\nproject_id = 1\nusername = { env = "P40" }\n'
    found = problems(write(f'{text}\n{more}password = {{ file = "/no/such/file" }}'))
    unset = "the environment variable P40 is not set"
    missing = "the file /no/such/file cannot be read (No such file or directory)"
    assert sorted(found) == [
        f"connections.shop.password, connections.other.username: {unset}",
        f"connections.shop.username, connections.other.password: {missing}",
    ]


@pytest.mark.parametrize(
    "line",
    [
        'password = "hunter2Secret"',
        "password = hunter2Secret",
        'passwort = "hunter2Secret"',
        'password = { env = "hunter2Secret" }',
        'password = { env = "HUNTER2SECRET" }',
        'password = { file = "hunter2Secret" }',
        'password = { file = "/hunter2Secret" }',
        'password = { env = "HUNTER2_secret" }',
        'password = { hunter = "hunter2Secret" }',
        'host = "https://reader:hunter2Secret@data.mixpanel.com"',
        'host = "https://reader:hunter2Secret"',
        'host = "hunter2Secret"',
        'username = "reader:hunter2Secret"',
        'username = { name = "hunter2Secret" }',
        'timezone = "hunter2Secret"',
        'project_id = "hunter2Secret"',
        'project_id = { env = "SWAPPED" }',
        'timezone = { env = "SWAPPED" }',
        'host = { env = "SWAPPED" }',
    ],
)
def test_no_error_shows_a_secret(write: Write, line: str) -> None:
    """P7: wherever a person puts a password by mistake, the error does not repeat it."""
    with pytest.raises(InputError) as error:
        load(write(short(line)), ENVIRON | {"SWAPPED": "hunter2Secret"})
    assert "hunter2" not in str(error.value).lower()


def test_a_literal_password_is_refused_with_the_way_out(write: Write) -> None:
    """The error says what to write in the place of a literal password."""
    (problem,) = problems(write(short('password = "8iQbnjuk5"')))
    assert problem == (
        "connections.shop.password: a password does not belong into this file: "
        'write { env = "NAME" } or { file = "PATH" }'
    )


def test_what_was_read_does_not_show_its_password(write: Write) -> None:
    """P7: the repr of a whole Config does not show a password."""
    read = load(write(CONTRACT), ENVIRON)
    assert "8iQbnjuk5" not in repr(read)
    assert "reader.6d4ee7" in repr(read)


def test_every_problem_is_reported_at_once(write: Write) -> None:
    """One error lists every problem of the file, in the file's order."""
    text = """
        hom = "x"
        [connections.shop]
        host = "nowhere"
        [connections.other]
        timezone = "Mars"
        [flows.one]
        connection = "shopp"
        schedule = { frequency = "minute", interval = 5 }
        [flows.two]
        connection = "shop"
        [flows."a/b"]
        connection = "shop"
        dataset = "x"
        [sinks.x]
    """
    found = problems(write(text), {})
    assert [line.split(": ")[0] for line in found] == [
        "hom",
        "sinks",
        "connections.shop.host",
        "connections.shop.username",
        "connections.shop.password",
        "connections.shop.project_id",
        "connections.other.timezone",
        "connections.other.username",
        "connections.other.password",
        "connections.other.project_id",
        "flows.one.dataset",
        "flows.one.schedule.interval",
        "flows.one.connection",
        "flows.two.dataset",
        "flows.a/b",
    ]
    assert '"shopp" is not declared; did you mean "shop"? Allowed: shop, other' in found[12]


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        ("", "flows", "is missing. It must be tables: [flows.NAME]"),
        ("flows = 5", "flows", "must be tables: [flows.NAME], not 5"),
        ("[flows]", "flows", "must be tables"),
        ("flows.events = 5", "flows.events", "must be a table"),
        ('[flows.events]\nconnection="x"\ndataset="y"', "flows.events.connection", "none"),
        ('home = 5\n[flows.e]\nconnection="x"\ndataset="y"', "home", "must be a text"),
    ],
)
def test_a_file_of_another_shape_is_a_problem(
    write: Write, text: str, key: str, sentence: str
) -> None:
    """The error names a missing or misplaced table like any other key."""
    first = problems(write(text))[0]
    assert first.startswith(f"{key}: ")
    assert sentence in first


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[flows\n", "is not TOML: .*line 1"),
        (b"\n\na = ?", "is not TOML: .*line 3"),
        (b"\xff\xfe", "is not TOML: .*utf-8"),
        (b"a = " + b"[" * 5000, "is not TOML: "),
        (b"#" * ((16 << 20) + 1), "is not TOML: it is larger than 16 MiB"),
        (None, r"cannot be read \(No such file"),
    ],
)
def test_an_unreadable_file_is_an_error_in_a_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    """The file is named, and where in it the trouble starts."""
    path = tmp_path / "shop.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"shop.toml: {sentence}"):
        load(path, ENVIRON)


def test_no_text_holds_a_null(write: Write) -> None:
    """No path and no address can hold a null character, so that every text with one is refused."""
    lines = ["mapping", "schema", "where"]
    flow = "\n".join(f'{name} = "a\\u0000b"' for name in lines)
    sentence = problems(write('home = "\\u0000"\n' + short(flow=flow)))
    keys = ["home", *(f"flows.events.{name}" for name in lines)]
    assert [line.split(": must be ")[0] for line in sentence] == keys


def test_the_files_home_wins_over_the_environments(write: Write) -> None:
    """The file's `home` overrides MIXPANEL_ETL_HOME."""
    environ = ENVIRON | {"MIXPANEL_ETL_HOME": "/srv/etl"}
    assert load(write(short()), environ).home == Path("/srv/etl")
    assert load(write('home = "here"\n' + short()), environ).home == Path("here")


TOML_VALUES = st.sampled_from(
    ['"x"', "5", "-1", "1.5", "nan", "true", "[]", "[1]", "{}", "{ env = 1 }", "2024-01-01"]
)
NAMES = st.sampled_from([*environment.VARIABLES, *(each.key for each in fields.FLOW), "x"])
LINES = st.dictionaries(NAMES, TOML_VALUES, max_size=4).map(
    lambda lines: "\n".join(f"{name} = {value}" for name, value in lines.items())
)


@settings(deadline=None, max_examples=150)
@given(LINES, LINES)
def test_any_table_is_flows_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, connection: str, flow: str
) -> None:
    """Any table gives a Config or an InputError, and no other exception."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(f"[connections.shop]\n{connection}\n[flows.events]\n{flow}\n")
    with suppress(InputError):
        assert set(load(path, ENVIRON).flows) == {"events"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data/events", "./data/../data/events/"),
        ("~/events", "{home}/events"),
        ("~/events", "file://{home}/events"),
        ("file:///tmp/a%20b", "/tmp/a b"),
        ("file://localhost/tmp/x", "/tmp/x"),
        ("file:///tmp/x", "file://localhost/tmp/x/"),
        ("link/events", "{real}/events"),
    ],
)
def test_two_flows_cannot_share_a_table_under_two_names(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str
) -> None:
    """P4: whatever a table is called, it is the table of one flow."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    other = other.format(home=tmp_path, real=tmp_path / "real")
    text = f"""
[connections.shop]
[flows.one]
connection = "shop"
dataset = "{one}"
[flows.two]
connection = "shop"
dataset = "{other}"
"""
    assert problems(write(text)) == ['flows.two.dataset: is the table of flow "one": give another']


def test_a_secret_is_not_a_large_file(write: Write, tmp_path: Path) -> None:
    """P7: a file of megabytes is another file: nothing of it is sent as a password, or shown."""
    path = tmp_path / "password"
    path.write_text("p" * (10 << 20))
    text = CONTRACT.replace('{ env = "MIXPANEL_PASSWORD" }', f'{{ file = "{path}" }}')
    sentence = f"the file {path} is larger than 16 KiB: name one that holds the secret alone"
    assert problems(write(text)) == [f"connections.shop.password: {sentence}"]
    path.write_text("p" * (16 << 10))
    password = load(write(text), ENVIRON).flows["events"].connection.password
    assert password.reveal() == "p" * (16 << 10)
