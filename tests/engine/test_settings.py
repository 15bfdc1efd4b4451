"""Flags, environment and YAML of a job, and what is said where they are wrong."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, model_validator

from xfm.core.config import Config
from xfm.engine.settings import UsageError, build, merge, parse, read_yaml

REPOSITORY = Path(__file__).parents[2]


class Sea(Config):
    """Water, e.g. the North Sea. It is salty."""

    kind: Literal["sea"] = "sea"
    depth: PositiveInt = 10
    """Metres."""
    fish: tuple[str, ...] = ()
    """Names."""


class Land(Config):
    """Dry ground."""

    kind: Literal["land"] = "land"
    height: float
    """Metres, 100 % above sea level."""
    depth: PositiveInt = 1
    """Of a cave."""
    is_flat: bool = False
    """No hill."""


class Boat(Config):
    """A small one."""

    kind: Literal["boat"] = "boat"
    name: str
    """On its bow."""


class Picnic(Config):
    """May be held at sea."""

    where: Annotated[Sea | Land, Field(discriminator="kind")] | None = None
    """Where to, or at home."""
    days: PositiveInt = 1
    """How long."""

    @model_validator(mode="after")
    def _is_short_at_home(self) -> "Picnic":
        if self.where is None and self.days > 1:
            raise ValueError("--days is 1 without --where")
        return self


class Trip(Config):
    """Goes somewhere."""

    where: Annotated[Sea | Land, Field(discriminator="kind")]
    """Where to."""
    boat: Boat = Boat(name="Anna")
    """By what."""
    days: PositiveInt = 3
    """How long."""
    dry_run: bool = False
    """Only plan."""
    stops: tuple[int, ...] | Literal["all"] = "all"
    """Where to halt."""
    start: str = ""
    """A date."""


def trip(*argv, env=None, yaml=None, tmp_path=None):
    if yaml is not None:
        (tmp_path / "trip.yaml").write_text(yaml)
        argv = (*argv, "--config", str(tmp_path / "trip.yaml"))
    return parse(Trip, argv, env or {}, "jobs/trip.py")


def problem(*argv, **more):
    with pytest.raises(UsageError) as caught:
        trip(*argv, **more)
    return str(caught.value)


def test_flags_override_the_environment_which_overrides_the_file(tmp_path):
    yaml = "where: {kind: sea, depth: 1}\ndays: 1\nstart: file\nboat: {name: Yaml}\n"
    env = {"XFM_DAYS": "2", "XFM_WHERE__DEPTH": "2", "XFM_START": "env", "XFM_UNRELATED": "x", "OTHER": "y"}
    config = trip("--days", "3", yaml=yaml, env=env, tmp_path=tmp_path)
    assert (config.days, config.where.depth, config.start, config.boat.name) == (3, 2, "env", "Yaml")
    assert trip("--where.depth=7", yaml=yaml, env=env, tmp_path=tmp_path).where.depth == 7
    assert trip(yaml=yaml, tmp_path=tmp_path).days == 1


def test_a_change_of_kind_drops_what_lower_layers_said_of_the_other_kind(tmp_path):
    yaml = "where: {kind: sea, depth: 5, fish: [cod]}\n"
    config = trip("--where.kind", "land", "--where.height", "9", yaml=yaml, tmp_path=tmp_path)
    assert config.where == Land(height=9)
    from_env = trip(yaml=yaml, env={"XFM_WHERE__KIND": "land", "XFM_WHERE__HEIGHT": "8"}, tmp_path=tmp_path)
    assert from_env.where == Land(height=8)
    same = trip("--where.kind", "sea", yaml=yaml, tmp_path=tmp_path)
    assert same.where == Sea(depth=5, fish=("cod",))


def test_lists_are_written_with_commas_and_a_fixed_word_stays_a_word(tmp_path):
    sea = ("--where.kind", "sea")
    assert trip(*sea, "--where.fish", "cod, eel,").where.fish == ("cod", "eel")
    assert trip(*sea, "--stops", "3,1").stops == (3, 1)
    assert trip(*sea, "--stops", "4").stops == (4,)
    assert trip(*sea, "--stops", "all").stops == "all"
    assert trip(*sea, yaml="stops: [3, 1]", tmp_path=tmp_path).stops == (3, 1)
    assert trip(*sea, yaml="stops: 3", tmp_path=tmp_path).stops == (3,)
    assert trip(*sea, yaml="where: {fish: 'cod,eel'}", tmp_path=tmp_path).where.fish == ("cod", "eel")


def test_a_date_in_a_file_is_text_with_or_without_quotes(tmp_path):
    assert trip("--where.kind", "sea", yaml="start: 2025-11-08", tmp_path=tmp_path).start == "2025-11-08"
    assert trip("--where.kind", "sea", yaml="start: '2025-11-08'", tmp_path=tmp_path).start == "2025-11-08"


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run", "--dry-run=", "--no-dry-run"])
def test_a_switch_is_written_with_a_dash_or_an_underscore(flag, tmp_path):
    if flag.endswith("="):  # written elsewhere than on the command line
        assert trip("--where.kind=sea", yaml="dry-run: true", tmp_path=tmp_path).dry_run
        assert trip("--where.kind=sea", env={"XFM_DRY_RUN": "true"}).dry_run
    else:
        assert trip("--where.kind=sea", flag).dry_run is ("no" not in flag)


def test_a_switch_inside_a_section_may_be_turned_off_again(tmp_path):
    yaml = "where: {kind: land, height: 1, is_flat: true}"
    assert trip(yaml=yaml, tmp_path=tmp_path).where.is_flat
    assert not trip("--no-where.is_flat", yaml=yaml, tmp_path=tmp_path).where.is_flat


def test_a_misspelt_flag_names_the_nearest():
    assert "Did you mean --where.height?" in problem("--where.kind", "land", "--where.heigth", "3")
    assert "unknown argument --dayz. Did you mean --days?" in problem("--dayz=4")
    assert problem("stray") == "unknown argument stray. See `jobs/trip.py --help`."
    assert "unknown argument --day." in problem("--where.kind", "sea", "--day", "4")  # no guessing of prefixes


def test_a_misspelt_key_of_the_file_names_the_nearest(tmp_path):
    assert problem("--where.kind=sea", yaml="dais: 3", tmp_path=tmp_path) == (
        "--dais: is no setting of this job. Did you mean --days?"
    )
    inner = problem(yaml="where: {kind: sea, fisch: [a]}", tmp_path=tmp_path)
    assert inner == "--where.fisch: is no setting of this job. Did you mean --where.fish?"


def test_a_field_of_the_other_kind_is_refused():
    assert "--where.height: is no setting of this kind of where" in problem("--where.kind=sea", "--where.height=3")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "--where.kind: is required: one of sea, land."),
        (("--where.depth", "3"), "--where.kind: is required: one of sea, land."),
        (("--where.kind", "see"), "--where.kind: unknown 'see'; known: sea, land. Did you mean sea?"),
        (("--where.kind", "land"), "--where.height: is required."),
        (("--where.kind", "sea", "--days", "0"), "--days: Input should be greater than 0, found '0'."),
        (("--where.kind", "sea", "--days", "long"), "found 'long'"),
        (("--where.kind", "sea", "--where.depth", "-4"), "--where.depth: Input should be greater than 0, found '-4'."),
        (("--where.kind", "sea", "--stops", "a"), "--stops: Input should be a valid integer"),
        (("--config", "nowhere.yaml"), "--config nowhere.yaml: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_command_line(argv, message):
    assert message in problem(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "is not valid YAML"), ("- a\n- b", "expected `field: value` lines, found list"), ("", "found NoneType")],
)
def test_a_file_that_is_no_mapping_is_refused(text, message, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_yaml(str(tmp_path / "x.yaml"))


def test_a_file_cannot_run_code(tmp_path):
    (tmp_path / "x.yaml").write_text("days: !!python/object/apply:os.system ['exit 1']")
    with pytest.raises(UsageError, match="is not valid YAML"):
        read_yaml(str(tmp_path / "x.yaml"))


class Menu(Config):
    """Words that stand for dishes."""

    dish_names: dict[str, str]
    """Names, by what stands on the card."""
    where: Annotated[Sea | Land, Field(discriminator="kind")]
    """Eaten at."""


def test_names_of_fields_may_have_dashes_and_keys_that_are_data_keep_theirs(tmp_path):
    path = tmp_path / "menu.yaml"
    path.write_text("dish-names: {T-bone: steak, 0: nothing}\nwhere: {kind: land, height: 1, is-flat: true}")
    menu = parse(Menu, ["--config", str(path)], {}, "menu")
    assert menu.dish_names == {"T-bone": "steak", "0": "nothing"}
    assert menu.where == Land(height=1, is_flat=True)


def test_another_kind_of_section_drops_what_was_said_of_the_old_kind():
    low = {"source": {"kind": "grammar", "n": 50}, "task": {"label": "x", "deep": {"a": 1, "b": 2}}, "lr": 1}
    high = {"source": {"kind": "digits"}, "task": {"deep": {"b": 3}}}
    assert merge(low, high) == {
        "source": {"kind": "digits"}, "task": {"label": "x", "deep": {"a": 1, "b": 3}}, "lr": 1
    }  # fmt: skip


def test_settings_that_a_program_holds_are_judged_as_if_they_stood_in_a_file():
    held = {"where": {"kind": "sea", "depth": "4", "fish": "cod, eel"}, "dry-run": True, "stops": 3}
    assert build(Trip, held, "trip") == Trip(where=Sea(depth=4, fish=("cod", "eel")), dry_run=True, stops=(3,))
    assert build(Menu, {"dish_names": {0: "none"}, "where": Sea()}, "menu").dish_names == {"0": "none"}
    for wrong, said in [
        ({"where": {"kind": "see"}}, "--where.kind: unknown 'see'; known: sea, land. Did you mean sea?"),
        ({"where": {"kind": "sea", "dept": 2}}, "--where.dept: is no setting of this job. Did you mean --where.depth?"),
        ({"dais": 2, "where": {"kind": "sea"}}, "--dais: is no setting of this job. Did you mean --days?"),
    ]:
        with pytest.raises(UsageError) as caught:
            build(Trip, wrong, "trip")
        assert str(caught.value) == said


def help_of(config, capsys, *argv, env=None):
    """The text of --help, each run of white space as one space."""
    with pytest.raises(SystemExit) as ended:
        parse(config, argv, env or {}, "jobs/trip.py")
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_shows_the_flags_of_the_job_and_the_kinds_of_a_section(capsys):
    text = help_of(Trip, capsys, "--help")
    assert text.startswith("usage: jobs/trip.py --where.kind KIND [--config FILE.yaml] [--SETTING VALUE ...] Goes some")
    assert "where: Where to. Kinds: sea Water, e.g. the North Sea. land Dry ground. " in text
    assert "--where.kind KIND which kind (required)" in text
    assert "`jobs/trip.py --where.kind sea --help` shows the settings of a kind. Exit codes: 0 done;" in text
    assert "--boat.kind KIND which kind (default: boat) --boat.name TEXT On its bow. (required)" in text
    assert "--stops A,B,...|all Where to halt. (default: all)" in text
    assert "--days N How long. (default: 3)" in text
    for flag in ("--where.depth", "--where.height", "--where.fish"):
        assert flag not in text
    assert help_of(Trip, capsys, "-h") == text


def test_help_shows_the_flags_of_a_chosen_kind_wherever_it_is_chosen(capsys, tmp_path):
    text = help_of(Trip, capsys, "--help", "--where.kind", "land")
    assert "usage: jobs/trip.py --where.kind land --where.height X [--config" in text
    assert "where: Where to. land: Dry ground. --where.kind KIND land; others: sea" in text
    assert "--where.height X Metres, 100 % above sea level. (required)" in text
    assert "--where.depth N Of a cave. (default: 1)" in text
    assert "--where.is-flat, --no-where.is-flat No hill." in text
    for absent in ("--where.fish", "Kinds:", "shows the settings of a kind"):
        assert absent not in text
    (tmp_path / "x.yaml").write_text("where: {kind: land}")
    from_file = ("--config", str(tmp_path / "x.yaml"), "--help")
    assert help_of(Trip, capsys, *from_file) == text
    assert help_of(Trip, capsys, "--help", env={"XFM_WHERE__KIND": "land"}) == text
    at_sea = help_of(Trip, capsys, "--where.kind=sea", *from_file)
    assert "--where.depth N Metres. (default: 10)" in at_sea
    assert "--where.height" not in at_sea
    with pytest.raises(UsageError, match=r"--where.kind: unknown 'lnd'; known: sea, land. Did you mean land\?"):
        trip("--help", "--where.kind", "lnd")


def test_two_sections_of_the_same_kinds_list_them_once(capsys):
    class Both(Config):
        where: Annotated[Sea | Land, Field(discriminator="kind")]
        back: Annotated[Sea | Land, Field(discriminator="kind")] = Sea()

    text = help_of(Both, capsys, "--help")
    assert text.count("Dry ground.") == 1
    assert "back: Kinds: as of where. --back.kind KIND which kind (default: sea)" in text
    assert help_of(Both, capsys, "--where.kind", "sea", "--help").count("Dry ground.") == 1


def test_a_section_that_may_be_left_out_is_none_and_its_kind_is_asked_for_where_it_is_begun(tmp_path, capsys):
    def picnic(*argv, env=None):
        return parse(Picnic, argv, env or {}, "jobs/picnic.py")

    assert picnic().where is None
    assert picnic("--where.kind", "sea", "--where.fish", "cod,eel").where == Sea(fish=("cod", "eel"))
    assert picnic(env={"XFM_WHERE__KIND": "land", "XFM_WHERE__HEIGHT": "3"}).where == Land(height=3)
    (tmp_path / "x.yaml").write_text("where: {kind: sea, fish: cod}")
    assert picnic("--config", str(tmp_path / "x.yaml"), "--where.depth", "2").where == Sea(depth=2, fish=("cod",))
    for words, message in [
        (("--where.depth", "3"), "--where.kind: is required: one of sea, land."),
        (("--where.kind", "see"), "--where.kind: unknown 'see'; known: sea, land. Did you mean sea?"),
        (("--where.kind", "land"), "--where.height: is required."),
        (("--where.kind", "sea", "--where.height", "3"), "--where.height: is no setting of this kind of where."),
        (("--days", "2"), "--days is 1 without --where."),
    ]:
        with pytest.raises(UsageError) as caught:
            picnic(*words)
        assert str(caught.value) == message
    assert "--where.kind KIND which kind (none by default)" in help_of(Picnic, capsys, "--help")


def test_help_says_that_a_mapping_is_written_in_the_file_and_shows_no_default_that_a_function_makes(capsys):
    class Fair(Config):
        prices: dict[str, int]
        """Of things."""
        names: dict[str, str] = Field(default_factory=dict)
        """Of stalls."""

    text = help_of(Fair, capsys, "--help")
    assert "usage: jobs/trip.py [--config FILE.yaml]" in text
    assert "--prices TEXT Of things. (in --config only) (required)" in text
    assert "--names TEXT Of stalls. (in --config only) Exit codes" in text


def test_a_usage_error_ends_with_code_2_and_its_reason_on_standard_error():
    done = subprocess.run(
        [sys.executable, "jobs/embed.py", "--source.kind", "h5ad", "--sauce.path", "x"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.strip().endswith(
        "jobs/embed.py: error: unknown argument --sauce.path. Did you mean --source.path? See `jobs/embed.py --help`."
    )
