"""Weights from elsewhere, into a run: what fits, what does not, and what is no weights at all."""

from __future__ import annotations

import io
import math
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from safetensors.torch import save_file
from subjects import fitted, table
from torch import nn

import stoker
from stoker.cli.show import how_it_ended
from stoker.errors import ConfigError, RunExistsError, SourceFormatError, SourceNotFoundError, StokerError
from stoker.exporting.importing import _refuse_nan, match
from stoker.exporting.weights_file import read_weights
from stoker.reporting.html import sections
from stoker.reporting.html.measured import Measured
from torch_archives import as_torch, lying

OWN, BUILT_IN = "own, a number", "numbers alone"


def state_of(run: stoker.Run, factor: float = 1.0) -> dict[str, torch.Tensor]:
    network: Any = run.artifact.model.head.network
    module = getattr(network, "module", network)
    return {name: value * factor for name, value in module.state_dict().items()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


@pytest.mark.parametrize("name", [OWN, BUILT_IN])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_trained_elsewhere(name: str, suffix: str, tmp_path: Path) -> None:
    run = fitted(name)
    before = files_of(run.path)
    file = tmp_path / f"weights{suffix}"
    state = state_of(run, 1.5)
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    told: list[str] = []
    model = networks.Plain if name == OWN else None
    done = stoker.import_weights(file, run.path, out=tmp_path / "new", model=model, notify=told.append)
    assert told == [f"{len(state)} entries fit"]
    assert all(torch.equal(value, state[key]) for key, value in state_of(done.run).items())
    assert files_of(run.path) == before
    # the network of before with these weights, encoder and output unchanged
    rows = table("numbers" if name == BUILT_IN else "price", rows=10, seed=3)
    old, new = run.artifact.model, done.run.artifact.model
    assert torch.equal(old.encoder.mean, new.encoder.mean)  # type: ignore[arg-type]
    assert torch.equal(old.head.output.std, new.head.output.std)  # type: ignore[arg-type]
    assert done.run.predict(rows).values != run.predict(rows).values
    assert done.run.metrics["test"]["rmse"] == pytest.approx(done.run.evaluate()["rmse"])
    assert len(done.run.history) == 0
    assert re.search(
        rf"{len(state)} of {len(state)} entries imported from {file.name}, sha256:[0-9a-f]{{64}}$", done.run.notices[-1]
    )
    said = f"{len(state)} of {len(state)} entries imported from {file.name}"
    card = (tmp_path / "new" / "README.md").read_text()
    assert f"Weights: {said}. Whether the imported weights saw the rows measured here is not known." in card
    assert "training: not here; the weights were imported" in card
    for wrong in ("![", "last epoch", "used once", "epochs", "What it was trained on"):
        assert wrong not in card
    assert done.run.stopped == "imported"


def test_a_report_does_not_call_imported_weights_trained(tmp_path: Path) -> None:
    torch.save(state_of(fitted(BUILT_IN)), tmp_path / "w.pt")
    run = stoker.import_weights(tmp_path / "w.pt", fitted(BUILT_IN), out=tmp_path / "new").run
    assert run.path.joinpath("config.json").read_text().count('"imported"') == 1
    part = sections._learning(run, Measured())
    assert part.text == (
        "It was not trained here; weights: 4 of 4 entries imported from w.pt. "
        "Whether the imported weights saw the rows measured here is not known."
    )
    assert ("training", "none", "weights imported") in sections._figures(run, Measured())
    assert how_it_ended(run.history) == "none: the weights were imported"


def test_what_export_gives_import_takes(tmp_path: Path) -> None:
    run = fitted(OWN)
    path = stoker.export(run, "state-dict", out=tmp_path / "net.pt", bench=False).path
    done = stoker.import_weights(path, run, out=tmp_path / "new", model=networks.Plain)
    rows = table("price", rows=20, seed=2)
    assert done.run.predict(rows).values == run.predict(rows).values


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "head.network.module."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str) -> None:
    wanted = nn.Linear(2, 3).state_dict()
    found = match(wanted, {prefix + name: value for name, value in wanted.items()})
    assert found.whole
    assert found.prefix == prefix
    assert found.lines == [f"2 entries fit (each name without {prefix!r})"]


