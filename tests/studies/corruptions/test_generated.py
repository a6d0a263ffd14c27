from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from clipcifar.studies.corruptions.images import generated as corruptions
from clipcifar.studies.corruptions.images.generated import CORRUPTIONS, LARGEST, corrupt

RANDOM = ("gaussian_noise", "impulse_noise", "motion_blur", "elastic_transform")
# What does nothing, where there is such a strength; JPEG always costs something.
NEUTRAL = {
    "gaussian_noise": 0.0,
    "impulse_noise": 0.0,
    "gaussian_blur": 0.0,
    "defocus_blur": 0.5,  # half a pixel around its centre is the pixel itself
    "motion_blur": 0.0,
    "pixelate": 1.0,
    "brightness": 1.0,
    "darkness": 1.0,
    "contrast": 1.0,
    "desaturate": 1.0,
    "elastic_transform": 0.0,
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scenes(n: int = 12, size: int = 32) -> np.ndarray:
    """Smooth colours with edges, as in photographs: (n, size, size, 3) uint8."""
    found = []
    for i in range(n):
        coarse = rng(i).integers(40, 216, (6, 6, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).copy()
        picture[size // 4 : size // 2, size // 4 : 3 * size // 4] = rng(i + 99).integers(0, 256, 3)
        found.append(picture)
    return np.stack(found)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_moves_images_further_away_on_average(name: str) -> None:
    images = scenes()
    distances = [
        np.mean(
            [
                np.abs(corrupt(image, name, severity, seed=0, sample_id=str(i)).astype(float) - image).mean()
                for i, image in enumerate(images)
            ]
        )
        for severity in range(1, 6)
    ]
    assert distances[0] > 0.3
    assert all(after > 1.05 * before for before, after in itertools.pairwise(distances))


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_strength_changes_nothing(name: str) -> None:
    image = scenes(1)[0]
    np.testing.assert_array_equal(CORRUPTIONS[name].apply(image, NEUTRAL[name], 1.0, rng()), image)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (1, 3), (40, 7), (150, 260)])
def test_shape_and_type_stay_and_the_image_given_is_not_touched(name: str, shape: tuple[int, int]) -> None:
    image = rng().integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    for severity in (1, 5):
        found = corrupt(image, name, severity, seed=0, sample_id="a")
        assert (found.shape, found.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, before)


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
    assert [bool((other != first).any()) for other in others] == [name in RANDOM] * 2


def test_gaussian_noise_has_the_deviation_that_it_says() -> None:
    gray = np.full((200, 200, 3), 128, np.uint8)
    noise = corruptions.gaussian_noise(gray, 0.08, 1.0, rng()).astype(float) - 128
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(noise.mean()) < 0.3
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_noise_is_the_same_over_squares_of_one_unit() -> None:
    gray = np.full((9, 8, 3), 128, np.uint8)
    noisy = corruptions.gaussian_noise(gray, 0.2, 3.0, rng())
    for row in range(0, 9, 3):
        for column in range(0, 8, 3):
            square = noisy[row : row + 3, column : column + 3]
            assert (square == square[0, 0]).all()
    assert len(np.unique(noisy[::3, ::3].reshape(-1, 3), axis=0)) == 9


def test_impulse_noise_turns_its_share_black_and_white_and_leaves_the_rest() -> None:
    gray = np.full((300, 300, 3), 100, np.uint8)
    noisy = corruptions.impulse_noise(gray, 0.1, 1.0, rng())
    assert (noisy == noisy[..., :1]).all()
    shares = [(noisy[..., 0] == level).mean() for level in (0, 100, 255)]
    assert shares == pytest.approx([0.05, 0.9, 0.05], abs=0.005)
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur"])
def test_a_blur_keeps_a_flat_image_and_the_sum_of_a_dot(name: str) -> None:
    apply = CORRUPTIONS[name].apply
    flat = np.full((20, 20, 3), 77, np.uint8)
    np.testing.assert_array_equal(apply(flat, 2.0, 1.0, rng()), flat)
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[14:17, 14:17] = 255
    spread = apply(dot, 3.0, 1.0, rng()).astype(float)
    assert spread.sum() == pytest.approx(dot.sum(), rel=0.05)
    assert spread.max() < 255
    assert (spread[..., 0] > 0).sum() > 9


def test_a_disk_is_flat_inside_and_empty_outside() -> None:
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    spread = corruptions.defocus_blur(dot, 4.0, 1.0, rng())[..., 0]
    rows, columns = np.mgrid[:31, :31] - 15
    distance = np.hypot(rows, columns)
    assert len(np.unique(spread[distance <= 3.5])) == 1
    assert spread[distance <= 3.5].min() == round(255 / (np.pi * 4**2)) == 5
    assert not spread[distance >= 4.5].any()


def test_motion_spreads_a_dot_along_a_line_through_it() -> None:
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    angles = []
    for seed in range(5):
        rows, columns = np.nonzero(corruptions.motion_blur(dot, 9.0, 1.0, rng(seed))[..., 0] > 8)
        points = np.stack([rows - 15, columns - 15]).astype(float)
        assert np.abs(points.mean(axis=1)).max() < 1e-9  # symmetric
        across, along = np.linalg.svd(points, compute_uv=True)[1][[1, 0]] / np.sqrt(points.shape[1])
        assert along > 2
        assert across < 1
        angles.append(np.linalg.svd(points)[0][:, 0])
    assert len({tuple(np.round(np.abs(angle), 2)) for angle in angles}) == 5


def test_pixelate_makes_squares_of_the_mean() -> None:
    image = rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = corruptions.pixelate(image, 4.0, 1.0, rng())
    for row in (0, 4):
        for column in (0, 4):
            square = found[row : row + 4, column : column + 4]
            assert (square == square[0, 0]).all()
            mean = image[row : row + 4, column : column + 4].mean(axis=(0, 1))
            assert np.abs(square[0, 0] - mean).max() <= 1


def test_jpeg_is_what_pillow_writes() -> None:
    image = scenes(1)[0]
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=15)
    expected = np.asarray(Image.open(stream))
    np.testing.assert_array_equal(corrupt(image, "jpeg_compression", 4, seed=0, sample_id=""), expected)


