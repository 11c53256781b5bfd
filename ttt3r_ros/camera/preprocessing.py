# SPDX-License-Identifier: Apache-2.0
"""From a camera's image to the network's: resize, crop, normalise, and carry intrinsics along.

`exact` reproduces the pixels the official weights were trained and measured on, through Pillow.
`fast` is for live use: torch's antialiased bicubic filter instead of Pillow's Lanczos (an image
that is enlarged goes through a bicubic filter either way), on the GPU if there is one.
Undistortion, pixel encodings and the EXIF orientation of files are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ttt3r_ros.geometry import CropTransform
from ttt3r_ros.types import Mask

SQUARE_SIZE = 224
"""The one image size that means a square: the short edge becomes 224 and the long one is cut."""

FITS = ("crop", "resize")
METHODS = ("exact", "fast")

# Pillow's numbers of its filters; their names are Image.Resampling's from Pillow 9.1 on only.
_LANCZOS = 1
_BICUBIC = 3

_MOST_SHRUNK = 32  # on a GPU: torch's filter keeps its weights in a block's memory there

RgbImage = npt.NDArray[np.uint8]  # [H, W, 3]


@lru_cache(maxsize=16)  # of an image whose way was planned to see whether it can be used
def crop_transform(
    width: int, height: int, image_size: int, *, patch_size: int = 16, fit: str = "crop"
) -> CropTransform:
    """Plan the way from a source image of `width` x `height` to the network's image.

    The image is scaled so that its long edge becomes `image_size`, then both edges are cut around
    the centre to multiples of `patch_size`; a square becomes 4:3. With `image_size` 224 the short
    edge becomes 224 and the long one is cut to the same.

    Args:
        width: of the source image in pixels.
        height: of the source image in pixels.
        image_size: the checkpoint's, in pixels.
        patch_size: the network's, in pixels.
        fit: "crop" cuts what is too long; "resize" squeezes the whole image into the size that a
            crop would have (a square stays square).

    Raises:
        ValueError: an argument is not allowed, or nothing of the image would be left.
    """
    if fit not in FITS:
        raise ValueError(f"fit: must be one of {FITS}, got {fit!r}")
    if image_size < patch_size:
        raise ValueError(f"image_size: must be at least {patch_size}, got {image_size}")
    if width < 1 or height < 1:
        raise ValueError(f"image: must have pixels, got {width}x{height}")
    long_edge = max(width, height)
    square = image_size == SQUARE_SIZE
    target = round(image_size * max(width / height, height / width)) if square else image_size
    scaled_width = round(width * target / long_edge)
    scaled_height = round(height * target / long_edge)
    # As published: the crop is twice a whole number around the pixel at half the size.
    cropped_width = scaled_width // 2 * 2 // patch_size * patch_size
    cropped_height = scaled_height // 2 * 2 // patch_size * patch_size
    if square:
        cropped_width = cropped_height = min(cropped_width, cropped_height)
    elif scaled_width == scaled_height and fit == "crop":
        cropped_height = 3 * cropped_width // 4 // patch_size * patch_size
    if not cropped_width or not cropped_height:
        raise ValueError(
            f"image: {width}x{height} becomes {scaled_width}x{scaled_height}, "
            f"less than one patch of {patch_size}x{patch_size}"
        )
    return CropTransform(
        source_width=width,
        source_height=height,
        scaled_width=scaled_width,
        scaled_height=scaled_height,
        fit=fit,
        width=cropped_width,
        height=cropped_height,
    )


def resize_and_crop(
    rgb: RgbImage,
    image_size: int,
    *,
    patch_size: int = 16,
    fit: str = "crop",
    method: str = "exact",
) -> tuple[RgbImage, CropTransform]:
    """Bring an image to the network's size.

    Args:
        rgb: uint8 [H, W, 3].
        image_size: as `crop_transform`.
        patch_size: as `crop_transform`.
        fit: as `crop_transform`.
        method: "exact" or "fast".

    Returns:
        The network's image, uint8 [h, w, 3], contiguous and not sharing memory with `rgb`, and
        what was done.

    Raises:
        ValueError: an argument is not allowed, or nothing of the image would be left.
    """
    if method not in METHODS:
        raise ValueError(f"method: must be one of {METHODS}, got {method!r}")
    plan = _plan(rgb, image_size, patch_size, fit)
    scaled = (_scale_exact if method == "exact" else _scale_fast)(rgb, plan)
    crop = scaled[plan.top : plan.top + plan.height, plan.left : plan.left + plan.width]
    return np.array(crop, order="C"), plan


def resize_mask(mask: Mask, plan: CropTransform) -> Mask:
    """Return a mask [H, W] of the source image as one of the network's image, bool [h, w].

    A pixel is set where it shows any of the source's pixels that are set.

    Raises:
        ValueError: it is of an image of another size.
    """
    if mask.shape != (plan.source_height, plan.source_width):
        raise ValueError(
            f"mask: expected [{plan.source_height}, {plan.source_width}], got {list(mask.shape)}"
        )
    whole = torch.from_numpy(mask)[None, None].float()
    shares = interpolate(whole, _scaled_size(plan), mode="area")[0, 0]
    crop = shares[plan.top : plan.top + plan.height, plan.left : plan.left + plan.width]
    result: Mask = (crop > 0).numpy()
    return result


@dataclass(frozen=True, slots=True, eq=False)
class NetworkImage:
    """A camera's image as the network sees it."""

    input: Tensor  # float32 [1, 3, h, w] on the network's device, see `to_network_input`
    pixels: Tensor  # uint8 [h, w, 3] on the network's device
    crop: CropTransform
    _host: Tensor  # uint8 [h, w, 3]
    _copied: torch.cuda.Event | None = None  # after which `_host` is filled; None: it is

    @property
    def rgb(self) -> RgbImage:
        """The pixels, uint8 [h, w, 3]; waits for them if they are still on a GPU."""
        if self._copied is not None:
            self._copied.synchronize()
        pixels: RgbImage = self._host.numpy()
        return pixels


