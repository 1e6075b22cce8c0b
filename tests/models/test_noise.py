import torch

from fastsample.models.noise import labels, normal, step_noise


def test_a_sample_depends_on_seed_and_index_alone():
    whole = normal(3, range(10), (3, 4))
    torch.testing.assert_close(whole[7], normal(3, [7], (3, 4))[0], rtol=0, atol=0)
    assert not torch.equal(normal(4, [7], (3, 4))[0], whole[7])
    assert not torch.equal(step_noise(3, [7], (3, 4), 0)[0], whole[7])
    assert not torch.equal(step_noise(3, [7], (3, 4), 0), step_noise(3, [7], (3, 4), 1))


def test_it_is_standard_normal():
    draws = normal(0, range(200), (3, 16, 16))
    assert abs(float(draws.mean())) < 0.01
    assert abs(float(draws.std()) - 1) < 0.01


def test_labels_are_uniform_and_fixed():
    drawn = labels(0, range(2000), 10)
    assert drawn[:5].tolist() == labels(0, range(5), 10).tolist()
    assert torch.bincount(drawn, minlength=10).min() > 140