def test_names_that_are_a_prefix_themselves_are_left_alone() -> None:
    wanted = {"model.weight": torch.zeros(2), "model.model.weight": torch.zeros(2)}
    assert match(wanted, dict(wanted)).whole
    assert match(wanted, dict(wanted)).prefix == ""


def test_what_does_not_fit_is_listed_and_refused_or_left_out(tmp_path: Path) -> None:
    run = fitted(OWN)
    state = state_of(run, 2.0)
    state["layers.0.weight"] = state["layers.0.weight"][:, 1:].clone()
    del state["layers.0.bias"]
    state["extra"] = torch.zeros(3)
    state["layers.2.bias"] = state["layers.2.bias"].double()
    torch.save(state, tmp_path / "w.pt")
    wide = run.artifact.model.head.network.module.layers[0].in_features  # type: ignore[union-attr, index]
    report = (
        r"2 entries fit; 1 missing: layers\.0\.bias; 1 unexpected: extra; "
        rf"1 misshapen: layers\.0\.weight \(\[8, {wide - 1}\] float32 instead of \[8, {wide}\] float32\)"
    )
    with pytest.raises(SourceFormatError, match=rf"must fit the run's network \({report}\)\. Say --partial"):
        stoker.import_weights(tmp_path / "w.pt", run, out=tmp_path / "new", model=networks.Plain)
    assert not (tmp_path / "new").exists()
    done = stoker.import_weights(tmp_path / "w.pt", run, out=tmp_path / "new", model=networks.Plain, partial=True)
    mine, theirs = state_of(run), state_of(done.run)
    assert torch.equal(theirs["layers.0.weight"], mine["layers.0.weight"])
    assert torch.equal(theirs["layers.2.weight"], mine["layers.2.weight"] * 2)
    assert theirs["layers.2.bias"].dtype == torch.float32
    assert "2 of 4 entries" in done.run.notices[-1]


def test_nothing_that_fits(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(SourceFormatError, match=r"must fit .*, got nothing that does"):
        stoker.import_weights(tmp_path / "w.pt", fitted(BUILT_IN), out=tmp_path / "new", partial=True)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    state = state_of(fitted(BUILT_IN))
    next(iter(state.values()))[0] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SourceFormatError, match=r"weights must be finite, got NaN or infinity in layers\.0\.weight"):
        stoker.import_weights(tmp_path / "w.pt", fitted(BUILT_IN), out=tmp_path / "new", partial=True)


