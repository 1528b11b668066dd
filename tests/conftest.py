"""Real data for tests: what this machine has; what it lacks is a skip that says why. Nothing is downloaded."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Small networks gain nothing from a second thread, and on a busy machine the threads wait for each other: a step of
# 0.3 ms then takes 5. It is read when torch is first imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else ONNX Runtime reports what it runs over the network
os.environ.setdefault("STOKER_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "stoker"))  # not the user's

if TYPE_CHECKING:
    from collections.abc import Iterator

    from served_process import Server

    import stoker
    from stoker.data.dataset import ImageSet, Table


ON_TORCH = ("contract", "engines", "training", "models", "distributed", "book")
"""The rooms whose tests are run with each version of torch."""
NEAR_TORCH = ("exporting", "metrics", "runs", "sklearn")
"""Those whose quick tests are."""

AT_LENGTH = (
    "benchmarks/test_sides.py",
    "cli/test_cli_report.py::test_doctor_for_real",
    "distributed/test_together.py::test_they_come_to_what_one_comes_to[classes-three",
    "distributed/test_together.py::test_they_come_to_what_one_comes_to[sgd-three]",
    "doctor/test_packages.py::test_torch_compile_works_here",
    "engines/test_compiled.py::test_a_cache_that_cannot_be_written_is_none[nowhere]",
    "engines/test_lanes.py::test_other_layers[attention",
    "engines/test_rates.py::test_a_forked_process_tells_whether_code_looks[False",
    "engines/test_rehearsal.py::test_what_is_right_is_not_refused[attention]",
    "engines/test_rehearsal.py::test_what_is_right_is_not_refused[averaged]",
    "engines/test_rehearsal.py::test_what_is_right_is_not_refused[lstm]",
    "engines/test_reuse.py::test_everything_else_takes_another_program[an activation]",
    "engines/test_settled.py::test_a_resumed_training_comes_to_the_same_bits[2-1epoch]",
    "engines/test_settled.py::test_a_resumed_training_comes_to_the_same_bits[4-7steps]",
    "engines/test_settled.py::test_a_resumed_training_comes_to_the_same_bits[5-1epoch]",
    "engines/test_settled.py::test_a_resumed_training_comes_to_the_same_bits[6",
    "engines/test_settled.py::test_a_resumed_training_comes_to_the_same_bits[7-7steps]",
    "engines/test_settled.py::test_a_resumed_training_comes_to_the_same_bits[8",
    "engines/test_standing.py::test_the_digest_of_a_form_does_not_depend_on_how_texts_are_hashed",
    "exporting/test_export_cli.py::test_the_table_has_figures",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[onnx, mlp, two classes",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[onnx, own, by name",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[onnx, preset",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[torch-export, bins",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[torch-export, categories alone",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[torch-export, own",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[torch-export, wide-deep",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[torchscript-script, own, categories alone",
    "exporting/test_export_contract.py::test_answers_are_those_of_predict[torchscript-trace, own, by name",
    "exporting/test_export_current.py::test_onnx_runtime_reports_nothing",
    "exporting/test_export_files.py::test_figures_of_the_file_and_of_the_model",
    "exporting/test_export_files.py::test_optimizing_torchscript_leaves_less_to_do",
    "exporting/test_import_weights.py::test_damage_by_chance_ends_in_an_error_of_ours_or_in_tensors[2]",
    "exporting/test_libtorch.py",
    "reporting/test_report_page.py::test_thousands_of_columns_and_many_classes_are_bounded",
    "serving/test_onnx_backend.py::test_workers_share_what_the_first_process_made",
    "serving/test_own_models_served.py::test_served_as_onnx_within_the_tolerance_of_the_export",
    "serving/test_stopping.py::test_a_worker_that_cannot_start_ends_them_all",
    "serving/test_stopping.py::test_workers_end_with_the_process_that_started_them",
    "sklearn/test_sklearn_selection.py::test_a_search_in_two_processes_finds_what_one_process_finds",
    "sklearn/test_sklearn_selection.py::test_on_digits_it_is_no_worse_than_scikit_learns_network",
    "tuning/test_batched.py::test_a_batch_is_drawn_from_the_batches_before",
    "tuning/test_batched.py::test_a_study_of_several_batches_is_repeatable",
    "tuning/test_batched.py::test_trainers_of_the_users_own",
    "tuning/test_batched.py::test_trials_are_what_they_are_alone[adam-none]",
    "tuning/test_batched.py::test_what_is_left_of_a_batch_goes_on_to_the_same_bits[False]",
    "tuning/test_batched.py::test_who_is_pruned_changes_no_bit_of_the_others",
    "tuning/test_killed_workers.py::test_a_lone_worker_that_is_killed_again_and_again",
    "tuning/test_killed_workers.py::test_connections_that_break_lose_nothing",
    "tuning/test_killed_workers.py::test_four_workers_share_the_trials[sqlite]",
    "tuning/test_killed_workers.py::test_workers_that_are_killed_at_random_lose_nothing[sqlite]",
    "tuning/test_threads.py::test_workers_have_theirs_and_so_have_their_programs[auto-4-2]",
    "tuning/test_tune.py::test_a_study_that_is_out_of_time_goes_on[1]",
    "tuning/test_tune.py::test_each_sampler_goes_on_as_if_never_stopped",
    "tuning/test_tune.py::test_other_pruners_give_up_what_is_hopeless",
    "tuning/test_tune.py::test_two_processes_share_a_study",
    "tuning/test_tune_killed.py::test_a_trial_goes_on_from_its_own_last_epoch",
    "tuning/test_tune_killed.py::test_ctrl_c_leaves_a_study_that_goes_on",
    "tuning/test_tune_killed.py::test_killed_again_and_again_it_ends_as_if_never_killed",
    "tuning/test_tune_killed.py::test_the_death_of_a_worker_is_made_good_by_the_command",
    "tuning/test_tune_killed.py::test_two_machines_with_two_workers_each_share_a_study",
    "tuning/test_tune_killed.py::test_workers_end_with_the_command_that_started_them",
)
"""What takes seconds, and is near to something that each run of the suite has: ``make test-long``.

