"""Every path below the root of a dataset. Pure: nothing here touches a file.

Paths are relative to the root, with "/" between their parts, as an object store has them.

    _delta_log/                                  the Delta log, which deltalake alone writes
    event_date=<day>/<batch-id>-<n>.parquet      the data files
    _batches/<batch-id>/                         what a batch leaves beside its rows:
        batch.json                                 its manifest
        input_files/fileMetaData<n>.json           where its lines came from
        row_errors/<kind>_0.json                   its rejects
        row_error_samples.json                     the first of its rejects
    _staging/lock                                the lock of the process that may write
    _staging/<batch-id>/                         a batch that is not committed yet:
        event_date=<day>/<batch-id>-<n>.parquet    data files before they are published
        batch/                                     the later _batches/<batch-id>/
        spool/<day>/                               rows that wait to be encoded
        intent.json                                a commit in progress: what it adds and removes
    _superseded/<due-ms>-<batch-id>.json         replaced files that are deleted later

A name that ends in `.damaged` was set aside; one that ends in `.partial` is being written.
"""

import re
from datetime import date

LOG, STAGING, BATCHES, SUPERSEDED = "_delta_log", "_staging", "_batches", "_superseded"
OWN_FOLDERS = (LOG, STAGING, BATCHES, SUPERSEDED)
LOCK = f"{STAGING}/lock"

# Below the folder of a batch.
MANIFEST = "batch.json"
INPUTS = "input_files"
REJECTS = "row_errors"
REJECT_SAMPLES = "row_error_samples.json"
REJECT_FILES = {"lines": "parsing_errors_0.json", "check": "conversion_errors_0.json"}  # by stage

STAGED_BATCH = "batch"  # below the folder of a staged batch
DAMAGED = ".damaged"

_DAY = "event_date="
DATA_FILES = f"{_DAY}*/*.parquet"  # the data files of a dataset on a local disk, as a glob
_INPUT = re.compile(r"fileMetaData[0-9]{1,9}\.json")
_SUPERSEDED = re.compile(r"([0-9]{1,15})-(.{1,100})\.json")
_BATCH_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def day_folder(day: date) -> str:
    """The folder of the data files of `day`."""
    return f"{_DAY}{day}"


def is_day_folder(name: str) -> bool:
    """Whether `name`, found in the root, is the folder of a day."""
    return name.startswith(_DAY)


def data_file(day: date, batch_id: str, number: int) -> str:
    """The data file number `number` of a batch."""
    return f"{day_folder(day)}/{batch_id}-{number}.parquet"


def is_own_data_file(path: str) -> bool:
    """Whether this program names a data file like this.

    Other programs use names that no batch has, such as part-00000-<uuid>-c000.zstd.parquet.
    """
    folder, _, name = path.partition("/")
    batch, _, number = name.removesuffix(".parquet").rpartition("-")
    own = is_day_folder(folder) and name.endswith(".parquet") and "/" not in name
    return own and bool(batch) and number.isascii() and number.isdigit()


def batch_of(path: str) -> str:
    """The id of the batch that wrote a data file of this program."""
    return path.rpartition("/")[2].rpartition("-")[0]


def is_inside(path: str) -> bool:
    """Whether a path in the table's log names a file below the root, and nothing else."""
    if not path or path[0] == "/" or ":/" in path:
        return False
    return ".." not in path or ".." not in path.split("/")


def staged(batch_id: str) -> str:
    """The folder of a batch that is not committed yet."""
    return f"{STAGING}/{batch_id}"


def intent(batch_id: str) -> str:
    """The file that describes the commit of a batch while it is in progress."""
    return f"{staged(batch_id)}/intent.json"


def intent_aside(batch_id: str) -> str:
    """The name beside which an intent that cannot be read is set aside."""
    return f"{STAGING}/{batch_id}-intent.json"


def spool(day: date) -> str:
    """The folder, below that of a staged batch, of the rows of `day` before they are encoded."""
    return f"spool/{day}"


def batch(batch_id: str) -> str:
    """The folder of a batch that has ended."""
    return f"{BATCHES}/{batch_id}"


def is_batch_id(name: str) -> bool:
    """Whether `name` is a ULID, as the id of a batch is."""
    return _BATCH_ID.fullmatch(name) is not None


def input_note(number: int) -> str:
    """The name, in the folder INPUTS of a batch, of the note on its input number `number`."""
    return f"fileMetaData{number}.json"


def is_input_note(name: str) -> bool:
    """Whether `input_note` gives such a name."""
    return _INPUT.fullmatch(name) is not None


def superseded(due: int, batch_id: str) -> str:
    """The list of the files that a batch replaced; they are deleted at `due`, in ms."""
    return f"{SUPERSEDED}/{due}-{batch_id}.json"


def parse_superseded(name: str) -> tuple[int, str] | None:
    """The `due` and the batch id of a name in SUPERSEDED; None for a name of another form."""
    found = _SUPERSEDED.fullmatch(name)
    return (int(found[1]), found[2]) if found else None
