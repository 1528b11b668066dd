"""The folder of compiled programs has a limit: what was not used for longest goes first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoker.engines.xla.cache import limit, prune
from stoker.errors import ConfigError

COMPILING = """
import jax, jax.numpy as jnp, os
from pathlib import Path
from stoker.engines.xla.cache import compiled

def kept(size):
    def run(x):
        for _ in range(60):  # more than a tenth of a second of compiling, on a fast machine too
            x = jnp.sort(jnp.tanh(x @ x), axis=-1)
        return x
    compiled(jax.jit(run).lower(jax.ShapeDtypeStruct((size, size), "float32")))
    return list(Path(jax.config.jax_compilation_cache_dir).glob("*-cache"))
"""


def program(home: Path, name: str, size: int, written: float, read: float | None = None) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (written if read is None else read, written))
    return path


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    oldest = program(tmp_path, "1-threads/a-cache", 100, 1000.0)
    other = program(tmp_path, "8-threads/b-cache", 100, 1001.0)  # of another number of threads
    read = program(tmp_path, "1-threads/c-cache", 100, 1002.0, read=9000.0)
    middle = program(tmp_path, "1-threads/d-cache", 100, 5000.0)
    last = program(tmp_path, "1-threads/e-cache", 100, 6000.0)
    prune(tmp_path, 500)
    assert all(path.exists() for path in (oldest, other, read, middle, last))
    prune(tmp_path, 399)
    assert [path.exists() for path in (oldest, other, read, middle, last)] == [False, False, True, True, True]
    prune(tmp_path, 299)
    assert [path.exists() for path in (read, middle, last)] == [True, False, True]


def test_the_last_program_stays_and_so_does_what_is_none(tmp_path: Path) -> None:
    program(tmp_path, "1-threads/a-cache", 100, 1000.0)
    last = program(tmp_path, "1-threads/b-cache", 100, 2000.0)
    others = [program(tmp_path, name, 100, 1.0) for name in ("1-threads/notes.txt", "1-threads/xla/c", "other/d-cache")]
    prune(tmp_path, 0)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([last, *others])


def test_nothing_to_prune_is_no_error(tmp_path: Path) -> None:
    prune(tmp_path / "nowhere", 0)


def test_several_may_prune_at_once(tmp_path: Path) -> None:
    for number in range(300):
        program(tmp_path, f"1-threads/{number}-cache", 10, 1000.0 + number)
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda _: prune(tmp_path, 50), range(4)))
    assert sorted(path.name for path in tmp_path.rglob("*-cache")) == [f"{number}-cache" for number in range(295, 300)]


@pytest.mark.parametrize(("given", "most"), [(None, 1e9), ("", 1e9), ("0", 0), ("2.5", 2.5e6), ("inf", float("inf"))])
def test_how_much_is_kept_can_be_said(given: str | None, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOKER_CACHE_MB", raising=False)
    if given is not None:
        monkeypatch.setenv("STOKER_CACHE_MB", given)
    assert limit() == most


@pytest.mark.parametrize("given", ["much", "-1", "nan", "1 GB"])
def test_what_is_no_limit_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_CACHE_MB", given)
    text = f"STOKER_CACHE_MB: must be a number of megabytes from 0, got '{given}'. Set it to such as 1000, or unset it."
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        limit()


def carry_out(code: str, **environment: str) -> None:
    environment = {**os.environ, **environment}
    command = [sys.executable, "-W", "error:Error:UserWarning", "-c", code]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parent, timeout=100)


def test_real_programs_are_kept_within_the_limit(tmp_path: Path) -> None:
    code = """
assert [len(kept(size)) for size in (8, 16, 24)] == [1, 2, 3]
before = set(kept(24))
most = sum(path.stat().st_size for path in before)
os.environ["STOKER_CACHE_MB"] = f"{most / 1e6:.6f}"
after = set(kept(25))
assert len(after - before) == 1 and before & after and before - after
assert sum(path.stat().st_size for path in after) <= most
os.environ["STOKER_CACHE_MB"] = "0"
(last,) = kept(26)
assert last not in before | after
"""
    carry_out(COMPILING + code, STOKER_CACHE=str(tmp_path))


def test_a_cache_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    code = "assert [len(kept(size)) for size in (8, 16)] == [1, 2]"
    mine = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    carry_out(COMPILING + code, STOKER_CACHE=str(tmp_path / "stoker"), STOKER_CACHE_MB="0", **mine)


def test_a_limit_that_is_none_leaves_training_eager() -> None:
    code = """
from test_compiled import mlp, trained
reason = trained(mlp()).engine_reason
assert "eager" in reason and "STOKER_CACHE_MB: must be a number of megabytes from 0, got 'much'" in reason, reason
"""
    carry_out(code, STOKER_CACHE_MB="much")
