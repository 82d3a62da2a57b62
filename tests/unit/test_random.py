"""Generator in, forked global streams out."""

import pytest
import torch

from balancekit._random import draw_seed, forked_streams, sample_seed, seeded_streams


def test_neighbouring_base_seeds_share_no_samples() -> None:
    seeds = {sample_seed(base, t) for base in range(-50, 50) for t in range(200)}
    assert len(seeds) == 100 * 200
    assert len({seed % 2**32 for seed in seeds}) == 100 * 200  # the CPU generator reads no more
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_cpu_generator_reads_32_bits() -> None:
    a, b = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    assert torch.equal(torch.rand(4, generator=a), torch.rand(4, generator=b))


def test_forked_streams_come_back_also_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(OverflowError), forked_streams([]) as reseed:
        reseed(3)
        first = torch.rand(5)
        reseed(3)
        assert torch.equal(torch.rand(5), first)
        assert torch.equal(torch.rand(5, generator=torch.Generator().manual_seed(3)), first)
        raise OverflowError
    assert torch.equal(torch.get_rng_state(), before)


def test_one_number_is_drawn_and_each_sample_has_its_stream() -> None:
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    draws = []
    with seeded_streams(draw_seed(generator), [torch.device("cpu")]) as start:
        for t in (0, 1, 0):
            start(t)
            draws.append(torch.rand(6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    reference = torch.Generator().manual_seed(0)
    torch.randint(2**63 - 1, (), generator=reference)
    assert torch.equal(generator.get_state(), reference.get_state())


def test_without_a_generator_the_global_stream_goes_on() -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        expected = torch.rand(3), torch.rand(3)
        torch.manual_seed(1)
        with seeded_streams(draw_seed(None), []) as start:
            start(0)
            first = torch.rand(3)
            start(1)
        assert torch.equal(first, expected[0])
        assert torch.equal(torch.rand(3), expected[1])


def test_ranks_with_equal_generators_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> torch.Tensor:
        with seeded_streams(draw_seed(torch.Generator().manual_seed(0)), []) as start:
            start(0)
            return torch.rand(6)

    alone = draw()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    ranks = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        ranks.append(draw())
    assert torch.equal(ranks[0], alone)
    assert not torch.equal(ranks[0], ranks[1])
    assert not torch.equal(ranks[1], ranks[2])
