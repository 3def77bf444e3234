"""A simulated cardiac fluoroscopy: anatomy drawn per patient, a guidewire with exact masks, quantum noise and scatter.

Not patient data, and not a validated simulator: a stand-in on which the whole line runs anywhere, with as many labelled clips
as wanted. Attenuations of spine, heart, diaphragm, ribs, catheter and wire add up along the ray (Beer-Lambert); then scatter,
detector blur and Poisson noise. Lengths are fractions of the image height, so every size shows the same scene; only the
wire's width is in pixels, 2 to 3 as in the paper.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from models.seeding import derive_seed
from tasks.manoeuvres import ACTIONS, MANOEUVRES, SKEWED, Script, sequence, single
from tasks.readers import Source, Volume

Image = NDArray[np.float64]
COMPUTED = True


class Params(BaseModel):
    """How many simulated patients and clips, and how hard they are to read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: int = Field(24, gt=0)
    clips_per_patient: int = Field(2, gt=0)
    frames: int = Field(8, gt=0)
    size: tuple[int, int] = Field((48, 48), description="height, width in pixels")
    seed: int = 0
    contrast: tuple[float, float] = Field((0.25, 0.9), description="attenuation of the wire: low and high contrast")
    photons: tuple[float, float] = Field((150.0, 600.0), description="per pixel in the open field; fewer is noisier")
    magnification: float = Field(1.0, ge=1, description="of the view, around the middle; noise and the wire's width stay")
    reach: float = Field(0.25, gt=0, le=0.8, description="share of its path that the wire's tip covers, all the way out")
    manoeuvre_frames: int | None = Field(None, gt=0, description="a recording is a sequence of actions of so many frames each")
    frequencies: dict[str, float] = Field(default_factory=lambda: SKEWED, description="of the actions of a sequence")

    @field_validator("frequencies")
    @classmethod
    def _known_actions(cls, frequencies: dict[str, float]) -> dict[str, float]:
        if strange := sorted(set(frequencies) - set(ACTIONS)):
            raise ValueError(f"{', '.join(strange)} is no action; they are {', '.join(ACTIONS)}")
        if not {"idle", "rotate", "inject"} & {name for name, share in frequencies.items() if share > 0}:
            raise ValueError("idle, rotate or inject must have a share above 0: the wire cannot always advance or retract")
        return frequencies


def sources(location: Path, params: Params) -> list[Source]:
    """One source per simulated patient and clip; `location` is this file, so that editing it makes the data stale."""
    return [
        Source(
            name=f"patient{patient:03d}/clip{clip:02d}",
            files=(),
            patient=f"simulated{patient:03d}",
            label=None if params.manoeuvre_frames else _manoeuvre(params, patient, clip),
            read=partial(simulate, params, patient, clip),
            text="" if params.manoeuvre_frames else _text(params, patient, MANOEUVRES[_manoeuvre(params, patient, clip)]),
            texts={name: _text(params, patient, words) for name, words in ACTIONS.items()} if params.manoeuvre_frames else {},
            key=json.dumps([params.model_dump(mode="json"), patient, clip], sort_keys=True),
        )
        for patient in range(params.patients)
        for clip in range(params.clips_per_patient)
    ]


