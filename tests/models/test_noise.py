import numpy as np
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


def test_start_labels_and_steps_of_a_sample_draw_from_streams_of_their_own(monkeypatch):
    """No two of them, and no other sample or seed, use the same key and counter."""
    philox, drawn = np.random.Philox, []

    def recorded(key, counter):
        drawn.append((*key, *counter))
        return philox(key=key, counter=counter)

    monkeypatch.setattr(np.random, "Philox", recorded)
    for seed in (0, 1, 2**31 + 1):
        normal(seed, range(4), (2,))
        labels(seed, range(4), 10)
        for step in range(5):
            step_noise(seed, range(4), (2,), step)
    assert len(drawn) == len(set(drawn)) == 3 * 4 * 7


def test_streams_do_not_overlap():
    """None runs into another one, however much is drawn."""
    size = (20_000,)
    streams = [normal(3, [5], size)[0], *(step_noise(3, [5], size, step)[0] for step in range(4)),
               normal(3, [6], size)[0], normal(4, [5], size)[0]]  # fmt: skip
    runs = [{tuple(run) for run in stream.unfold(0, 4, 1).tolist()} for stream in streams]
    assert len(set.union(*runs)) == sum(map(len, runs))