def network_image(
    rgb: RgbImage,
    device: torch.device,
    image_size: int,
    *,
    patch_size: int = 16,
    fit: str = "crop",
    method: str = "exact",
) -> NetworkImage:
    """Bring an image to the network's size and device; with "fast" on a GPU nothing waits for it.

    Arguments and errors are those of `resize_and_crop`.
    """
    if device.type != "cpu" and method == "fast":
        plan = _plan(rgb, image_size, patch_size, fit)
        if max(rgb.shape[:2]) <= _MOST_SHRUNK * max(_scaled_size(plan)):
            pixels = scale_on_device(_uploaded(rgb, device), plan)
            host = pixels.to("cpu", non_blocking=True)  # into page-locked memory
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(torch.cuda.current_stream(device))
            return NetworkImage(_normalized(pixels), pixels, plan, host, copied)
    small, plan = resize_and_crop(rgb, image_size, patch_size=patch_size, fit=fit, method=method)
    host = torch.from_numpy(small)
    pixels = host if device.type == "cpu" else _uploaded(small, device)
    return NetworkImage(_normalized(pixels), pixels, plan, host)


class Preprocessor:
    """Brings the images of one stream to the size and device of one network."""

    def __init__(
        self,
        device: torch.device,
        image_size: int,
        *,
        patch_size: int = 16,
        fit: str = "crop",
        method: str = "exact",
    ) -> None:
        """Take the arguments of `network_image`."""
        self._device = device
        self._size = image_size
        self._patch_size, self._fit, self._method = patch_size, fit, method
        self._outside_fov: tuple[Mask | None, Tensor | None] = None, None  # of camera and network

    def plan(self, rgb: RgbImage) -> CropTransform:
        """Plan the way of an image.

        Raises:
            ValueError: it is no image, or nothing of it would be left.
        """
        return _plan(rgb, self._size, self._patch_size, self._fit)

    def image(self, rgb: RgbImage) -> NetworkImage:
        """Bring an image to the network, as `network_image` does."""
        return network_image(
            rgb,
            self._device,
            self._size,
            patch_size=self._patch_size,
            fit=self._fit,
            method=self._method,
        )

    def outside_fov(self, mask: Mask | None, crop: CropTransform) -> Tensor | None:
        """Bring what the lens does not show to the network's image, bool [h, w] on the device.

        It is done once for as long as the mask [H, W] is the same object.
        """
        if mask is not self._outside_fov[0]:
            resized = None
            if mask is not None:
                resized = torch.from_numpy(resize_mask(mask, crop)).to(self._device)
            self._outside_fov = mask, resized
        return self._outside_fov[1]


