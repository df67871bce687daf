"""Writes the rejects of a batch to files in the form of Adobe's diagnostics."""

import json
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from engine.dataset import layout
from engine.dataset.storage.local import sync, sync_written
from engine.model.batch import Reject

SAMPLES = 100


class RejectFiles:
    """The reject files of a batch: a JSON object for each reject, with its line verbatim (P3)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Any] = {}
        self._samples: list[bytes] = []

    def write(self, rejects: list[Reject]) -> None:
        """Append `rejects`, each to the file of its stage."""
        written: dict[str, list[bytes]] = {}
        reasons: dict[Any, bytes] = {}  # rendered once for all lines with the same fault
        for reject in rejects:
            name = layout.REJECT_FILES[reject.stage]
            which = name, reject.code, reject.message, id(reject.violations), reject.part
            if which not in reasons:
                reasons[which] = _reason_json(reject, name)
            written.setdefault(name, []).append(_reject_json(reject, reasons[which]))
        for name, lines in written.items():
            if name not in self._files:
                path = self._directory / layout.REJECTS / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files[name] = path.open("wb")
            self._files[name].write(b"\n".join(lines) + b"\n")
            short = (line for line in lines if len(line) < 1 << 16)
            self._samples += islice(short, SAMPLES - len(self._samples))

    def finish(self) -> None:
        """Write some samples, and force all files to the disk."""
        for file in self._files.values():
            sync_written(file)
        if self._files:
            path = self._directory / layout.REJECT_SAMPLES
            path.write_bytes(b"".join(line + b"\n" for line in self._samples))
            sync(path)

    def close(self) -> None:
        """Close the files."""
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.close)


def _reject_json(reject: Reject, reason: bytes) -> bytes:
    """Return a reject as one JSON object; `reason` is the result of `_reason_json`.

    Bytes that are no UTF-8 become escaped lone surrogates: the exact line is
    json.loads(...)["_corrupt_record"].encode("utf-8", "surrogateescape").
    """
    line = _ascii_json(reject.raw.decode("utf-8", "surrogateescape"))
    return b'{"_corrupt_record":%b,%b' % (line, reason)


def _reason_json(reject: Reject, filename: str) -> bytes:
    entry: dict[str, Any] = {
        "_errors": [{"code": reject.code, "message": reject.message}],
        "_filename": filename,
    }
    if reject.violations:
        entry["_validationErrors"] = list(reject.violations)
    if reject.part is not None:
        entry["_part"] = reject.part
    return _ascii_json(entry)[1:]


def _ascii_json(value: Any) -> bytes:
    try:
        text = orjson.dumps(value)
    except TypeError:  # such a surrogate, or an integer beyond 64 bits
        return json.dumps(value).encode()
    # Some readers take other characters than \n for the end of a line.
    return text if text.isascii() else json.dumps(value).encode()
