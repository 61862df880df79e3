#!/usr/bin/env python3
"""Names what a photo shows: the likeliest of ImageNet's 1,000 classes.

    classify.py [--top 5] ADDRESS_OR_PATH

The network is EfficientNet-Lite0, run by ncnn on one core. Its weights are in
the container image (see convert.py), so a run fetches the photo and nothing
else.
"""

import argparse
import io
import os
import sys

SIZE = 224  # pixels, the side of the square that the network takes
KEPT = SIZE / (SIZE + 32)  # it was trained to see the middle of a photo
MAX_BYTES = 32 << 20
MAX_PIXELS = 64_000_000
HERE = os.path.dirname(os.path.abspath(__file__))


def fetch(where):
    """The bytes of a file, or of an http or https address."""
    if "://" not in where:
        with open(where, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    elif where.lower().startswith(("http://", "https://")):
        import urllib.request  # costs 30 ms, so only when there is an address

        request = urllib.request.Request(where, headers={"User-Agent": "abax-classifier/1"})
        with urllib.request.urlopen(request, timeout=20) as response:
            data = response.read(MAX_BYTES + 1)
    else:
        raise ValueError("neither a file nor an http or https address")
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    return data


def middle(data):
    """The middle square of the photo as SIZE × SIZE × 3 bytes of RGB."""
    from PIL import Image

    photo = Image.open(io.BytesIO(data))
    if photo.width * photo.height > MAX_PIXELS:
        raise ValueError(f"{photo.width}x{photo.height} pixels are too many")
    if photo.mode in ("RGBA", "LA", "PA", "P") or "transparency" in photo.info:
        photo = photo.convert("RGBA")
        paper = Image.new("RGBA", photo.size, "white")
        photo = Image.alpha_composite(paper, photo)
    photo = photo.convert("RGB")
    side = int(KEPT * min(photo.size))
    left, top = (photo.width - side + 1) // 2, (photo.height - side + 1) // 2
    box = (left, top, left + side, top + side)
    return photo.resize((SIZE, SIZE), Image.BICUBIC, box=box).tobytes()


def scores(rgb):
    """One score per class; together they are 1."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    # Full 32-bit floats: the same five decimals on every processor.
    for shortcut in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, shortcut, False)
    model = os.path.join(HERE, "model")
    if net.load_param(model + ".param") or net.load_model(model + ".bin"):
        raise RuntimeError(f"{model}.param and .bin could not be loaded")

    image = ncnn.Mat.from_pixels(rgb, ncnn.Mat.PixelType.PIXEL_RGB, SIZE, SIZE)
    image.substract_mean_normalize([127.0] * 3, [1 / 128] * 3)
    run = net.create_extractor()
    run.input("image", image)
    status, out = run.extract("scores")
    if status:
        raise RuntimeError(f"ncnn answered {status}")
    return [out[i] for i in range(out.w)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photo", metavar="ADDRESS_OR_PATH")
    parser.add_argument("--top", type=int, default=5, help="how many classes to print")
    arguments = parser.parse_args()
    try:
        rgb = middle(fetch(arguments.photo))
    except Exception as error:  # whatever is wrong with the photo, its sender should read
        sys.exit(f"classify: {arguments.photo}: {error}")

    found = scores(rgb)
    with open(os.path.join(HERE, "labels.txt"), encoding="utf-8") as file:
        labels = file.read().splitlines()
    for best in sorted(range(len(found)), key=found.__getitem__, reverse=True)[: arguments.top]:
        print(f"{labels[best]} (score = {found[best]:.5f})")


if __name__ == "__main__":
    main()
