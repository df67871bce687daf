"""The files of a batch: Data Access's calls, which the links in a run record lead to.

A name in a request is compared with the names in a folder, and never becomes part of a path.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse

from engine.control.api.app_state import AppState, State
from engine.dataset import layout
from engine.dataset.layout import INPUTS, REJECT_SAMPLES, REJECTS
from engine.errors import NotFound, disk_error
from engine.model.window import Window

Json = dict[str, Any]
Show = Callable[[Path, os.stat_result], Json]  # a file as a member of a page

router = APIRouter(tags=["batches"])

MOST = 100  # files in one response
ALIASES = {"row_errors_sample.json": REJECT_SAMPLES}  # as the specification spells it

Start = Annotated[int, Query(ge=0, description="Number of files to skip.")]
Limit = Annotated[int, Query(ge=1, le=MOST)]
Wanted = Annotated[str | None, Query(alias="path", description="Instead of a list, this file.")]


@router.get("/batches/{batch}/meta", response_model=None)
def batch_meta(
    batch: str, request: Request, state: State, path: Wanted = None,
    start: Start = 0, limit: Limit = MOST,
) -> Json | FileResponse:  # fmt: skip
    """List the requests and the rejects of a batch, or return one of these files."""
    root, known, _ = _run(state, batch)
    folder = layout.batch(known)
    lists = {name: _listed(root, f"{folder}/{name}") for name in (INPUTS, REJECTS)}
    files = {f"{name}/{each.name}": each for name, found in lists.items() for each in found}
    shown = (INPUTS, REJECTS, REJECT_SAMPLES)
    lists[""] = [each for each in _listed(root, folder) if each.name in shown]
    files |= {each.name: each for each in lists[""] if each.name == REJECT_SAMPLES}
    wanted = (path or "").strip("/")
    if wanted in lists:
        prefix = f"{wanted}/".lstrip("/")
        return _page(request, lists[wanted], start, limit, _show_by(request, prefix))
    return _file(batch, wanted, files.get(ALIASES.get(wanted, wanted)))


@router.get("/batches/{batch}/failed", response_model=None)
def batch_failed(
    batch: str, request: Request, state: State, path: Wanted = None,
    start: Start = 0, limit: Limit = MOST,
) -> Json | FileResponse:  # fmt: skip
    """List the rejected records of a batch, or return one of these files."""
    root, known, _ = _run(state, batch)
    files = _listed(root, f"{layout.batch(known)}/{REJECTS}")
    if path:
        return _file(batch, path, {each.name: each for each in files}.get(path))
    return _page(request, files, start, limit, _show_by(request))


@router.get("/batches/{batch}/files")
def batch_files(
    batch: str, request: Request, state: State, start: Start = 0, limit: Limit = MOST
) -> Json:
    """List the files of the table that a batch wrote, without those that were replaced."""
    files = _table_files(state, batch)

    def show(file: Path, status: os.stat_result) -> Json:
        made = str(int(status.st_mtime * 1000))
        return {
            "dataSetFileId": file.stem,
            "created": made,
            "updated": made,
            "size": str(status.st_size),
            "isValid": True,
            "_links": {"self": {"href": str(request.url_for("table_file", file=file.stem))}},
        }

    return _page(request, files, start, limit, show)


@router.get("/files/{file}", response_model=None)
def table_file(
    file: str, request: Request, state: State, path: Wanted = None,
    start: Start = 0, limit: Limit = MOST,
) -> Json | FileResponse:  # fmt: skip
    """Return the name and length of a file of the table; with its `path`, the file."""
    batch = file.rpartition("-")[0]
    files = [each for each in _table_files(state, batch) if each.stem == file]
    if not files:
        raise NotFound("files", file)
    if path:
        return _file(file, path, {each.name: each for each in files}.get(path))
    return _page(request, files, start, limit, _show_by(request))


def addressed(request: Request, runs: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Yield run records, as JSON, with URLs in place of the paths in their manifests.

    Each comes with its table and its batch. The JSON is not parsed, which makes long lists fast.
    """
    batches = str(request.url_for("batch_meta", batch="-")).rpartition("/-/")[0]
    for item, root, batch in runs:
        # The start of a JSON value: within a text, such quotes would be escaped.
        folder = json.dumps(f"{root}/{layout.batch(batch)}")[:-1]
        yield item.replace(f'":{folder}/', f'":"{batches}/{batch}/meta?path=')


# Tables and folders -------------------------------------------------------------------------


def _run(state: AppState, batch: str) -> tuple[Path, str, Window]:
    """Return the table, the id and the window of a batch; NotFound for an unknown id."""
    query = "SELECT dataset, batch_id, \"window\" FROM runs WHERE batch_id = ? AND batch_id <> ''"
    rows = state.catalog.read(query, [batch])
    if not rows:
        raise NotFound("batches", batch)
    root, known, window = rows[0]
    return Path(root), known, Window.from_json(json.loads(window))


def _listed(root: Path, below: str) -> list[Path]:
    """List a folder of a table by name; [] for one that does not exist, or was deleted meanwhile.

    Symbolic links are skipped, since they may lead out of the table, and so are names that are
    not UTF-8, which no URL can hold.
    """
    folder = root / below
    with disk_error(f"read {folder}"):
        if not folder.is_dir() or folder.resolve() != root.resolve() / below:
            return []
        try:
            paths = [each for each in sorted(folder.iterdir()) if not each.is_symlink()]
        except FileNotFoundError:
            return []
    return [each for each in paths if os.fsencode(each.name).decode(errors="ignore") == each.name]


def _table_files(state: AppState, batch: str) -> list[Path]:
    root, known, window = _run(state, batch)
    days = (_listed(root, layout.day_folder(day)) for day in window.days)
    return [file for files in days for file in files if file.name.startswith(f"{known}-")]


# Responses ----------------------------------------------------------------------------------


def _file(owner: str, path: str, file: Path | None) -> FileResponse:
    status = _status(file) if file else None
    if file is None or status is None or not S_ISREG(status.st_mode):
        raise NotFound("files", f"{owner}/{path}")
    kind = "application/x-ndjson" if file.suffix == ".json" else "application/octet-stream"
    return FileResponse(file, media_type=kind, stat_result=status)


def _status(file: Path) -> os.stat_result | None:
    """Return the status of a file; None if it was deleted since it was listed."""
    with disk_error(f"read {file}"), suppress(FileNotFoundError):
        return file.stat()
    return None


def _show_by(request: Request, prefix: str = "") -> Show:
    def show(file: Path, status: os.stat_result) -> Json:
        address = str(request.url.replace(query=f"path={prefix}{quote(file.name)}"))
        length = str(status.st_size)
        return {"name": file.name, "length": length, "_links": {"self": {"href": address}}}

    return show


def _page(request: Request, files: list[Path], start: int, limit: int, show: Show) -> Json:
    """Return a page of files, without those that were deleted since they were listed."""
    page = files[start : start + limit]
    data = [show(file, status) for file in page if (status := _status(file))]
    links: Json = {}
    if start + limit < len(files):
        following = request.url.include_query_params(start=start + limit, limit=limit)
        links = {"_links": {"next": {"href": str(following)}}}
    return {"_page": {"count": len(data), "limit": limit}, "data": data, **links}
