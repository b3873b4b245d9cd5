"""A tampered artifact is refused in every way that we could think of (D1 and D2).

The control shows that the test means something: the same flips, without our gate in front,
mostly give a model that loads and answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest
from tests.unit.artifacts import artifact, artifact_in, contents_of, other_artifact_in

from detent.adapters.artifact_store import ARTIFACT_FILES, read_artifact, verify_artifact
from detent.contracts.errors import ArtifactInvalid
from detent.contracts.manifest import LISTED_FILES

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
