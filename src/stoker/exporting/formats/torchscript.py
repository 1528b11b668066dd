"""TorchScript: the model traced, or its code compiled, in an archive that PyTorch and LibTorch (C++) load."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stoker.data.encoder import ImageEncoder, TableEncoder
from stoker.errors import ExportError
from stoker.exporting.check import Tolerance
from stoker.exporting.formats.base import TAKES_VALUES, Format, Options, Subject, code_line, failed
from stoker.exporting.formats.torch_export import exported_program
from stoker.exporting.quiet import listening
from stoker.exporting.signature import answers
from stoker.models.own import OwnNetwork

__all__ = ["SCRIPT", "TRACE"]

DEPRECATED = "TorchScript still works, but PyTorch develops it no further: --format torch-export is its successor"
FROZEN = "Converting a tensor to a"


def _write_traced(subject: Subject, path: Path, options: Options) -> None:
    with listening() as heard, torch.no_grad():
        try:
            traced = torch.jit.trace(subject.module, subject.example, check_trace=False)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise failed("torchscript-trace", error, heard.text) from error
    _refuse_frozen(subject, heard.warnings)
    _save("torchscript-trace", traced, path, subject, options)


def _refuse_frozen(subject: Subject, said: list[warnings.WarningMessage]) -> None:
    """Refuse a trace that has frozen a choice made by values.

    The tracer warns of choices by shapes in the same words, which are harmless where the shape is always the same.
    torch.export tells the two apart, and refuses the first kind only.
    """
    frozen = [one for one in said if one.category.__name__ == "TracerWarning" and FROZEN in str(one.message)]
    if not frozen:
        return
    first, why = frozen[0], ""
    if not any("NumPy" in str(one.message) for one in frozen):  # of which there is no harmless kind
        try:
            exported_program(subject, "torchscript-trace")
        except ExportError as error:
            why = error.log if error.rule == TAKES_VALUES else ""
        if not why:
            return  # whatever else it may be, the comparison will find it
    rule = "tracing would freeze a value, or a choice by values, as it was for the rows traced"
    fix = "Use --format torchscript-script, which keeps it, or torch-export with torch.cond in the model."
    refused = ExportError("--format torchscript-trace", rule, code_line(first.filename, first.lineno), fix)
    refused.log = f"{first.message}\n{why}"
    raise refused


class _Encode(nn.Module):
    """An encoder, traced: raw tensors to the network's, always two; one that is not there has no columns."""

    def __init__(self, encoder: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = names

    def forward(self, *raw: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(**dict(zip(self.names, raw, strict=True)))
        if isinstance(encoded, Tensor):
            return encoded, encoded[:, :0]
        there = list(encoded.values())
        return there[0], there[1] if len(there) > 1 else there[0][:, :0]


class _Trained(nn.Module):
    """One of Stoker's own networks, traced: none of them chooses by values."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, first: Tensor, second: Tensor) -> Any:
        if not self.names:
            return self.network(first)
        return self.network(**dict(zip(self.names, (first, second), strict=False)))


class _OneTensor(nn.Module):
    """A user's module that takes one tensor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # noqa: ARG002  as all of these
        return self.module(first)  # type: ignore[no-any-return]


class _TwoTensors(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.module(first, second)  # type: ignore[no-any-return]


class _ByName(nn.Module):
    """A user's module that takes both by name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.module(numeric=first, categorical=second)  # type: ignore[no-any-return]


class _Numeric(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # noqa: ARG002
        return self.module(numeric=first)  # type: ignore[no-any-return]


class _Categorical(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # noqa: ARG002
        return self.module(categorical=first)  # type: ignore[no-any-return]


class _Parts(nn.Module):
    """Encoder, network, output and answer, one after the other; compiled as code."""

    def __init__(self, encode: nn.Module, network: nn.Module, output: nn.Module, answer: nn.Module) -> None:
        super().__init__()
        self.encode = encode
        self.network = network
        self.output = output
        self.answer = answer


class _FromTable(_Parts):
    def forward(self, numeric: Tensor, categorical: Tensor) -> Any:
        first, second = self.encode(numeric, categorical)
        outputs = self.network(first, second)
        if outputs.dim() == 1:
            outputs = outputs.unsqueeze(1)
        return self.answer(self.output(outputs))


class _FromNumbers(_Parts):
    def forward(self, numeric: Tensor) -> Any:
        first, second = self.encode(numeric)
        outputs = self.network(first, second)
        if outputs.dim() == 1:
            outputs = outputs.unsqueeze(1)
        return self.answer(self.output(outputs))


class _FromCodes(_Parts):
    def forward(self, categorical: Tensor) -> Any:
        first, second = self.encode(categorical)
        outputs = self.network(first, second)
        if outputs.dim() == 1:
            outputs = outputs.unsqueeze(1)
        return self.answer(self.output(outputs))


class _FromImages(_Parts):
    def forward(self, images: Tensor) -> Any:
        first, second = self.encode(images)
        outputs = self.network(first, second)
        if outputs.dim() == 1:
            outputs = outputs.unsqueeze(1)
        return self.answer(self.output(outputs))


_WHOLE: dict[tuple[str, ...], type[_Parts]] = {
    ("numeric", "categorical"): _FromTable,
    ("numeric",): _FromNumbers,
    ("categorical",): _FromCodes,
    ("images",): _FromImages,
}


def _write_scripted(subject: Subject, path: Path, options: Options) -> None:
    model = subject.artifact.model
    assert isinstance(model.encoder, (TableEncoder, ImageEncoder))  # there are no others
    with listening() as heard, torch.no_grad():
        try:
            encoded = model.encoder(**dict(zip(subject.rows, subject.example, strict=True)))
            names = tuple(encoded) if isinstance(encoded, dict) else ()
            encode = _traced(_Encode(model.encoder, subject.signature.inputs), subject.example)
            between = encode(*subject.example)
            network: Any = model.head.network
            if isinstance(network, OwnNetwork):
                network = torch.jit.script(_called(network, names))
            else:
                network = _traced(_Trained(network, names), between)
            output = model.head.output
            output = output if isinstance(output, nn.Identity) else _traced(output, (network(*between),))
            parts = _WHOLE[subject.signature.inputs](encode, network, output, subject.module.answer)
            scripted = torch.jit.script(parts.eval())
        except Exception as error:
            fix = "Write the model's forward in what TorchScript takes, or use --format torch-export."
            raise failed("torchscript-script", error, heard.text, fix) from error
    _save("torchscript-script", scripted, path, subject, options)


def _called(network: OwnNetwork, names: tuple[str, ...]) -> nn.Module:
    """A user's module, behind the call that it takes."""
    if network.by_name:
        by_names = {("numeric", "categorical"): _ByName, ("numeric",): _Numeric, ("categorical",): _Categorical}
        return by_names[names](network.module)
    return _TwoTensors(network.module) if len(names) > 1 else _OneTensor(network.module)


def _traced(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    return torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]


def _save(name: str, module: Any, path: Path, subject: Subject, options: Options) -> None:
    with listening() as heard:
        try:
            if options.optimize:
                module = _optimized(module.eval(), subject, options)
            torch.jit.save(module, str(path), _extra_files={"contract.json": subject.contract})
        except OSError:
            raise
        except Exception as error:
            raise failed(name, error, heard.text) from error


def _optimized(module: Any, subject: Subject, options: Options) -> Any:
    """The module, made as fast as leaves its answers as they are.

    ``optimize_for_inference`` makes convolutions that no file can hold. Freezing folds a batch normalisation into the
    linear layer before it also where that layer's output is used beside it, as in residual networks (torch 2.13).
    """
    ways: dict[str, Callable[[], Any]] = {
        "optimize_for_inference": lambda: torch.jit.optimize_for_inference(torch.jit.freeze(module)),
        "freezing": lambda: torch.jit.freeze(module),
        "freezing without folding": lambda: torch.jit.freeze(module, optimize_numerics=False),
    }
    for way, make in ways.items():
        made = make()
        if _keeps_answers(made, subject):
            if way != next(iter(ways)):
                options.tell(f"optimize_for_inference would change this model or could not be saved: {way} alone")
            return made
    return module


def _keeps_answers(made: Any, subject: Subject) -> bool:
    buffer = io.BytesIO()
    try:
        torch.jit.save(made, buffer)
        buffer.seek(0)
        got = answers(torch.jit.load(buffer), subject.rows)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    # roughly: how near it must be is seen to when the file is there
    want = answers(subject.module, subject.rows)
    return all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3, equal_nan=True) for one, other in zip(got, want, strict=True)
    )


TRACE = Format(
    name="torchscript-trace",
    suffix=".traced.pt",
    loader="torchscript",
    tolerance=Tolerance(1e-6, 1e-5),
    write=_write_traced,
    optimizes=True,
    deprecated=DEPRECATED,
)
SCRIPT = Format(
    name="torchscript-script",
    suffix=".scripted.pt",
    loader="torchscript",
    tolerance=Tolerance(1e-6, 1e-5),
    write=_write_scripted,
    optimizes=True,
    deprecated=DEPRECATED,
)