def _plan(rgb: RgbImage, image_size: int, patch_size: int, fit: str) -> CropTransform:
    """Check an image and plan its way."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"image: expected uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    height, width = rgb.shape[:2]
    return crop_transform(width, height, image_size, patch_size=patch_size, fit=fit)


def scale_on_device(pixels: Tensor, plan: CropTransform) -> Tensor:
    """Do what "fast" does with an image uint8 [H, W, 3] where it is, result uint8 [h, w, 3].

    Only on CPUs torch filters bytes as such, rounded and cut between rows and columns: here the
    result is another by a grey level at most, but where a filter overshoots black or white.
    """
    size = _scaled_size(plan)
    if pixels.shape[:2] != size:
        image = pixels.permute(2, 0, 1)[None].float()
        image = interpolate(image, size, mode="bicubic", antialias=True)
        pixels = image[0].permute(1, 2, 0).round_().clamp_(0, 255).to(torch.uint8)
    crop = pixels[plan.top : plan.top + plan.height, plan.left : plan.left + plan.width]
    return crop.contiguous()


def to_network_input(rgb: RgbImage, device: str | torch.device = "cpu") -> Tensor:
    """Return the network's input, float32 [1, 3, H, W] on `device`, of an image uint8 [H, W, 3].

    Values are (u/255 - 0.5) / 0.5, from -1 to 1. The bytes are uploaded, a quarter of the floats.
    """
    return _normalized(_uploaded(rgb, torch.device(device)))


def _uploaded(rgb: RgbImage, device: torch.device) -> Tensor:
    """Return the pixels uint8 [H, W, 3] on a device, to which they are still on their way."""
    pixels = torch.empty(rgb.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    pixels.numpy()[...] = rgb
    return pixels.to(device, non_blocking=True)


def _normalized(pixels: Tensor) -> Tensor:
    image = pixels.permute(2, 0, 1)[None].contiguous()
    return image.to(torch.float32).div_(255).sub_(0.5).div_(0.5)


def _scale_exact(rgb: RgbImage, plan: CropTransform) -> RgbImage:
    image = Image.fromarray(np.ascontiguousarray(rgb))
    source, scaled = image.size, (plan.scaled_width, plan.scaled_height)
    image = image.resize(scaled, _LANCZOS if max(source) > max(scaled) else _BICUBIC)
    if plan.fit == "resize":
        image = image.resize((plan.width, plan.height), _LANCZOS)
    return np.asarray(image)


def _scale_fast(rgb: RgbImage, plan: CropTransform) -> RgbImage:
    size = _scaled_size(plan)
    if rgb.shape[:2] == size:
        return rgb
    # A copy, since torch shares only writable memory and the pixels of a message are not.
    pixels = torch.tensor(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    scaled = interpolate(pixels, size, mode="bicubic", antialias=True)
    result: RgbImage = scaled[0].permute(1, 2, 0).numpy()
    return result


def _scaled_size(plan: CropTransform) -> tuple[int, int]:
    """Height and width before the crop."""
    if plan.fit == "crop":
        return plan.scaled_height, plan.scaled_width
    return plan.height, plan.width
