"""What is fuzzed: a loader each, from bytes to something, or an error of ours; with good files to begin from."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgeries import consistent, forged, make_checkpoints, resumed
from loaders import make_good
from mutations import damaged_bytes, damaged_tensors, damaged_text

__all__ = ["TARGETS", "Target"]

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A loader to fuzz.

    Attributes:
        seeds: Good inputs, from the folder of good files.
        reader: Makes what reads an input, from the folder of good files and one to write in.
        damage: How an input is changed by its structure.
    """

    seeds: Callable[[Path], list[bytes]]
    reader: Callable[[Path, Path], Read]
    damage: Callable[[bytes, random.Random], bytes]


def _config(good: Path, place: Path) -> Read:
    from stoker.jobs.config import FitConfig
    from stoker.runs.artifact import load_artifact
    from stoker.runs.record import read_record
    from stoker.settings import parse_settings

    file = place / "config.json"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        record = read_record(file)
        parse_settings(FitConfig, record.settings, "settings")
        return load_artifact(record.recipe, good / "grade" / "model.safetensors")

    return read


def _weights(good: Path, place: Path) -> Read:
    from stoker.runs.artifact import load_artifact
    from stoker.runs.record import read_record

    recipe = read_record(good / "grade" / "config.json").recipe
    file = place / "model.safetensors"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return load_artifact(recipe, file)

    return read


def _checkpoint(_: Path, place: Path) -> Read:
    from stoker.training.checkpoints.files import read_checkpoint

    file = place / "step-0000000001.safetensors"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return read_checkpoint(file)

    return read


def _resume(_: Path, place: Path) -> Read:
    def read(data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what was passed over
            resumed("adam", consistent(data), place / "kept", 3 if b'"finished"' in data else 2)

    return read


def _resume_seeds(_: Path) -> list[bytes]:
    with tempfile.TemporaryDirectory() as place:
        return list(make_checkpoints("adam", Path(place)).values())


def _import(_: Path, place: Path) -> Read:
    from stoker.exporting.weights_file import read_weights

    file = place / "weights.pt"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        return {
            name: value.clone() for name, value in read_weights(file, largest=1 << 24).items() if value.nbytes < 1 << 24
        }

    return read


def _body(good: Path, _: Path) -> Read:
    import stoker
    from stoker.serving import oip
    from stoker.serving.backends import open_backend
    from stoker.serving.limits import json_bytes
    from stoker.serving.served import ServedModel

    run = stoker.load(good / "grade", device="cpu")
    model: Any = ServedModel(run, open_backend("torch", run))

    def read(data: bytes) -> object:
        if data[:1] == b"[" or b'"inputs"' not in data:
            return model.predictions(model.backend.predict(model.reader.json(data)))
        inputs, asked = oip.parse_infer(data, model)
        return json_bytes(oip.infer_response(model.predictions(model.backend.predict(inputs)), asked, model))

    return read


def _csv(good: Path, _: Path) -> Read:
    import stoker
    from stoker.data.sources.delimited import parse_delimited
    from stoker.data.sources.jsonlines import parse_json_lines

    columns: Any = stoker.load(good / "grade", device="cpu").artifact.columns

    def read(data: bytes) -> object:
        parse = parse_json_lines if data.lstrip()[:1] == b"{" else parse_delimited
        return columns.read(parse(data, "table"))

    return read


def _files(*names: str) -> Callable[[Path], list[bytes]]:
    return lambda good: [(good / name).read_bytes() for name in names]


TARGETS: dict[str, Target] = {
    "config": Target(_files("grade/config.json"), _config, damaged_text),
    "weights": Target(_files("grade/model.safetensors"), _weights, damaged_tensors),
    "checkpoint": Target(_files("grade/checkpoints/step-0000000006.safetensors"), _checkpoint, forged),
    "resume": Target(_resume_seeds, _resume, forged),
    "import-weights": Target(_files("weights.pt", "weights.safetensors"), _import, damaged_bytes),
    "body": Target(_files("rows.json", "infer.json"), _body, damaged_text),
    "rows": Target(_files("rows.csv", "table.tsv", "table.jsonl"), _csv, damaged_bytes),
}


def good_files() -> Path:
    """A folder with them, made anew."""
    return make_good(Path(tempfile.mkdtemp(prefix="stoker-fuzz-")))
