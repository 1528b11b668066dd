"""Who runs which trial, with two workers in one process: a dead one's trial is taken, a late result is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from stoker.errors import ConfigError, TrainingError
from stoker.tuning.locks import FileLocks, Locks, PostgresLocks
from stoker.tuning.sampling import make_pruner, make_sampler
from stoker.tuning.storage import Storage, open_storage
from stoker.tuning.study import DEADLY, REASON, Outcome, Plan, Roster, open_study
from stoker.tuning.worker import work


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Constant:
    """An objective that reports what it is told to."""

    reports = False

    def __init__(self, value: float | Exception = 1.0) -> None:
        self.value = value
        self.calls = 0

    def __call__(self, trial: optuna.Trial, stop: object) -> Outcome:  # noqa: ARG002
        self.calls += 1
        if isinstance(self.value, Exception):
            raise self.value
        return Outcome("complete", self.value, {"x": trial.suggest_float("x", 0.0, 1.0)})

    def over(self, number: int) -> None:
        pass


@pytest.fixture
def storages(storage_url: str) -> Iterator[tuple[Storage, Storage]]:
    """The storage as two processes have it."""
    with open_storage(storage_url) as one, open_storage(storage_url) as other:
        yield one, other


def join(storage: Storage, trials: int, clock: Clock | None = None, *, plan: Plan | None = None) -> Roster:
    plan = plan or Plan("s", "minimize", trials)
    study, plan = open_study(storage, plan, make_sampler("random", 0, None), make_pruner("none"))
    return Roster(storage, study, plan.trials, grace=10.0, clock=clock or Clock())


def states(roster: Roster) -> list[str]:
    return [trial.state.name for trial in roster.study.get_trials()]


def test_there_are_as_many_trials_as_asked_for(storages: tuple[Storage, Storage]) -> None:
    rosters = [join(storages[place % 2], 3) for place in range(4)]
    taken = [roster.take() for roster in rosters]
    assert [None if trial is None else trial.number for trial, _ in taken] == [0, 1, 2, None]
    assert [others for _, others in taken] == [0, 1, 2, 3]
    for roster in rosters:
        roster.leave()


def test_a_dead_workers_trial_is_taken_at_once_and_before_a_new_one(storages: tuple[Storage, Storage]) -> None:
    one, other = join(storages[0], 3), join(storages[1], 3)
    first, _ = one.take()
    assert first is not None
    x = first.suggest_float("x", 0.0, 1.0)
    one.leave()  # as the system does for a process that died
    again, others = other.take()
    assert again is not None
    assert (again.number, others, again.suggest_float("x", 0.0, 1.0)) == (0, 0, x)
    other.leave()


def test_a_worker_that_lives_keeps_its_trial_as_long_as_its_heart_beats(storages: tuple[Storage, Storage]) -> None:
    clock = Clock()
    one, other = join(storages[0], 1, clock), join(storages[1], 1, clock)
    mine, _ = one.take()
    assert mine is not None
    for beat in range(2, 6):
        assert other.take() == (None, 1)
        clock.now += 8.0
        one.beat(mine, beat)
    assert other.take() == (None, 1)
    clock.now += 10.5  # it beats no more: its machine is cut off
    taken, _ = other.take()
    assert taken is not None
    assert taken.number == 0
    assert not one.finish(mine, Outcome("complete", 5.0)), "it is another's now"
    assert states(other) == ["RUNNING"]
    assert other.finish(taken, Outcome("complete", 7.0))
    assert other.study.trials[0].value == 7.0
    one.leave()
    other.leave()


def test_an_interrupted_trial_is_free_for_others(storages: tuple[Storage, Storage]) -> None:
    one, other = join(storages[0], 1), join(storages[1], 1)
    mine, _ = one.take()
    assert mine is not None
    assert one.finish(mine, Outcome("interrupted"))
    taken, _ = other.take()
    assert taken is not None
    assert taken.number == 0
    one.leave()
    other.leave()


def test_a_trial_that_kills_its_workers_is_ended(storages: tuple[Storage, Storage]) -> None:
    watcher = join(storages[0], 2)
    for death in range(DEADLY):
        victim = join(storages[1], 2)
        trial, _ = victim.take()
        assert trial is not None
        assert trial.number == 0, f"death {death}"
        victim.leave()
        watcher.died(victim.token, "was killed by SIGKILL")
    assert states(watcher) == ["FAIL"]
    assert watcher.study.trials[0].user_attrs[REASON].startswith("its worker was killed by SIGKILL, 5 times")
    after, _ = watcher.take()
    assert after is not None
    assert after.number == 1
    watcher.leave()


def test_failures_are_kept_with_their_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        roster = join(storage, 3)
        objective = Constant()
        calls: list[int] = []

        class Moody(Constant):
            def __call__(self, trial: optuna.Trial, stop: object) -> Outcome:
                calls.append(trial.number)
                if trial.number == 0:
                    raise MemoryError("12 GB")
                if trial.number == 1:
                    return Outcome("complete", float("nan"))
                return objective(trial, stop)

        assert work(roster, Moody()) == "finished"
        trials = roster.study.get_trials()
        assert [trial.state.name for trial in trials] == ["FAIL", "FAIL", "COMPLETE"]
        assert [trial.user_attrs.get(REASON) for trial in trials] == [
            "out of memory: 12 GB",
            "its value must be finite, got nan.",
            None,
        ]
        assert calls == [0, 1, 2]


def test_a_study_in_which_everything_fails_ends(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        roster, objective = join(storage, 50), Constant(KeyError("price"))
        with pytest.raises(TrainingError) as caught:
            work(roster, objective)
        assert str(caught.value).startswith("study 's': some trials must succeed, got KeyError: 'price'.")
        assert objective.calls == 5
        assert states(roster) == ["FAIL"] * 5


def test_a_pruner_needs_reports_and_the_trial_that_showed_it_is_kept(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        roster, objective = join(storage, 50), Constant()
        objective.reports = True
        with pytest.raises(ConfigError, match="pruner: needs an objective that reports its epochs"):
            work(roster, objective)
        assert states(roster) == ["COMPLETE"]


def test_no_trial_is_begun_after_the_time_is_up(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        clock = Clock()

        class Slow(Constant):
            def __call__(self, trial: optuna.Trial, stop: object) -> Outcome:
                clock.now += 1.0
                return super().__call__(trial, stop)

        roster, objective = join(storage, 50), Slow()
        assert work(roster, objective, until=2.5, clock=clock) == "timeout"
        assert states(roster) == ["COMPLETE"] * 3


def test_another_question_under_the_same_name_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    about = {"space": {"lr": {"low": 0.1, "high": 1.0}}, "source": "sha256:1"}
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        roster = join(storage, 2, plan=Plan("s", "minimize", 2, about))
        work(roster, Constant())
        for plan, text in [
            (Plan("s", "maximize", 2, about), "study 's': is there already, to minimize, got maximize."),
            (Plan("s", "minimize", 2, about | {"source": "sha256:2"}), "another source: source was 'sha256:1', got"),
            (
                Plan("s", "minimize", 2, about | {"space": {"lr": {"low": 0.2, "high": 1.0}}}),
                "with another space: space.lr.low was 0.1, got 0.2. Choose another --study-name",
            ),
            (Plan("s", "minimize", 2, about | {"space": {}}), "space.lr was {'low': 0.1, 'high': 1.0}, got none."),
        ]:
            with pytest.raises(ConfigError) as caught:
                join(storage, 2, plan=plan)
            assert text in str(caught.value)
        assert states(join(storage, 2, plan=Plan("s", "minimize", 2, about))) == ["COMPLETE"] * 2


def test_a_study_that_others_made_is_refused(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        study = optuna.create_study(study_name="s", storage=storage.base)
        study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), 1)
        with pytest.raises(ConfigError, match="study 's': must be one that Stoker made, got another"):
            join(storage, 2)
        assert len(study.trials) == 1


def test_more_adds_to_what_was_planned(tmp_path: Path) -> None:
    with open_storage(f"sqlite:///{tmp_path}/study.db") as storage:
        settings = make_sampler("random", 0, None), make_pruner("none")
        totals = [
            open_study(storage, Plan("s", "minimize", 50), *settings, more=more)[1].trials for more in (3, 2, None, 1)
        ]
        assert totals == [3, 5, 50, 51]


@pytest.fixture
def lock_pair(storage_url: str) -> tuple[Locks, Locks]:
    """The locks of two processes."""
    if storage_url.startswith("sqlite"):
        folder = Path(storage_url.removeprefix("sqlite:///")).parent / "locks"
        return FileLocks(folder), FileLocks(folder)
    return PostgresLocks(storage_url, {}), PostgresLocks(storage_url, {})


def test_a_lock_is_held_by_one_and_seen_by_all(lock_pair: tuple[Locks, Locks]) -> None:
    one, other = lock_pair
    assert not other.is_held("a / b")
    assert one.hold("a / b")
    assert one.hold("a / b"), "it may be asked again"
    assert one.is_held("a / b")
    assert other.is_held("a / b")
    assert not other.hold("a / b")
    assert not other.is_held("another")
    one.let_go("a / b")
    assert not other.is_held("a / b")
    assert other.hold("a / b")
    other.let_go("a / b")


def test_who_lost_the_lock_with_its_connection_learns_of_it(postgres: str) -> None:
    import psycopg
    import sqlalchemy

    with PostgresLocks(postgres, {}).only_one("turn") as check:
        check()
        with psycopg.connect(postgres.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError):
            check()


def test_a_trial_that_is_ended_between_looking_and_taking_is_left_alone(
    storages: tuple[Storage, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = join(storages[0], 2), join(storages[1], 2)
    mine, _ = one.take()
    assert mine is not None
    one.leave()
    looked = Roster._is_abandoned

    def late(self: Roster, trial: optuna.trial.FrozenTrial) -> bool:
        found = looked(self, trial)
        if trial.number == 0:  # as its owner can whose lock was lost
            one.study.tell(0, 1.0)
        return found

    monkeypatch.setattr(Roster, "_is_abandoned", late)
    taken, _ = other.take()
    assert taken is not None
    assert taken.number == 1
    assert one.study.trials[0].value == 1.0
    other.leave()


def test_a_postgresql_connection_that_breaks_is_replaced_and_its_locks_are_gone(postgres: str) -> None:
    one, other = PostgresLocks(postgres, {}), PostgresLocks(postgres, {})
    assert one.hold("a")
    assert one._keeper is not None
    one._keeper.connection.dbapi_connection.close()  # type: ignore[union-attr]
    assert not other.is_held("a")
    assert one.hold("a")
    assert other.is_held("a")
    one.let_go("a")
