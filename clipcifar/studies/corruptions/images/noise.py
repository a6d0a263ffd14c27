"""Noise: every number of every channel is drawn on its own."""

from __future__ import annotations

import numpy as np

from clipcifar.studies.corruptions.images.levels import Pixels, levels, shares


def gaussian_noise(pixels: Pixels, rng: np.random.Generator, deviation: float) -> Pixels:
    """Normal noise of this deviation, of levels in 0..1."""
    return levels(shares(pixels) + deviation * rng.standard_normal(pixels.shape))


def shot_noise(pixels: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    """What a sensor counts that is sent so many photons of white: a Poisson number for each level."""
    return levels(rng.poisson(shares(pixels) * photons) / photons)


def impulse_noise(pixels: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    """A share of all numbers turned to 0 or 255, as likely the one as the other: specks of pure colours."""
    struck, white = rng.random(pixels.shape) < share, rng.random(pixels.shape) < 0.5
    return np.where(struck, 255 * white, pixels).astype(np.uint8)


def speckle_noise(pixels: Pixels, rng: np.random.Generator, deviation: float) -> Pixels:
    """Normal noise that grows with the level: none on black."""
    return levels(shares(pixels) * (1 + deviation * rng.standard_normal(pixels.shape)))
