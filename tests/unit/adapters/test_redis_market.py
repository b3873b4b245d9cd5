"""Proves how what Redis says is understood, in the words of each release."""

import pytest
from redis.exceptions import (
    AuthenticationError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from detent.adapters.redis_market import _translated
from detent.contracts.errors import DetentError, Overloaded, ServiceUnavailable

NO_ROOM = "command not allowed when used memory > 'maxmemory'."


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(OutOfMemoryError(NO_ROOM), Overloaded, id="full, since release 7"),
        pytest.param(
            ResponseError(f"Error running script (call to f_1): @user_script:9: -OOM {NO_ROOM}"),
            Overloaded,
            id="full, before",
        ),
        pytest.param(
            ResponseError("STREAMS as many as may be held"), Overloaded, id="too many symbols"
        ),
        pytest.param(ReadOnlyError("replica"), ServiceUnavailable, id="read-only"),
        pytest.param(AuthenticationError("no"), ServiceUnavailable, id="locked"),
        pytest.param(RedisTimeoutError("10.0.0.1"), ServiceUnavailable, id="slow"),
        pytest.param(ConnectionRefusedError("10.0.0.1"), ServiceUnavailable, id="gone"),
    ],
)
def test_trouble_is_typed_and_names_no_address(
    found: RedisError | OSError, expected: type[DetentError]
) -> None:
    with pytest.raises(expected) as raised, _translated():
        raise found

    assert type(raised.value) is expected
    assert "10.0.0.1" not in f"{raised.value.message} {raised.value.metadata}"
