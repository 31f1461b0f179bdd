"""Stored results are found from wherever a notebook runs, and shown as tables that fit a phone."""

import json
import re

import pandas as pd
import pytest

from rwkvlib.bookkit import read_result, results, table
from rwkvlib.bookkit.results import p_value


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one result, seen from its notebooks folder."""
    (tmp_path / "results/bench").mkdir(parents=True)
    (tmp_path / "results/bench/wkv.json").write_text('{"time": 1.5}')
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


@pytest.mark.parametrize("name", ["bench/wkv", "bench/wkv.json"])
def test_result_is_found_from_a_notebook(checkout, name):
    assert read_result(name) == {"time": 1.5}


def test_result_is_found_in_an_installed_package(checkout, tmp_path, monkeypatch):
    package = tmp_path / "site-packages/rwkvlib"
    (package / "results").mkdir(parents=True)
    (package / "results/inside.json").write_text("{}")
    monkeypatch.setattr(results, "PACKAGE", package)
    assert read_result("inside") == {}


def test_missing_result_says_where_it_was_looked_for_and_what_there_is(checkout):
    with pytest.raises(FileNotFoundError) as error:
        read_result("bench/wvk")
    for part in ("bench/wvk.json", str(checkout / "results"), "bench/wkv"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["../secret", "bench/../../secret"])
def test_a_name_that_leaves_the_folder_is_refused(checkout, name):
    (checkout / "secret.json").write_text("{}")
    with pytest.raises(ValueError, match="path below results/"):
        read_result(name)


def test_a_broken_result_names_its_file(checkout):
    (checkout / "results/half.json").write_text('{"time": 1.')
    with pytest.raises(ValueError, match=r"half\.json is not JSON"):
        read_result("half")


FRAME = pd.DataFrame(
    {"backend": ["a<b", "c"], "time (ms)": [12345.6, None], "tokens": [196, 100000], "ok": [True, False]}
)


def cells(markup):
    """Returns each body cell of a table as (is a number, text)."""
    return [(bool(kind), text) for kind, text in re.findall(r"<td( class=\"rwkv-number\")?>([^<]*)</td>", markup)]


def test_numbers_stand_to_the_right_and_text_is_escaped():
    assert cells(table(FRAME).data) == [
        (False, "a&lt;b"),
        (True, "12,346"),
        (True, "196"),
        (False, "yes"),
        (False, "c"),
        (True, "–"),
        (True, "100,000"),
        (False, "no"),
    ]


def test_formats_caption_index_and_scroll_box():
    shown = table(FRAME, caption="Time & space.", formats={"time (ms)": "{:.2f}", "backend": str.upper}, index=True)
    markup = shown.data
    assert cells(markup)[:3] == [(True, "0"), (False, "A&lt;B"), (True, "12345.60")]
    assert "<caption><span>Time &amp; space.</span></caption>" in markup
    assert markup.startswith('<div class="rwkv-table" role="region" tabindex="0" aria-label="Time &amp; space.">')
    assert json.dumps(markup), "plain text that a notebook can store"


def test_a_format_for_a_column_that_is_not_there_is_refused():
    with pytest.raises(KeyError, match="time"):
        table(FRAME, formats={"time": "{:.2f}"})


def test_minus_signs_are_minus_signs_and_hyphens_hyphens():
    texts = ["-0.5", "-0.078 (-0.121 to +0.5)", "1e-05", "RWKV-UNet-T", "2026-11-24", "9-9", "-.5", "--size", "a -1"]
    shown = [text for _, text in cells(table(pd.DataFrame({"x": texts})).data)]
    assert shown[:2] == ["\u22120.5", "\u22120.078 (\u22120.121 to +0.5)"] and shown[6] == "\u2212.5"
    assert shown[2:6] == texts[2:6] and shown[7] == "--size" and shown[8] == "a \u22121"
    numbers = [text for _, text in cells(table(pd.DataFrame({"x": [-1.5, -20000.0], "y": [-3, 4]})).data)]
    assert numbers == ["\u22121.5", "\u22123", "\u221220,000", "4"]
    assert cells(table(pd.DataFrame({"x": [-1.25]}), formats={"x": "{:+.1f}"}).data) == [(True, "\u22121.2")]


def test_small_p_values_are_not_spelt_out():
    written = [p_value(p) for p in (1.7e-24, 0.0000999, 0.00048, 0.0067, 0.25, 1.0, float("nan"))]
    assert written == ["< 0.0001", "< 0.0001", "0.00048", "0.0067", "0.25", "1", "–"]