Whether the sides of the benchmark do the same work is tested before each benchmark, too: ``make bench-check``."""


FIRST = ("tuning", "chaos", "serving", "exporting")
"""Rooms whose files take minutes: begun first, lest one process be at them when the others have nothing left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of these rooms, and put them in order."""
    items.sort(key=lambda item: _room(item) not in FIRST)
    for item in items:
        room = _room(item)
        if item.nodeid.removeprefix("tests/").startswith(AT_LENGTH):
            item.add_marker(pytest.mark.long)
        if room in ON_TORCH or (room in NEAR_TORCH and item.get_closest_marker("slow") is None):
            item.add_marker(pytest.mark.torch)


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(autouse=True)
def no_programs_of_other_tests() -> None:
    """With a program at hand, ``engine="auto"`` takes it sooner."""
    if "stoker.engines.reuse" in sys.modules:
        sys.modules["stoker.engines.reuse"].PROGRAMS.clear()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The programs that a test makes."""
    from stoker.engines.xla.program import Program

    programs: list[Program] = []
    of = Program.of

    def noted(*given: Any) -> Program:
        programs.append(of(*given))
        return programs[-1]

    monkeypatch.setattr(Program, "of", noted)
    return programs


def offline(url: str, path: Path) -> None:
    raise OSError(f"tests use no network: {url} to {path}")


@pytest.fixture(scope="session")
def california() -> Table:
    """California housing, 20,640 rows, if ``$STOKER_DATA`` has it."""
    from stoker.data.dataset import Table
    from stoker.data.sources import load
    from stoker.errors import SourceNotFoundError

    try:
        table = load("california-housing", download=offline)
    except SourceNotFoundError as error:
        pytest.skip(f"no California housing here: {error.rule}")
    assert isinstance(table, Table)
    return table


@pytest.fixture(scope="session")
def fashion() -> ImageSet:
    """Fashion-MNIST, if ``$STOKER_DATA`` or Debian's dataset-fashion-mnist has it."""
    from stoker.data.dataset import ImageSet
    from stoker.data.sources import load
    from stoker.errors import SourceNotFoundError

    try:
        images = load("fashion-mnist", download=offline)
    except SourceNotFoundError as error:
        pytest.skip(f"no Fashion-MNIST here: {error.rule}")
    assert isinstance(images, ImageSet)
    return images


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of the tests' own, if it is installed."""
    from database import running_postgres

    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    from database import empty_database

    return empty_database(postgres_server)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a storage for a study, of each kind there is."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres"))
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture(scope="session")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs that the server's tests share lie, and what they were made from."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def grade_run(served_home: Path) -> stoker.Run:
    """Of a table with three classes."""
    from served_runs import fit_small

    return fit_small(served_home, "grade")


@pytest.fixture(scope="session")
def older_run(grade_run: stoker.Run, served_home: Path) -> stoker.Run:
    """``grade_run``, as it was written before the ranges of numbers were kept."""
    import stoker

    copy = shutil.copytree(grade_run.path, served_home / "older-run")
    record = json.loads((copy / "config.json").read_text())
    for column in record["recipe"]["columns"]["numeric"]:
        del column["low"], column["high"]
    (copy / "config.json").write_text(json.dumps(record))
    return stoker.load(copy)


@pytest.fixture(scope="session")
def price_run(served_home: Path) -> stoker.Run:
    """A regression on a table."""
    from served_runs import fit_small

    return fit_small(served_home, "price")


@pytest.fixture(scope="session")
def image_run(served_home: Path) -> stoker.Run:
    """Cats and dogs, of 8 × 8 pixels."""
    from served_runs import fit_small

    return fit_small(served_home, "animals")


@pytest.fixture(scope="session")
def grades(grade_run: stoker.Run) -> Iterator[Server]:
    """``grade_run``, served in a process of its own."""
    from served_process import serving

    with serving(grade_run.path) as server:
        yield server


@pytest.fixture(scope="session")
def prices(price_run: stoker.Run) -> Iterator[Server]:
    """``price_run``, likewise."""
    from served_process import serving

    with serving(price_run.path) as server:
        yield server


@pytest.fixture(scope="session")
def animals(image_run: stoker.Run) -> Iterator[Server]:
    """``image_run``, likewise."""
    from served_process import serving

    with serving(image_run.path) as server:
        yield server
