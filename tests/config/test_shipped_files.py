"""Mapping sets and schemas are found by name, as shipped, or by path."""

from pathlib import Path

import pytest

from engine.config.file import load
from engine.config.shipped_files import find
from engine.errors import InputError
from engine.transform.schema import Schema


@pytest.fixture(params=["installed", "checkout"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make two mapping sets, where a wheel or a checkout has them; return their folder."""
    package = tmp_path / "engine"
    folder = (package if request.param == "installed" else tmp_path) / "mappings"
    folder.mkdir(parents=True)
    (folder / "mixpanel-events.json").write_text('{"mappings": []}')
    (folder / "wide.json").write_text('{"mappings": [1]}')
    (folder / "mixpanel-events.cases.json").write_text("[]")
    monkeypatch.setattr("engine.config.shipped_files._PACKAGE", package)
    return str(folder)


def test_a_shipped_mapping_is_found_by_its_name(shipped: str) -> None:
    """A name finds the shipped file in an installed package and in a checkout."""
    assert shipped
    assert find("mapping", "wide") == ("wide", {"mappings": [1]})


def test_a_file_is_found_by_its_path(shipped: str, tmp_path: Path) -> None:
    """A path needs no shipped name; the file's name without its ending is the name."""
    path = tmp_path / "own.json"
    path.write_text('\ufeff{"a": 1}', "utf-8")
    assert shipped
    assert find("schema", str(path)) == ("own", {"a": 1})


@pytest.mark.parametrize("wanted", ["mixpanel-event", "mixpanel-events.cases", "no/such.json"])
def test_an_unknown_mapping_brings_the_shipped_names(shipped: str, wanted: str) -> None:
    """The error lists shipped names, without the test cases beside the mapping sets."""
    assert shipped
    with pytest.raises(InputError, match=f'no mapping "{wanted}".*: mixpanel-events, wide.$'):
        find("mapping", wanted)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 2500])
def test_a_name_that_no_file_can_have_is_an_error_in_a_sentence(name: str) -> None:
    """A name too long for any file is an InputError."""
    sentence = r"^x.*: cannot be read \(File name too long\)$"
    with pytest.raises(InputError, match=sentence):
        find("mapping", name)
    with pytest.raises(InputError, match=sentence):
        load(Path(name), {})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{\n "a": 1,,\n}', "is not JSON: .*line 2 column 9"),
        (b"\xff", "is not JSON: .*utf-8"),
        (b"[" * 100_000, "is not JSON: "),
        (b"", "is not JSON: .*line 1 column 1"),
        (b" " * ((16 << 20) + 1), "is not JSON: it is larger than 16 MiB"),
        (None, r"cannot be read \(Is a directory\)"),
    ],
)
def test_a_file_that_is_no_json_is_an_error_in_a_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    """The file is named, and where in it the trouble starts."""
    path = tmp_path / "own.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"own.json: {sentence}"):
        find("mapping", str(path))


EVENT = "https://ns.adobe.com/xdm/context/experienceevent"


def test_a_schema_file_of_a_class_stands_alone(tmp_path: Path) -> None:
    """What it names by `$ref` is among its definitions: standard documents and shipped schemas."""
    path = tmp_path / "own.json"
    shipped = "https://ns.adobe.com/extconndev/schemas/mixpanel-events"
    path.write_text(
        f'{{"title": "Own", "allOf": [{{"$ref": "{EVENT}"}}, {{"$ref": "{shipped}"}}]}}'
    )
    schema = Schema.parse(*find("schema", str(path)))
    assert {"_id", "timestamp", "_extconndev"} <= {field.name for field in schema.root.fields}


def test_a_reference_that_leads_nowhere_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    """The sentence names the file and the reference."""
    path = tmp_path / "own.json"
    path.write_text('{"allOf": [{"$ref": "https://ns.adobe.com/xdm/none"}]}')
    with pytest.raises(InputError, match=r"own.json cannot be used: there is no .*/xdm/none\.$"):
        find("schema", str(path))
