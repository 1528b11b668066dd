"""The expected values are fixed: a change of them would change every split, shuffle and dropout of every user."""

from __future__ import annotations

import hashlib

import pytest
import torch

from stoker.data.resident import epoch_order
from stoker.randomness import derive_seed, generator, preserved_randomness, seed_globally

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, "shuffle", 0), 5847954829365935480),
        ((0, "shuffle", 1), 1665007015467655112),
        ((42, "split"), 1788306062371793217),
        ((-1, "noise", 10**6), 4904820502370011469),
        ((2**63, "é", "x"), 4252917745473214083),
    ],
)
def test_seeds_are_these(arguments: tuple[int, str | int], expected: int) -> None:
    assert derive_seed(*arguments) == expected


def test_a_seed_is_the_beginning_of_a_blake2b_hash() -> None:
    digest = hashlib.blake2b(b"7\x1fshuffle\x1f3", digest_size=8).hexdigest()
    assert derive_seed(7, "shuffle", 3, bits=64) == int(digest, 16)
    assert derive_seed(7, "shuffle", 3) == int(digest, 16) >> 1
    assert derive_seed(7, "shuffle", 3, bits=32) == int(digest[:8], 16)


def test_purposes_are_independent() -> None:
    seeds = {derive_seed(seed, purpose, epoch) for seed in range(20) for purpose in ("a", "b") for epoch in range(20)}
    assert len(seeds) == 20 * 2 * 20
    assert derive_seed(1, "a", "b") != derive_seed(1, "ab")
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_seeds_fit_where_they_go() -> None:
    assert all(0 <= derive_seed(seed, "x", bits=32) < 2**32 for seed in range(1000))
    assert all(0 <= derive_seed(seed, "x") < 2**63 for seed in range(1000))
    assert any(derive_seed(seed, "x") >= 2**62 for seed in range(1000))


def test_orders_are_these() -> None:
    assert epoch_order(10, 0, 0).tolist() == [8, 0, 6, 1, 3, 9, 2, 7, 5, 4]
    assert epoch_order(10, 0, 1).tolist() == [9, 2, 3, 5, 6, 1, 0, 4, 7, 8]
    assert torch.rand(2, generator=generator(42, "split")).tolist() == [0.8786364793777466, 0.18389838933944702]


def test_a_generator_does_not_touch_the_global_one() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "x"))
    assert torch.equal(torch.get_rng_state(), before)


class TestGlobal:
    def test_seeding_is_torchs_own(self) -> None:
        with preserved_randomness(CPU):
            seed_globally(5, CPU)
            mine = torch.rand(4)
            torch.manual_seed(5)
            assert torch.equal(torch.rand(4), mine)

    def test_is_preserved_also_when_something_fails(self) -> None:
        before = torch.get_rng_state()

        def work() -> None:
            with preserved_randomness(CPU):
                torch.rand(3)
                seed_globally(9, CPU)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        assert torch.equal(torch.get_rng_state(), before)

    def test_other_devices_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # torch.manual_seed would seed all devices there are, and those that are not started yet when they are.
        monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("seeded"))
        monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("seeded"))
        with preserved_randomness(CPU):
            seed_globally(3, CPU)
