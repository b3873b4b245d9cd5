"""Checks what surrounds the code: paths, hosts, sizes, links, pins.

A repository that names one person's machine, or the server from which a package came, works for
that person only; a link that leads nowhere tells the reader that nobody looked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.tidy.tree import ROOT, Offence, read_text, repository_files

FILE_BYTES_MAX = 1 << 20
"""One MiB: larger files are data, and data does not belong into the history."""

MACHINE_PATH = re.compile(r"(?<![\w.~\-/$}])/(work|root|home|Users)/\w")
"""Absolute paths that exist on one machine only."""

REMOTE_SOURCE = re.compile(r"https?://|--(extra-)?index-url|--find-links|^\s*-[if]\s")
"""Whatever would tie a requirement file to one server."""

INDEX_SETTING = re.compile(r"^\s*(\[\[tool\.uv\.index\]\]|(extra-)?index-url\b|find-links\b)")
"""The same in the project's own settings."""

IMAGE = re.compile(r"^\s*(?:-\s+)?(?:FROM\s+(?:--\S+\s+)*|image:\s*[\"']?)(?P<image>[^\s\"'#]+)")
"""A container image in a Dockerfile, a compose file or a Kubernetes manifest."""

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
"""An inline Markdown link."""

PICTURE = re.compile(r"!\[[^\]]*\]\((?P<target>[^)\s]+)\)")
"""An inline Markdown picture."""


def _lines(text: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(text.splitlines(), start=1)


def check_machine_paths(path: str, text: str) -> list[Offence]:
    """Report absolute paths of one machine."""
    return [
        Offence(path=path, line=number, what=f"a path of one machine: {found.group()}")
        for number, line in _lines(text)
        for found in MACHINE_PATH.finditer(line)
    ]


def check_requirement_file(path: str, text: str) -> list[Offence]:
    """Report hosts in a requirement file, and pins without a digest."""
    offences = [
        Offence(path=path, line=number, what=f"names a place to download from: {found.group()}")
        for number, line in _lines(text)
        if (found := REMOTE_SOURCE.search(line))
    ]
    for number, entry in _entries(text):
        if "--hash=sha256:" not in entry or "==" not in entry:
            name = entry.split()[0]
            offences.append(Offence(path=path, line=number, what=f"{name} is not pinned by hash"))
    return offences


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """Yield the logical lines of a requirement file with the number of their first line."""
    entry, start = "", 0
    for number, line in _lines(text):
        if not entry and (not line.strip() or line.lstrip().startswith(("#", "-"))):
            continue
        start = start if entry else number
        entry += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield start, entry
            entry = ""


def pins(text: str) -> dict[str, set[str]]:
    """Map each package of a requirement file to its pinned versions, one per platform marker."""
    found: dict[str, set[str]] = {}
    for _, entry in _entries(text):
        name, _, rest = entry.partition("==")
        found.setdefault(name.strip().lower(), set()).add(re.split(r"[\s;\\]", rest.strip())[0])
    return found


def check_settings(path: str, text: str) -> list[Offence]:
    """Report package sources in the project's settings."""
    return [
        Offence(path=path, line=number, what=f"names a package source: {line.strip()}")
        for number, line in _lines(text)
        if INDEX_SETTING.match(line)
    ]


def check_images(path: str, text: str) -> list[Offence]:
    """Report container images that name a registry; short names resolve wherever one works."""
    return [
        Offence(path=path, line=number, what=f"names a registry: {found['image']}")
        for number, line in _lines(text)
        if (found := IMAGE.match(line)) and _has_host(found["image"])
    ]


def _has_host(image: str) -> bool:
    first, slash, _ = image.partition("/")
    return bool(slash) and ("." in first or ":" in first)


def check_size(path: str, size: int) -> list[Offence]:
    """Report a file that is too large to be source."""
    if size <= FILE_BYTES_MAX:
        return []
    return [Offence(path=path, line=1, what=f"{size} bytes, {FILE_BYTES_MAX} allowed")]


def check_links(path: str, text: str, *, known: frozenset[str]) -> list[Offence]:
    """Report links of a Markdown file that lead to no file, or to no heading in one.

    Args:
        path: The file, below the root.
        text: Its content.
        known: Every file of the repository; folders are derived from it.

    """
    folders = {str(parent) for name in known for parent in PurePosixPath(name).parents}
    offences = []
    for number, line in _prose(text):
        for found in [*LINK.finditer(line), *PICTURE.finditer(line)]:
            target = found["target"]
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            file = _resolve(path, name) if name else path
            if file not in known and file not in folders:
                offences.append(Offence(path=path, line=number, what=f"leads nowhere: {target}"))
            elif anchor and file.endswith(".md"):
                body = text if file == path else read_text(file)
                if anchor not in anchors(body):
                    what = f"no such heading: {target}"
                    offences.append(Offence(path=path, line=number, what=what))
    return offences


def _resolve(path: str, target: str) -> str:
    parts: list[str] = []
    base = PurePosixPath("/") if target.startswith("/") else PurePosixPath(path).parent
    for part in (base / target.lstrip("/")).parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in {"/", "."}:
            parts.append(part)
    return "/".join(parts) or "."


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a Markdown file that are not code, with code spans blanked."""
    fenced = False
    for number, line in _lines(text):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", "", line)


def anchors(text: str) -> set[str]:
    """List the anchors of a Markdown file's headings, as repository hosts derive them."""
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if heading and not fenced:
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            repeated = sum(known == slug or known.startswith(f"{slug}-") for known in found)
            found.add(slug if slug not in found else f"{slug}-{repeated}")
    return found


def text_files() -> Iterator[tuple[str, str]]:
    """Yield every text file of the repository with its content."""
    for path in repository_files():
        if (ROOT / path).stat().st_size <= FILE_BYTES_MAX and (text := read_text(path)):
            yield path, text
