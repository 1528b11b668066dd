from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from stoker.errors import ConfigError, SourceFormatError, SourceNotFoundError, StokerError, UnknownNameError
from stoker.settings import Settings, merge, override, parse_assignment, parse_settings, read_toml


class Inner(Settings):
    size: Annotated[int, Field(ge=1)] = 3
    rate: float = 0.5


class Outer(Settings):
    inner: Inner = Inner()
    kind: Literal["adam", "sgd"] = "adam"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (5,)
    weights: Literal["balanced"] | tuple[float, ...] | None = None
    name: str = "x"
    free: dict[str, Any] = Field(default_factory=dict)
    flag: bool = False


class Needy(Settings):
    here: int


class TestParsing:
    def test_plain_data_become_settings(self) -> None:
        raw = {"inner": {"size": 7}, "hidden": [50, 40], "weights": [1, 2], "kind": "sgd"}
        expected = Outer(inner=Inner(size=7), hidden=(50, 40), weights=(1.0, 2.0), kind="sgd")
        assert parse_settings(Outer, raw) == expected
        assert parse_settings(Outer, {}) == Outer()

    def test_they_survive_json(self) -> None:
        settings = Outer(hidden=(1, 2), free={"a": [1]})
        assert parse_settings(Outer, settings.model_dump(mode="json")) == settings

    def test_they_are_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Inner().size = 4  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("raw", "kind", "text"),
        [
            (
                {"knd": "adam"},
                UnknownNameError,
                r"^top: must be one of the known names, got 'knd'\. Did you mean 'kind'\?",
            ),
            (
                {"inner": {"sise": 1}},
                UnknownNameError,
                r"^top\.inner: .* got 'sise'\. Did you mean 'size'\? Known: size, r",
            ),
            (
                {"hidden-size": 1},
                UnknownNameError,
                r"^top: .* got 'hidden-size'\. Did you mean 'hidden'\? Known: inner,",
            ),
            ({"int": 1}, UnknownNameError, r"^top: must be one of the known names, got 'int'\."),
            (
                {"inner": {"": 1}},
                UnknownNameError,
                r"^top\.inner: must be one of the known names, got ''\. Known: size,",
            ),
            ({"kind": "adm"}, ConfigError, r"^top\.kind: .* got 'adm'\. Did you mean 'adam'\? Known: adam, sgd\."),
            ({"inner": {"size": 0}}, ConfigError, r"^top\.inner\.size: must be greater than or equal to 1, got 0\."),
            ({"inner": {"size": 1.5}}, ConfigError, r"^top\.inner\.size: must be a valid integer, .* got 1\.5\."),
            ({"inner": {"rate": math.nan}}, ConfigError, r"^top\.inner\.rate: must be a finite number, got nan\."),
            ({"inner": {"rate": "inf"}}, ConfigError, r"^top\.inner\.rate: must be a finite number, got 'inf'\."),
            ({"inner": {"rate": "fast"}}, ConfigError, r"^top\.inner\.rate: must be a valid number, .* got 'fast'\."),
            ({"inner": 3}, ConfigError, r"^top\.inner: must be settings by name, got 3\."),
            ({"free": 3}, ConfigError, r"^top\.free: must be settings by name, got 3\."),
            ({"hidden": 3}, ConfigError, r"^top\.hidden: must be a list, got 3\."),
            ({"hidden": [3, 0]}, ConfigError, r"^top\.hidden\.1: must be greater than or equal to 1, got 0\."),
            ({"name": 3}, ConfigError, r"^top\.name: must be text, got 3\."),
            ({"flag": "perhaps"}, ConfigError, r"^top\.flag: must be a valid boolean, .* got 'perhaps'\."),
            (
                {"weights": "balance"},
                ConfigError,
                r"^top\.weights: .* got 'balance'\. Did you mean 'balanced'\? Known: bal",
            ),
            ({"weights": [1, "a"]}, ConfigError, r"^top\.weights\.1: must be a valid number, .* got 'a'\."),
            ({"name": list(range(99))}, ConfigError, r"^top\.name: must be text, got \[0, 1, .{40,55}…\.$"),
        ],
    )
    def test_what_is_wrong_is_named(self, raw: dict[str, Any], kind: type[StokerError], text: str) -> None:
        with pytest.raises(kind, match=text):
            parse_settings(Outer, raw, "top")

    def test_without_a_place(self) -> None:
        with pytest.raises(UnknownNameError, match=r"^settings: must be one of the known names, got 'knd'"):
            parse_settings(Outer, {"knd": 1})
        with pytest.raises(UnknownNameError, match=r"^inner: must be one of the known names, got 'sise'"):
            parse_settings(Outer, {"inner": {"sise": 1}})

    def test_what_is_missing(self) -> None:
        with pytest.raises(ConfigError, match=r"^here: must be there, got none\."):
            parse_settings(Needy, {})

    def test_pydantic_does_not_show_in_the_traceback(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_settings(Outer, {"kind": "adm"})
        assert caught.value.__suppress_context__


def test_merging() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a": {"b": 9}, "e": 4}) == {"a": {"b": 9, "c": 2}, "d": 3, "e": 4}
    assert merge(base, {"a": 5, "d": {"x": 1}}) == {"a": 5, "d": {"x": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", {"a": 1}),
        ("training.lr=0.1", {"training": {"lr": 0.1}}),
        (" a . b = 2 ", {"a": {"b": 2}}),
        ("a=1e-3", {"a": 1e-3}),
        ("a=true", {"a": True}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a={b = 1}", {"a": {"b": 1}}),
        ('a="1"', {"a": "1"}),
        ("a=adam", {"a": "adam"}),
        ("a=", {"a": ""}),
        ("a=x=y", {"a": "x=y"}),
        ("a=1,2", {"a": "1,2"}),
        ("a=1\nb=2", {"a": "1\nb=2"}),
        ("a=2020-01-02", {"a": datetime.date(2020, 1, 2)}),
    ],
)
def test_assignments(text: str, expected: dict[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["a", "", "=1", "a..b=1", ".a=1", "a.=1"])
def test_assignments_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--set: must be name=value, got '.*'\. Such as --set training\.lr=0\.1\."):
        parse_assignment(text)


def test_later_assignments_override_earlier_ones() -> None:
    assert override({"a": {"b": 1}}, ["a.c=2", "a.b=3", "a.c=4"]) == {"a": {"b": 3, "c": 4}}
    assert override({}, []) == {}


class TestReading:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text('[training]\nlr = 0.1\nname = "é"\n', encoding="utf-8")
        assert read_toml(tmp_path / "a.toml") == {"training": {"lr": 0.1, "name": "é"}}

    def test_a_byte_order_mark(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text("a = 1\n", encoding="utf-8-sig")
        assert read_toml(tmp_path / "a.toml") == {"a": 1}

    def test_none_there(self, tmp_path: Path) -> None:
        with pytest.raises(SourceNotFoundError, match=r"--config: no such file, got .*a\.toml\."):
            read_toml(tmp_path / "a.toml")

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(SourceNotFoundError, match=r"--config: must be a file to read: .*, got "):
            read_toml(tmp_path)

    def test_a_path_through_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("")
        with pytest.raises(SourceNotFoundError, match=r"--config: "):
            read_toml(tmp_path / "a" / "b.toml")

    @pytest.mark.parametrize("text", [b"a = \n", b"a = 1\na = 2\n", b"[x\n", b"\xff\xfe"])
    def test_something_else(self, text: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_bytes(text)
        with pytest.raises(SourceFormatError, match=r"a\.toml: must be TOML: "):
            read_toml(tmp_path / "a.toml")
