import pytest

from fastsample.bench.training import train_named


def test_bad_requests_are_named(tmp_path):
    with pytest.raises(ValueError, match="did you mean cifar10-tiny-"):
        train_named("cifar10-tiny", "cifar10-jpeg", None, tmp_path)
    with pytest.raises(ValueError, match="train split of cifar10-jpeg was not found"):
        train_named("cifar10-tiny-vp", "cifar10-jpeg", None, tmp_path)
