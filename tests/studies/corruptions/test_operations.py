"""Each operation against loops that say the same slowly, or a case by hand.

What is random is drawn by the operation and by the loops from generators in the same state.
"""

from __future__ import annotations

import colorsys
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from clipcifar.studies.corruptions.images import blur, light, noise, spatter, weather
from clipcifar.studies.corruptions.images.generated import CORRUPTIONS
from tests.studies.corruptions.test_generated import scenes


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def flat(level: int, size: int = 200) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def close(result: np.ndarray, shares: np.ndarray) -> None:
    """Levels are shares of 1, rounded."""
    expected = 255 * np.clip(shares, 0, 1)
    assert np.abs(result.astype(float) - expected).max() <= 0.501


# Noise


def test_gaussian_noise_has_the_deviation_that_it_says_in_every_channel() -> None:
    drawn = noise.gaussian_noise(flat(128), rng(), 0.08).astype(float) - 128
    assert drawn.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert abs(drawn.mean()) < 0.3
    assert abs(np.corrcoef(drawn[..., 0].ravel(), drawn[..., 1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("level", [51, 204])
def test_shot_noise_has_the_mean_and_the_variance_of_a_count(level: int) -> None:
    counted = noise.shot_noise(flat(level), rng(), 500) / 255
    assert counted.mean() == pytest.approx(level / 255, abs=0.001)
    assert counted.var() == pytest.approx(level / 255 / 500, rel=0.05)
    assert len(np.unique(noise.shot_noise(flat(level), rng(), 5))) <= 6  # 0 to 5 photons, and clipped


def test_impulse_noise_strikes_numbers_not_pixels_and_leaves_the_rest() -> None:
    struck = noise.impulse_noise(flat(100), rng(), 0.1)
    shares = [float((struck == level).mean()) for level in (0, 100, 255)]
    assert shares == pytest.approx([0.05, 0.9, 0.05], abs=0.003)
    assert sum(shares) == pytest.approx(1)
    whole = (struck != 100).all(axis=2).mean()  # by chance 0.1 cubed; were pixels struck, 0.1
    assert whole == pytest.approx(0.001, abs=0.001)


def test_speckle_noise_grows_with_the_level() -> None:
    deviations = [noise.speckle_noise(flat(level), rng(), 0.2).astype(float).std() for level in (0, 60, 120)]
    assert deviations == pytest.approx([0, 12, 24], rel=0.03)


# Light


def by_colorsys(image: np.ndarray, change: Any) -> np.ndarray:
    """Every pixel to HSV, changed, and back, by the standard library."""
    result = np.zeros(image.shape)
    for place in np.ndindex(image.shape[:2]):
        result[place] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(image[place] / 255))))
    return result


def colours() -> np.ndarray:
    image = rng().integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image[0], image[1, :, :] = 0, 90  # black and grey: no hue
    image[2, :6], image[2, 6:] = 255, (0, 0, 200)
    return image


@pytest.mark.parametrize("added", [0.05, 0.5])
def test_brightness_raises_v_of_hsv(added: float) -> None:
    expected = by_colorsys(colours(), lambda h, s, v: (h, s, min(v + added, 1)))
    close(light.brightness(colours(), rng(), added), expected)


@pytest.mark.parametrize(("factor", "added"), [(0.3, 0), (0.1, 0), (2.5, 0.2), (20, 0.2)])
def test_saturate_scales_s_of_hsv(factor: float, added: float) -> None:
    expected = by_colorsys(colours(), lambda h, s, v: (h, min(s * factor + added, 1), v))
    close(light.saturate(colours(), rng(), factor, added), expected)


def test_contrast_is_a_factor_on_the_distance_from_the_channels_own_mean() -> None:
    image = np.array([[[50, 0, 9], [150, 200, 9]]], np.uint8)
    assert light.contrast(image, rng(), 0.5).tolist() == [[[75, 50, 9], [125, 150, 9]]]


