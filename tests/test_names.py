"""Names: nearest, unknown, digests and slugs, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from crate_analysis.names import digest, nearest, slug, unknown


def test_the_nearest_name_is_found_in_any_case():
    assert nearest("VALID", ["train", "val", "test"]) == "val"
    assert nearest("Train", ["train", "Val"]) == "train"
    assert nearest("zzz", ["train", "val"]) is None
    assert nearest("zzz", ["train", "val"], 0.0) in ("train", "val")
    assert nearest("x", []) is None


def test_an_unknown_name_is_told_with_those_that_there_are():
    assert unknown("split", "tran", ["train", "val"]) == (
        "no split 'tran', did you mean 'train'? There are train, val"
    )
    assert unknown("split", "q", ["train", "val"]) == "no split 'q'; there are train, val"
    assert unknown("split", "q", []) == "no split 'q'; there are none"


def test_a_digest_tells_where_its_parts_end():
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"]) != digest([b"abc"])
    assert digest([b"ab", b"c"]) == digest(iter([b"ab", b"c"]))
    assert len(digest([])) == 16


@pytest.mark.parametrize("text", ["a/b c", "a-b c", "..", "", "-x", "x" * 300, "ö/大"])
def test_slugs_are_file_names_that_differ(text):
    assert slug(text) != slug(text + "?") and "/" not in slug(text) and len(slug(text)) < 100
    assert not slug(text).startswith((".", "-")) or slug(text)[1:].isalnum()


def test_names_do_not_need_torch():
    code = "import sys, crate_analysis.names as n; print(n.__name__)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
