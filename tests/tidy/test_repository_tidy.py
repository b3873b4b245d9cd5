"""The repository builds anywhere: no machine, no host, no data, no dead link in it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import pytest
from tests.tidy.repository import (
    FILE_BYTES_MAX,
    anchors,
    check_images,
    check_links,
    check_machine_paths,
    check_requirement_file,
    check_settings,
    check_size,
    pins,
    text_files,
)
from tests.tidy.tree import (
    GENERATED,
    ROOT,
    Offence,
    is_ignored,
    read_text,
    report,
    repository_files,
)

HASH = "--hash=sha256:" + "0" * 64

HERE = "tests/tidy/test_repository_tidy.py"
"""This file plants what others must not have."""

RANGES = {
    "scikit-learn": ((1, 4), (2,)),
    "onnx": ((1, 15), (2,)),
    "onnxruntime": ((1, 17), (2,)),
    "skl2onnx": ((1, 16), (2,)),
}
"""Versions that training and serving are allowed to use: from, and below."""

TextCheck = Callable[[str, str], list[Offence]]


def _requirement_files() -> list[str]:
    files = repository_files()
    return [f for f in files if f.startswith("requirements/") and f.endswith(".txt")]


def test_no_file_names_a_machine() -> None:
    offences = [
        offence
        for path, text in text_files()
        if path != HERE and not path.startswith(GENERATED)
        for offence in check_machine_paths(path, text)
    ]

    assert not offences, report(offences)


def test_requirements_are_pinned_and_name_no_host() -> None:
    files = _requirement_files()
    offences = [o for path in files for o in check_requirement_file(path, read_text(path))]

    assert files
    assert not offences, report(offences)


@pytest.mark.proves("R149")
@pytest.mark.parametrize("package", RANGES)
def test_model_libraries_are_pinned_inside_their_ranges(package: str) -> None:
    least, below = RANGES[package]
    locked = [pins(read_text(path)).get(package, set()) for path in _requirement_files()]
    versions = [tuple(map(int, v.split("."))) for found in locked for v in found]

    assert versions
    assert all(least <= version < below for version in versions)


def test_settings_name_no_package_source() -> None:
    assert check_settings("pyproject.toml", read_text("pyproject.toml")) == []


def test_images_name_no_registry() -> None:
    offences = [
        offence
        for path, text in text_files()
        if re.search(r"ockerfile|compose.*\.ya?ml$|^k8s/.*\.ya?ml$", path)
        for offence in check_images(path, text)
    ]

    assert not offences, report(offences)


def test_no_file_is_large() -> None:
    sizes = {path: (ROOT / path).stat().st_size for path in repository_files()}
    offences = [offence for path, size in sizes.items() for offence in check_size(path, size)]

    assert not offences, report(offences)


def test_links_lead_somewhere() -> None:
    known = frozenset(repository_files())
    offences = [
        offence
        for path, text in text_files()
        if path.endswith(".md")
        for offence in check_links(path, text, known=known)
    ]

    assert not offences, report(offences)


def test_locks_that_name_hosts_are_left_out() -> None:
    """Some lock formats write the server's name into every line, so they stay off the record."""
    assert is_ignored("uv.lock")
    assert is_ignored("pylock.toml")

    git = shutil.which("git")
    if git is not None and (ROOT / ".git").exists():
        tracked = subprocess.run(
            [git, "ls-files", "--", "uv.lock", "pylock.toml"],
            capture_output=True,
            check=False,
            cwd=ROOT,
            text=True,
        )
        assert tracked.stdout == ""


def test_the_licence_is_complete() -> None:
    text = read_text("LICENSE")

    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert all(re.search(rf"^ +{number}\. ", text, re.MULTILINE) for number in range(1, 10))
    assert "APPENDIX: How to apply the Apache License to your work." in text


@pytest.mark.parametrize(
    ("check", "text"),
    [
        pytest.param(check_machine_paths, "cd /" + "root/project", id="root"),
        pytest.param(check_machine_paths, "path = '/home/ada/x'", id="home"),
        pytest.param(check_requirement_file, f"a==1 \\\n  {HASH}\n# https://x.test", id="url"),
        pytest.param(check_requirement_file, "--index-url x.test", id="index"),
        pytest.param(check_requirement_file, "-i x.test", id="short-option"),
        pytest.param(check_requirement_file, "a==1", id="no-hash"),
        pytest.param(check_requirement_file, f"a>=1 {HASH}", id="no-pin"),
        pytest.param(check_settings, "[[tool.uv.index]]", id="settings"),
        pytest.param(check_images, "FROM registry.test/python:3", id="from"),
        pytest.param(check_images, "FROM --platform=x registry.test/python:3 AS b", id="flag"),
        pytest.param(check_images, "    image: 'localhost:5000/detent'", id="image"),
    ],
)
def test_a_tie_to_one_place_is_reported(check: TextCheck, text: str) -> None:
    assert check("planted", text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        pytest.param(check_machine_paths, "see docs/home/x and $HOME/x and ~/x", id="relative"),
        pytest.param(check_requirement_file, f"a==1 ; x \\\n  {HASH}\n    # via b\n", id="pinned"),
        pytest.param(check_images, "FROM python:3.11-slim AS base", id="short"),
        pytest.param(check_images, "  image: detent/policy:dev", id="folder"),
    ],
)
def test_what_works_anywhere_is_accepted(check: TextCheck, text: str) -> None:
    assert check("planted", text) == []


def test_a_large_file_is_reported() -> None:
    assert check_size("planted", FILE_BYTES_MAX + 1)
    assert check_size("planted", FILE_BYTES_MAX) == []


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("GLOSSARY.md", True),
        ("../README.md", True),
        ("../docs", True),
        ("#a-heading-of-ours", True),
        ("https://example.test/gone", True),
        ("GONE.md", False),
        ("../docs/GONE.md", False),
        ("#gone", False),
    ],
)
def test_a_link_is_followed(*, target: str, leads: bool) -> None:
    known = frozenset({"README.md", "docs/GLOSSARY.md", "docs/PLANTED.md"})
    text = f"# A heading, of ours\n\nsee [this]({target}).\n"

    assert (check_links("docs/PLANTED.md", text, known=known) == []) is leads


def test_links_in_code_are_examples() -> None:
    text = "```\n[x](gone.md)\n```\n\nand `[x](gone.md)`\n"

    assert check_links("PLANTED.md", text, known=frozenset()) == []


def test_repeated_headings_are_numbered() -> None:
    assert anchors("# One\n## One\n") == {"one", "one-1"}
