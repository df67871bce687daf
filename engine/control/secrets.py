"""Secrets at rest: encrypted with one key, in a file of its owner's or from the configuration.

The only importer of cryptography. What is lost with the key is lost: passwords have to be given
again, and nothing else.
"""

import json
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from engine.dataset.storage.local import write_once
from engine.errors import InputError, disk_error
from engine.model.flow import Secret

NAME = "secrets.key"


class SecretStore:
    """Seals and opens JSON documents. No `repr` of it shows its key (P7).

    The key is given, or the one of a home. That is looked for at each use, and made where something
    is sealed and none is there: never to open what another one sealed.
    """

    def __init__(self, key: Secret | Path) -> None:
        """InputError for a key that is none."""
        self._key = key
        if isinstance(key, Secret) or key.exists():
            self._fernet()

    def _fernet(self) -> Fernet:
        key = self._key
        try:
            return Fernet(key.reveal() if isinstance(key, Secret) else key.read_text("utf-8"))
        except OSError as error:
            raise InputError(
                f"The key for secrets, {key}, cannot be read ({error.strerror}). Bring it back, "
                "name the configuration whose [api] gives one, or give the connection its password "
                "again."
            ) from error
        except ValueError:
            raise InputError(
                "The key for secrets is none: it must be 32 bytes in URL-safe base64, as "
                '`python -c "from cryptography.fernet import Fernet; '
                'print(Fernet.generate_key().decode())"` prints one.'
            ) from None

    def seal(self, document: Any) -> bytes:
        """A JSON document, so that only this key opens it."""
        if isinstance(self._key, Path):
            with disk_error(f"write {self._key}"):
                write_once(self._key, Fernet.generate_key().decode())
        return self._fernet().encrypt(json.dumps(document).encode())

    def open(self, sealed: bytes) -> Any:
        """The document; InputError if another key sealed it, or the key is gone."""
        try:
            return json.loads(self._fernet().decrypt(sealed))
        except InvalidToken:
            raise InputError(
                "A password in the catalog was encrypted with another key. Bring the key back, or "
                "give the connection its password again."
            ) from None


def secret_store_of(home: Path, key: Secret | None = None) -> SecretStore:
    """The vault of a home: of the key that is given, else of the one that is kept there."""
    return SecretStore(key or home / NAME)