@pytest.mark.parametrize(("factor", "expected"), [(0.5, [10, 50, 100]), (2.0, [40, 200, 255])])
def test_brightness_is_a_factor_on_levels_and_clips(factor: float, expected: list[int]) -> None:
    image = np.array([[[20, 100, 200]]], np.uint8)
    assert corruptions.brightness(image, factor, 1.0, rng()).tolist() == [[expected]]


def test_contrast_is_a_factor_on_the_distance_from_the_mean_gray() -> None:
    image = np.array([[[50] * 3, [150] * 3]], np.uint8)
    assert corruptions.contrast(image, 0.5, 1.0, rng())[0, :, 0].tolist() == [75, 125]


def test_the_last_desaturation_is_black_and_white() -> None:
    found = corrupt(scenes(1)[0], "desaturate", 5, seed=0, sample_id="")
    assert (found == found[..., :1]).all()
    assert found.std() > 5


def test_elastic_fetches_levels_from_nearby_and_invents_none() -> None:
    columns = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 64, 3))
    moved = corruptions.elastic_transform(columns.copy(), 2.0, 1.0, rng())
    shift = (moved.astype(float) - columns)[8:-8, 8:-8, 0] / 4  # pixels to the side
    # 2 is the length in both directions together
    assert np.sqrt((shift**2).mean()) == pytest.approx(2 / np.sqrt(2), rel=0.35)
    assert np.abs(np.diff(shift, axis=0)).mean() < 0.35  # neighbours move alike
    assert moved.max() <= columns.max()


def test_lengths_grow_with_a_large_image_and_not_with_a_small_one() -> None:
    def width(size: int) -> int:
        image = np.zeros((size, size, 3), np.uint8)
        image[size // 2, size // 2] = 255
        return int((corrupt(image, "defocus_blur", 5, seed=0, sample_id="")[size // 2, :, 0] > 0).sum())

    assert width(32) == width(128) == 5
    assert width(384) == pytest.approx(3 * width(128), abs=3)


def test_a_photograph_larger_than_the_limit_is_reduced_to_it_and_a_smaller_one_is_not() -> None:
    large = np.full((LARGEST * 2, LARGEST * 3, 3), 9, np.uint8)
    assert corrupt(large, "contrast", 1, seed=0, sample_id="").shape == (LARGEST, LARGEST * 3 // 2, 3)
    edge = np.full((LARGEST, LARGEST + 1, 3), 9, np.uint8)
    assert corrupt(edge, "contrast", 1, seed=0, sample_id="").shape == edge.shape
