"""A model is compared with the reference set of its own data, through the command line: the right number or none."""

import io

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from fastsample.bench.cells import plan_cells
from fastsample.bench.metrics.extractor_weights import INCEPTION, published
from fastsample.bench.metrics.extractors import extractor_named
from fastsample.bench.request import Request
from fastsample.bench.sampling import Sampler
from fastsample.datasets.home import sha256_of
from fastsample.datasets.levels import to_uint8
from fastsample.datasets.published_moments import PublishedReference
from fastsample.models.networks.registry import build_network
from fastsample.results.overview import differences
from fastsample.results.store import Store

from ..cards import CONFIG, write_card
from ..command import command

IMAGES = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def features_of(images, weights):
    with torch.inference_mode():
        return extractor_named(INCEPTION, ["2048"], "cpu", weights)(images)[0].double()


@pytest.fixture
def faces(inception_weights, server, listed, tmp_path, monkeypatch):
    """A model of faces, whose reference is on a server; the weights of Inception count as the published ones."""
    as_if = published()[INCEPTION]._replace(sha256=sha256_of(inception_weights))
    monkeypatch.setitem(published(), INCEPTION, as_if)
    entry = PublishedReference(
        "faces8", "faces", "?", INCEPTION, "npz mu sigma", 8, f"http://127.0.0.1:{server.server_address[1]}/faces8.npz"
    )
    listed[:] = [entry, *listed]
    stats = fid_features_to_statistics(features_of(IMAGES, inception_weights))
    stream = io.BytesIO()
    np.savez(stream, arr_0=IMAGES.permute(0, 2, 3, 1).numpy(), **stats)
    server.files["/faces8.npz"] = stream.getvalue()
    write_card(tmp_path, data="faces", reference="faces8")
    torch.manual_seed(0)
    torch.save(build_network("SongUNet", CONFIG).state_dict(), tmp_path / "weights.pt")
    words = ["--model", tmp_path / "card.toml", "--checkpoint", tmp_path / "weights.pt", "--solver", "euler"]
    words += ["--nfe", "2", "--samples", "6", "--inception-weights", inception_weights, "--out", tmp_path / "s"]
    return words, stats, server


def test_fid_is_that_of_torch_fidelity_on_the_same_images_and_statistics(faces, inception_weights, tmp_path):
    words, stats, server = faces
    ended = command("bench", *words, "--metrics", f"fid,kid[{INCEPTION}],psnr")
    assert ended.code == 0, ended.err
    (row,) = Store(tmp_path / "s").rows()
    asked = Request(
        model=str(tmp_path / "card.toml"), checkpoint=tmp_path / "weights.pt", solver="euler", nfe=2, samples=6
    )
    (cell,), _ = plan_cells(asked, ())
    sampler = Sampler(torch.device("cpu"))
    with torch.inference_mode():
        images = to_uint8(sampler.images(cell, sampler.sample(cell, list(range(6)))[0]))
    mine = fid_features_to_statistics(features_of(images, inception_weights))
    theirs = fid_statistics_to_metric(mine, stats, False)["frechet_inception_distance"]
    assert row.metrics["fid@6"] == pytest.approx(theirs, rel=1e-6)
    assert f"kid[{INCEPTION}]@6" in row.metrics  # against the images of the same file
    told = row.protocol[f"reference[{INCEPTION}]"]
    file = next((tmp_path / "home" / "references-published" / "faces8").glob("*.npz"))
    assert told == f"faces8 sha256 {sha256_of(file)[:16]}"
    assert [path for path, _ in server.ranges] == ["/faces8.npz"] * 2  # broken off once, and fetched once


def test_without_its_file_there_is_no_fid_and_one_line(faces, tmp_path):
    words, _, server = faces
    server.files["/faces8.npz"] = b"<html>moved</html>"
    ended = command("bench", *words, "--metrics", "fid,psnr")
    assert ended.code == 0, ended.err
    (row,) = Store(tmp_path / "s").rows()
    assert set(row.metrics) == {"psnr", "psnr_median", "psnr_pooled", "psnr_reference"}
    (line,) = [line for line in ended.out.splitlines() if line.startswith("without fid")]
    assert "the reference faces8 could not be fetched" in line
    assert "save it as" in line


def test_another_reference_is_another_cell_and_diff_names_it(faces, tmp_path):
    words, _, _ = faces
    folder = tmp_path / "faces.npz"
    np.savez(folder, arr_0=IMAGES[:6].permute(0, 2, 3, 1).numpy())
    for reference_words in ([], ["--reference", f"folder:{folder}"]):
        assert command("bench", *words, "--metrics", "fid", *reference_words).code == 0
    store = Store(tmp_path / "s")
    first, second = store.rows()
    assert first.metrics != second.metrics
    fields = set(differences(store.frame(), first.cell, second.cell)["field"])
    assert {"reference", f"protocol.reference[{INCEPTION}]"} <= fields
    assert command("table", tmp_path / "s", "--metric", "fid").code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "face8"], "unknown reference set 'face8'; did you mean faces8"),
        (["--reference", "no.npz"], "unknown"),
    ],
)
def test_a_reference_that_is_not_there_is_refused(words, message, faces):
    ended = command("bench", *faces[0], "--metrics", "fid", *words)
    assert ended.code == 2
    assert message in ended.err


def test_a_file_that_changed_is_not_taken_for_the_first(faces, tmp_path):
    words, _, server = faces
    assert command("bench", *words, "--metrics", "fid").code == 0
    file = next((tmp_path / "home" / "references-published" / "faces8").glob("*.npz"))
    file.write_bytes(server.files["/faces8.npz"] + b"x")
    ended = command("bench", *words, "--metrics", "fid,psnr", "--seed", "1")
    assert "is not the file of faces8 that was seen first" in ended.out


def test_statistics_of_ones_own_images_are_written_and_taken(faces, inception_weights, tmp_path):
    words, stats, _ = faces
    np.savez(tmp_path / "faces.npz", arr_0=IMAGES.permute(0, 2, 3, 1).numpy())
    made = tmp_path / "made.npz"
    weights = ("--inception-weights", inception_weights)
    assert command("reference", "make", f"folder:{tmp_path / 'faces.npz'}", "-o", made, *weights).code == 0
    with np.load(made) as arrays:
        np.testing.assert_allclose(arrays["mu"], stats["mu"], rtol=1e-6)
    assert "2048" in command("reference", "info", made).out
    assert command("bench", *words, "--metrics", "fid").code == 0
    assert command("bench", *words, "--metrics", "fid", "--reference", made).code == 0
    one, two = (row.metrics["fid@6"] for row in Store(tmp_path / "s").rows())
    assert one == pytest.approx(two, rel=1e-4)


def test_a_published_reference_is_told_and_fetched_ahead(faces, tmp_path):
    told = command("reference", "info", "faces8")
    assert told.code == 0
    assert "not here; it would be" in told.out
    assert command("reference", "fetch", "faces8").out.strip().endswith("references-published/faces8/faces8.npz")
    assert "arr_0" in command("reference", "info", "faces8").out
    assert "did you mean faces8" in command("reference", "fetch", "face8").err