def simulate(params: Params, patient: int, clip: int) -> Volume:
    """One clip: frames (F, H, W, 1) uint8 and its exact wire masks (F, H, W)."""
    height, width = params.size
    anatomy = np.random.default_rng(derive_seed(params.seed, "anatomy", patient))
    acquisition = np.random.default_rng(derive_seed(params.seed, "acquisition", patient, clip))
    aspect = width / height
    scale = height * params.magnification  # pixels to a height of the scene
    y, x = (size / height / 2 + (grid - size / 2) / scale
            for grid, size in zip(np.mgrid[:height, :width] + 0.5, params.size, strict=True))
    time = np.arange(params.frames) / 7.5  # seconds at 7.5 frames a second
    beat = np.sin(2 * np.pi * (time * anatomy.uniform(0.9, 1.5) + acquisition.random()))
    breath = np.sin(2 * np.pi * (time * anatomy.uniform(0.2, 0.35) + acquisition.random()))
    body = _body(y, x / aspect, beat, breath, anatomy, height)

    if params.manoeuvre_frames:
        own = np.random.default_rng(derive_seed(params.seed, "script", patient, clip))
        script = sequence(own, params.frames, params.manoeuvre_frames, params.frequencies)
    else:
        script = single(_manoeuvre(params, patient, clip), params.frames)
    lines = _devices(anatomy, acquisition, script, beat, breath, params.reach)
    catheter, wire, vessel = (line * [1, aspect] for line in lines)
    tube = _distance(catheter, y, x) * scale
    wire_distance = _distance(wire, y, x) * scale  # pixels
    half_width = acquisition.uniform(1.0, 1.5)
    tube_half = max(1.7, 0.008 * scale)
    device = 0.22 * _inside(tube, tube_half, 0.7) + 0.12 * (_inside(tube, tube_half, 0.7) - _inside(tube, tube_half - 1, 0.7))
    device = device + acquisition.uniform(*params.contrast) * _inside(wire_distance, half_width, 0.5)

    if script.dye.any():
        lumen = _inside(_distance(vessel, y, x) * scale, max(2.5, 0.05 * scale), 1.0)
        device = device + 0.8 * script.dye[:, None, None] * lumen

    open_field = np.exp(-(body + device))
    scattered = gaussian_filter(open_field, (0, 0.12 * height, 0.12 * height))
    share = anatomy.uniform(0.15, 0.35)
    signal = (1 - share) * open_field + share * scattered
    signal = gaussian_filter(signal, (0, 0.35, 0.35))
    photons = acquisition.uniform(*params.photons)
    counts = acquisition.poisson(photons * signal)
    frames = 255 * np.sqrt(counts / photons).clip(0, 1)  # square root: the noise is the same in dark and bright parts
    masks = (wire_distance <= half_width).astype(np.uint8)
    return Volume(frames.round().astype(np.uint8)[..., None], masks, 1000 / 7.5, labels=script.labels)


def _manoeuvre(params: Params, patient: int, clip: int) -> str:
    return list(MANOEUVRES)[derive_seed(params.seed, "manoeuvre", patient, clip) % len(MANOEUVRES)]


def _text(params: Params, patient: int, happens: str) -> str:
    """What a radiographer would say of the clip: where the spine is, and what happens."""
    *_, spine = _background(np.random.default_rng(derive_seed(params.seed, "anatomy", patient)))
    side = "left" if spine < 0.45 else "middle" if spine < 0.6 else "right"
    return f"spine on the {side}, {happens}".replace("on the middle", "in the middle")


def _background(rng: np.random.Generator) -> tuple[float, float, float]:
    """Slopes of the soft tissue along x and y, and the spine's place: the first numbers a patient's anatomy draws."""
    return rng.random(), rng.random(), rng.uniform(0.25, 0.8)


def _body(y: Image, x: Image, beat: Image, breath: Image, rng: np.random.Generator, height: int) -> Image:
    """(F, H, W) attenuation without devices; x and y are in 0..1."""
    beat, breath = beat[:, None, None], breath[:, None, None]
    lift = 0.02 * breath
    softness = rng.uniform(0.010, 0.02)

    def step(depth: Image) -> Image:
        return 1 / (1 + np.exp(-depth.clip(-1, 1) / softness))

    along_x, along_y, spine = _background(rng)
    total = 0.25 + 0.25 * along_x * x + 0.2 * along_y * y + np.zeros_like(beat)
    total = total + rng.uniform(0.2, 0.45) * np.exp(-(((x - spine - 0.05 * np.sin(2 * y)) / rng.uniform(0.09, 0.14)) ** 4))
    heart_y, heart_x = rng.uniform(0.45, 0.65), rng.uniform(0.35, 0.65)
    radius_y, radius_x = rng.uniform(0.24, 0.34), rng.uniform(0.24, 0.36)
    size = 1 + 0.05 * beat
    down, right = (y - heart_y - lift) / (radius_y * size), (x - heart_x) / (radius_x * size)
    towards = np.arctan2(down, right)
    outline = 1 + rng.uniform(0.08, 0.2) * np.cos(towards - rng.uniform(0.3, 1.3))  # the apex
    outline = outline + 0.07 * np.cos(3 * towards - rng.uniform(0, 2 * np.pi))
    depth = (1 - (down**2 + right**2) / outline**2).clip(0, None)  # a solid body: thickest in the middle, steep at the border
    total = total + rng.uniform(0.4, 0.65) * np.sqrt(depth)
    dome = rng.uniform(0.72, 0.92) + rng.uniform(0.5, 1.1) * (x - rng.uniform(0.25, 0.75)) ** 2 + 0.05 * breath
    total = total + rng.uniform(0.4, 0.7) * step(y - dome)
    slope, bend, gap = rng.uniform(-0.25, 0.25), rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.21)
    thickness, first = rng.uniform(0.022, 0.035), rng.uniform(-0.15, 0.05)
    dense = rng.uniform(0.14, 0.22)
    centre = rng.uniform(0.3, 0.7)
    for rib in range(6):
        line = first + rib * gap + slope * (x - 0.5) + bend * (x - centre) ** 2 + lift
        inside = thickness - np.abs(y - line)
        edge = np.exp(-((inside / (0.35 * thickness)) ** 2))
        total = total + dense * (0.6 * step(inside) + 0.5 * edge)
    texture = gaussian_filter(rng.standard_normal(y.shape), 0.03 * height)
    return total + 0.05 * texture / texture.std()


