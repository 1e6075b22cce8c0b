"""Couplings: what each promises of the noise it pairs with data."""

from itertools import permutations

import torch
from torch.distributions import Normal, kl_divergence

from fastsample.datasets.points import Points
from fastsample.models.networks.mlp import MLP
from fastsample.models.networks.registry import build_network
from fastsample.models.training.couplings import Coupling, LearnedCoupling, MatchedCoupling, gaussian_kl
from fastsample.models.training.losses import Batch, Objective
from fastsample.models.training.state import coupling_of


def points(n=5, prior_std=(6.0, 1.0)):
    return Points("few", "train", torch.randn(n, 2, generator=torch.Generator().manual_seed(3)) * 4, prior_std)


def drawn(coupling, data, seed=0, flip=False):
    torch.manual_seed(seed)
    return coupling.draw(data, torch.arange(len(data)), flip)


def test_independent_noise_has_the_priors_spread(images):
    data = points(4000)
    x0, noise = drawn(Coupling(data.prior_std), data)
    assert torch.equal(x0, data.values)
    torch.testing.assert_close(noise.std(0), torch.tensor([6.0, 1.0]), rtol=0.05, atol=0)
    assert torch.corrcoef(torch.cat([x0, noise], 1).T)[:2, 2:].abs().max() < 0.05
    mirrored, _ = drawn(Coupling(), images, flip=True)
    straight = images.signal(torch.arange(28))
    which = [torch.equal(a, b) for a, b in zip(mirrored, straight, strict=True)]
    other = [torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, straight, strict=True)]
    assert [not same for same in which] == other
    assert 4 < sum(other) < 24


def test_minibatch_transport_is_the_cheapest_permutation():
    data = points()
    x0, noise = drawn(MatchedCoupling(data.prior_std), data)
    _, free = drawn(Coupling(data.prior_std), data)

    def cost(order):
        return (x0 - free[list(order)]).square().sum().item()

    best = min(permutations(range(5)), key=cost)
    assert torch.equal(noise, free[list(best)])
    assert best != tuple(range(5))


def test_minibatch_transport_minimises_squares_not_distances():
    data, differing = points(), 0
    for seed in range(20):
        x0, noise = drawn(MatchedCoupling(data.prior_std), data, seed)
        _, free = drawn(Coupling(data.prior_std), data, seed)
        distances = (x0[:, None] - free[None]).flatten(2).norm(dim=2)
        cheapest = [
            min(permutations(range(5)), key=lambda order, d=table: d[range(5), list(order)].sum().item())
            for table in (distances.square(), distances)
        ]
        assert torch.equal(noise, free[list(cheapest[0])])
        differing += cheapest[0] != cheapest[1]
    assert differing > 0


def test_the_penalty_is_the_kl_to_the_prior_per_dimension():
    torch.manual_seed(0)
    mu, logvar = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_kl(mu, logvar), expected)

    # With a prior of its own spread: the spec's formula in the units of the data.
    s, encoder = torch.tensor([6.0, 1.0]), MLP(out_channels=4, time=False)
    coupling = LearnedCoupling(encoder, beta=3.0, prior_std=(6.0, 1.0))
    x0 = torch.randn(7, 2)
    m, log_v = coupling.posterior(x0)
    eps = torch.randn(7, 2)
    z, penalty = coupling.joined(x0, s * eps)
    posterior = Normal(s * m, s * (0.5 * log_v).exp())
    torch.testing.assert_close(z, posterior.mean + posterior.stddev * eps)
    torch.testing.assert_close(penalty, 3.0 * kl_divergence(posterior, Normal(torch.zeros(2), s)).mean(1))


def test_the_gradient_reaches_the_encoder_through_the_input_and_the_target(toy):
    """Of the loss (f(x_t) - (x_0 - z))^2 with a linear f both parts are known."""

    class Half(torch.nn.Module):
        def forward(self, x, t):
            return 0.5 * x

    class Shift(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mu = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, x, t):
            return torch.cat([self.mu.expand_as(x), torch.zeros_like(x)], 1)

    coupling, recipe = LearnedCoupling(Shift(), beta=1e-9), toy(flip=False)
    torch.manual_seed(0)
    x0, noise, t = torch.randn(6, 2), torch.randn(6, 2), 0.25
    loss, _ = Objective(recipe, Half(), coupling, None)(Batch(x0, noise, (t,) * 6))
    loss.mean().backward()
    z = 0.7 + noise
    e = 0.5 * (t * x0 + (1 - t) * z) - (x0 - z)
    through_input, through_target = 2 * e * 0.5 * (1 - t), 2 * e
    torch.testing.assert_close(coupling.encoder.mu.grad, (through_input + through_target).mean())


def test_an_encoder_that_ends_in_zeros_begins_as_the_independent_coupling(toy, learned, images):
    recipe = toy(coupling=learned)
    coupling, data = coupling_of(recipe, images), images.signal(torch.arange(8))
    network, noise = build_network("ResidualMLP", recipe.network_args), torch.randn(8, 3, 8, 8)
    torch.nn.init.normal_(network.last.weight)
    batch = Batch(data, noise, tuple(i / 8 for i in range(8)))
    (loss, penalty), (plain, none) = (
        Objective(recipe, network, one, None)(batch) for one in (coupling, coupling_of(toy(), images))
    )
    assert torch.equal(loss, plain)
    assert penalty.abs().max() == none.abs().max() == 0
    song = {"network": "SongUNet", "network_args": {"img_resolution": 8, "in_channels": 3, "out_channels": 6,
            "model_channels": 8, "channel_mult": [1], "num_blocks": 1}}  # fmt: skip
    nearly, small = Objective(recipe, network, coupling_of(toy(coupling=learned | song), images), None)(batch)
    torch.testing.assert_close(nearly, plain, rtol=1e-3, atol=1e-4)
    assert 0 < small.max() < 1e-6
