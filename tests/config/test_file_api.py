"""The table [api]: where the control plane listens, and who may call."""

from pathlib import Path

import pytest

from engine.config.file import Api, load
from engine.errors import InputError

TOKEN = "a-token-that-was-thought-of"
ENVIRON = {"TOKEN": "short", "ETL_TOKEN": TOKEN, "ETL_KEY": "a key", "ETL_SPACES": f"{TOKEN} x"}


def api(folder: Path, text: str) -> Api:
    """Load a file that has this table [api], and no flow."""
    path = folder / "etl.toml"
    path.write_text(f"[api]\n{text}\n")
    loaded = load(path, ENVIRON)
    assert loaded.flows == {}
    assert loaded.api
    return loaded.api


def test_an_empty_table(tmp_path: Path) -> None:
    """An empty table listens on loopback, and secrets are made in the home."""
    assert api(tmp_path, "") == Api("127.0.0.1", 8787, None, None, Path("data"), ())


def test_no_table(tmp_path: Path) -> None:
    """A file without [api] has no control plane, and must declare flows."""
    path = tmp_path / "etl.toml"
    path.write_text('home = "x"\n')
    with pytest.raises(InputError, match=r"flows: is missing"):
        load(path, ENVIRON)


def test_every_key(tmp_path: Path) -> None:
    """Every key is read; secrets come from a file and a variable."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = api(
        tmp_path,
        f"""
        listen = "0.0.0.0:80"
        token = {{ file = "{tmp_path}/token" }}
        key = {{ env = "ETL_KEY" }}
        datasets = "/srv/tables"
        hosts = ["etl.example.org"]
        url = "https://etl.example.org:8443/"
        """,
    )
    assert found.token
    assert found.key
    assert (found.token.reveal(), found.key.reveal()) == (TOKEN, "a key")
    assert (found.host, found.port) == ("0.0.0.0", 80)
    assert (found.datasets, found.hosts) == (Path("/srv/tables"), ("etl.example.org",))
    assert found.url == "https://etl.example.org:8443"
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("127.9.9.9:65535", "127.9.9.9", 65535),
        ("localhost:1", "localhost", 1),
        ("[::1]:8787", "::1", 8787),
    ],
)
def test_loopback_addresses(tmp_path: Path, listen: str, host: str, port: int) -> None:
    """Loopback addresses need no token in the file."""
    found = api(tmp_path, f'listen = "{listen}"')
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "[::]:1", "192.168.1.2:8787", "etl.example.org:80", "localhost.x:1"]
)
def test_addresses_that_others_can_reach(tmp_path: Path, listen: str) -> None:
    """An address that other machines can reach needs a token in the file."""
    with pytest.raises(InputError, match=r"api\.token: is missing\. Others can call"):
        api(tmp_path, f'listen = "{listen}"')
    assert api(tmp_path, f'listen = "{listen}"\ntoken = {{ env = "ETL_TOKEN" }}').token


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("port = 80", r"api\.port: is not known here.*Allowed: listen, token, key"),
        ("listn = 1", 'did you mean "listen"'),
        ("listen = 8787", r'api\.listen: must be an address and a port, as "127\.0\.0\.1:8787"'),
        ('listen = "8787"', "must be an address and a port"),
        ('listen = "127.0.0.1"', "must be an address and a port"),
        ('listen = "127.0.0.1:65536"', "must be an address and a port"),
        ('listen = "::1:80"', "must be an address and a port"),
        ('listen = "http://127.0.0.1:80"', "must be an address and a port"),
        ('listen = "127.0.0.1:٣"', "must be an address and a port"),
        (f'token = "{TOKEN}"', "a token does not belong into this file"),
        ('token = { env = "TOKEN" }', "must be .*at least 16"),
        ('token = { env = "ETL_SPACES" }', "must be .*at least 16"),
        ('token = { env = "NO_TOKEN" }', "the environment variable NO_TOKEN is not set"),
        ('key = "x"', "a key does not belong into this file"),
        ("datasets = 5", "must be the path of a folder"),
        ('hosts = "x"', "must be a list of names"),
        ("hosts = []", "must be a list of names"),
        ("hosts = [1]", "must be a list of names"),
        ('url = "etl.example.org"', r"api\.url: must be the scheme and host of a URL, as"),
        ('url = "ftp://etl.example.org"', "must be the scheme and host"),
        ('url = "https://etl.example.org/below"', "must be the scheme and host"),
        ('url = "https://a:b@etl.example.org"', "must be the scheme and host"),
        ('url = "us"', "must be the scheme and host"),
        ("url = 5", "must be the scheme and host"),
    ],
)
def test_wrong_values_of_the_table(tmp_path: Path, line: str, sentence: str) -> None:
    """The key is named, and what it must be; never a secret's value (P7)."""
    with pytest.raises(InputError, match=sentence) as error:
        api(tmp_path, line)
    assert "short" not in str(error.value)
    assert TOKEN not in str(error.value)


def test_a_value_in_the_place_of_the_table(tmp_path: Path) -> None:
    """Any other value in the place of the table is refused."""
    path = tmp_path / "etl.toml"
    path.write_text("api = 5\n")
    with pytest.raises(InputError, match=r"api: must be a table: \[api\], not 5"):
        load(path, ENVIRON)
