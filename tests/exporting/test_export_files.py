"""The files themselves: what is in them and beside them, what optimising and 8 bits do, what is awkward to compare."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import polars as pl
import pytest
import torch
from safetensors import safe_open
from subjects import fit, fitted, table
from torch import nn

import stoker
from stoker.errors import ExportError
from stoker.exporting.check import Tolerance, compare
from stoker.exporting.fresh import ask
from stoker.exporting.quantize import apart, drift, refuse_if_worse
from stoker.exporting.rows import Real, check_rows
from stoker.exporting.trial import Trial, spread


def contract(done: stoker.Exported) -> Any:
    return json.loads(done.files[0].contract.read_text())


class Made(dict[str, stoker.Exported]):
    """Exports of one run by format, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, form: str) -> stoker.Exported:
        run = fitted("mlp, two classes")
        self[form] = stoker.export(run, form, out=f"{self.folder}/", bench=False)
        return self[form]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def test_the_contract_says_how_a_row_becomes_inputs(made: Made) -> None:
    said = contract(made["onnx"])
    numeric, categorical = said["inputs"]
    assert (numeric["name"], numeric["dtype"], numeric["shape"][0]) == ("numeric", "float64", "batch")
    assert numeric["columns"][0] == {"column": "size", "reads": "number", "missing": "NaN"}
    assert {"month", "day", "weekday", "days"} <= {column.get("part") for column in numeric["columns"]}
    kind, street = categorical["columns"]
    assert (kind["column"], kind["categories"]) == ("kind", ["flat", "house", "loft"])
    assert (kind["unknown"], kind["missing"], kind["first_code"]) == (0, 1, 2)
    assert len(street["categories"]) > 10
    assert [output["name"] for output in said["outputs"]] == ["probabilities", "class", "label"]
    assert said["classes"] == ["false", "true"]
    assert said["compared"]["batch_sizes"] == [1, 2, 7, 64]
    assert said["compared"]["largest_difference"] <= 1e-4
    assert {"stoker", "torch", "onnx", "onnxruntime"} <= set(said["versions"])


def test_by_the_contract_alone_a_row_can_be_asked(made: Made) -> None:
    import onnxruntime

    said = contract(made["onnx"])
    row = {"size": 50.0, "rooms": 3, "kind": "loft", "street": "never seen", "seen": None}
    given: dict[str, Any] = {}
    for entry in said["inputs"]:
        values = []
        for column in entry["columns"]:
            value: Any = row[column["column"]]
            if entry["name"] == "categorical":
                known = column["categories"]
                value = known.index(value) + column["first_code"] if value in known else column["unknown"]
            values.append(float("nan") if value is None else value)
        given[entry["name"]] = np.array([values], dtype=entry["dtype"])
    session = onnxruntime.InferenceSession(str(made["onnx"].path), providers=["CPUExecutionProvider"])
    label = session.run(["label"], given)[0][0]
    assert label == fitted("mlp, two classes").predict(pl.DataFrame([row])).values[0]


@pytest.mark.parametrize(
    "form", ["onnx", *(pytest.param(one, marks=pytest.mark.slow) for one in ("torch-export", "torchscript-trace"))]
)
def test_the_contract_travels_within_the_file_too(form: str, made: Made) -> None:
    if form == "onnx":
        model = onnx.load(str(made[form].path))
        inside = next(one.value for one in model.metadata_props if one.key == "stoker.contract")
    else:
        with zipfile.ZipFile(made[form].path) as archive:
            inside = archive.read(next(name for name in archive.namelist() if name.endswith("contract.json"))).decode()
    assert json.loads(inside)["inputs"] == contract(made[form])["inputs"]


@pytest.mark.parametrize("form", ["onnx", pytest.param("torch-export", marks=pytest.mark.slow)])
def test_files_tell_nothing_of_the_machine_they_were_made_on(form: str, made: Made) -> None:
    assert str(Path(stoker.__file__).parent).encode() not in made[form].path.read_bytes()


