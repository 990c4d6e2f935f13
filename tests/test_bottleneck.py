from itertools import islice, pairwise

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from m2ib_lite.bottleneck import START, capacity, descend, inject, moments, terms


@pytest.mark.parametrize(("hidden", "alpha", "nats"), [(1.0, -40.0, 0.0), (0.0, 40.0, 39.5)])  # the last: -1/2 - log(1 - lam)
def test_capacity_at_its_ends(hidden, alpha, nats):
    assert capacity(torch.tensor([hidden]), torch.tensor([alpha]), 1.0).item() == pytest.approx(nats, rel=1e-6, abs=1e-12)


def test_capacity_agrees_with_torch_distributions():
    hidden, alpha = torch.randn(50, dtype=torch.float64), torch.linspace(-9, 9, 50, dtype=torch.float64)
    for sigma2 in (0.25, 1.0, 3.0):
        sigma, lam = sigma2**0.5, alpha.sigmoid()
        expected = kl_divergence(Normal(lam * hidden, sigma * (1 - lam)), Normal(torch.zeros(()).double(), sigma))
        torch.testing.assert_close(capacity(hidden, alpha, sigma2).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [17.0, 40.0, 100.0])
def test_capacity_and_loss_are_finite_for_every_alpha_and_type(dtype, size):
    hidden, noise = torch.randn(1, 4, 8).to(dtype), torch.randn(2, 1, 4, 8).to(dtype)
    alpha = torch.full((1, 4, 8), size)
    alpha[:, ::2] *= -1
    alpha.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16 if dtype == torch.float32 else dtype):
        nats = capacity(hidden, alpha, 1.0)
        both = terms(hidden, alpha, lambda z: z.float().mean((-1, -2)), torch.ones(1, 4, dtype=bool), noise, 0.1, 1.0)
    (slope,) = torch.autograd.grad(torch.sub(*both).sum(), alpha)
    assert nats.dtype == torch.float32
    assert torch.isfinite(nats).all()
    assert torch.isfinite(slope).all()
    assert nats.min() > -1e-6
    assert (nats[:, 1::2] > 16).all()  # what passes everything still counts, it is not hidden as infinity was


def test_inject_passes_everything_or_noise_alone():
    hidden, noise = torch.randn(2, 3, 4), torch.randn(5, 2, 3, 4)
    assert torch.equal(inject(hidden, torch.full_like(hidden, 200.0), noise, 4.0), hidden.expand(5, 2, 3, 4))
    assert torch.equal(inject(hidden, torch.full_like(hidden, -200.0), noise, 4.0), 2 * noise)
    torch.testing.assert_close(inject(hidden, torch.zeros_like(hidden), noise, 4.0), 0.5 * hidden + noise)


OPTIONS = dict(beta=0.1, sigma2=1.0, lr=1.0)


def first_channel(z):
    """A linear tower whose answer is known: only channel 0 of position 0 counts."""
    return z[..., 0, 0]


def run(hidden, valid=None, similarity=first_channel, steps=30, **options):
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(steps, 8, 1, *hidden.shape[1:], generator=draw)
    draws = iter(noise)  # the same noise for every pair, so that batches compare
    valid = torch.ones(hidden.shape[:2], dtype=torch.bool) if valid is None else valid
    return next(islice(descend(hidden, similarity, valid, draws.__next__, **{**OPTIONS, **options}), steps, None))


def test_only_what_the_match_needs_is_kept():
    hidden = torch.ones(1, 3, 2)
    kept = capacity(hidden, run(hidden), 1.0)
    assert kept[0, 0, 0] > 5 * kept.flatten()[1:].max()


def test_the_first_adam_step_is_as_long_as_the_learning_rate():
    alpha = run(torch.ones(1, 3, 2), steps=1, lr=0.25)
    torch.testing.assert_close(alpha.flatten()[1:], torch.full((5,), START - 0.25))


def test_a_pair_does_not_feel_the_pairs_beside_it():
    hidden = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(1))
    together = run(hidden)
    for b in range(3):
        assert torch.equal(run(hidden[b : b + 1]), together[b : b + 1])


def test_padding_neither_counts_nor_moves():
    short, padded = torch.ones(1, 3, 2), torch.ones(1, 5, 2)
    valid = torch.tensor([[True, True, True, False, False]])
    alpha = run(padded, valid=valid, steps=1)
    assert torch.equal(alpha[:, 3:], torch.full((1, 2, 2), START))
    none, nothing = torch.zeros(1, 1, 1, 1), lambda z: z.sum((-1, -2)) * 0
    short_terms, padded_terms = (terms(h, 0 * h, nothing, valid[:, : h.shape[1]], none, 1.0, 1.0) for h in (short, padded))
    torch.testing.assert_close(short_terms, padded_terms)


def test_the_walk_begins_at_the_start_and_moves_at_each_step():
    hidden = torch.ones(1, 3, 2)
    noise = torch.randn(3, 8, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    problem, options = (hidden, first_channel, torch.ones(1, 3, dtype=torch.bool)), dict(beta=0.1, sigma2=1.0, lr=1.0)
    alphas = list(islice(descend(*problem, iter(noise).__next__, **options), 4))
    assert torch.equal(alphas[0], torch.full_like(hidden, START))
    assert not any(torch.equal(one, other) for one, other in pairwise(alphas))


def test_the_moments_are_those_of_the_valid_positions_of_each_pair():
    hidden = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [100.0, -9.0]], [[0.0, 1.0], [0.0, 2.0], [6.0, 6.0]]])
    mean, spread = moments(hidden, torch.tensor([[True, True, False], [True, True, True]]))
    assert mean.tolist() == [[[2.0, 5.0]], [[2.0, 3.0]]]
    least = 1e-3  # 0 is no spread to divide by
    torch.testing.assert_close(spread.squeeze(1), torch.tensor([[1.0, least], [8**0.5, (14 / 3) ** 0.5]]))
