"""Sign anchors, keep them in a file outside the database, and read them back.

Every line of the file is one anchor: its canonical text, who signed it, the signature. The file
comes first and the table `anchors` after it: what verifies a database must not live in it.
`cryptography` is imported where it is used: reading a ledger needs it only with a key.
"""

import collections
import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from detent.adapters.ledger_columns import SHIPPED
from detent.contracts.canonical import parse_json
from detent.contracts.decision import GENESIS_HASH
from detent.contracts.errors import DataInvalid, InvalidField, LedgerUnavailable
from detent.contracts.json_codec import from_json
from detent.core.ledger.anchor import Anchor, Anchored, TableDigest, digest_row, fold_anchors
from detent.core.ledger.chain import ChainEnd

# Tables without a chain of their own, of which nothing is ever forgotten.
DIGESTED = tuple(
    name for name in SHIPPED if name not in ("decision_records", "block_events", "anchors")
)
KEY_BYTES_MAX = 16_384
PUBLIC_SUFFIX = ".pub"
CHUNK_BYTES = 65_536


class SignedAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs the text of an anchor with its signature.

    Attributes:
        canonical: The anchor's canonical text.
        key_id: SHA-256 of the signer's raw public key, first 16 hex.
        signature: Ed25519 over the text, hex.
    """

    canonical: str
    key_id: str
    signature: str

    @property
    def anchor(self) -> Anchor:
        """Read the anchor; raises `InvalidField`."""
        return from_json(Anchor, parse_json("anchor", self.canonical.encode()))


class AnchorKey:
    """Holds an Ed25519 key that signs, or one that only verifies."""

    def __init__(self, public: Any, private: Any = None) -> None:
        """Take keys of `cryptography`."""
        self._public, self._private = public, private
        self.key_id = hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> "AnchorKey":
        """Read a private or a public key in PEM.

        Raises:
            InvalidField: It is none, or not one of Ed25519.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        expected = "an Ed25519 key in PEM, without a password"
        try:
            with path.open("rb") as file:
                pem = file.read(KEY_BYTES_MAX)
            if b"PRIVATE" in pem:
                private = serialization.load_pem_private_key(pem, password=None)
                if isinstance(private, ed25519.Ed25519PrivateKey):
                    return cls(private.public_key(), private)
            else:
                public = serialization.load_pem_public_key(pem)
                if isinstance(public, ed25519.Ed25519PublicKey):
                    return cls(public)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidField("anchor_key_file", type(error).__name__, expected) from error
        raise InvalidField("anchor_key_file", "another kind of key", expected)

    def sign(self, text: bytes) -> str:
        """Sign, in hex; only a private key can."""
        return str(self._private.sign(text).hex())

    def has_signed(self, signed: SignedAnchor) -> bool:
        """Say whether a signature is this key's."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        try:
            self._public.verify(bytes.fromhex(signed.signature), signed.canonical.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


def make_key(path: Path) -> None:
    """Draw a private key and keep it where only its owner may read it, the public one beside it.

    Neither takes the place of a file that is there: with an earlier public key the anchors that
    it proves would be lost.

    Raises:
        InvalidField: It is no name, or that of a public key.
        DataInvalid: A file is there already, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    # A path that ends in no name can have no suffix either.
    public_file = path.with_suffix(PUBLIC_SUFFIX) if path.name else path
    if public_file == path:
        expected = f"the private key's name; the public one gets {PUBLIC_SUFFIX}"
        raise InvalidField("anchor_key_file", path.name or str(path), expected)
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with public_file.open("xb") as file:
            file.write(public)
        _keep_private(path, pem, public_file)
    except OSError as error:
        found = Path(error.filename or path).name
        message = f"{found}: {type(error).__name__}, expected a new file that can be written"
        raise DataInvalid(message, file=found) from error


