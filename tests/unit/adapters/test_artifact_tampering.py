"""A tampered artifact is refused in every way that we could think of (D1 and D2).

The control shows that the test means something: the same flips, without our gate in front,
mostly give a model that loads and answers.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from tests.unit.adapters.hostile_graphs import perceptron
from tests.unit.artifacts import artifact, artifact_in, contents_of, other_artifact_in

from detent.adapters.artifact_store import ARTIFACT_FILES, read_artifact, verify_artifact
from detent.adapters.onnx_session import GraphContract, open_session
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import LISTED_FILES
from detent.contracts.reasons import Reason

FLIPS_PER_FILE = 250
PIN = artifact().manifest.model_version_hash


def flips(content: bytes, *, count: int, seed: int) -> Iterator[bytes]:
    """Flip one bit, at the ends of the content and at places in between."""
    chance = random.Random(seed)
    places = [0, len(content) - 1]
    places += [chance.randrange(len(content)) for _ in range(count - len(places))]
    for place in places:
        bit = 1 << chance.randrange(8)
        yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def is_served(contents: dict[str, bytes]) -> bool:
    """Say whether the pinned artifact would be taken from these bytes."""
    try:
        found = verify_artifact(artifact().manifest.model_id, contents)
    except ArtifactInvalid:
        return False
    return found.manifest.model_version_hash == PIN


@pytest.mark.proves("R25", "R54", "R59")
@pytest.mark.parametrize("name", ARTIFACT_FILES)
def test_artifact_with_a_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    contents = contents_of(artifact_in(tmp_path))
    flipped = list(flips(contents[name], count=FLIPS_PER_FILE, seed=11))

    assert is_served(contents)
    assert [text for text in flipped if is_served({**contents, name: text})] == []


@pytest.mark.proves("R54")
@pytest.mark.parametrize("name", LISTED_FILES)
def test_artifact_error_names_the_file_and_both_hashes(tmp_path: Path, name: str) -> None:
    path = artifact_in(tmp_path)
    content = (path / name).read_bytes()
    (path / name).write_bytes(next(flips(content, count=3, seed=5)))

    with pytest.raises(ArtifactInvalid) as caught:
        read_artifact(path, model_version_hash=PIN)

    assert caught.value.metadata["file"] == name
    assert caught.value.metadata["expected"].endswith(artifact().manifest.file(name).sha256)
    assert caught.value.metadata["found"] != caught.value.metadata["expected"]


@pytest.mark.proves("R54", "R59")
@pytest.mark.parametrize("name", ARTIFACT_FILES)
def test_artifact_that_is_truncated_or_grown_is_refused(tmp_path: Path, name: str) -> None:
    contents = contents_of(artifact_in(tmp_path))
    content = contents[name]
    damaged = [content[:cut] for cut in (0, 1, len(content) // 2, len(content) - 1)]
    damaged += [content + b"\n", content + b"\0", content * 2, content.replace(b",", b",\r\n")]

    assert [
        text for text in damaged if text != content and is_served({**contents, name: text})
    ] == []


@pytest.mark.proves("R59")
@pytest.mark.parametrize("name", ARTIFACT_FILES)
def test_artifact_with_a_file_of_another_sound_artifact_is_refused(
    tmp_path: Path, name: str
) -> None:
    mine = contents_of(artifact_in(tmp_path))
    other = contents_of(other_artifact_in(tmp_path))
    swapped = {**mine, name: other[name]}

    assert swapped != mine
    assert not is_served(swapped)


@pytest.mark.proves("R25")
def test_whole_artifact_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    """Everything in it is sound and consistent; it is just not the one that is pinned."""
    other = other_artifact_in(tmp_path)
    mine = tmp_path / artifact().manifest.model_id
    other.rename(mine)

    with pytest.raises(ArtifactInvalid):
        read_artifact(mine, model_version_hash=PIN)


def test_flipped_models_do_load_where_nothing_checks_them() -> None:
    """Control: the runtime itself does not notice, so our refusals are not its doing."""
    flipped = list(flips(artifact().model, count=FLIPS_PER_FILE, seed=11))
    loaded = 0
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for text in flipped:
        try:
            onnxruntime.InferenceSession(text, options, enable_fallback=0)
        except Exception:  # noqa: BLE001  Whatever it raises, it did not load.
            continue
        loaded += 1

    assert loaded > len(flipped) // 4


def test_most_flipped_models_would_load_if_nothing_stood_in_front() -> None:
    """Control on a model that is mostly weights, as real ones are: nine flips of ten load."""
    model = perceptron().SerializeToString()
    flipped = list(flips(model, count=FLIPS_PER_FILE, seed=11))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    loaded = 0
    for text in flipped:
        try:
            onnxruntime.InferenceSession(text, options, enable_fallback=0)
        except Exception:  # noqa: BLE001  Whatever it raises, it did not load.
            continue
        loaded += 1

    assert loaded > len(flipped) * 0.9


def damaged(name: str, content: bytes, *, count: int) -> Iterator[bytes]:
    """Flip, cut, grow and convert a file in as many ways as are asked for."""
    chance = random.Random(name)
    yield from flips(content, count=count * 7 // 10, seed=23)
    for _ in range(count * 2 // 10):
        yield content[: chance.randrange(len(content))]
    for _ in range(count // 10):
        place = chance.randrange(len(content))
        yield content[:place] + chance.choice([b"\n", b"\r\n", b"\0", b" "]) + content[place:]


def check_all_refused(tmp_path: Path, *, per_file: int) -> int:
    """Damage every file in many ways; give how many were refused for the right reason."""
    contents = contents_of(artifact_in(tmp_path))
    refused = 0
    for name in ARTIFACT_FILES:
        for text in damaged(name, contents[name], count=per_file):
            try:
                found = verify_artifact(artifact().manifest.model_id, {**contents, name: text})
            except ArtifactInvalid as error:
                right = error.metadata.get("file") == name
                right = right and error.gate_reason is Reason.MANIFEST_INVALID
                refused += right or name == "manifest.json"
            else:
                # Sound in itself, so only the manifest may differ: the pin refuses it.
                assert name == "manifest.json"
                assert found.manifest.model_version_hash != PIN
                refused += 1
    return refused


@pytest.mark.proves("R54")
def test_every_damage_is_refused_for_its_own_reason(tmp_path: Path) -> None:
    assert check_all_refused(tmp_path, per_file=100) == 600


@pytest.mark.long
def test_ten_thousand_damages_are_refused_for_their_own_reason(tmp_path: Path) -> None:
    assert check_all_refused(tmp_path, per_file=1_670) == 10_020


@pytest.mark.proves("R54")
def test_file_too_many_is_refused_by_name(tmp_path: Path) -> None:
    for number, name in enumerate(("scaler.joblib", "x.json", "model.onnx.data", ".keep", "a.pt")):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = artifact_in(folder)
        (path / name).write_bytes(b"x")

        with pytest.raises(ArtifactInvalid) as caught:
            read_artifact(path, model_version_hash=PIN)

        assert caught.value.metadata["file"] == name
        if name == "scaler.joblib":
            assert "make_pipeline(scaler, model)" in caught.value.message


def race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, races: int) -> tuple[int, int]:
    """Swap the model between check and load, again and again.

    Returns:
        How often the artifact was read, and how often it was refused.
    """
    path = artifact_in(tmp_path)
    good, bad = (path / "model.onnx").read_bytes(), perceptron().SerializeToString()
    given: list[str] = []
    real = onnxruntime.InferenceSession

    def spy(model: bytes, *arguments: Any, **named: Any) -> Any:
        given.append(hashlib.sha256(model).hexdigest())
        return real(model, *arguments, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    over = threading.Event()

    def swap() -> None:
        aside = tmp_path / "aside"
        while not over.is_set():
            for content in (bad, good):
                aside.write_bytes(content)
                os.replace(aside, path / "model.onnx")  # noqa: PTH105
                over.wait(0.0002)

    swapper = threading.Thread(target=swap)
    swapper.start()
    read = refused = 0
    graph = GraphContract.of(artifact().manifest)
    try:
        while read < races:
            try:
                found = read_artifact(path, model_version_hash=PIN)
            except ArtifactInvalid:
                refused += 1
                continue
            read += 1
            open_session(found.model, graph, execution_provider="cpu")
    finally:
        over.set()
        swapper.join()
    assert given == [hashlib.sha256(good).hexdigest()] * read
    return read, refused


@pytest.mark.proves("R55")
def test_bytes_that_are_run_are_the_bytes_that_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, refused = race(tmp_path, monkeypatch, races=100)

    assert read == 100
    # Control: the swaps did happen under the reader's hands.
    assert refused > 0


@pytest.mark.long
def test_a_thousand_swaps_never_change_the_bytes_that_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, refused = race(tmp_path, monkeypatch, races=1_000)

    assert read == 1_000
    assert refused > 0
