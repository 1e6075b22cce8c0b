"""A set of real images, in memory or read as it is iterated."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor

__all__ = ["DatasetError", "ImageDataset", "Images", "StreamedImages"]


class DatasetError(ValueError):
    """A data set is missing, damaged or not what its name says."""


class Images(torch.utils.data.Dataset[Tensor], ABC):
    """Real images of one size in a fixed order; items are uint8 [3, H, W] tensors, as torch-fidelity expects.

    Attributes:
        name, split: what was asked for.
        labels: int64 [N] class ids; all 0 where the set has no classes.
    """

    name: str
    split: str
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batches(self, size: int) -> Iterator[Tensor]:
        """The images in order, uint8 [size, 3, H, W]; the last batch may be smaller."""

    @abstractmethod
    def loaded(self) -> ImageDataset:
        """The same images, all in memory."""


@dataclass(frozen=True)
class ImageDataset(Images):
    """Images in memory.

    Attributes:
        images: uint8 [N, 3, H, W]; [N, 1, H, W] for the digits.
    """

    name: str
    split: str
    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].contiguous()

    def batches(self, size: int) -> Iterator[Tensor]:
        for images in self.images.split(size):
            yield images.contiguous()  # those of an npz lie as [n, h, w, 3]

    def loaded(self) -> ImageDataset:
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image."""
        return tuple(self.images.shape[1:])

    def signal(self, index: Tensor) -> Tensor:
        """The images of those indices, float32 in [-1, 1]."""
        return self.images[index.to(self.images.device)].contiguous().float() / 127.5 - 1

    def on(self, device: str) -> ImageDataset:
        """The same with its pixels on a device."""
        return replace(self, images=self.images.to(device))

    @cached_property
    def sha256(self) -> str:
        """Of the pixels, in order, as N x H x W x 3 bytes."""
        return hashlib.sha256(self.images.permute(0, 2, 3, 1).contiguous().numpy().data).hexdigest()


@dataclass(frozen=True)
class StreamedImages(Images):
    """Images that are read when they are asked for; never more than one batch of them is in memory.

    Attributes:
        read: image `index` as uint8 [3, H, W]; called from several threads at once.
        title: of image `index`, for people.
    """

    name: str
    split: str
    labels: Tensor = field(repr=False)
    read: Callable[[int], Tensor] = field(repr=False)
    title: Callable[[int], str] = field(default="image {}".format, repr=False)

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):  # ends iteration by index
            raise IndexError(f"{self.name} {self.split} has {len(self)} images, not one at {index}")
        return self.read(index)

    def batches(self, size: int) -> Iterator[Tensor]:
        """As in the base class.

        Raises:
            DatasetError: for an image that cannot be read or has another size than the first.
        """
        first = None
        with ThreadPoolExecutor() as pool:  # decoding and resizing release Python's lock
            for start in range(0, len(self), size):
                images: list[Tensor] = []
                for image in pool.map(self.read, range(start, min(start + size, len(self)))):
                    first = image if first is None else first
                    if image.shape != first.shape:
                        raise DatasetError(
                            f"{self.name} {self.split} mixes sizes: {self.title(0)} is {_size(first)}, "
                            f"{self.title(start + len(images))} is {_size(image)}; name a recipe that makes them one"
                        )
                    images.append(image)
                yield torch.stack(images)

    def loaded(self) -> ImageDataset:
        parts = self.batches(500)
        first = next(parts)
        images = first.new_empty(len(self), *first.shape[1:])  # filled part by part: never held twice
        for start, part in zip(range(0, len(self), 500), chain([first], parts), strict=True):
            images[start : start + len(part)] = part
        return ImageDataset(self.name, self.split, images, self.labels)


def _size(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
