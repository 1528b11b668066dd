"""From ``package.module:Class``, as a user writes it, to the class: the one place where a user's code is imported."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from torch import nn

from stoker.errors import ConfigError, InputTypeError, UnknownNameError

__all__ = ["Factory", "find_factory", "name_of", "require_factory"]

Factory: TypeAlias = Callable[..., nn.Module]
"""A class of modules, or a function that returns one."""

_FORM = "package.module:Class"


def find_factory(name: str) -> Factory:
    """Import the module of a name and get the class or function from it.

    The current directory is searched first, as with ``python -m``.

    Args:
        name: ``"package.module:Class"``; the class may stand in another, ``"module:Outer.Inner"``.

    Raises:
        ConfigError: The name is of another form, or importing the module fails.
        UnknownNameError: The module has nothing of that name; the nearest is suggested.
        InputTypeError: It is no class of modules and no function.
    """
    module_name, path = _parted(name)
    found: Any = _imported(module_name, name)
    for done, part in enumerate(path):
        inside = found
        try:
            found = getattr(inside, part)
        except AttributeError:
            where = ".".join([module_name, *path[:done]])
            raise UnknownNameError(f"model {name}, in {where}", part, _candidates(inside)) from None
    return require_factory(found, f"model {name}")


def require_factory(found: Any, where: str) -> Factory:
    """Make sure that calling something can give a module.

    Raises:
        InputTypeError: It is no class of modules and no function.
    """
    fix = "Name a class that is derived from torch.nn.Module, or a function that returns an instance of one."
    if isinstance(found, type) and not issubclass(found, nn.Module):
        raise InputTypeError(where, "must be a class of torch.nn.Module", f"the class {found.__name__}", fix)
    if isinstance(found, nn.Module):
        raise InputTypeError(where, "must be a class or a function", f"an instance of {type(found).__name__}", fix)
    if not callable(found):
        raise InputTypeError(where, "must be a class or a function", type(found).__name__, fix)
    factory: Factory = found
    return factory


def name_of(factory: Factory) -> str:
    """``package.module:Class`` of a class or function.

    Raises:
        InputTypeError: It has no name, such as a ``functools.partial``.
    """
    name, module = getattr(factory, "__qualname__", None), getattr(factory, "__module__", None)
    if name is None or module is None:
        fix = "Write a function with def that calls it."
        raise InputTypeError("model", "must be a class or a function with a name", type(factory).__name__, fix)
    return f"{module}:{name}"


def _parted(name: str) -> tuple[str, list[str]]:
    module, _, path = name.partition(":")
    parts = [*module.split("."), *path.split(".")]
    is_file = module.endswith(".py")
    if all(part.isidentifier() for part in parts) and not is_file:
        return module, path.split(".")
    fix = "Such as networks.small:Net, for the class Net in networks/small.py."
    if is_file or "/" in module or "\\" in module:
        plain = module.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        fix = f"A module is named as in an import statement: {plain}:{path}."
    elif module.startswith("."):
        fix = f"Write it from the top: {_FORM}, without a dot before it."
    raise ConfigError("model", f"a model of your own must be named {_FORM}", repr(name), fix)


def _imported(module_name: str, name: str) -> ModuleType:
    where = f"model {name}"
    with _current_directory_first():
        importlib.invalidate_caches()  # the file may have been written a moment ago
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                fix = f"It is looked for in the current directory, {Path.cwd()}, and among the installed packages."
                raise ConfigError(where, f"there must be a module {module_name}", str(error), fix) from error
            raise _failed(where, module_name, error) from error
        except (Exception, SystemExit) as error:
            raise _failed(where, module_name, error) from error


def _failed(where: str, module_name: str, error: BaseException) -> ConfigError:
    if isinstance(error, SystemExit):
        fix = 'What shall run only when the file itself is run belongs under if __name__ == "__main__".'
    else:
        fix = f"Mend what stands there; python -c 'import {module_name}' shows the whole traceback."
    return ConfigError(where, f"importing {module_name} must work", told(error), fix)


def told(error: BaseException) -> str:
    """An exception of the user's code in a line: what it is, and where."""
    if isinstance(error, SyntaxError):  # its own text says where
        return f"{type(error).__name__}: {error}"
    text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
    frames = traceback.extract_tb(error.__traceback__)
    # Where the user's code stands: the last line that is not one of Stoker's, torch's or the import machinery's.
    ours = (str(Path(__file__).parents[1]), str(Path(nn.__file__).parents[1]), "<frozen")
    frame = next((frame for frame in reversed(frames) if not frame.filename.startswith(ours)), None)
    return text if frame is None else f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """Import from the current directory before all else; afterwards it stands last, for imports within functions.

    Left in front, a file there could take the place of a library that Stoker imports only later.
    """
    here = str(Path.cwd())
    if {"", here} & set(sys.path):
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        sys.path.append(here)


def _candidates(inside: Any) -> list[str]:
    """What one may have meant: the classes of modules and the functions that stand in a module or class."""
    public = {name: value for name, value in vars(inside).items() if not name.startswith("_")}
    modules = [name for name, value in public.items() if isinstance(value, type) and issubclass(value, nn.Module)]
    own = getattr(inside, "__name__", None)
    functions = [name for name, value in public.items() if inspect.isfunction(value) and value.__module__ == own]
    return [*modules, *functions]
