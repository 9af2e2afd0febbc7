"""Output names: injective over everything a source can bring, bounded, and never outside the sink."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable

import pytest

from daemon.naming import (
    FEWEST_PATH_BYTES,
    LONGEST_SUFFIX,
    MANIFEST,
    PATH_BYTES,
    batch_of,
    is_batch_name,
    manifest_name,
    output_name,
)

SUFFIXES = (".md", ".json", LONGEST_SUFFIX)


def assert_apart(sources: Iterable[bytes], path_bytes: int = PATH_BYTES) -> None:
    """No two sources share an output file, and no file of one is a folder of another."""
    files: dict[str, bytes] = {}
    folders: dict[str, bytes] = {}
    for source in set(sources):
        name = output_name(source, path_bytes)
        for suffix in SUFFIXES:
            other = files.setdefault(name + suffix, source)
            assert other == source, f"{source!r} and {other!r} share {name + suffix!r}"
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folders["/".join(parts[:depth])] = source
    for folder in folders.keys() & files.keys():
        raise AssertionError(f"{files[folder]!r} has a file where {folders[folder]!r} needs the folder {folder!r}")


def assert_in_bounds(source: bytes, path_bytes: int = PATH_BYTES) -> None:
    """The name can be made in any folder, stays in it, and can be printed on one line."""
    name = output_name(source, path_bytes)
    assert len((name + LONGEST_SUFFIX).encode()) <= path_bytes
    for part in (name + LONGEST_SUFFIX).split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= 255
        assert not part.startswith(".convertd-")
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in part)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (b"a/b.pdf", "a/b.pdf"),
        (b"100%.pdf", "100%.pdf"),
        (b"50% off.pdf", "50% off.pdf"),
        (b"a%2fb", "a%252fb"),
        (b" spaces kept .pdf ", " spaces kept .pdf "),
        ("Müller/日本.pdf".encode(), "Müller/日本.pdf"),
        (rb"back\slash", "back\\slash"),
        (b"a.md", "a.md"),
        (b".hidden/.x", ".hidden/.x"),
        (b"../up", "%2E%2E/up"),
        (b"./x", "%2E/x"),
        (b"/etc//x", "%2F/etc/%2F/x"),
        (b"folder/", "folder/%2F"),
        (b"", "%2F"),
        (b"a\nb\x7f\x00", "a%0Ab%7F%00"),
        (b"\xff\xc3", "%FF%C3"),
        ("\u0085".encode(), "%C2%85"),
        (b"%\n41", "%%0A41"),
        (b".convertd-tmp/.convertd-1.tmp", "%2Econvertd-tmp/%2Econvertd-1.tmp"),
    ],
)
def test_what_is_kept_and_what_is_encoded(source: bytes, name: str) -> None:
    assert output_name(source) == name


@pytest.mark.parametrize(
    ("source", "name", "digested"),
    [
        (b"x/a.pdf.error", "x/a.pdf.error~", b"x/a.pdf.error"),
        (b"a.md/b", "a.md~{}/b", b"a.md"),
        (b"x/a.json/b", "x/a.json~{}/b", b"x/a.json"),
        (b"a~0123456789ab", "a~0123456789ab~", b"a~0123456789ab"),
    ],
)
def test_what_could_collide_is_marked_with_the_digest_of_the_path(source: bytes, name: str, digested: bytes) -> None:
    digest = hashlib.sha256(digested).hexdigest()[:12]
    assert output_name(source) == (name.format(digest) if "{}" in name else name + digest)


def test_a_long_name_is_cut_between_characters_and_marked() -> None:
    source = "ä".encode() * 127  # 254 bytes: fits as a source, not with a suffix
    name = output_name(source)
    digest = hashlib.sha256(source).hexdigest()[:12]
    assert name == "ä" * 115 + "~" + digest
    source = b"x" + b"\xff" * 200
    assert output_name(source) == "x" + "%FF" * 76 + "~" + hashlib.sha256(source).hexdigest()[:12]


def test_a_name_is_cut_only_where_it_has_to_be() -> None:
    fits = b"x" * (255 - len(LONGEST_SUFFIX))
    assert output_name(fits) == fits.decode()
    assert output_name(fits + b"x") != (fits + b"x").decode()
    assert output_name(b"x" * 255 + b"/y") == "x" * 255 + "/y"


def test_a_path_that_is_too_long_keeps_its_outer_folders() -> None:
    source = b"/".join([b"folder"] * 580 + [b"report.pdf"])
    name = output_name(source)
    assert name.startswith("folder/folder/")
    assert name.endswith("/report.pdf~" + hashlib.sha256(source).hexdigest()[:12])
    assert PATH_BYTES - 20 < len(name) + len(LONGEST_SUFFIX) <= PATH_BYTES
    sibling = b"/".join([b"folder"] * 579 + [b"other", b"report.pdf"])
    assert_apart([source, sibling, source + b".error", name.encode(), b"folder/" + source])


def test_every_short_path_over_the_letters_that_matter() -> None:
    letters = [b"/", b".", b"%", b"2", b"E", b"F", b"\n", b"\xff", b"a"]
    sources = [b"".join(word) for length in range(6) for word in itertools.product(letters, repeat=length)]
    assert_apart(sources)
    for source in sources:
        assert_in_bounds(source)


def test_every_arrangement_of_the_pieces_that_matter() -> None:
    pieces = [b"a", b"/", b".md", b".json", b".error", b"~0123456789ab", b".convertd-", b"%2F"]
    sources = [b"".join(word) for length in range(1, 6) for word in itertools.product(pieces, repeat=length)]
    assert_apart(sources)
    for source in sources:
        assert_in_bounds(source)


def test_names_made_to_look_like_the_output_of_others() -> None:
    sources = {b"a.pdf", b"a.pdf.error", b"d.md/x", "é".encode() * 126, b"d/" + b"x" * 255, b"x~0123456789ab"}
    for _ in range(3):
        outputs = {output_name(source).encode() for source in sources}
        sources |= outputs | {output + suffix.encode() for output in outputs for suffix in SUFFIXES}
        sources |= {output + suffix.encode() + b"/x" for output in outputs for suffix in SUFFIXES}
    assert len(sources) > 1000
    assert_apart(sources)
    for source in sources:
        assert_in_bounds(source)


def random_paths() -> set[bytes]:
    generator = random.Random(20)
    pieces = [b"/", b"/", b".", b"..", b"%", b"%41", b"~", b".md", b".json", b".error", b"\xc3\xa4", b"\xff", b"\0"]

    def part() -> bytes:
        drawn = (generator.choice(pieces) if generator.random() < 0.7 else generator.randbytes(2) for _ in range(8))
        return b"".join(drawn) * generator.choice([1, 1, 1, 10, 40])

    return {b"/".join(part() for _ in range(generator.randint(1, 4))) for _ in range(1500)}


BOUNDS = (FEWEST_PATH_BYTES, 300, 1000, PATH_BYTES)


@pytest.mark.parametrize("path_bytes", BOUNDS)
def test_random_paths_of_any_bytes_and_lengths(path_bytes: int) -> None:
    sources = random_paths()
    assert_apart(sources, path_bytes)
    for source in sources:
        assert_in_bounds(source, path_bytes)


@pytest.mark.parametrize("path_bytes", BOUNDS)
def test_random_keys_of_1024_bytes_that_differ_in_one(path_bytes: int) -> None:
    generator = random.Random(21)
    letters = "ab/ä日\u0085%.~".encode()
    sources = set()
    for _ in range(100):
        key = bytes(generator.choices(letters, k=1024))
        position = generator.randrange(1024)
        sources |= {key, key[:position] + b"x" + key[position + 1 :]}
    assert_apart(sources, path_bytes)
    for source in sources:
        assert_in_bounds(source, path_bytes)


@pytest.mark.parametrize("path_bytes", (FEWEST_PATH_BYTES, 300))
def test_a_bound_changes_no_name_that_keeps_it(path_bytes: int) -> None:
    for source in random_paths():
        unbounded = output_name(source)
        if len((unbounded + LONGEST_SUFFIX).encode()) <= path_bytes:
            assert output_name(source, path_bytes) == unbounded
        else:
            assert output_name(source, path_bytes).endswith("~" + hashlib.sha256(source).hexdigest()[:12])


def test_a_key_is_cut_to_the_byte_but_between_characters() -> None:
    for letters in ("a", "ä", "日", "𝄞"):
        width = len(letters.encode())
        source = (letters * 254)[: 1024 // width].encode()
        digest = hashlib.sha256(source).hexdigest()[:12]
        for path_bytes in range(100, 110):
            room = path_bytes - len(LONGEST_SUFFIX) - len("~" + digest)
            assert output_name(source, path_bytes) == letters * (room // width) + "~" + digest
    source = "/".join(["ä" * 30] * 16 + ["ö" * 17 + ".pdf"]).encode()
    name = output_name(source, 300)
    assert name == "/".join(["ä" * 30] * 3 + ["ö" * 17 + ".pdf~" + hashlib.sha256(source).hexdigest()[:12]])
    assert output_name(source, 1014) == "/".join(["ä" * 30] * 15 + [name.rsplit("/", 1)[1]])


def test_the_names_that_earlier_versions_gave_stay() -> None:
    """A document converted again must replace its output, not leave it beside a new one."""
    pieces = [b"a", b"/", b".md", b".json", b".error", b"~0123456789ab", b".convertd-", b"%2F", b"\n", b"\xff", b".."]
    pieces.append("ä".encode() * 130)
    sources = [b"".join(word) for length in range(4) for word in itertools.product(pieces, repeat=length)]
    sources += [b"folder/" * 490 + b"x" * length for length in range(100)]
    names = "\0".join(output_name(source) for source in sources)
    digest = hashlib.sha256(names.encode()).hexdigest()
    assert digest == "6f4c1ba200c2ebd4a8a391b4953c7671b60af9347c3481464ec400a758452468"


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "batch"),
    [
        (b"x/a.pdf", "x"),
        (b"x/y/a.pdf", "x"),
        (b"a.pdf", None),
        (b"/a.pdf", None),
        (b"50% off/a", "50% off"),
        (b"a%20b/a", "a%2520b"),
        (b"../a", "%2E%2E"),
        (b"new\nline/\xff", "new%0Aline"),
        (b"\xff\xc3/a", "%FF%C3"),
        (b".convertd-tmp/a", "%2Econvertd-tmp"),
    ],
)
def test_a_batch_is_called_like_its_folder_in_the_sink(source: bytes, batch: str | None) -> None:
    assert batch_of(source) == batch


@pytest.mark.parametrize("name", ["a", "Monday 3", "50% off", "ünï", "x.manifest.jsonl", "a" * 200, "x.md"])
def test_names_that_may_be_given_to_a_batch(name: str) -> None:
    assert is_batch_name(name)
    assert batch_of(name.encode() + b"/a") == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/", "a%20b", "a\nb", "a\0", "\x9b", "\udcff", ".convertd-tmp", "a" * 201]
)
def test_names_that_may_not(name: str) -> None:
    assert not is_batch_name(name)


@pytest.mark.parametrize("path_bytes", (FEWEST_PATH_BYTES, 300, PATH_BYTES))
def test_no_manifest_is_in_the_way_of_anything(path_bytes: int) -> None:
    pieces = [b"a", b"/", b".md", b".manifest.jsonl", b".error", b"~0123456789ab", b"x" * 240, b"%2F", b"..", b"\xff"]
    sources = [b"".join(word) for length in range(1, 5) for word in itertools.product(pieces, repeat=length)]
    batches = {batch for source in sources if (batch := batch_of(source)) is not None}
    manifests = {manifest_name(batch, path_bytes) + MANIFEST for batch in batches}
    assert len(manifests) == len(batches) > 100, "each has its own"
    taken = set()
    for source in sources:
        name = output_name(source, path_bytes)
        folders = name.split("/")[:-1]
        taken |= {name + suffix for suffix in SUFFIXES}
        taken |= {"/".join(folders[:depth]) for depth in range(1, len(folders) + 1)}
    assert not manifests & taken
    for manifest in manifests:
        assert "/" not in manifest
        assert not manifest.startswith(".convertd-")
        assert len(manifest.encode()) <= min(path_bytes, 255)
