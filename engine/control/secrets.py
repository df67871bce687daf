"""Encrypt secrets for the catalog with one key, from the configuration or from a file of the home.

The only importer of cryptography. Without the key, only the passwords are lost.
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
    """Encrypts and decrypts JSON documents. Its `repr` does not show the key (P7).

    `key` is the key itself, or the path of its file, which is read at each use. Only `encrypt`
    makes a missing file: a new key decrypts nothing.
    """

    def __init__(self, key: Secret | Path) -> None:
        """Check the key: InputError if it is malformed."""
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
                "The key for secrets is malformed: it must be 32 bytes in URL-safe base64, as "
                '`python -c "from cryptography.fernet import Fernet; '
                'print(Fernet.generate_key().decode())"` prints one.'
            ) from None

    def encrypt(self, document: Any) -> bytes:
        """Encrypt a JSON document, and make the file of the key if it is missing."""
        if isinstance(self._key, Path):
            with disk_error(f"write {self._key}"):
                write_once(self._key, Fernet.generate_key().decode())
        return self._fernet().encrypt(json.dumps(document).encode())

    def try_decrypt(self, encrypted: bytes | None) -> Any:
        """Decrypt a document; None without one, or if the key is another or missing."""
        try:
            return self.decrypt(encrypted) if encrypted else None
        except InputError:
            return None

    def decrypt(self, encrypted: bytes) -> Any:
        """Decrypt a document; InputError if it needs another key, or if the key is missing."""
        try:
            return json.loads(self._fernet().decrypt(encrypted))
        except InvalidToken:
            raise InputError(
                "A password in the catalog was encrypted with another key. Bring the key back, or "
                "give the connection its password again."
            ) from None


def secret_store_of(home: Path, key: Secret | None = None) -> SecretStore:
    """Return the store of `key`, else of the key in the home's file."""
    return SecretStore(key or home / NAME)