def test_pixelate_makes_squares_of_the_mean() -> None:
    image = rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)
    coarse = light.pixelate(image, rng(), 0.25)
    for row in (0, 4):
        for column in (0, 4):
            square = coarse[row : row + 4, column : column + 4]
            assert (square == square[0, 0]).all()
            mean = image[row : row + 4, column : column + 4].mean(axis=(0, 1))
            assert np.abs(square[0, 0] - mean).max() <= 1


def test_jpeg_is_what_pillow_writes() -> None:
    image = scenes(1)[0]
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=50)
    expected = np.asarray(Image.open(stream))
    np.testing.assert_array_equal(light.jpeg_compression(image, rng(), 50), expected)


@pytest.mark.parametrize(("factor", "expected"), [(0.5, [10, 50, 100]), (0.12, [2, 12, 24])])
def test_darkness_is_a_factor_on_levels(factor: float, expected: list[int]) -> None:
    image = np.array([[[20, 100, 200]]], np.uint8)
    assert light.darkness(image, rng(), factor).tolist() == [[expected]]


def test_the_last_desaturation_is_black_and_white() -> None:
    grey = light.desaturate(scenes(1)[0], rng(), 0)
    assert (grey == grey[..., :1]).all()
    assert grey.std() > 5


# Blurs


def test_gaussian_blur_is_a_weighted_mean_whose_border_goes_on() -> None:
    image, sigma = scenes(1, 12)[0], 0.8
    reach = int(4 * sigma + 0.5)
    steps = range(-reach, reach + 1)
    weights = {(i, j): np.exp(-(i**2 + j**2) / (2 * sigma**2)) for i in steps for j in steps}
    expected = np.zeros(image.shape)
    for row, column in np.ndindex(12, 12):
        for (i, j), weight in weights.items():
            near = image[np.clip(row + i, 0, 11), np.clip(column + j, 0, 11)] / 255
            expected[row, column] += near * weight / sum(weights.values())
    close(blur.gaussian_blur(image, rng(), sigma), expected)


def naive_disk(radius: float, rim: float, side: int) -> np.ndarray:
    """(2 side + 1, 2 side + 1): the disk, then a mean of nine weighted by a Gaussian."""
    steps = range(-side, side + 1)
    disk = np.array([[float(i * i + j * j <= radius**2) for j in steps] for i in steps])
    disk /= disk.sum()
    taps = [np.exp(-(t**2) / (2 * rim**2)) for t in (-1, 0, 1)]
    smooth = np.zeros_like(disk)
    for i, j in np.ndindex(disk.shape):
        for a, b in np.ndindex(3, 3):
            if 0 <= i + a - 1 < len(disk) and 0 <= j + b - 1 < len(disk):
                smooth[i, j] += disk[i + a - 1, j + b - 1] * taps[a] * taps[b] / sum(taps) ** 2
    return smooth


@pytest.mark.parametrize(("radius", "rim"), [(0.3, 0.4), (1.5, 0.1), (3, 0.5)])
def test_defocus_spreads_a_dot_over_a_disk(radius: float, rim: float) -> None:
    dot = np.zeros((19, 19, 3), np.uint8)
    dot[9, 9] = 255
    expected = np.repeat(naive_disk(radius, rim, 9)[..., None], 3, axis=2)
    close(blur.defocus_blur(dot, rng(), radius, rim), expected)


def test_defocus_is_mirrored_at_the_border_and_keeps_a_flat_image() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 1] = 255  # mirrored at column 0: of columns -3..3 around the first, two are white
    disk = [5, 5, 7, 5, 5, 1, 1]  # pixels of a disk of radius 3 by column: 1 5 5 7 5 5 1
    column = blur.defocus_blur(image, rng(), 3, 0.01)[10, 0, 0]
    assert column == round(255 * (disk[3] + disk[4]) / 29)
    np.testing.assert_array_equal(blur.defocus_blur(flat(77, 20), rng(), 3, 0.1), flat(77, 20))