def _keep_private(path: Path, pem: bytes, public_file: Path) -> None:
    """Write a private key; raises `OSError`, and then its public one is not kept either."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except OSError:
        public_file.unlink()
        raise


class AnchorFile:
    """Owns one file of signed anchors; an anchor is on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        """Touch nothing yet."""
        self._path = path

    def read(self) -> tuple[SignedAnchor, ...]:
        """Give the anchors, oldest first; a last line that a crash tore is no anchor.

        A file that is not there is an error: whoever verifies would take it for a ledger of
        which nothing was anchored yet.

        Raises:
            LedgerUnavailable: The file cannot be read, or a line is damaged.
        """
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
            return tuple(msgspec.json.decode(line, type=SignedAnchor) for line in lines)
        except (OSError, msgspec.MsgspecError) as error:
            raise _damaged(self._path, error) from error

    def last(self, count: int) -> tuple[SignedAnchor, ...]:
        """Give the newest anchors, oldest first, and cut off what a crash tore.

        Raises:
            LedgerUnavailable: The file cannot be read or written, or a line is damaged.
        """
        try:
            if not self._path.exists():
                return ()
            self._mend()
            with self._path.open("rb") as file:
                lines = collections.deque(file, count)
            return tuple(msgspec.json.decode(line, type=SignedAnchor) for line in lines)
        except (OSError, msgspec.MsgspecError) as error:
            raise _damaged(self._path, error) from error

    def append(self, signed: SignedAnchor) -> None:
        """Keep an anchor; raises `OSError`, and then it is not kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._mend()
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(signed) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _mend(self) -> None:
        """Cut off what follows the last whole line."""
        with self._path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            keep = end
            while keep > 0:
                begin = max(0, keep - CHUNK_BYTES)
                file.seek(begin)
                found = file.read(keep - begin).rfind(b"\n")
                if found >= 0:
                    keep = begin + found + 1
                    break
                keep = begin
            if keep != end:
                file.truncate(keep)


def _damaged(path: Path, error: Exception) -> LedgerUnavailable:
    cause = f"the file of anchors {path.name}: {type(error).__name__}"
    return LedgerUnavailable(f"the ledger cannot be used: {cause}", cause=cause)


def trusted_anchors(signed: Sequence[SignedAnchor], key: AnchorKey) -> Anchored:
    """Join the anchors that a key has signed; what else stands there is a break."""
    anchors: list[Anchor] = []
    breaks: list[str] = []
    for number, one in enumerate(signed):
        if not key.has_signed(one):
            breaks.append(f"anchor {number} is not signed by {key.key_id}")
            continue
        try:
            anchors.append(one.anchor)
        except InvalidField as error:
            breaks.append(f"anchor {number}: {error.message}")
    folded = fold_anchors(anchors)
    return msgspec.structs.replace(folded, breaks=(*breaks, *folded.breaks))


def draft_anchor(path: Path, last: Anchor | None, *, at_ms: int) -> Anchor | None:
    """State where a ledger file stands now; None when nothing moved since the last anchor.

    It reads through a connection of its own and takes as long as the rows since then: call it
    where nobody waits.

    Raises:
        LedgerUnavailable: The file cannot be read.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    known = {one.table: one for one in last.tables} if last is not None else {}
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            # One moment for all tables.
            db.execute("BEGIN")
            (ledger_id,) = db.execute("SELECT ledger_id FROM ledger_identity").fetchone()
            since = last.last_record_id if last is not None else 0
            (until,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM decision_records").fetchone()
            heads = db.execute(
                "SELECT plan_id, symbol, MAX(sequence), record_hash FROM decision_records"
                " WHERE id > ? AND id <= ? GROUP BY plan_id, symbol ORDER BY plan_id, symbol",
                (since, until),
            ).fetchall()
            tables = tuple(_digested(db, name, known.get(name)) for name in DIGESTED)
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"the ledger cannot be used: {error}", cause=error) from error
    moved = [one for one in tables if one.last_id and one != known.get(one.table)]
    if not heads and not moved:
        return None
    return Anchor(
        ledger_id=ledger_id,
        anchor_index=last.anchor_index + 1 if last is not None else 0,
        at_ms=at_ms,
        previous_anchor_hash=last.anchor_hash if last is not None else GENESIS_HASH,
        last_record_id=max(since, until),
        heads=tuple(
            ChainEnd(plan_id=plan_id, symbol=symbol, sequence=sequence, record_hash=record_hash)
            for plan_id, symbol, sequence, record_hash in heads
        ),
        tables=tuple(one for one in tables if one.last_id),
    )


def _digested(db: sqlite3.Connection, table: str, known: TableDigest | None) -> TableDigest:
    last_id, digest = (known.last_id, known.digest) if known is not None else (0, GENESIS_HASH)
    columns = ", ".join(f'"{name}"' for name in ("id", *SHIPPED[table]))
    for row in db.execute(f"SELECT {columns} FROM {table} WHERE id > ? ORDER BY id", (last_id,)):
        last_id, digest = row[0], digest_row(row, digest)
    return TableDigest(table=table, last_id=last_id, digest=digest)
