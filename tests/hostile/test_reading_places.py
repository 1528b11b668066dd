# ruff: noqa: E501  # a place a line, to be read as a table
"""Every place in Stoker that reads a file is known, and why it may: a new one is added here, and to the loaders."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import stoker

SOURCE = Path(stoker.__file__).parent

READING = {
    "open", "fdopen", "read_text", "read_bytes", "read_csv", "read_parquet", "read_ipc", "read_ipc_stream", "read_ndjson",
    "scan_csv", "scan_parquet", "scan_ipc", "scan_ndjson", "read_excel", "read_json", "read_database", "from_file",
    "safe_open", "load_file", "fromfile", "memmap", "mmap", "ZipFile", "GzipFile", "decompress", "extractall", "extract",
    "urlopen", "urlretrieve", "InferenceSession", "create_engine", "make_url", "PyTorchFileReader", "aoti_load_package",
    "literal_eval", "eval", "exec", "Unpickler", "loadtxt", "genfromtxt", "read_pickle", "import_module", "__import__",
}  # fmt: skip
LOADING = {"load", "loads"}  # of these modules; other loads are Stoker's own
MODULES = {
    "json",
    "tomllib",
    "pickle",
    "marshal",
    "yaml",
    "torch",
    "np",
    "numpy",
    "onnx",
    "jit",
    "export",
    "joblib",
    "dill",
}

KNOWN: dict[str, tuple[dict[str, int], str]] = {
    # what may come from anyone: each is tried with the corpus
    "runs/files.py": ({"read_text": 2, "json.loads": 1}, "config.json, metrics.json, history.csv, job.json"),
    "jobs/run.py": ({"read_text": 1}, "history.csv"),
    "runs/record.py": ({"read_json": 2}, "config.json, metrics.json"),
    "jobs/keeping.py": ({"read_json": 1, "open": 1}, "job.json; and the lock, of which nothing is read"),
    "tensors.py": ({"open": 1, "safe_open": 1}, "model.safetensors, checkpoints, weights to import"),
    "training/checkpoints/files.py": ({"json.loads": 1}, "the JSON of a checkpoint, whose digest was looked at"),
    "exporting/weights_file.py": (
        {"open": 2, "ZipFile": 1, "PyTorchFileReader": 1, "torch.load": 1}, "weights to import: weights_only, mapped"),
    "exporting/importing.py": ({"open": 1, "read_text": 2, "json.loads": 1}, "the run's own files, written or read before"),
    "settings.py": ({"read_text": 1, "tomllib.loads": 2}, "--config, --set"),
    "data/sources/files.py": (
        {"open": 2, "GzipFile": 1, "ZipFile": 1, "read_parquet": 1, "scan_parquet": 1, "read_ipc": 1, "scan_ipc": 1,
         "read_ipc_stream": 1}, "tables"),
    "data/sources/delimited.py": ({"read_csv": 3}, "tables, requests"),
    "data/sources/jsonlines.py": ({"read_ndjson": 2, "scan_ndjson": 1, "json.loads": 1}, "tables"),
    "data/sources/images.py": ({"open": 1}, "images of folders"),
    "data/sources/pixels.py": ({"open": 2}, "images, by pillow, of a list of formats"),
    "data/sources/idx.py": ({"GzipFile": 1}, "IDX files"),
    "data/sources/named.py": ({"open": 1, "GzipFile": 1, "read_csv": 1}, "named data sets: a tar archive's one file, tables"),
    "data/sources/fingerprint.py": ({"open": 1}, "digests of data"),
    "data/sources/download.py": ({"urlopen": 1, "open": 1}, "named data sets, whose checksums are known"),
    "serving/rows.py": ({"json.loads": 1}, "requests"),
    "serving/problems.py": ({"literal_eval": 1}, "a column's name in Stoker's own error"),
    "tuning/tune.py": ({"read_json": 1, "json.loads": 1}, "study.json; and a copy"),
    "tuning/question.py": ({"json.loads": 2}, "copies of the caller's data"),
    "exporting/current.py": ({"read_json": 1, "read_bytes": 2, "open": 1}, "an export that was compared, by its digests; and the run's weights"),
    "serving/onnx_backend.py": ({"InferenceSession": 1}, "the same bytes, from memory, so that they can name no other file"),
    "tuning/refit.py": ({"read_json": 1, "read_text": 1, "json.loads": 1}, "study.json, README.md; copies"),
    "tuning/cmaes_state.py": ({"json.loads": 1}, "the state of a sampler in a study's storage"),
    "tuning/storage.py": ({"make_url": 2}, "the URL that the user gives"),
    "tuning/locks.py": ({"create_engine": 1}, "the storage that the user names"),
    "models/importing.py": ({"import_module": 1}, "the model that the user names, never a file"),
    # what Stoker made a moment ago, in a folder of its own
    "exporting/loader.py": (
        {"InferenceSession": 1, "export.load": 1, "jit.load": 1, "aoti_load_package": 1, "load_file": 1, "torch.load": 1,
         "ZipFile": 1, "open": 1, "np.load": 1, "import_module": 1}, "an export just made, in a process of its own"),
    "exporting/fresh.py": ({"np.load": 1}, "what that process answered, without pickles"),
    "exporting/place.py": ({"open": 2}, "an export just made; the log beside it, its first line"),
    "exporting/quantize.py": ({"onnx.load": 1}, "an export just made"),
    "exporting/formats/onnx.py": ({"InferenceSession": 1}, "an export just made"),
    "exporting/formats/torchscript.py": ({"jit.load": 1}, "an export just made, in memory"),
    "serving/measures.py": ({"read_text": 1, "json.loads": 1}, "what the server's processes write, in a folder of theirs"),
    "doctor/packages.py": ({"json.loads": 1}, "what a process of its own says"),
    # the machine, Stoker's own files, and what is written
    "doctor/machine.py": ({"read_text": 5}, "/proc and /sys"),
    "doctor/child.py": ({"import_module": 1}, "packages of a list"),
    "reporting/html/page.py": ({"read_text": 1, "open": 1}, "its own style; writes the report"),
    "serving/app.py": ({"read_bytes": 1}, "its own page"),
    "cli/output.py": ({"open": 1}, "writes predictions"),
    "cli/__init__.py": ({"open": 2}, "the null device"),
    "engines/beside.py": ({"open": 1}, "the null device"),
    "engines/replicas.py": ({"import_module": 1}, "a part of torch"),
    "training/loggers/logger.py": ({"import_module": 1}, "packages of a list"),
    "__init__.py": ({"import_module": 1}, "Stoker's own modules"),
    "atomic.py": ({"open": 2}, "writes, and flushes folders"),
    "tuning/display.py": ({"open": 1}, "opens a view of a study, no file"),
    # copies of data in memory: json.loads(json.dumps(…))
    "tuning/space.py": ({"json.loads": 1}, "a copy"),
    "models/own.py": ({"json.loads": 2}, "a copy"),
    "data/schema.py": ({"json.loads": 1}, "a copy"),
    "data/columns.py": ({"json.loads": 1}, "a copy"),
    "data/encoder.py": ({"json.loads": 1}, "a copy"),
}  # fmt: skip


def reading_calls(path: Path) -> Counter[str]:
    """The calls in a file that read, by name."""
    found: Counter[str] = Counter()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in READING:
                found[name] += 1
            case ast.Attribute(value=owner, attr=name) if name in LOADING:
                module = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if module in MODULES:
                    found[f"{module}.{name}"] += 1
            case ast.Attribute(attr=name) if name in READING - {"eval", "exec"}:  # modules have eval()
                found[name] += 1
    return found


FOUND = {
    path.relative_to(SOURCE).as_posix(): calls
    for path in sorted(SOURCE.rglob("*.py"))
    if (calls := reading_calls(path))
}


@pytest.mark.parametrize("name", sorted(FOUND.keys() | KNOWN.keys()))
def test_each_place_that_reads_is_known(name: str) -> None:
    expected, _ = KNOWN.get(name, ({}, ""))
    assert FOUND.get(name, Counter()) == Counter(expected), "list it here, say why it may, and try the corpus on it"


def test_it_finds_such_places(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(
        "import json, torch\ndef f(p):\n    return json.load(open(p)), torch.load(p), p.read_text()"
    )
    assert reading_calls(tmp_path / "new.py") == {"json.load": 1, "open": 1, "torch.load": 1, "read_text": 1}


def test_nothing_is_unpickled_but_by_torch_with_weights_only() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
                called = ast.unparse(node.func)
                if called == "torch.load":
                    assert keywords.get("weights_only") == "True", path
                if called == "np.load":
                    assert keywords.get("allow_pickle") == "False", path
