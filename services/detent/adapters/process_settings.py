"""Read the settings of a process, and end one that cannot start with one line that says why."""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsError

from detent.contracts.errors import DetentError, InvalidField

Settings = TypeVar("Settings", bound=BaseSettings)
PORT_MAX = 65_535
# What the reader of variables says of one that is no JSON; it has no fields to ask.
_NO_JSON = re.compile(r'value for field "(\w+)"')
_EXPECTED = re.compile(r"^(Input should be|Value error,) ")


def _check_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError(f"host:port, with a port of 0 to {PORT_MAX}")
    return text


# Where a process listens.
Address = Annotated[str, AfterValidator(_check_address)]


def read_settings(kind: type[Settings], **said: Any) -> Settings:
    """Read settings from the environment.

    Args:
        kind: Which settings.
        said: What was said otherwise, by option; it goes before a variable.

    Raises:
        InvalidField: One is missing or malformed, there is none of that name, or several do not
            fit together; names the first by its variable, or by its option, what was found and
            what was expected.
    """
    _check_names(kind)
    try:
        return kind(**said)
    except ValidationError as error:
        raise _named(kind, error, said) from error
    except SettingsError as error:
        found = _NO_JSON.search(str(error))
        assert found is not None, "the one thing that is wrong with a variable before its type"
        name = _variable(kind, found[1])
        raise InvalidField(name, os.environ.get(name, ""), "JSON") from error


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """End the process with code 1 and one line where it refuses to go on; defects show a trace."""
    try:
        yield
    except DetentError as error:
        sys.exit(error.message)
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"{error.filename}: {error.strerror}, expected a path that can be used")


def _check_names(kind: type[BaseSettings]) -> None:
    """Refuse a variable that sets nothing: a kill switch with a slip in its name is none."""
    known = [_variable(kind, field) for field in kind.model_fields]
    prefix = kind.model_config["env_prefix"]
    for name in sorted(os.environ):
        if name.upper().startswith(prefix) and name.upper() not in known and os.environ[name]:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            expected = f"a setting of the process{f': {near[0]}?' if near else ''}"
            # What it holds may be a password.
            raise InvalidField(name, "(a value)", expected)


def _named(kind: type[BaseSettings], error: ValidationError, said: dict[str, Any]) -> DetentError:
    first: Any = error.errors(include_url=False)[0]
    expected = _EXPECTED.sub("", first["msg"])
    if not first["loc"]:
        name = f"{kind.model_config['env_prefix']}*"
        facts = {"field": name, "found": "(several)", "expected": expected}
        return InvalidField.restore(f"{name}: {expected}", facts)
    field, *within = (str(part) for part in first["loc"])
    name = ".".join([field if field in said else _variable(kind, field), *within])
    if first["type"] == "missing":
        return InvalidField(name, "(missing)", "a value: it has no default")
    return InvalidField(name, first["input"], expected)


def _variable(kind: type[BaseSettings], field: str) -> str:
    """Name the variable of a setting; one with a name of its own is called by that already."""
    if field not in kind.model_fields:
        return field
    own = kind.model_fields[field].validation_alias
    return str(own or f"{kind.model_config['env_prefix']}{field.upper()}")
