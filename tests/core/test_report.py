import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from xfm.core.report import Estimate, Figure, Report, Table, format_column, markdown_table, text_table

TABLE = Table(
    name="layers",
    caption="Error by layer.",
    columns=["layer", "name", "MSE", "skill"],
    rows=[[0, "embedding", 12.345, Estimate(value=0.1, low=0.05, high=0.15)], [12, "a|b", 1.5, None]],
    note="Lower is better.",
)


def test_a_table_for_the_terminal_is_aligned_with_numbers_to_the_right():
    assert text_table(TABLE) == (
        "Error by layer.\n"
        "\n"
        "layer  name         MSE                 skill\n"
        "-----  ---------  -----  --------------------\n"
        "    0  embedding  12.35  0.100 [0.050, 0.150]\n"
        "   12  a|b         1.50                     \N{EN DASH}\n"
        "Lower is better."
    )


def test_a_markdown_table_escapes_pipes_and_marks_numeric_columns():
    assert markdown_table(TABLE) == (
        "| layer | name | MSE | skill |\n"
        "| ---: | --- | ---: | ---: |\n"
        "| 0 | embedding | 12.35 | 0.100 [0.050, 0.150] |\n"
        "| 12 | a\\|b | 1.50 | \N{EN DASH} |\n"
    )


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        ([0.5, 0.0123], ["0.500", "0.012"]),
        ([0.05, -0.0123], ["0.0500", "-0.0123"]),
        ([1.0, 0.25], ["1.000", "0.250"]),
        ([123456.7, 1.0], ["123,457", "1"]),
        ([3e-5, 1.25e-7], ["3e-05", "1.25e-07"]),
        ([0.0], ["0.000"]),
        ([18220, 7], ["18,220", "7"]),
        ([True, False, None], ["yes", "no", "\N{EN DASH}"]),
        ([math.nan, math.inf, 0.5], ["\N{EN DASH}", "\N{EN DASH}", "0.500"]),
        (["name\x1b[31m\n"], ["name [31m "]),
        ([0.5, 0.0002, 0.0, -0.0002], ["0.500", "<0.001", "0.000", "-0.000"]),
        ([12345.6, 0.2], ["12,346", "<1"]),
        ([Estimate(value=0.5, low=0.0002, high=0.9)], ["0.500 [0.000, 0.900]"]),
        ([Estimate(value=0.5, low=math.nan, high=0.9)], ["0.500"]),
    ],
)
def test_cells_are_written_as_people_write_them(cells, texts):
    assert format_column(cells) == texts


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValidationError, match="row 1: 1 cells for 2 columns"):
        Table(name="t", caption="c", columns=["a", "b"], rows=[[1, 2], [3]])


@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "plots/../../x.png"])
def test_a_figure_outside_the_output_is_refused(path):
    with pytest.raises(ValidationError, match="outside OUTPUT"):
        Figure(name="f", caption="c", png=path)


def report(**more):
    return Report(title="t", job="layerwise", headline="h", tables=[TABLE], **more)


def test_json_is_stable_complete_and_knows_no_nan():
    one = report(numbers={"n": np.int64(3), "mse": np.float32(0.5)}, provenance={"data": {"x": math.nan, "y": (1, 2)}})
    text = one.to_json()
    assert text == one.to_json()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert content["format"] == 1
    assert content["numbers"] == {"n": 3, "mse": 0.5}
    assert content["provenance"] == {"data": {"x": None, "y": [1, 2]}}
    assert content["tables"][0]["rows"][0] == [
        0,
        "embedding",
        12.345,
        {"value": 0.1, "low": 0.05, "high": 0.15, "why": ""},
    ]


def test_json_is_read_back_as_the_same_report():
    one = report(numbers={"cells": 7, "skill": 0.5, "best": "layer 3"}, refused={"EMPTY": 2}, warnings=["small"])
    assert Report.from_json(one.to_json()) == one


def test_a_headline_number_may_carry_its_interval():
    one = report(numbers={"macro F1": Estimate(value=0.912, low=0.894, high=0.929), "cells": 7})
    assert "macro F1  0.912 [0.894, 0.929]\ncells     7\n" in one.to_text()
    assert json.loads(one.to_json())["numbers"] == {
        "macro F1": {"value": 0.912, "low": 0.894, "high": 0.929, "why": ""},
        "cells": 7,
    }
    assert Report.from_json(one.to_json()) == one


def test_reports_of_before_figures_had_words_and_widths_are_still_read():
    figure = {"name": "f", "caption": "c", "png": "plots/f.png", "csv": ""}
    old = {"format": 1, "title": "t", "job": "j", "headline": "h", "figures": [figure]}
    assert Report.from_json(json.dumps(old)).figures[0].alt == ""


def test_a_summary_is_told_by_its_name():
    assert Table(name="cell_type_summary", caption="c", columns=[], rows=[]).is_summary
    assert not TABLE.is_summary


def test_whole_numbers_stay_whole_and_yes_stays_yes():
    table = Table(name="t", caption="c", columns=["a"], rows=[[1], [True], [1.0], ["1"], [np.float64(2.5)]])
    assert [type(row[0]) for row in table.rows] == [int, bool, float, str, float]


def test_the_terminal_shows_headline_numbers_warnings_and_refusals():
    text = report(numbers={"cells": 18220, "skill": 0.5}, warnings=["Small model."], refused={"EMPTY": 2}).to_text()
    assert text.startswith("t\nh\n\ncells  18,220\nskill  0.500\n")
    assert text.endswith("warning: Small model.\nnot used: 2 EMPTY\n")