@pytest.mark.slow
def test_a_file_of_torch_export_holds_no_pickle(made: Made) -> None:
    with zipfile.ZipFile(made["torch-export"].path) as archive:
        for name in archive.namelist():
            assert not archive.read(name).startswith((b"\x80\x02", b"PK")), name
            if name.endswith("_config.json"):
                assert '"use_pickle": true' not in archive.read(name).decode(), name


def test_a_state_dict_is_loaded_by_plain_pytorch_in_three_lines(tmp_path: Path) -> None:
    run = fitted("own, a number")
    path = stoker.export(run, "state-dict", out=tmp_path / "net.pt").path

    saved = torch.load(path, weights_only=True)
    net = networks.Plain(**saved["hyper_parameters"])
    net.load_state_dict(saved["state_dict"])

    x = torch.randn(5, saved["hyper_parameters"]["n_features"])
    assert torch.equal(net(x), run.artifact.model.head.network(x))
    about = json.loads((tmp_path / "net.pt.json").read_text())
    assert about["hyper_parameters"] == saved["hyper_parameters"]
    # what stands before and after the network is in the JSON
    raw = run.artifact.columns.read(table("price", rows=9, seed=4))["numeric"][3:4]  # type: ignore[union-attr]
    scaled = (raw - torch.tensor(about["encoder"]["mean"])) / torch.tensor(about["encoder"]["std"])
    assert torch.allclose(
        scaled.float().nan_to_num(0),
        run.artifact.model.encoder(raw, torch.ones(1, 2).long())["numeric"][:, : raw.shape[1]],
        atol=1e-5,
    )
    assert about["output"]["std"] == run.artifact.model.head.output.std.tolist()  # type: ignore[operator]


def test_a_network_of_stokers_by_layers_of_torch(tmp_path: Path) -> None:
    run = fitted("numbers alone")
    saved = torch.load(stoker.export(run, "state-dict", out=tmp_path / "net.pt").path, weights_only=True)
    width = saved["hyper_parameters"]["spec"]["n_numeric"]
    net = nn.ModuleDict({"layers": nn.Sequential(nn.Linear(width, 5), nn.ReLU(), nn.Linear(5, 1))})
    net.load_state_dict(saved["state_dict"])
    x = torch.randn(4, width)
    assert torch.equal(net["layers"](x), run.artifact.model.head.network(x))


def test_safetensors_holds_the_same(made: Made) -> None:
    saved = torch.load(made["state-dict"].path, weights_only=True)
    with safe_open(made["safetensors"].path, framework="pt") as file:
        assert set(file.keys()) == set(saved["state_dict"])
        assert all(torch.equal(file.get_tensor(name), value) for name, value in saved["state_dict"].items())
        assert json.loads(file.metadata()["hyper_parameters"]) == saved["hyper_parameters"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way"), [("cnn, images", "freezing alone"), ("waves, two classes", "freezing without folding alone")]
)
def test_optimizing_goes_only_as_far_as_the_answers_stay(name: str, way: str, tmp_path: Path) -> None:
    told: list[str] = []
    run = fitted(name)
    done = stoker.export(run, "torchscript-trace", optimize=True, out=f"{tmp_path}/", bench=False, notify=told.append)
    assert done.files[0].difference < 1e-4
    assert told[-1].startswith("optimize_for_inference would change this model or could not be saved: ")
    assert told[-1].endswith(way)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torchscript-trace"])
def test_optimized_files_are_compared_as_well(form: str, tmp_path: Path) -> None:
    run = fitted("mlp, two classes")
    done = stoker.export(run, form, optimize=True, out=f"{tmp_path}/", bench=False)
    assert 0 <= done.files[0].difference < 1e-4
    if form == "onnx":
        kinds = {node.op_type for node in onnx.load(str(done.path)).graph.node}
        assert "FusedGemm" in kinds


