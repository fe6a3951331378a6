"""Shows people what a network gets: its specimens as a picture, and in figures.

Both are files beside the reservoir they are made from, and go with it. Shapes: S specimens,
C channels, H x W pixels.
"""

import json
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from domain import objects
from worker.data import reservoir, specimens
from worker.store.artifacts import Store

SMALLEST, LARGEST = 96, 224
"""Pixels of the longer side of an image in the picture."""

COLUMNS = 5
CAPTION = 30
"""Pixels below each image."""

MARGIN = 8
VALUES = 64
"""So many of an input's values are shown."""


def store_reservoir(store: Store, table: pa.Table, preprocessing: dict[str, Any]) -> str:
    """Store a reservoir with what there is to see of it; its digest."""
    digest = reservoir.write(store, table)
    rows = specimens.of_table(table)
    if not len(rows):
        return digest
    inputs, answers = specimens.inputs_of(rows), specimens.answers_of(rows)
    told = figures(inputs, answers, rows[specimens.LABEL].to_pylist())
    store.put_beside(digest, objects.PREVIEW_FIGURES, json.dumps(told).encode())
    images = as_images(inputs, preprocessing)
    if images is not None:
        captions = [(each["label"], each["answer"]) for each in told["samples"]]
        store.put_beside(digest, objects.PREVIEW_PICTURE, picture(images, captions))
    return digest


def figures(inputs: Tensor, answers: Tensor, labels: list[int]) -> dict[str, Any]:
    """What each specimen is, and what the network makes of it. Without sample ids."""
    confidence = answers.double().softmax(1)
    return {
        "shape": list(inputs.shape[1:]),
        "type": str(inputs.dtype).removeprefix("torch."),
        "samples": [
            {
                "label": label,
                "answer": int(answer.argmax()),
                "confidence": sure.max().item(),
                "smallest": values.min().item(),
                "largest": values.max().item(),
                "mean": values.double().mean().item(),
                "values": values.flatten()[:VALUES].tolist(),
            }
            for values, answer, sure, label in zip(inputs, answers, confidence, labels, strict=True)
        ],
    }


def as_images(inputs: Tensor, preprocessing: dict[str, Any]) -> Tensor | None:
    """(S, H, W) or (S, H, W, 3) uint8, with mean and standard deviation undone; None for inputs
    that are not images.

    Values outside [0, 1] are squeezed into it.
    """
    if not inputs.is_floating_point() or inputs.ndim not in (3, 4):
        return None
    values = inputs.unsqueeze(1) if inputs.ndim == 3 else inputs  # (S, C, H, W)
    if min(values.shape[2:]) < 2:
        return None
    mean, std = (
        torch.tensor(preprocessing.get(name) or [default]).view(-1, 1, 1)
        for name, default in (("mean", 0.0), ("std", 1.0))
    )
    values = values * std + mean
    if values.shape[1] != 3:
        values = values.mean(1, keepdim=True)
    low, high = min(values.min().item(), 0.0), max(values.max().item(), 1.0)
    pixels = ((values - low) / (high - low) * 255).round().to(torch.uint8)
    return pixels.movedim(1, -1).squeeze(-1)


def picture(images: Tensor, captions: list[tuple[int, int]]) -> bytes:
    """All images on one sheet, as PNG; below each its label and the network's answer."""
    tiles = [_scaled(Image.fromarray(np.asarray(image))) for image in images]
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    cell = (max(width, SMALLEST) + MARGIN, height + CAPTION + MARGIN)
    rows = -(-len(tiles) // COLUMNS)
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, rows * cell[1] + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (tile, (label, answer)) in enumerate(zip(tiles, captions, strict=True)):
        left = MARGIN + place % COLUMNS * cell[0]
        top = MARGIN + place // COLUMNS * cell[1]
        sheet.paste(tile, (left, top))
        draw.text((left, top + height + 2), f"label {label}", fill="black")
        told = "black" if label == answer else "#b00020"
        draw.text((left, top + height + 14), f"answer {answer}", fill=told)
    file = BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _scaled(image: Image.Image) -> Image.Image:
    """Small images with their pixels enlarged, large ones made smaller."""
    longer = max(image.size)
    if longer > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
        return image
    factor = max(SMALLEST // longer, 1)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
