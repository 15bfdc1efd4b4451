"""The table of contents: every line leads somewhere, and a typo is answered with the nearest name."""

from types import SimpleNamespace

import pytest

from xfm.__main__ import main
from xfm.core import registry


@pytest.mark.parametrize("table", [registry.SOURCES, registry.BACKBONES, registry.TASKS])
def test_every_line_leads_to_a_config_of_its_own_kind(table):
    for name in table:
        entry = registry.load(table, name, "entry")
        assert entry.model_fields["kind"].default == name
        assert entry.__doc__


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known():
    table = {"census": "a:b", "h5ad": "c:d"}
    with pytest.raises(KeyError, match=r"unknown source 'hd5ad'\. Did you mean 'h5ad'\? Known: census, h5ad"):
        registry.load(table, "hd5ad", "source")
    with pytest.raises(KeyError, match=r"unknown source 'xyz'\. Known:"):
        registry.load(registry.SOURCES, "xyz", "source")


def test_other_packages_add_entries(monkeypatch):
    points = [SimpleNamespace(name="mine", value="my.package:Source")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "xfm.sources" else [])
    assert registry.entries("xfm.sources", {"h5ad": "a:b"}) == {"h5ad": "a:b", "mine": "my.package:Source"}
    assert registry.entries("xfm.backbones", {"scgpt": "a:b"}) == {"scgpt": "a:b"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import absent_library", "No module named 'absent_library'"),
        ("x = (", "was never closed"),
        ("", "no attribute"),
    ],
)
def test_an_entry_of_another_package_that_cannot_be_imported_is_left_out_and_said(
    source, reason, monkeypatch, tmp_path, caplog
):
    name = f"broken_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    points = [SimpleNamespace(name="mine", value=f"{name}:Task")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert sorted(registry.load_all("xfm.tasks", registry.TASKS, "task")) == sorted(registry.TASKS)
    assert f"task 'mine' of another package ({name}:Task) is left out" in caplog.text
    assert reason in caplog.text


def test_the_list_of_the_command_line_says_of_every_entry_what_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    points = [SimpleNamespace(name="mine", value="xfm.sources.h5ad.source:H5ad")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "xfm.sources" else [])
    assert main(["list"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert ["mine", "Cells from .h5ad files."] in lines
    tables = (registry.SOURCES, registry.BACKBONES, registry.TASKS)
    assert sorted(name for name, _ in lines) == sorted(["mine", *(name for table in tables for name in table)])