def test_weights_too_large_for_the_networks_type(tmp_path: Path) -> None:
    state = {name: value.double() for name, value in state_of(fitted(BUILT_IN)).items()}
    state["layers.0.weight"][0] = 1e300
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SourceFormatError, match=r"finite, got NaN or infinity in layers\.0\.weight, as float32"):
        stoker.import_weights(tmp_path / "w.safetensors", fitted(BUILT_IN), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_buffers_that_are_not_finite(tmp_path: Path) -> None:
    run = fitted("mlp, a number")  # with batch normalisation
    state = state_of(run)
    name = next(name for name in state if name.endswith("running_mean"))
    state[name][0] = float("inf")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(SourceFormatError, match=rf"finite, got NaN or infinity in {re.escape(name)}"):
        stoker.import_weights(tmp_path / "w.pt", run, out=tmp_path / "new", partial=True)
    mask = {"mask": torch.tensor([0.0, -math.inf])}
    _refuse_nan(match(mask, mask), mask, (), "w.pt")
    with pytest.raises(SourceFormatError, match="NaN or infinity in mask"):
        _refuse_nan(match(mask, mask), mask, ("mask",), "w.pt")


def test_a_run_that_is_there_and_a_model_that_was_not_named(tmp_path: Path) -> None:
    torch.save(state_of(fitted(OWN)), tmp_path / "w.pt")
    with pytest.raises(RunExistsError, match="--out: must not exist yet"):
        stoker.import_weights(tmp_path / "w.pt", fitted(OWN), out=tmp_path, model=networks.Plain)
    with pytest.raises(ConfigError, match="is imported only if you name it"):
        stoker.import_weights(tmp_path / "w.pt", fitted(OWN), out=tmp_path / "new")


class Payload:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data/0", b"\0" * (1 << 26))
    return buffer.getvalue()


def copies(count: int) -> bytes:
    """A pickle with a list of ordered dicts, all made of one that it holds."""
    many = b"".join(b"J" + struct.pack("<i", number) + b"N" for number in range(1000))
    made = b"ccollections\nOrderedDict\nh\x00\x85R" * count
    return b"\x80\x02](}q\x00(" + many + b"u" + made + b"e."


def twice() -> bytes:
    buffer = io.BytesIO(saved({"w": torch.zeros(1)}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/DATA.PKL", b"\x80\x02}.")
    return buffer.getvalue()


def saved(data: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):  # torch 2.13, and 2.14
        torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


HUGE = 1 << 40
FILES: dict[str, tuple[Any, str]] = {
    "a bare pickle that makes a directory": (
        lambda place: pickle.dumps(Payload(place)), "got a bare pickle, which is not read"),
    "a pickle in an archive that makes a directory": (
        lambda place: saved({"w": Payload(place)}), r"must hold tensors and plain containers alone, got .*mkdir"),
    "a whole module": (lambda _: saved(nn.Linear(1, 1)), "must hold tensors and plain containers alone, got .*Linear"),
    "a number as an entry": (lambda _: saved({"w": 3}), "must hold tensors by name, got int as 'w'"),
    "a list": (lambda _: saved([torch.zeros(1)]), "must hold a state_dict, got list"),
    "a sparse tensor": (
        lambda _: saved({"w": torch.eye(2).to_sparse()}),
        "tensors and plain containers alone, got torch\\.[a-z_.]*, which is not loaded"),
    "many bytes made of a number": (
        lambda _: as_torch(b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x30\x85R."),
        r"plain containers alone, got __builtin__\.bytearray, which is not loaded"),
    "a tensor made of a number": (
        lambda _: as_torch(b"\x80\x02ctorch\nTensor\nJ\x00\x00\x00\x30\x85R."),
        r"plain containers alone, got torch\.Tensor, which is not loaded"),
    "a storage made of a number": (
        lambda _: as_torch(b"\x80\x04\x8c\x0dtorch.storage\x8c\x0eUntypedStorage\x93J\x00\x00\x00\x30\x85R."),
        r"plain containers alone, got torch\.storage\.UntypedStorage, which is not loaded"),
    "one dict copied over and over": (lambda _: as_torch(copies(9)), "got something made of another again"),
    "very many empty dicts": (
        lambda _: as_torch(b"\x80\x02](" + b"}" * 600_000 + b"e."), "must be made of at most 600,000 parts, got more"),
    "an entry twice": (lambda _: twice(), "must have each entry once, got two of one name"),
    "a program of TorchScript": (lambda _: scripted(), "must be weights, got a TorchScript program"),
    "an archive that grows": (lambda _: packed(), r"stored as torch\.save does, nothing packed, got 'w/data"),
    "another archive": (lambda _: as_torch(b"").replace(b"data.pkl", b"data.txt"), "got another archive"),
    "half an archive": (lambda _: saved({"w": torch.zeros(99)})[:300], r"must be a file of torch\.save"),
    "no pickle where one should be": (lambda _: as_torch(b"nonsense"), r"torch\.save|plain containers"),
    "a tensor beyond its storage": (lambda _: lying(4, (1000,), (1,)), r"must be a file of torch\.save"),
    "a storage beyond the file": (lambda _: lying(HUGE, (HUGE,), (1,)), r"must be a file of torch\.save"),
    "a stride before the beginning": (lambda _: lying(4, (2,), (-9,)), r"must be a file of torch\.save"),
    "an empty file": (lambda _: b"", "got an empty file"),
    "text": (lambda _: b"hello, weights", "got another kind of file"),
    "a safetensors header that is longer than the file": (
        lambda _: struct.pack("<Q", 1 << 60) + b"{}", "must be a safetensors file"),
    "safetensors that overlap": (
        lambda _: (lambda head: struct.pack("<Q", len(head)) + head + b"\0" * 8)(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            b'"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
        ), "must be a safetensors file"),
    "safetensors of a shape that overflows": (
        lambda _: (lambda head: struct.pack("<Q", len(head)) + head + b"\0" * 8)(
            b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}'
        ), "must be a safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_weights(name: str, tmp_path: Path) -> None:
    content, text = FILES[name]
    file, place = tmp_path / "w.pt", tmp_path / "made by the file"
    file.write_bytes(content(place))
    with pytest.raises(SourceFormatError, match=text):
        stoker.import_weights(file, fitted(BUILT_IN), out=tmp_path / "new", partial=True)
    assert not place.exists()
    assert not (tmp_path / "new").exists()


def test_a_view_of_one_number_that_says_it_is_huge_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(lying(1, (HUGE,), (0,)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceFormatError, match="must fit the run's network"):
        stoker.import_weights(tmp_path / "w.pt", fitted(BUILT_IN), out=tmp_path / "new", partial=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_an_archive_of_very_many_entries_is_refused_before_they_are_read(tmp_path: Path) -> None:
    entry = b"PK\x01\x02" + b"\0" * 42
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 65535, 65535, 65535 * 46, 4, 0)
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04" + entry * 65535 + end)
    with pytest.raises(SourceFormatError, match=r"^\S+w\.pt: must have at most 50,000 entries, got 65,535\. In the"):
        read_weights(tmp_path / "w.pt", largest=1 << 30)
    few = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 1, 1, 200_000 * 46, 4, 0)
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04" + entry * 200_000 + few)
    with pytest.raises(SourceFormatError, match="its directory is damaged or too large"):
        read_weights(tmp_path / "w.pt", largest=1 << 30)


def test_what_a_training_keeps_beside_its_weights_is_no_hindrance(tmp_path: Path) -> None:
    net = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    whole = {"state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save({**whole, "epoch": 3, "of": nn.Parameter(torch.ones(2)), "type": torch.float64}, tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt", largest=1 << 20)) == {"weight", "bias"}


def test_files_that_are_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such file"):
        read_weights(tmp_path / "none.pt", largest=10)
    with pytest.raises(SourceNotFoundError, match="must be a file, got a directory"):
        read_weights(tmp_path, largest=10)
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(HUGE)  # which takes no room
    with pytest.raises(
        SourceFormatError, match=r"must not be larger than .* MB, many times this model, got 1,099,512 MB"
    ):
        stoker.import_weights(tmp_path / "huge.pt", fitted(BUILT_IN), out=tmp_path / "new")


def test_a_fifo_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    code = "import sys; from pathlib import Path; from stoker.exporting.weights_file import read_weights\n"
    code += "try: read_weights(Path(sys.argv[1]), largest=99)\nexcept Exception as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "w.pt")], capture_output=True, text=True, timeout=60, check=True
    )
    assert "must be a file" in done.stdout


def test_errors_are_ours() -> None:
    assert issubclass(SourceFormatError, StokerError)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_damage_by_chance_ends_in_an_error_of_ours_or_in_tensors(seed: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("fuzz_weights.py")
    done = subprocess.run(
        [sys.executable, str(script), str(seed), "8", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, read = map(int, done.stdout.split())
    assert refused > 100
    assert read > 0  # a flipped bit in a number is no damage that one could see