@pytest.mark.slow
@pytest.mark.parametrize("optimize", [False, True])
def test_int8_is_measured_before_and_after(optimize: bool, tmp_path: Path) -> None:
    run = fitted("mlp, two classes")
    done = stoker.export(run, "onnx", quantize="int8", optimize=optimize, out=tmp_path / "m.onnx", bench=False)
    metrics = done.files[0].metrics
    assert metrics["before"] == pytest.approx({"accuracy": run.metrics["test"]["accuracy"]})
    assert metrics["before"]["accuracy"] - metrics["after"]["accuracy"] <= 0.05
    said = contract(done)
    assert said["calibrated_on"] == "training rows; measured on the test split"
    assert said["quantized"] == metrics
    assert said["compared_before_quantization"]["largest_difference"] < 1e-5
    assert said["compared"]["largest_difference"] == done.files[0].difference > 1e-4
    assert said["compared"]["changed_classes"] < said["compared"]["rows"]
    assert "tolerance" not in said["compared"]
    types = {value.data_type for value in onnx.load(str(done.path)).graph.initializer}
    assert onnx.TensorProto.INT8 in types


@pytest.mark.slow
def test_int8_of_a_convolutional_network(tmp_path: Path) -> None:
    run = fitted("cnn, images")
    done = stoker.export(run, "onnx", quantize="int8", out=tmp_path / "m.onnx", bench=False)
    metrics = done.files[0].metrics
    assert metrics["before"] == pytest.approx({"accuracy": run.metrics["test"]["accuracy"]})
    assert metrics["before"]["accuracy"] - metrics["after"]["accuracy"] <= 0.05
    graph = onnx.load(str(done.path)).graph
    whole = {one.name: one for one in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        values, weights = (makers[name] for name in node.input[:2])
        assert (values.op_type, weights.op_type) == ("DequantizeLinear", "DequantizeLinear")
        kernel, scale = whole[weights.input[0]], whole[weights.input[1]]
        assert (kernel.data_type, len(kernel.dims)) == (onnx.TensorProto.INT8, 4)
        assert list(scale.dims) == [kernel.dims[0]], "a scale for each output channel"
    images = next(iter(run.splits().values())).data
    found = ask("onnx", done.path, {"images": images.images[:9]})  # type: ignore[union-attr]
    alone, together = found.by_size[1][0], found.by_size[64][0]
    assert np.array_equal(alone, together), "a row's numbers do not depend on the rows beside it"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated")
@pytest.mark.parametrize("form", ["torchscript-trace", "torchscript-script"])
def test_optimizing_torchscript_leaves_less_to_do(form: str, tmp_path: Path) -> None:
    run, told = fitted("mlp, two classes"), list[str]()
    plain = stoker.export(run, form, out=tmp_path / "plain.pt", bench=False)
    quick = stoker.export(run, form, optimize=True, out=tmp_path / "quick.pt", bench=False, notify=told.append)
    assert not [text for text in told if "would change this model" in text], "all of optimize_for_inference is kept"
    before, after = (torch.jit.load(str(done.path)) for done in (plain, quick))  # type: ignore[no-untyped-call]
    assert list(before.parameters())
    assert not list(after.parameters()), "weights are constants"
    counts = [len(list(module.inlined_graph.nodes())) for module in (before, after)]
    assert counts[1] < counts[0]
    calls = {node.kind() for node in after.inlined_graph.nodes()}
    assert not calls & {"prim::GetAttr", "prim::CallMethod"}
    assert 0 <= quick.files[0].difference < 1e-5


def real(held_out: str, training: bool, rows: int = 5) -> Real:
    inputs = {"numeric": torch.arange(rows, dtype=torch.float64)[:, None]}
    return Real("t.csv", held_out, inputs, torch.arange(rows), {"numeric": -inputs["numeric"]} if training else None)


@pytest.mark.parametrize(
    ("held_out", "training", "told"),
    [
        ("test", True, "training rows; measured on the test split"),
        ("rows", True, "training rows; measured on the rows that were named"),
        ("rows", False, "every second of the rows that were named; measured on the others"),
        ("train", True, "every second of the training rows; measured on the others"),
    ],
)
def test_ranges_are_not_taken_from_the_rows_that_are_measured(held_out: str, training: bool, told: str) -> None:
    calibration, measured, said = apart(real(held_out, training))
    assert said == told
    assert not set(calibration["numeric"][1:].flatten().tolist()) & set(measured.inputs["numeric"].flatten().tolist())
    assert measured.targets is not None
    assert measured.targets.tolist() == measured.inputs["numeric"].flatten().tolist()
    assert len(measured.targets) == (2 if "second" in told else 5)


def test_one_row_is_too_few_to_quantize() -> None:
    with pytest.raises(ExportError, match="needs one row to take ranges from and another to measure on, got 1"):
        apart(real("rows", training=False, rows=1))


def test_the_cost_of_8_bits_is_counted() -> None:
    want = {1: (np.array([[0.9, 0.1]]), np.array([0])), 2: (np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 0]))}
    got = {1: (np.array([[0.5, 0.5]]), np.array([0])), 2: (np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]))}
    assert drift(got, want) == {"largest_difference": pytest.approx(0.4), "changed_classes": 1}
    numbers = {1: (np.array([1.0, np.nan]),)}
    assert drift({1: (np.array([1.5, np.nan]),)}, numbers) == {"largest_difference": 0.5}


