"""Every published format from a small file of it, and the refusal of everything else."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from fastsample.datasets.archives import read_arrays
from fastsample.datasets.moments import ReferenceError
from fastsample.datasets.preprocessing import RECIPES
from fastsample.datasets.published_moments import published_references, read_stats, write_stats

RNG = np.random.default_rng(0)
FEATURES = (RNG.standard_normal((1500, 6)) @ RNG.standard_normal((6, 6)) + 3).astype(np.float32)
MU, SIGMA = FEATURES.astype(np.float64).mean(0), np.cov(FEATURES.astype(np.float64), rowvar=False)


def agrees(stats, rtol=1e-9):
    np.testing.assert_allclose(stats.mu, MU, rtol=rtol)
    np.testing.assert_allclose(stats.sigma, SIGMA, rtol=0, atol=rtol)
    assert stats.mu.dtype == stats.sigma.dtype == np.float64
    return True


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_mu_and_sigma(tmp_path, save):
    path = tmp_path / "edm.npz"
    save(path, mu=MU, sigma=SIGMA)
    stats = read_stats(path, "inception-v3-compat")
    assert agrees(stats)
    assert (stats.n, stats.others, stats.extractor) == (0, (), "inception-v3-compat")


def test_npz_of_guided_diffusion_keeps_the_rest(tmp_path):
    path = tmp_path / "VIRTUAL.npz"
    images = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images, mu=MU, sigma=SIGMA, mu_s=MU[:2], sigma_s=SIGMA[:2, :2])
    stats = read_stats(path, "inception-v3-compat")
    assert agrees(stats)
    assert set(stats.others) == {"arr_0", "mu_s", "sigma_s"}
    np.testing.assert_array_equal(stats.array("arr_0"), images)
    np.testing.assert_array_equal(stats.array("sigma_s"), SIGMA[:2, :2])
    with pytest.raises(ReferenceError, match="no array 'arr_1' besides"):
        stats.array("arr_1")


@pytest.mark.parametrize("key", ["pool_3", "feats"])
def test_npz_of_features(tmp_path, key):
    path = tmp_path / "features.npz"
    np.savez(path, **{key: FEATURES})
    stats = read_stats(path, "tfhub-inception")
    assert agrees(stats)
    assert stats.n == 1500


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_edm2_pickle(tmp_path, protocol, order):
    path = tmp_path / "img64.pkl"
    metrics = {
        "fid": {"mu": MU, "sigma": np.array(SIGMA, order=order)},
        "fd_dinov2": {"mu": MU[:3], "sigma": np.asarray(SIGMA[:3, :3], order=order)},
    }
    path.write_bytes(pickle.dumps(metrics, protocol))
    assert agrees(read_stats(path, "inception-v3-compat"))
    assert len(read_stats(path, "dinov2", "fd_dinov2").mu) == 3
    with pytest.raises(ReferenceError, match="no statistics for 'kid'; there are: fid, fd_dinov2"):
        read_stats(path, "dinov2", "kid")


def test_torch_fidelity_cache(tmp_path):
    path = tmp_path / "cifar10-train-inception-v3-compat-stat-fid-2048.pt"
    torch.save({"mu": MU.astype(np.float32), "sigma": SIGMA}, path)
    stats = read_stats(path, "inception-v3-compat")
    assert agrees(stats, 1e-6)
    features = tmp_path / "cifar10-train-inception-v3-compat-features-2048.pt"
    torch.save(torch.from_numpy(FEATURES), features)
    assert agrees(read_stats(features, "inception-v3-compat"))


def test_what_is_written_is_read(tmp_path):
    write_stats(tmp_path / "own.stats", MU, SIGMA)
    with np.load(tmp_path / "own.stats") as archive:
        assert sorted(archive) == ["mu", "sigma"]
    assert agrees(read_stats(tmp_path / "own.stats", "toy"), 1e-15)
    with pytest.raises(ReferenceError, match="not finite"):
        write_stats(tmp_path / "own.npz", MU * np.nan, SIGMA)


def test_statistics_of_another_extractor_are_refused(tmp_path):
    write_stats(tmp_path / "own.npz", MU, SIGMA)
    stats = read_stats(tmp_path / "own.npz", "pytorch-fid")
    assert stats.under("pytorch-fid")[0] is stats.mu
    with pytest.raises(ReferenceError, match=r"features of pytorch-fid; .*inception-v3-compat means nothing"):
        stats.under("inception-v3-compat")


def tilted():
    sigma = SIGMA.copy()
    sigma[0, 1] += 0.1
    return sigma


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MU, "sigma": tilted()}, "not symmetric"),
        ({"mu": MU[:4], "sigma": SIGMA}, r"want \[d\] and \[d, d\]"),
        ({"mu": MU, "sigma": SIGMA * np.nan}, "not finite"),
        ({"mu": MU, "sigma": -SIGMA}, "not a covariance"),
        ({"mu": MU, "sigma": np.array([{}], dtype=object)}, "allow_pickle"),
        ({"mu": MU, "sigma": SIGMA * 1j}, "real numbers"),
        ({"pool_3": FEATURES[0]}, r"nor features \[n, d\]"),
        ({"something": FEATURES}, "nor features .* there are: something"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ReferenceError, match=message):
        read_stats(path, "toy")


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(canary):
    """(name, pickle); each would touch the canary, or ask for far too much memory, under pickle.load."""
    import os
    import subprocess

    touch = f"touch {canary}"
    array = pickle.dumps({"fid": {"mu": MU, "sigma": SIGMA}}, 2)
    reconstruct = b"cnumpy._core.multiarray\n_reconstruct\n"
    yield "system", pickle.dumps(Calls(os.system, touch))
    yield "subprocess", pickle.dumps({"fid": {"mu": Calls(subprocess.call, touch, None)}})
    yield "eval", pickle.dumps({"fid": Calls(eval, f"open({str(canary)!r}, 'w')")})
    objects = np.array([Calls(os.system, touch)], dtype=object)
    yield "object array", pickle.dumps({"fid": {"mu": objects, "sigma": SIGMA}})
    yield "getattr", b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'" + touch.encode() + b"'\ntR."
    yield "dotted", b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__.\x93."
    yield "numpy load", b"cnumpy\nload\n(S'" + str(canary).encode() + b"'\ntR."
    yield "changed function", b"\x80\x02" + reconstruct + b"}S'call'\ncos\nsystem\nsb."
    yield "wrong size", array.replace(b"K\x06K\x06", b"K\x06K\x07")
    yield "huge array", array.replace(b"K\x06K\x06", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f")
    yield "huge memo", b"\x80\x04}r\xff\xff\xff\x7f."
    yield "huge bytes", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00abc."
    yield "huge frame", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x00}."
    yield "huge bytearray", b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x00abc."
    yield "persistent", b"Psomething\n."
    yield "nested", b"(" * 100_000 + b"t" * 100_000 + b"."
    yield "truncated", array[:-40]
    yield "list", pickle.dumps([1, 2])
    yield "empty", b""


@pytest.mark.parametrize("records", [(), ("version",), ("version", "data/0")], ids=["pkl", "pt", "pt of tensors"])
def test_hostile_pickles_are_refused_and_do_nothing(tmp_path, records):
    canary = tmp_path / "canary"
    for name, data in hostile(canary):
        path = tmp_path / "file"
        path.write_bytes(data)
        if records:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", data)
                for record in records:
                    archive.writestr(f"archive/{record}", "3\n")
        with pytest.raises(ReferenceError):
            print(name, read_stats(path, "toy"))
        assert not canary.exists(), name


def test_a_compressed_torch_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10_000_000))
    with pytest.raises(ReferenceError, match="does not compress"):
        read_stats(tmp_path / "bomb.pt", "toy")


def test_absent_and_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no statistics")
    np.save(tmp_path / "one.npy", MU)
    for name in ("absent.npz", "text", "one.npy"):
        with pytest.raises(ReferenceError, match=name):
            read_stats(tmp_path / name, "toy")


def test_the_list_of_published_files_is_whole():
    entries = published_references()
    assert len({(entry.url, entry.page, entry.file, entry.data) for entry in entries}) == len(entries) > 20
    for entry in entries:
        assert (entry.url or entry.page).startswith("https://")
        assert entry.preprocessing in {*RECIPES, "?"}
        assert entry.count >= 0
        assert entry.extractor in ("inception-v3-compat", "pytorch-fid", "clean-fid", "tfhub-inception")
        assert entry.format.split()[0] in ("npz", "pickle")


def deflated(path, **members):
    """A small zip whose members are large."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def npy(shape, data=b"", dtype="<f8"):
    """An .npy that claims a shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def test_arrays_are_looked_at_before_they_are_read(tmp_path):
    path = tmp_path / "bomb.npz"
    deflated(path, mu=npy((8,), bytes(64)), sigma=npy((4000, 4000), bytes(128_000_000)))
    for read in (lambda: read_stats(path, "toy"), lambda: read_arrays(path)):
        with pytest.raises(ValueError, match=r"bytes in a file of .* at most 50 times are read"):
            read()
    deflated(path, mu=npy((10**12,), bytes(64)))
    with pytest.raises(ValueError, match=r"claims the shape \(1000000000000,\)"):
        read_arrays(path)
    deflated(path, mu=npy((8,), bytes(64), "|O"))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(path)
    np.savez(path, pool_3=np.zeros((2, 5000), np.float16))
    with pytest.raises(ReferenceError, match="more than 3,072 features"):
        read_stats(path, "toy")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="no npz"):
        read_arrays(path)


def test_a_pickle_cannot_ask_for_more_than_it_has(tmp_path):
    """Each of these would take gigabytes, or hours."""
    text = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
    pairs = b"N" + b"2\x86" * 60
    for name, data, told in (
        ("nested pairs as a key", b"\x80\x02}" + pairs + b"K\x01s.", "neither text nor a number"),
        ("one text encoded again and again", b"\x80\x02c_codecs\nencode\nq\x00" + text
         + b"X\x06\x00\x00\x00latin1\x86q\x01" + b"h\x00h\x01R" * 20_000 + b".", "times the bytes of the file"),
        ("numbers of opcodes", b"\x80\x02" + b"]" * 500_001 + b".", "more than 500,000 opcodes"),
        ("long integer", b"\x80\x02}\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000 + b"K\x01s.", "integer of"),
    ):  # fmt: skip
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ReferenceError, match=told):
            print(name, read_stats(tmp_path / "file", "toy"))
