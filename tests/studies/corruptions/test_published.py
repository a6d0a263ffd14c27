from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.core.files import file_sha256
from clipcifar.studies.corruptions.images import published as published_corruptions
from clipcifar.studies.corruptions.images.published import Published, official_rows, open_published
from tests.support.published import IMAGES, LABELS, NAMES, pixels, write_archive, write_folder


def opened(path: Path, names: tuple[str, ...] | None = None) -> Published:
    return open_published(path, names, num_images=IMAGES)


def refused(path: Path, names: tuple[str, ...] | None = None) -> ClipcifarError:
    with pytest.raises(ClipcifarError) as caught:
        opened(path, names)
    return caught.value


def test_a_folder_is_read_in_place(tmp_path: Path) -> None:
    found = opened(write_folder(tmp_path / "c"))
    assert sorted(found.images) == sorted(NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(found.images[name], pixels(name))
        assert isinstance(found.images[name], np.memmap)  # nothing is in memory until it is asked for
        assert found.digests[name] == file_sha256(tmp_path / "c" / f"{name}.npy")
    np.testing.assert_array_equal(found.labels, np.tile(LABELS, 5))


def test_an_archive_is_read_without_unpacking_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_archive(tmp_path / "c")
    monkeypatch.setattr(published_corruptions, "ARCHIVE_SHA256", file_sha256(archive))
    before = sorted(tmp_path.rglob("*"))
    found = opened(archive, ("gaussian_noise",))
    np.testing.assert_array_equal(found.images["gaussian_noise"], pixels("gaussian_noise"))
    np.testing.assert_array_equal(found.labels, np.tile(LABELS, 5))
    assert list(found.images) == ["gaussian_noise"]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_with_another_digest_is_refused(tmp_path: Path) -> None:
    error = refused(write_archive(tmp_path / "c"))
    assert error.exit_code == 3
    assert published_corruptions.ARCHIVE_SHA256 in error.what
    assert "tensorflow/datasets" in error.what


class Payload:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('a payload ran')",)


def _objects(path: Path) -> None:
    np.save(path, np.array([Payload()] * 60, dtype=object), allow_pickle=True)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def _huge(path: Path) -> None:
    """A header that claims 10^12 rows over a file without them."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'shape': (60,", b"'shape': (60000000000000,")[:128] + content[128:])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "floats": (lambda path: np.save(path, pixels("fog").astype(np.float32)), "of float32"),
    "signed": (lambda path: np.save(path, pixels("fog").astype(np.int8)), "of int8"),
    "one severity": (lambda path: np.save(path, pixels("fog")[:IMAGES]), r"found \(12, 32, 32, 3\)"),
    "channels first": (lambda path: np.save(path, np.moveaxis(pixels("fog"), 3, 1)), r"\(60, 3, 32, 32\)"),
    "Fortran order": (lambda path: np.save(path, np.asfortranarray(pixels("fog"))), "Fortran"),
    "pickled objects": (_objects, "of object"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps(Payload())), "not an array"),
    "truncated": (_cut, "expected .* bytes, found"),
    "longer": (_longer, "expected .* bytes, found"),
    "an absurd shape": (_huge, "60000000000000"),
    "empty": (lambda path: path.write_bytes(b""), "not an array"),
    "HTML": (lambda path: path.write_text("<html>" * 99), "not an array"),
    "no header": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\x00" + b"(" * 255), "not an array"),
    "another version": (lambda path: path.write_bytes(b"\x93NUMPY\x07\x00\xff\x00"), "version"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_the_array_is_refused_and_nothing_is_run(fault: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    damage, reason = FAULTS[fault]
    damage(folder / "fog.npy")
    with pytest.raises(DataError, match=reason) as caught:
        opened(folder)
    assert caught.value.exit_code == 3
    assert caught.value.where == str(folder / "fog.npy")
    opened(folder, ("gaussian_noise",))  # and nothing else was wrong


@pytest.mark.parametrize("labels", [np.tile(LABELS, 4), np.tile(LABELS, 5).astype(np.float64), LABELS])
def test_labels_of_a_wrong_number_or_type_are_refused(labels: np.ndarray, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    np.save(folder / "labels.npy", labels)
    error = refused(folder)
    assert (error.exit_code, error.where) == (3, str(folder / "labels.npy"))


@pytest.mark.parametrize("name", ["fog", "labels"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    (folder / f"{name}.npy").unlink()
    error = refused(folder, ("fog",))
    assert error.exit_code == 3
    assert f"{name}.npy" in error.what


def test_an_empty_folder_and_a_missing_path_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    assert refused(tmp_path / "c").exit_code == 3
    assert refused(tmp_path / "absent").exit_code == 4


def test_an_unknown_corruption_gets_a_suggestion(tmp_path: Path) -> None:
    error = refused(write_folder(tmp_path / "c"), ("fogg",))
    assert isinstance(error, ConfigError)
    assert "did you mean fog?" in error.fix


def test_a_file_that_changed_since_its_first_use_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    opened(folder)
    changed = pixels("fog")
    changed[0, 0, 0, 0] ^= 1
    np.save(folder / "fog.npy", changed)
    error = refused(folder)
    assert error.exit_code == 3
    assert "when it was first used" in error.what


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_folder_of_links_is_read_whole(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """As DVC makes them of a folder that it keeps; the folder may be a link itself."""
    folder, cache = write_folder(tmp_path / "c"), tmp_path / "cache"
    plain = opened(folder)
    cache.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        link(path, path.rename(cache / f"{number:030x}"))
    (tmp_path / "linked").symlink_to(folder, target_is_directory=True)
    for place in (folder, tmp_path / "linked"):
        linked = opened(place)
        assert linked.digests == plain.digests
        assert set(linked.images) == set(NAMES)
        assert all((linked.images[name] == pixels(name)).all() for name in NAMES)


@pytest.mark.parametrize("leads_to", ["nowhere", "folder", "fog.npy"])
def test_a_link_to_no_file_makes_no_smaller_study(leads_to: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    (folder / "fog.npy").unlink()
    (tmp_path / "folder").mkdir()
    (folder / "fog.npy").symlink_to(folder / leads_to if leads_to == "fog.npy" else tmp_path / leads_to)
    error = refused(folder)  # all that are there: gaussian_noise would be left
    assert (error.exit_code, error.where) == (3, str(folder / "fog.npy"))
    assert leads_to in error.what


def test_what_a_link_leads_to_is_checked_as_any_file(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    (tmp_path / "secret").write_text("of no array")
    (folder / "fog.npy").unlink()
    (folder / "fog.npy").symlink_to(tmp_path / "secret")
    error = refused(folder)
    assert (error.exit_code, error.where) == (3, str(folder / "fog.npy"))
    assert "not an array" in error.what


def test_rows_are_the_numbers_of_the_ids_and_labels_must_agree_at_every_severity(tmp_path: Path) -> None:
    found = opened(write_folder(tmp_path / "c"))
    ids = ["test/00007", "test/00000", "test/00011"]
    labels = LABELS[[7, 0, 11]]
    assert official_rows(ids, labels, found).tolist() == [7, 0, 11]
    with pytest.raises(DataError, match="not those of the test images"):
        official_rows(ids, (labels + 1) % 3, found)
    wrong = np.tile(LABELS, 5)
    wrong[4 * IMAGES + 7] += 1  # of one image at severity 5
    with pytest.raises(DataError, match="not those of the test images"):
        official_rows(ids, labels, Published(found.images, wrong, {}))
    with pytest.raises(DataError, match="not those of the test images"):
        official_rows(["test/00012"], np.array([0]), found)


def test_an_array_in_the_formats_second_version_is_the_same_array(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "c")
    with open(folder / "gaussian_noise.npy", "wb") as stream:
        np.lib.format.write_array(stream, pixels("gaussian_noise"), version=(2, 0))
    np.testing.assert_array_equal(opened(folder).images["gaussian_noise"], pixels("gaussian_noise"))