def test_int8_that_loses_too_much_is_refused() -> None:
    refuse_if_worse({"accuracy": 0.9}, {"accuracy": 0.86})
    refuse_if_worse({"rmse": 1.0}, {"rmse": 1.04})
    with pytest.raises(
        ExportError, match=r"--quantize int8: must cost at most 0\.05 of the accuracy, got accuracy 0\.8 "
    ):
        refuse_if_worse({"accuracy": 0.9}, {"accuracy": 0.8})
    with pytest.raises(ExportError, match=r"must cost at most 5% of the rmse, got rmse 1\.1 after 1\."):
        refuse_if_worse({"rmse": 1.0}, {"rmse": 1.1})
    with pytest.raises(ExportError, match="got rmse nan after 1"):
        refuse_if_worse({"rmse": 1.0}, {"rmse": math.nan})


def test_rows_compared_have_every_gap_and_every_kind_of_category(tmp_path: Path) -> None:
    run = fitted("mlp, two classes")
    rows, real = check_rows(run, lambda _: pytest.fail("the source is there"))
    assert real is not None
    assert real.held_out == "test"
    numeric, codes = rows["numeric"], rows["categorical"]
    assert bool(numeric.isnan().any(dim=0).all())
    assert bool(numeric.isnan().all(dim=1).any())
    assert bool(numeric.isinf().any(dim=0).all())
    columns = run.artifact.columns
    assert columns is not None
    for place, size in enumerate(columns.cardinalities):
        there = set(codes[:, place].tolist())
        assert {0, 1, -1} <= there
        assert max(there) >= size
    street = real.inputs["categorical"][:, 1]
    counts = street.bincount(minlength=columns.cardinalities[1])[2:]
    assert int(counts.argmin()) + 2 in codes[:, 1].tolist()
    again, _ = check_rows(run, lambda _: None)
    assert all(torch.equal(rows[name].nan_to_num(7), again[name].nan_to_num(7)) for name in rows)


def test_without_a_scaled_target_the_scale_is_the_targets_own(tmp_path: Path) -> None:
    frame = table("numbers").with_columns(y=pl.col("y") * 1e-12)
    frame.write_csv(tmp_path / "t.csv")
    run = fit(tmp_path / "t.csv", tmp_path / "run", target="y", model="linear", scale_target=False)
    deviation = float(frame["y"].std(ddof=0))  # type: ignore[arg-type]
    trial = Trial(run, lambda _: None, None)
    assert trial.scale == pytest.approx(deviation, rel=0.3)  # of the training's rows
    assert Trial(run, lambda _: None, frame).scale == trial.scale
    (tmp_path / "t.csv").unlink()
    assert Trial(run, lambda _: None, frame).scale == pytest.approx(deviation, rel=1e-6)
    answers = Trial(run, lambda _: None, None)
    given = answers.wanted[64][0].astype(np.float64)
    assert answers.scale == pytest.approx(min(1.0, float(given[np.isfinite(given)].std())))


