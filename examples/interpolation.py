"""From digit to digit through the latent space of a VAE, as an animation.

Six test digits are encoded; between each two, the way goes along a great circle of the latent space (White 2016), and
each point on it is decoded.

    python examples/interpolation.py
    python examples/interpolation.py --quick

Writes runs/examples/interpolation.gif. Needs Pillow.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import minigen

QUICK = "--quick" in sys.argv
OUT = Path("runs/examples")
OUT.mkdir(parents=True, exist_ok=True)

digits = minigen.datasets.mnist_sample()
vae = minigen.VAE.preset("quality", latent_dim=16, seed=1, **({"epochs": 5, "hidden": (64,)} if QUICK else {}))
vae.fit(digits[:2000] if QUICK else digits[:4500])


def on_a_circle(a, b, t):
    """The point at ``t``, from 0 to 1, on the way from ``a`` to ``b``: its length changes evenly, and so does the
    angle. On the straight line it would be shorter in the middle, where there are hardly any digits."""
    angle = np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


held_out, labels = digits[4500:], digits.labels[4500:]
way = [held_out[np.flatnonzero(labels == digit)[0]] for digit in (3, 8, 6, 0, 9, 7)]
ends = vae.encode(np.stack(way))
frames_between = 3 if QUICK else 12
z = [
    on_a_circle(a, b, t)
    for a, b in zip(ends, np.roll(ends, -1, axis=0), strict=True)
    for t in np.linspace(0, 1, frames_between, endpoint=False)
]
pictures = 255 - vae.decode(np.stack(z))  # ink on paper
frames = [Image.fromarray(picture).resize((112, 112), Image.Resampling.BICUBIC).quantize(16) for picture in pictures]
frames[0].save(OUT / "interpolation.gif", save_all=True, append_images=frames[1:], duration=80, loop=0)
print(f"{OUT / 'interpolation.gif'}: {len(frames)} pictures")
