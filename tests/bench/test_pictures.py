import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fastsample.bench import replay
from fastsample.bench.metrics.trajectories import curvature, interpolate, states
from fastsample.bench.pictures import curvature_of, errors_of, matrix_of, picture
from fastsample.bench.replay import Replay
from fastsample.bench.request import Request
from fastsample.bench.sweep import run_sweep
from fastsample.models.catalogue import open_model
from fastsample.models.checkpoints import DenoiserMetadata, save_checkpoint
from fastsample.models.networks.song_unet import SongUNet
from fastsample.models.path import LinearFlow
from fastsample.results.commands import bench_command
from fastsample.results.evidence import Comparison
from fastsample.results.store import Store

from ..command import command


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folders of this module, its own caches among them."""
    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSAMPLE_HOME", str(folder / "home"))
        yield folder


def sweep(out, **changes):
    facts = dict(
        model=("gmm2d", "gmm2d-flow"), solver=("heun", "dpmpp-2m", "ddim:denoise=true"), nfe=(6, 12), samples=16,
        metrics=("psnr",), precision="float64", out=out,
    )  # fmt: skip
    assert run_sweep(Request(**facts | changes), Console(quiet=True)) == []
    return Store(out, create=False)


@pytest.fixture(scope="module")
def points(home):
    """Solvers on the mixtures in the plane."""
    return sweep(home / "points")


@pytest.fixture(scope="module")
def checkpoint(home):
    """A small network of small images, with random weights."""
    arguments = dict(
        img_resolution=8, in_channels=3, out_channels=3, model_channels=8, channel_mult=[1], num_blocks=1,
        attn_resolutions=[],
    )  # fmt: skip
    torch.manual_seed(0)
    network = SongUNet(**arguments)
    weights = network.state_dict()
    weights |= {
        name: 1e5 * value for name, value in weights.items() if name.endswith("aux_conv.weight")
    }  # undo its gain
    metadata = DenoiserMetadata(
        id="small", title="small", network="SongUNet", network_args=arguments, image_shape=(3, 8, 8), data="none",
        data_sha256="", images_seen=0, ema_halflife_images=0, optimizer={}, loss="none", precision="float32",
        storage="float32", path="flow", prediction="velocity", time_scale=1000.0, times="uniform",
    )  # fmt: skip
    save_checkpoint(home / "small.safetensors", weights, metadata)
    return str(home / "small.safetensors")


@pytest.fixture(scope="module")
def images(home, checkpoint):
    """Solvers on a network of images."""
    return sweep(home / "images", model=checkpoint, solver=("ddim", "heun", "dopri5"), nfe=(1, 4), precision="float32")


def test_interpolation_is_exact_for_polynomials_of_degree_five():
    times = np.linspace(0, 1, 21)
    z = torch.from_numpy(np.stack([times**5 - times**2, np.sin(3 * times)], 1))
    for tau in (0.0, 0.013, 0.5, 0.512, 0.999, 1.0):
        found = interpolate(times, z, tau)
        assert found[0] == pytest.approx(tau**5 - tau**2, abs=1e-12)
        assert found[1] == pytest.approx(math.sin(3 * tau), abs=1e-7)


def test_points_are_carried_to_the_linear_path_as_the_denoiser_carries_them():
    denoiser = open_model("gmm2d").make(None, None, 0.0, None)
    x, t = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 0.3
    (tau,), (z,) = states(denoiser.path, [(t, x)])
    torch.testing.assert_close(denoiser.on(LinearFlow()).x0(z, tau), denoiser.x0(x, t))
    assert LinearFlow().lam(tau) == pytest.approx(denoiser.path.lam(t))


def test_of_several_points_at_a_time_the_last_counts():
    first, second, end = torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 2.0)
    times, z = states(LinearFlow(), [(0.5, first), (1.0, end), (0.5, second)])
    assert times.tolist() == [0.5, 1.0]
    assert z[:, 0, 0].tolist() == [1.0, 2.0]


def test_curvature_is_that_of_the_official_code_and_of_the_integral():
    # For data N(0, s^2) the trajectory from eps is z = sqrt((1 - tau)^2 + s^2 tau^2) eps.
    s, times = 0.5, np.linspace(0, 1, 101)
    eps = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.from_numpy(np.sqrt((1 - times) ** 2 + (s * times) ** 2)).reshape(-1, 1, 1) * eps
    found = np.average(curvature(times, z), axis=0, weights=np.diff(times))
    fine = (np.arange(100000) + 0.5) / 100000
    slope = ((s**2 + 1) * fine - 1) / np.sqrt((1 - fine) ** 2 + (s * fine) ** 2)
    exact = np.mean(((s - 1) - slope) ** 2) * eps.square().mean(1).numpy()
    np.testing.assert_allclose(found, exact, rtol=2e-3)
    trajectory, n = list(z), 100  # fast-ode counts its times from noise, like the list, and its slopes the other way
    base = trajectory[0] - trajectory[n]
    official = [((trajectory[i - 1] - trajectory[i]) * n - base).pow(2).mean() for i in range(1, n + 1)]
    assert found.mean() == pytest.approx(float(sum(official) / n))


def test_straight_trajectories_have_no_curvature():
    times = np.array([0.01, 0.4, 0.5, 0.99])
    z = torch.from_numpy(times).reshape(-1, 1, 1) * torch.randn(2, 3, dtype=torch.float64)
    assert np.abs(curvature(times, z)).max() < 1e-20


def test_the_last_error_is_the_one_that_psnr_measures(points):
    found = Comparison(points).evidence(points.frame())
    errors = errors_of(found, Replay(points, "cpu"), 16)
    for _, one in found.iterrows():
        line = errors[(errors[["model", "title", "nfe"]] == one[["model", "title", "nfe"]]).all(axis=1)]
        assert (np.diff(line["time"]) > 0).all()
        assert line["error"].iloc[0] < 1e-3  # the same noise
        if "denoise" not in one["solver"]:  # its result is a data prediction, no point of the trajectory
            path = open_model(one["model"]).path
            total = path.alpha(path.t_data) + path.sigma(path.t_data)
            mse = 16 / 10 ** (points.per_sample(one["cells"][0])["psnr"] / 10)
            assert line["error"].iloc[-1] * total == pytest.approx(math.sqrt(mse.mean()), rel=1e-4)
        # A point for each evaluation and the end; but Heun evaluates the ends of its steps twice.
        evaluations = {"Heun (RK2)": one["nfe"] // 2, "DDIM (denoise=true)": one["nfe"] - 1}
        assert len(line) == evaluations.get(one["title"], one["nfe"]) + 1


def test_finer_runs_are_nearer_to_the_reference_along_the_way(points):
    errors = errors_of(Comparison(points).evidence(points.frame()), Replay(points, "cpu"), 16)
    worst = errors.groupby(["model", "title", "nfe"])["error"].max().unstack("nfe")
    assert (worst[12] < worst[6]).all()


def test_curvature_of_a_model_is_where_its_trajectories_are_not_straight(points):
    found = curvature_of(Comparison(points).evidence(points.frame()), Replay(points, "cpu"), 16)
    for _, line in found.groupby("model"):
        assert ((line["low"] <= line["value"]) & (line["value"] <= line["high"])).all()
        total = line.iloc[0]
        assert total["low_total"] < total["total"] < total["high_total"]
        assert line["value"].mean() == pytest.approx(total["total"], rel=0.05)
    # The same data on two noise paths: their probability flows are the same curves, but for the ends of the interval.
    first, second = found.groupby("model")["total"].first()
    assert first == pytest.approx(second, rel=0.02)


def test_a_matrix_shows_the_very_samples_of_the_rows(images, checkpoint):
    found = Comparison(images).evidence(images.frame())
    figure = matrix_of(found, Replay(images, "cpu", [checkpoint]), 3)
    axes = np.array(figure.axes).reshape(3, 3)
    assert [axis.get_title() for axis in axes[0]] == ["NFE 1", "NFE 4", "reference"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["DDIM", "Heun (RK2)", "Dormand-Prince 5(4)"]
    assert not axes[1, 0].images  # Heun's step takes two evaluations
    for i, solver in enumerate(["ddim", "heun", "dopri5"]):
        (cell,) = (row.cell for row in images.rows() if (row.solver, row.nfe_asked) == (solver, 4))
        shown = float(axes[i, 1].get_xlabel().removesuffix(" dB, these 3"))
        assert shown == pytest.approx(images.per_sample(cell)["psnr"][:3].mean(), abs=0.2)  # rounding, at 113 dB
        np.testing.assert_array_equal(axes[i, 2].images[0].get_array(), axes[0, 2].images[0].get_array())
    assert (axes[0, 0].images[0].get_array() != axes[0, 2].images[0].get_array()).mean() > 0.1
    other = matrix_of(found, Replay(images, "cpu", [checkpoint]), 1)
    np.testing.assert_array_equal(
        np.array(other.axes).reshape(3, 3)[0, 1].images[0].get_array(), axes[0, 1].images[0].get_array()[:8, :8]
    )


def test_only_one_model_and_only_images_fit_into_a_matrix(points):
    found = Comparison(points).evidence(points.frame())
    with pytest.raises(ValueError, match="choose one with --model: gmm2d, gmm2d-flow"):
        matrix_of(found, Replay(points, "cpu"), 1)
    with pytest.raises(ValueError, match="samples of gmm2d are no images"):
        picture(points, "samples", models=["gmm2d"], device="cpu")


def changed(store, folder, **changes):
    """The store with one row, changed."""
    row = store.rows()[0].model_dump(mode="json") | changes
    (folder / "rows").mkdir()
    (folder / "rows" / f"{row['cell']}.json").write_text(json.dumps(row))
    return Store(folder, create=False), row["cell"]


def test_what_is_another_by_now_is_not_sampled_again(points, images, checkpoint, tmp_path):
    store, cell = changed(points, tmp_path, times=[1.0, 0.5, 0.001])
    with pytest.raises(ValueError, match=r"Heun \(RK2\) at NFE 6 is another one by now"):
        Replay(store, "cpu").cell(cell)
    (tmp_path / "a").mkdir()
    store, cell = changed(images, tmp_path / "a", checkpoint_sha256="0" * 64)
    with pytest.raises(ValueError, match="the small that is here is not the checkpoint of row"):
        Replay(store, "cpu", [checkpoint]).cell(cell)
    with pytest.raises(ValueError, match="small is no model of the package; --checkpoint FILE"):
        Replay(images, "cpu").cell(images.rows()[0].cell)


def test_nothing_is_downloaded_for_a_picture(points, tmp_path):
    store, cell = changed(points, tmp_path, model="edm-cifar10-uncond-vp", checkpoint_sha256="0" * 64)
    with pytest.raises(ValueError, match="edm-cifar10-uncond-vp is not here; `fastsample models fetch"):
        Replay(store, "cpu").cell(cell)


def test_a_guiding_classifier_is_not_downloaded_either(points, tmp_path, monkeypatch):
    guide = {"classifier guidance": f"adm-imagenet64-classifier ({'0' * 64}), scale 1.5"}
    monkeypatch.setattr(replay, "existing", lambda card, home: card.id == "adm-imagenet64")  # the other is here
    store, cell = changed(
        points, tmp_path, model="adm-imagenet64", protocol=points.rows()[0].protocol | guide, classifier_scale=1.5
    )
    assert store.row(cell).classifier_scale == 1.5
    assert "--classifier-scale 1.5" in bench_command(store.row(cell))
    with pytest.raises(ValueError, match="adm-imagenet64-classifier is not here; `fastsample models fetch"):
        Replay(store, "cpu").cell(cell)


def test_pictures_are_chosen_by_kind_and_budget(points):
    figure = picture(points, "error", solvers=["heun"], device="cpu", images=8)
    assert [axis.get_title() for axis in figure.axes] == ["gmm2d, NFE 12", "gmm2d-flow, NFE 12"]
    figure = picture(points, nfe=[6], against="seconds", models=["gmm2d-flow"])
    assert [line.get_label() for line in figure.axes[0].containers] == [
        "Heun (RK2)",
        "DPM-Solver++(2M)",
        "DDIM (denoise=true)",
    ]
    with pytest.raises(ValueError, match="no row has NFE 7; there are 6, 12"):
        picture(points, nfe=[7])
    with pytest.raises(ValueError, match="not 'poem'"):
        picture(points, "poem")


def test_a_picture_of_samples_is_of_a_size_that_can_be_seen(home):
    words = ("sample", "--model", "gmm-image", "--solver", "ddim", "--nfe", 2, "--samples", 4, "-o")
    assert command(*words, home / "seen.png").code == 0
    assert command(*words, home / "raw.png", "--scale", 1).code == 0
    with Image.open(home / "seen.png") as seen, Image.open(home / "raw.png") as raw:
        factor = seen.width // raw.width
        assert seen.width >= 400 > raw.width
        assert seen.size == (factor * raw.width, factor * raw.height)
        assert np.array_equal(np.asarray(seen)[::factor, ::factor], np.asarray(raw))  # whole squares, nothing between
