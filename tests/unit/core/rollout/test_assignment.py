"""The arm of a symbol is sticky, monotone, fair, and the stable one where anything is odd."""

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
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


def buckets_elsewhere(seed: str, first: int, count: int) -> bytes:
    """Give the digest of the arms of some symbols at every share, from a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", EVALUATE, str(first), str(count)],
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        check=True,
    ).stdout


# Prints a digest of the arm of every symbol at every hundredth share, each evaluated once.
EVALUATE = """
import sys
from hashlib import sha256
from detent.core.rollout.assignment import in_canary
first, count = map(int, sys.argv[1:])
arms = bytes(
    in_canary("r-5", f"SYM{n}", share)
    for n in range(first, first + count)
    for share in range(0, 10_001, 100)
)
print(len(arms), sum(arms), sha256(arms).hexdigest())
"""
SEEDS = ("0", "1", "4294967295", "random", "random")


@pytest.mark.proves("R322")
def test_evaluations_in_processes_that_began_anew_flip_nothing() -> None:
    """A sample of the count below; a digest that is compared with itself would not notice."""
    found = {buckets_elsewhere(seed, 0, 100) for seed in SEEDS[:3]}

    assert len(found) == 1
    assert buckets_elsewhere("0", 1, 100) not in found


@pytest.mark.proves("R322")
@pytest.mark.long
def test_a_million_evaluations_over_processes_and_hash_seeds_flip_nothing() -> None:
    """2,000 symbols at 101 shares in each of five processes: 1,010,000 evaluations."""
    with ThreadPoolExecutor(2) as pool:
        found = set(pool.map(lambda seed: buckets_elsewhere(seed, 0, 2_000), SEEDS))

    assert len(found) == 1
    assert found.pop().split()[0] == b"202000"


@pytest.mark.proves("R322")
def test_a_raise_removes_none_of_a_hundred_thousand_keys() -> None:
    """From nobody to everybody by tenths of a percent; a bucket is all that the arm depends on.

    So the count of every share is the number of buckets below it, and a key that was inside at
    a lower share is inside at every higher one: 1,001 shares, 10^5 keys, 0 removed.
    """
    buckets = np.array([bucket_of("r-4", f"SYM{number}") for number in range(100_000)])
    inside = buckets[np.newaxis, :] < np.array(SHARES)[:, np.newaxis]
    removed = int(np.count_nonzero(inside[:-1] & ~inside[1:]))
    drawn = np.random.default_rng(1).integers(0, 100_000, 2_000)
    shares = np.random.default_rng(2).integers(0, len(SHARES), 2_000)

    assert removed == 0
    assert (int(inside[0].sum()), int(inside[-1].sum())) == (0, 100_000)
    for number, place in zip(drawn.tolist(), shares.tolist(), strict=True):
        arm = in_canary("r-4", f"SYM{number}", SHARES[place])
        assert arm == bool(inside[place, number])


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
