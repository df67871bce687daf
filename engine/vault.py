"""Secrets at rest: encrypted with one key, in a file of its owner's or from the configuration.

The only importer of cryptography. What is lost with the key is lost: passwords have to be given
again, and nothing else.
"""

import json
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from engine.disk import keep
from engine.errors import InputError, disk_error
from engine.flow import Secret

NAME = "secrets.key"


class Vault:
    """Seals and opens JSON documents. No `repr` of it shows its key (P7)."""

    def __init__(self, key: Secret) -> None:
        try:
            self._fernet = Fernet(key.reveal())
        except ValueError:
            raise InputError(
                "The key for secrets is none: it must be 32 bytes in URL-safe base64, as "
                '`python -c "from cryptography.fernet import Fernet; '
                'print(Fernet.generate_key().decode())"` prints one.'
            ) from None

    def seal(self, document: Any) -> bytes:
        """A JSON document, so that only this key opens it."""
        return self._fernet.encrypt(json.dumps(document).encode())

    def open(self, sealed: bytes) -> Any:
        """The document; InputError if another key sealed it."""
        try:
            return json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise InputError(
                "A password in the catalog was encrypted with another key. Bring the key back, or "
                "give the connection its password again."
            ) from None


def vault_of(home: Path, key: Secret | None = None) -> Vault:
    """The vault of a home; its key is made there where none is given and none is there yet."""
    if key:
        return Vault(key)
    path = home / NAME
    with disk_error(f"write {path}"):
        return Vault(Secret(keep(path, Fernet.generate_key().decode())))