def _devices(anatomy: np.random.Generator, acquisition: np.random.Generator, script: Script, beat: Image,
             breath: Image, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Catheter, wire and vessel, each (F, P, 2), as polylines of (y, x) in 0..1.

    The wire leaves the catheter's tip into the vessel, which swings with the heart the more the farther it is from there.
    """
    entry = np.array([0.02, acquisition.uniform(0.25, 0.75)])
    ostium = np.array([acquisition.uniform(0.25, 0.4), acquisition.uniform(0.3, 0.7)])
    middle = (entry + ostium) / 2 + acquisition.normal(0, 0.06, 2)
    tube = _spline(np.stack([entry, middle, ostium]), 24)
    heading = (ostium - middle) / np.linalg.norm(ostium - middle)
    angle = np.arctan2(heading[0], heading[1])
    turns = acquisition.normal(0, 0.45, 6)
    points = [ostium]
    for turn in turns:
        angle += turn
        target = np.arctan2(0.55 - points[-1][0], 0.5 - points[-1][1])  # the vessel stays around the heart
        angle += 0.35 * np.sin(target - angle)
        points.append(points[-1] + 0.11 * np.array([np.sin(angle), np.cos(angle)]))
    out = acquisition.uniform(0.8 - reach, 1 - reach) + reach * script.travel
    along = np.linspace(0, 1, 48)[None] * out[:, None]  # (F, P) share of the path
    path = CubicSpline(np.linspace(0, 1, len(points)), np.stack(points))
    wire = path(along)
    turn = script.turn
    if turn is None:
        turn = np.sin(2 * np.pi * np.linspace(0, 1, len(beat)) + acquisition.random() * 6)
    if turn.any():
        tip = np.clip((along / out[:, None] - 0.7) / 0.3, 0, 1) ** 2
        side = path(along, 1)[..., ::-1] * [1, -1]
        side = side / np.linalg.norm(side, axis=-1, keepdims=True)
        wire = wire + 0.07 * (tip * turn[:, None])[..., None] * side
    direction = anatomy.uniform(0, 2 * np.pi)
    swing = 0.03 * beat[:, None, None] * np.array([np.sin(direction), np.cos(direction)])
    drift = 0.012 * breath[:, None, None] * np.array([1.0, 0.0])
    wire = wire + swing * along[..., None] + drift
    whole = np.broadcast_to(np.linspace(0, 1, 48), along.shape)
    vessel = path(whole) + swing * whole[..., None] + drift
    return tube[None] + drift, wire, vessel


def _spline(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    curve: NDArray[np.float64] = CubicSpline(np.linspace(0, 1, len(points)), points)(np.linspace(0, 1, count))
    return curve


def _distance(lines: NDArray[np.float64], y: Image, x: Image, budget: int = 2**24) -> Image:
    """Exact distance of every pixel centre to a polyline: (F, P, 2) -> (F, H, W).

    Squared distances to all segments expand into matrix products of pixels and segments; frames are taken together as far as
    `budget` numbers in memory allow.
    """
    pixels = np.stack([y.ravel(), x.ravel()])  # (2, H W)
    start, along = lines[:, :-1], np.diff(lines, axis=1)  # (F, S, 2)
    length = np.maximum((along**2).sum(-1, keepdims=True), 1e-18)
    best = np.empty((len(lines), pixels.shape[1]))
    block = max(1, budget // (start.shape[1] * pixels.shape[1]))
    for first in range(0, len(lines), block):
        a, d, square = start[first : first + block], along[first : first + block], length[first : first + block]
        reach = d @ pixels - (a * d).sum(-1, keepdims=True)  # (p - a) . d
        share = (reach / square).clip(0, 1)
        distance = (pixels**2).sum(0) + (a**2).sum(-1, keepdims=True) - 2 * (a @ pixels) + share * (share * square - 2 * reach)
        best[first : first + block] = distance.min(1)
    return np.sqrt(best.clip(0)).reshape(len(lines), *y.shape)


def _inside(distance: Image, half_width: float, softness: float) -> Image:
    """1 inside, 0 outside, linear over `softness` pixels each side of the edge."""
    return ((half_width - distance) / (2 * softness) + 0.5).clip(0, 1)
