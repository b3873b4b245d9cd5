"""The arm of a symbol is sticky, monotone, fair, and the stable one where anything is odd."""

import json
import math
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detent.core.rollout.assignment import bucket_of, in_canary, resolve_arms

VECTORS = json.loads(
    (Path(__file__).parents[3] / "data" / "canary_vectors.json").read_text("utf-8")
)
texts = st.text(min_size=1, max_size=24)
SHARES = range(0, 10_001, 10)


@pytest.mark.proves("R116", "R322")
def test_published_vectors_are_met_by_the_written_rule_alone() -> None:
    """Another language computes the same from one sentence."""
    for vector in VECTORS:
        text = f"{vector['salt']}|{vector['symbol']}".encode()

        assert int(sha256(text).hexdigest(), 16) % 10_000 == vector["bucket"]
        assert bucket_of(vector["salt"], vector["symbol"]) == vector["bucket"]


@given(salt=texts, symbol=texts, low=st.integers(0, 10_000), high=st.integers(0, 10_000))
def test_a_raise_takes_no_symbol_away(salt: str, symbol: str, low: int, high: int) -> None:
    low, high = sorted((low, high))

    assert in_canary(salt, symbol, low) <= in_canary(salt, symbol, high)


@pytest.mark.proves("R116")
def test_no_share_is_nobody_and_the_whole_is_everybody() -> None:
    symbols = [f"SYM{number}" for number in range(10_000)]

    assert resolve_arms(symbols, salt="s", canary_bps=0).candidate == ()
    assert resolve_arms(symbols, salt="s", canary_bps=10_000).candidate == tuple(symbols)
    assert resolve_arms(symbols, salt="s", canary_bps=10_000).stable == ()


@pytest.mark.proves("R116")
@pytest.mark.parametrize("canary_bps", [50, 500, 2_500, 5_000, 9_900])
def test_a_share_of_many_symbols_is_that_share(canary_bps: int) -> None:
    count = 100_000
    found = sum(in_canary("r-1", f"SYM{number}", canary_bps) for number in range(count))
    share = canary_bps / 10_000

    assert abs(found - share * count) < 4 * math.sqrt(count * share * (1 - share))


def test_buckets_are_spread_evenly() -> None:
    """Chi-square over a hundred cells; the bound is passed once in a hundred thousand salts."""
    count, cells = 100_000, [0] * 100
    for number in range(count):
        cells[bucket_of("r-2", f"SYM{number}") // 100] += 1
    expected = count / len(cells)
    chi_square = sum((found - expected) ** 2 / expected for found in cells)

    assert chi_square < 167


def test_the_arm_is_the_same_in_every_process_and_under_every_hash_seed() -> None:
    """Counted over a thousand symbols in three processes of their own."""
    code = (
        "from detent.core.rollout.assignment import resolve_arms;"
        "arms = resolve_arms([f'SYM{n}' for n in range(1000)], salt='r-3', canary_bps=1000);"
        "print(*arms.candidate)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4294967295")
    }
    here = resolve_arms([f"SYM{n}" for n in range(1_000)], salt="r-3", canary_bps=1_000)

    assert found == {(" ".join(here.candidate) + "\n").encode()}


@pytest.mark.proves("R322")
@pytest.mark.long
def test_a_million_evaluations_flip_nothing_and_a_raise_removes_nobody() -> None:
    """A thousand symbols at every tenth of a percent from nobody to everybody."""
    removed, inside = 0, set[str]()
    symbols = [f"SYM{number}" for number in range(1_000)]
    for share in SHARES:
        now = {symbol for symbol in symbols if in_canary("r-4", symbol, share)}
        removed += len(inside - now)
        inside = now

    assert removed == 0
    assert inside == set(symbols)


@pytest.mark.parametrize("salt", [None, "", 3, b"s", float("nan")])
@pytest.mark.parametrize("canary_bps", [10_000, 5_000])
def test_an_odd_salt_is_the_stable_arm(salt: object, canary_bps: int) -> None:
    assert not in_canary(salt, "BTCUSDT", canary_bps)


@pytest.mark.parametrize(
    "canary_bps", [None, "", "100", float("nan"), math.inf, 10_000.0, -1, 10_001, True, [], {}]
)
def test_an_odd_share_is_the_stable_arm(canary_bps: object) -> None:
    assert not any(in_canary("s", f"SYM{number}", canary_bps) for number in range(100))


@pytest.mark.parametrize("symbol", [None, "", 7, b"BTCUSDT", ("BTCUSDT",)])
def test_an_odd_symbol_is_the_stable_arm(symbol: object) -> None:
    assert not in_canary("s", symbol, 10_000)


@given(symbols=st.lists(texts, unique=True, max_size=30), canary_bps=st.integers(0, 10_000))
def test_arms_are_a_partition_in_the_order_given(symbols: list[str], canary_bps: int) -> None:
    arms = resolve_arms(symbols, salt="s", canary_bps=canary_bps)

    assert sorted(arms.stable + arms.candidate) == sorted(symbols)
    assert list(arms.candidate) == [one for one in symbols if one in set(arms.candidate)]
