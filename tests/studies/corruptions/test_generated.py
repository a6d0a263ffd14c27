"""What holds of every generated corruption, and how an image's size and a severity choose its strength."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from clipcifar.studies.corruptions.images import kinds
from clipcifar.studies.corruptions.images.generated import BORDER, CORRUPTIONS, LARGE, corrupt, described
from tests.support.import_closure import ROOT

FIXED = (  # nothing is drawn
    *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
    *("gaussian_blur", "saturate", "darkness", "desaturate"),
)
# As published, a severity is not always further from the image than the last: these are five settings.
SETTINGS = (
    *("glass_blur", "motion_blur", "snow", "fog"),
    *("elastic_transform", "pixelate", "spatter", "saturate"),
)


def scenes(n: int = 12, size: int = 32) -> np.ndarray:
    """Smooth colours with edges, as in photographs: (n, size, size, 3) uint8."""
    pictures = []
    for i in range(n):
        coarse = np.random.default_rng(i).integers(40, 216, (6, 6, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).copy()
        square = np.random.default_rng(i + 99).integers(0, 256, 3)
        picture[size // 4 : size // 2, size // 4 : 3 * size // 4] = square
        pictures.append(picture)
    return np.stack(pictures)


def distances(name: str, images: np.ndarray) -> list[float]:
    """Mean absolute difference in levels at each severity."""
    return [
        float(
            np.mean(
                [
                    np.abs(corrupt(image, name, severity, seed=0, sample_id=str(i)).astype(float) - image)
                    for i, image in enumerate(images)
                ]
            )
        )
        for severity in range(1, 6)
    ]


@pytest.mark.parametrize("size", [32, LARGE])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_changes_images_and_of_a_scale_each_more_than_the_last(name: str, size: int) -> None:
    moved = distances(name, scenes(12 if size == 32 else 2, size))
    assert min(moved) > 0.3
    if name not in SETTINGS:
        assert all(after > 1.02 * before for before, after in itertools.pairwise(moved))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (1, 3), (40, 7), (84, 130)])
def test_shape_and_type_stay_and_the_image_given_is_not_touched(name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    for severity in range(1, 6):
        result = corrupt(image, name, severity, seed=0, sample_id="a")
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_oblong_photograph_keeps_its_shape(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (LARGE, 300, 3), dtype=np.uint8)
    for severity in (1, 5):
        assert corrupt(image, name, severity, seed=0, sample_id="a").shape == image.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_are_images_too(name: str, level: int) -> None:
    """Nothing is divided by the nought of a black image or the range of a flat one."""
    image = np.full((32, 32, 3), level, np.uint8)
    with np.errstate(all="raise"):
        for severity in range(1, 6):
            corrupt(image, name, severity, seed=0, sample_id="a")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_result_depends_on_the_image_and_its_id_not_on_what_came_before(name: str) -> None:
    images = scenes(4)
    options = {"name": name, "severity": 3, "seed": 7}
    forward = [corrupt(images[i], **options, sample_id=f"{i}") for i in range(4)]  # type: ignore[arg-type]
    np.random.seed(5)
    backward = [corrupt(images[i], **options, sample_id=f"{i}") for i in (3, 2, 1, 0)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(forward, backward[::-1])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_and_id_matter_where_something_is_drawn_and_nowhere_else(name: str) -> None:
    image = scenes(1)[0]
    first = corrupt(image, name, 5, seed=0, sample_id="a")
    others = [corrupt(image, name, 5, seed=1, sample_id="a"), corrupt(image, name, 5, seed=0, sample_id="b")]
    assert [bool((other != first).any()) for other in others] == [name not in FIXED] * 2


def test_all_published_names_but_frost_come_in_the_published_order_and_two_of_our_own_after_them() -> None:
    assert (len(kinds.BENCHMARK), len(kinds.EXTRAS)) == (15, 4)
    assert list(CORRUPTIONS) == [name for name in kinds.PUBLISHED if name != "frost"] + list(kinds.OWN)
    kinds_of = {name: described(name)[0] for name in ("snow", "spatter", "darkness")}
    assert kinds_of == {"snow": "of the 15", "spatter": "as an extra", "darkness": "no: own"}


def test_a_photograph_gets_the_severities_of_imagenet_c_and_a_thumbnail_those_of_cifar_10_c() -> None:
    def factor(size: int) -> float:
        """What contrast at severity 1 multiplies distances from the mean by."""
        image = np.full((size, size, 3), 100, np.uint8)
        image[: size // 2] = 200
        result = corrupt(image, "contrast", 1, seed=0, sample_id="").astype(float)
        return round((result[0, 0, 0] - result[-1, 0, 0]) / 100, 2)

    assert [factor(size) for size in (8, 32, 64, BORDER - 1)] == [0.75] * 4
    assert [factor(size) for size in (BORDER + 1, 128, LARGE, 500)] == pytest.approx([0.4] * 4, abs=0.011)
    assert pytest.approx(LARGE / BORDER, rel=0.02) == BORDER / 32  # as far from the one as from the other


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((500, 250), (448, 224)), ((100, 150), (224, 336)), ((224, 900), (224, 900)), ((84, 900), (84, 900))],
)
def test_a_photograph_is_made_224_on_its_short_side_and_not_cropped(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = np.full((*shape, 3), 9, np.uint8)
    assert corrupt(image, "contrast", 1, seed=0, sample_id="").shape == (*expected, 3)


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    text = (ROOT / "studies/README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `") and " … " in line]
    assert rows == ["| `" + "` | ".join((name, " | ".join(described(name)))) + " |" for name in CORRUPTIONS]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (kinds.PUBLISHED, {"benchmark": 15, "with_extras": 19}),
        (tuple(CORRUPTIONS), {"benchmark": 14, "with_extras": 18, "own": 2}),
        (("fog", "snow"), {"benchmark": 2}),
        (("fog", "saturate"), {"benchmark": 1, "with_extras": 2}),
        (("saturate",), {"with_extras": 1}),
        (("darkness",), {"own": 1}),
    ],
)
def test_a_mean_is_over_what_its_name_says(names: tuple[str, ...], expected: dict[str, int]) -> None:
    means = kinds.means_over(names)
    assert {key: len(members) for key, members in means.items()} == expected
    assert not any(set(members) & set(kinds.OWN) for key, members in means.items() if key != "own")


def test_how_many_of_how_many_is_said() -> None:
    assert kinds.said("benchmark", 15) == "the benchmark's 15 corruptions"
    assert kinds.said("benchmark", 14) == "14 of the benchmark's 15 corruptions"
    assert kinds.said("with_extras", 19) == "the benchmark's 15 corruptions and its 4 extras"
    assert kinds.said("with_extras", 3) == "3 of the benchmark's 19 corruptions and extras"
    assert kinds.said("own", 2) == "2 corruptions of our own"
    assert kinds.said("own", 1) == "1 corruption of our own"
    assert [kinds.short("benchmark", 14), kinds.short("own", 2)] == ["mean of 14 of 15", "mean of 2 own"]