@pytest.mark.parametrize(("reach", "rounds"), [(1, 1), (1, 3), (2, 2), (4, 1)])
def test_glass_is_the_loop_over_pixels_that_was_published(reach: int, rounds: int) -> None:
    image, sigma, size = scenes(1, 24)[0], 0.4, 24

    def smooth(levels: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(levels / 255, (sigma, sigma, 0), mode="nearest")

    drawn, shuffled = rng(3), np.rint(255 * smooth(image)).astype(np.uint8)
    side = size - 2 * reach
    for _ in range(rounds):
        down, right = drawn.integers(-reach, reach, (2, side, side))
        for row in range(size - reach, reach, -1):
            for column in range(size - reach, reach, -1):
                place = row - reach - 1, column - reach - 1
                other = row + down[place], column + right[place]
                # "Swapped": what is written second is a view of what was overwritten first.
                shuffled[row, column], shuffled[other] = shuffled[other], shuffled[row, column]
    close(blur.glass_blur(image, rng(3), sigma, reach, rounds), smooth(shuffled))
    assert (shuffled != np.rint(255 * smooth(image))).mean() > 0.2


@pytest.mark.parametrize("degrees", [0, 30, -44, -100])
def test_motion_mixes_what_follows_in_a_direction(degrees: float) -> None:
    image, radius, sigma = scenes(1, 16)[0] / 255, 6, 2.5
    weights = [np.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    expected = np.zeros(image.shape)
    for row, column in np.ndindex(16, 16):
        for i, weight in enumerate(weights):
            down = int(np.ceil(i * np.sin(np.radians(degrees)) - 0.5))
            right = int(np.ceil(i * np.cos(np.radians(degrees)) - 0.5))
            near = image[np.clip(row + down, 0, 15), np.clip(column + right, 0, 15)]
            expected[row, column] += near * weight / sum(weights)
    np.testing.assert_allclose(blur.smear(image, radius, sigma, degrees), expected, atol=1e-6)


def test_motion_goes_to_the_right_by_up_to_45_degrees() -> None:
    dot = np.zeros((61, 61, 3), np.uint8)
    dot[30, 30] = 255
    slopes = []
    for seed in range(40):
        rows, columns = np.nonzero(blur.motion_blur(dot, rng(seed), 15, 12)[..., 0])
        assert columns.max() == 30  # a pixel takes from its right: the dot's trail lies on its left
        assert columns.min() <= 30 - 20
        slopes.append((rows[columns.argmin()] - 30) / (columns.min() - 30))
    assert -1.06 <= min(slopes) < -0.8
    assert 0.8 < max(slopes) <= 1.06


@pytest.mark.parametrize("factor", [1, 1.06, 1.5, 2.25, 4.5])
@pytest.mark.parametrize("shape", [(32, 32), (30, 41)])
def test_the_middle_is_enlarged_as_scipy_does_it(factor: float, shape: tuple[int, int]) -> None:
    """`ndimage.zoom` is what the published code asks; here it is asked far quicker."""
    image = rng().random((*shape, 3)).astype(np.float32)
    crop = [int(np.ceil(side / factor)) for side in shape]
    first = [(side - part) // 2 for side, part in zip(shape, crop, strict=True)]
    middle = image[first[0] : first[0] + crop[0], first[1] : first[1] + crop[1]]
    large = ndimage.zoom(middle, (factor, factor, 1), order=1)
    top, left = ((large.shape[i] - shape[i]) // 2 for i in (0, 1))
    expected = large[top : top + shape[0], left : left + shape[1]]
    np.testing.assert_allclose(blur.enlarged(image, factor), expected, atol=1e-5)


def test_zoom_blur_is_the_mean_of_the_image_and_all_zooms_of_it() -> None:
    image = scenes(1)[0]
    shares = (image / 255).astype(np.float32)
    zooms = [shares] + [blur.enlarged(shares, factor) for factor in (1, 1.125, 1.25)]
    close(blur.zoom_blur(image, rng(), 1.375, 0.125), np.mean(zooms, axis=0))


def fetched(image: np.ndarray, x: float, y: float, *, mirrored_edge: bool) -> np.ndarray:
    """A level between pixels, linearly; beyond the border mirrored at the last pixel or at its edge."""
    height, width = image.shape[:2]

    def inside(i: int, size: int) -> int:
        period = 2 * size if mirrored_edge else 2 * size - 2
        i %= period
        return min(i, 2 * size - 1 - i) if mirrored_edge else min(i, 2 * size - 2 - i)

    row, column = int(np.floor(y)), int(np.floor(x))
    total = np.zeros(3)
    for r, wr in ((row, row + 1 - y), (row + 1, y - row)):
        for c, wc in ((column, column + 1 - x), (column + 1, x - column)):
            total += wr * wc * image[inside(r, height), inside(c, width)]
    return total


@pytest.mark.parametrize(("amount", "sigma", "affine"), [(0, 0, 2.5), (8, 3, 1), (30, 2, 0)])
def test_elastic_moves_three_points_and_then_every_pixel(amount: float, sigma: float, affine: float) -> None:
    image, size = scenes(1, 18)[0], 18
    drawn = rng(2)
    points = [(15, 15), (15, 3), (3, 3)]  # x, y: the centre and a third of the side to both
    moved = points + drawn.uniform(-affine, affine, (3, 2))
    matrix = np.linalg.solve(np.column_stack([moved, np.ones(3)]), np.array(points, float))
    fields = drawn.uniform(-1, 1, (2, size, size))
    shift = [amount * ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3) for field in fields]
    sheared, expected = np.zeros(image.shape), np.zeros(image.shape)
    for y, x in np.ndindex(size, size):
        place = np.array([x, y, 1]) @ matrix
        sheared[y, x] = fetched(image / 255, *place, mirrored_edge=False)
    for y, x in np.ndindex(size, size):
        expected[y, x] = fetched(sheared, x + shift[0][y, x], y + shift[1][y, x], mirrored_edge=True)
    close(blur.elastic_transform(image, rng(2), amount, sigma, affine), expected)


def test_elastic_without_any_move_is_the_image() -> None:
    image = scenes(1)[0]
    np.testing.assert_array_equal(blur.elastic_transform(image, rng(), 0, 0, 0), image)


# Weather


def naive_clouds(size: int, decay: float, drawn: np.random.Generator) -> np.ndarray:
    """Midpoint displacement point by point, indices taken around the borders."""
    heights, step, amount = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half = step // 2
        for rows, columns, near in (
            (half, half, [(-half, -half), (-half, half), (half, -half), (half, half)]),
            (0, half, [(-half, 0), (half, 0), (0, -half), (0, half)]),
            (half, 0, [(-half, 0), (half, 0), (0, -half), (0, half)]),
        ):
            uniform = drawn.uniform(-1, 1, (size // step, size // step))
            for i, j in np.ndindex(uniform.shape):
                row, column = rows + i * step, columns + j * step
                mean = sum(heights[(row + a) % size, (column + b) % size] for a, b in near) / 4
                heights[row, column] = mean + amount * amount * uniform[i, j]
        step, amount = half, amount / decay
    return (heights - heights.min()) / np.ptp(heights)


@pytest.mark.parametrize("decay", [1.4, 3])
def test_clouds_are_midpoint_displacement(decay: float) -> None:
    np.testing.assert_allclose(
        weather._clouds(16, decay, rng(1)), naive_clouds(16, decay, rng(1)), atol=1e-12
    )


def test_fog_adds_clouds_and_keeps_the_brightest_level() -> None:
    image = scenes(1)[0]
    shares, top = image / 255, image.max() / 255
    expected = (shares + 0.75 * naive_clouds(32, 2.5, rng(4))[..., None]) * top / (top + 0.75)
    close(weather.fog(image, rng(4), 0.75, 2.5), expected)
    assert weather.fog(image, rng(4), 0.75, 2.5).max() <= image.max()


def test_fog_of_an_oblong_photograph_goes_on_without_a_seam() -> None:
    wide = weather.fog(flat(0, 32)[:, [0] * 70] + np.uint8(200), rng(), 1.5, 2).astype(float)
    np.testing.assert_array_equal(wide[:, :32], wide[:, 32:64])
    steps = np.abs(np.diff(wide[..., 0], axis=1)).mean(axis=0)
    assert steps[31] < 2 * steps[:31].mean()


def test_snow_falls_over_an_image_that_grows_pale() -> None:
    image, drawn = scenes(1)[0], rng(5)
    shares = image / 255
    flakes = drawn.normal(0.15, 0.3, (32, 32))
    flakes = ndimage.zoom(flakes[6:25, 6:25], 1.75, order=1)[:32, :32]  # 19 of 32, enlarged to 33
    flakes = np.where(flakes < 0.55, 0, np.minimum(flakes, 1))
    fallen = blur.smear(flakes, 10, 4, drawn.uniform(-135, -45))
    pale = np.maximum(shares, (shares @ [0.299, 0.587, 0.114])[..., None] * 1.5 + 0.5)
    expected = 0.9 * shares + 0.1 * pale + (fallen + fallen[::-1, ::-1])[..., None]
    close(weather.snow(image, rng(5), 0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), expected)


# Spatter


def test_canny_finds_the_rim_of_a_square_one_pixel_thick() -> None:
    square = np.zeros((12, 12), np.uint8)
    square[3:9, 3:9] = 200
    rim = spatter.edges(square)
    rows, columns = np.nonzero(rim)
    assert 16 <= rim.sum() <= 24
    assert (np.maximum(np.abs(rows - 5.5), np.abs(columns - 5.5)) >= 2).all()  # none inside
    assert (np.maximum(np.abs(rows - 5.5), np.abs(columns - 5.5)) <= 4).all()
    assert [rim[row].sum() for row in (5, 6)] == [2, 2]


def test_of_a_weak_edge_only_what_hangs_on_a_strong_one_stays() -> None:
    image = np.zeros((9, 40), np.uint8)
    image[:, 5:] = 30  # a gradient of 120: weak
    assert not spatter.edges(image).any()
    image[:3, 5:] = 60  # and of 240: strong
    assert spatter.edges(image)[-1].any()
    faint = np.where(np.arange(40) < 5, 0, 12)[None].repeat(9, axis=0).astype(np.uint8)
    assert not spatter.edges(faint).any()  # 48 is none


def test_equalised_levels_are_as_frequent_as_can_be() -> None:
    values = np.array([[7, 7, 8], [8, 9, 9]], np.uint8)
    assert spatter.equalised(values).tolist() == [[0, 0, 128], [128, 255, 255]]
    assert spatter.equalised(np.full((2, 2), 3, np.uint8)).tolist() == [[3, 3], [3, 3]]


def test_mud_covers_in_brown_where_there_is_liquid_and_nowhere_else() -> None:
    image, drawn = np.full((40, 40, 3), 200, np.uint8), rng(6)
    liquid = ndimage.gaussian_filter(drawn.normal(0.65, 0.1, (40, 40)), 0.7, mode="nearest")
    cover = ndimage.gaussian_filter((liquid > 0.69).astype(float), 0.6, mode="nearest")
    cover[cover < 0.8] = 0
    expected = (1 - cover[..., None]) * 200 / 255 + cover[..., None] * np.array([63, 42, 20]) / 255
    muddy = spatter.spatter(image, rng(6), 0.65, 0.1, 0.7, 0.69, 0.6, 1)
    close(muddy, expected)
    assert 0.02 < (cover > 0).mean() < 0.6
    assert muddy[cover == 0].min() == 200


def test_water_shines_in_pale_turquoise_where_there_is_liquid_and_nowhere_else() -> None:
    image = np.full((60, 60, 3), 20, np.uint8)
    wet = spatter.spatter(image, rng(7), 0.65, 0.3, 2, 0.68, 0.5, 0).astype(float) - 20
    liquid = ndimage.gaussian_filter(rng(7).normal(0.65, 0.3, (60, 60)), 2, mode="nearest")
    assert not wet[liquid < 0.68].any()
    assert wet.min() == 0
    brightest = wet[np.unravel_index(wet[..., 1].argmax(), (60, 60))]
    assert brightest == pytest.approx([175 / 2, 238 / 2, 238 / 2], abs=1)  # half opaque
    np.testing.assert_array_equal(spatter.spatter(image, rng(), 0, 0.1, 1, 0.69, 0.5, 0), image)


def test_every_operation_of_the_table_is_tested_here() -> None:
    applied = {made.apply.__name__ for made in CORRUPTIONS.values()}
    assert applied == set(CORRUPTIONS)