def test_a_spread_that_is_not_known_is_that_of_the_answers() -> None:
    answers = torch.tensor([1.0, 3.0, math.inf])
    assert spread(None, torch.zeros(3), answers=answers) == 1.0
    assert spread(None, answers=answers / 10) == pytest.approx(0.1)
    assert spread(None, torch.tensor([0.0, 8.0]), answers=answers) == 4.0
    assert spread(answers=answers * 100) == 1.0


def test_images_compared_are_dark_and_bright_too() -> None:
    rows, _ = check_rows(fitted("cnn, images"), lambda _: None)
    flat = rows["images"].flatten(1).float()
    assert bool((flat == 0).all(dim=1).any())
    assert bool((flat == 255).all(dim=1).any())


NUMBERS: dict[str, Any] = {"classes": (), "tolerance": Tolerance(0.01, 0.0), "scale": 1.0, "rows": {}, "columns": {}}
CLASSES: dict[str, Any] = {**NUMBERS, "classes": ("cat", "dog")}


def test_comparing_numbers() -> None:
    want = (np.array([1.0, np.nan, np.inf]),)
    assert compare("x", {7: (np.array([1.005, np.nan, np.inf]),)}, {7: want}, **NUMBERS) == pytest.approx(0.005)
    for wrong in ([1.02, np.nan, np.inf], [1.0, 5.0, np.inf], [1.0, np.nan, 3.0], [np.nan, np.nan, np.inf]):
        with pytest.raises(
            ExportError, match=r"x: must answer .*, within 0\.01 · scale .* in a batch of 7\. Nothing was"
        ):
            compare("x", {7: (np.array(wrong),)}, {7: want}, **NUMBERS)
    with pytest.raises(ExportError, match=r"outputs must have the model's shape, got \[2\] instead of \[3\]"):
        compare("x", {1: (np.zeros(2),)}, {1: want}, **NUMBERS)


def test_comparing_classes() -> None:
    want = (np.array([[0.5, 0.5]]), np.array([0]))
    same = (np.array([[0.5, 0.5]]), np.array([0]), np.array(["cat"]))
    assert compare("x", {1: same}, {1: want}, **CLASSES) == 0
    with pytest.raises(ExportError, match="the same top class, got class 'dog' instead of 'cat' for row 0, alone"):
        compare("x", {1: (same[0], np.array([1]))}, {1: want}, **CLASSES)
    with pytest.raises(ExportError, match="the same label, got label 'dog' instead of 'cat' for row 0"):
        compare("x", {1: (*same[:2], np.array(["dog"]))}, {1: want}, **CLASSES)
    with pytest.raises(ExportError, match=r"got the probability of 'dog' 0\.6 instead of 0\.5 for row 0"):
        compare("x", {1: (np.array([[0.5, 0.6]]), np.array([0]))}, {1: want}, **CLASSES)


@pytest.mark.slow
def test_figures_of_the_file_and_of_the_model(tmp_path: Path) -> None:
    done = stoker.export(fitted("mlp, two classes"), "onnx", out=tmp_path / "m.onnx")
    timings = [done.files[0].timing, *done.baselines]
    assert [one.name for one in timings] == ["onnx", "eager", "torch.compile"]
    for one in timings:
        assert one.note or (0 < one.latency < 1 and one.throughput > 1)
    assert timings[0].bytes == done.path.stat().st_size


@pytest.mark.slow
def test_classes_of_awkward_names(tmp_path: Path) -> None:
    frame = table("grade").with_columns(y=pl.col("y").replace({"low": "", "middle": "żółw, 'x'\n", "top": "class"}))
    frame = frame.with_columns(y=pl.when(pl.col("y") == "").then(pl.lit(" ")).otherwise("y"))
    run = fit(frame, tmp_path / "run", target="y", hidden=(4,))
    done = stoker.export(run, "onnx", rows=frame, bench=False)
    assert contract(done)["classes"] == list(run.classes)
