from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import stoker


def test_the_list_is_sorted_and_has_no_duplicates() -> None:
    assert stoker.__all__ == sorted(set(stoker.__all__))


@pytest.mark.parametrize("name", stoker.__all__)
def test_every_name_on_it_is_there(name: str) -> None:
    value = getattr(stoker, name)
    assert value is getattr(stoker, name)
    assert name == "__version__" or (value.__doc__ or "").strip()


def test_nothing_else_is_public() -> None:
    assert dir(stoker) == sorted(stoker.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stoker' has no attribute 'Trayner'"):
        stoker.Trayner  # noqa: B018


def test_star_import() -> None:
    names: dict[str, object] = {}
    exec("from stoker import *", names)
    assert set(stoker.__all__) <= set(names)


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, stoker, stoker.errors; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "stoker" in imported
    heavy = {
        "torch",
        "numpy",
        "polars",
        "pandas",
        "pyarrow",
        "sklearn",
        "torchmetrics",
        "matplotlib",
        "optuna",
        "pydantic",
        "rich",
    }
    assert not heavy & imported


def modules() -> list[str]:
    root = Path(stoker.__file__).parent
    found = (path.relative_to(root).with_suffix("").parts for path in root.rglob("*.py"))
    return sorted(".".join(("stoker", *parts)).removesuffix(".__init__") for parts in found if parts[-1] != "__main__")


@pytest.mark.parametrize("name", modules())
def test_every_module_lists_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    missing = [offered for offered in getattr(module, "__all__", ()) if not hasattr(module, offered)]
    assert missing == []
