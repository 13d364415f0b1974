"""What the subcommands share: words as assignments, where output may go, tables, files of JSON."""

import json

import pytest

from lprjax.commands.command import assignments, checked_output, table, write_json


def test_words_are_assignments():
    assert assignments("--keys", ["energy=E0", "forces=a=b"]) == {"energy": "E0", "forces": "a=b"}
    for words in (["energy"], ["=3"], ["a="], ["a=1", "a=2"]):
        with pytest.raises(ValueError, match="--keys has .*wanted words such as energy=30"):
            assignments("--keys", words)


def test_output_is_refused_before_anything_is_computed(tmp_path):
    good = tmp_path / "model.npz"
    assert checked_output(good, ".npz") == good and checked_output(None) is None
    with pytest.raises(ValueError, match=r"ends in .npz"):
        checked_output(tmp_path / "model.txt", ".npz")
    for path in (tmp_path / "nowhere/model.npz", tmp_path):
        with pytest.raises(ValueError, match="wanted a file in a folder that there is"):
            checked_output(path)


def test_tables_align_text_left_and_numbers_right():
    lines = table(("name", "value"), [("a", 1.23456789), ("long name", 20)]).splitlines()
    assert lines == ["name       value", "a          1.235", "long name     20"]
    assert table(("a", "b"), []) == "a  b"


def test_files_of_json_are_strict(tmp_path):
    write_json(tmp_path / "a.json", {"bad": float("nan"), "good": [1, 2.5]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"bad": None, "good": [1, 2.5]}
