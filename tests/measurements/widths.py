"""What a training step's passes cost by a network's widths, and which fill whole blocks of a CPU's convolutions.

    OMP_NUM_THREADS=1 python tests/measurements/widths.py

One forward and backward pass each in turn, nine rounds, so that a busy machine slows all alike; batches of four regions
of 32^3 voxels in the layout that training uses. In float32 and in bfloat16, where the CPU has instructions for that.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from iqt.compute.devices import autocast, machine
from iqt.methods import parse_method
from iqt.networks.size import count_parameters

ROUNDS = 9
UNETS = [(13, 26, 52), (16, 32, 64), (18, 36, 72), (16, 32, 80)]
DIFFUSION = [(24, (1, 2)), (16, (2, 3)), (16, (1, 2)), (8, (1, 2))]


def main() -> None:
    """Print a table."""
    networks = {}
    for channels in UNETS:
        networks[f"unet {channels}"] = parse_method({"kind": "unet", "network": {"channels": channels}}).build()
    for channels, multipliers in DIFFUSION:
        network = {"channels": channels, "multipliers": multipliers, "blocks": 1}
        method = parse_method({"kind": "diffusion_iqt", "network": network})
        networks[f"diffusion_iqt {method.network.widths}"] = method.build()
    layout = torch.channels_last_3d
    noisy, low = (torch.randn(4, 1, 32, 32, 32).to(memory_format=layout) for _ in range(2))
    logsnr = torch.rand(4)
    device = torch.device("cpu")
    precisions = ["float32", *(["bfloat16"] if torch.cpu._is_avx512_bf16_supported() else [])]
    seconds: dict[tuple[str, str], list[float]] = {(name, each): [] for name in networks for each in precisions}
    for network in networks.values():
        network.to(memory_format=layout)
    for _ in range(ROUNDS):
        for name, precision in seconds:
            network, begin = networks[name], time.perf_counter()
            with autocast(precision, device):
                result = network(low) if name.startswith("unet") else network(noisy, low, logsnr)
            result.float().square().mean().backward()
            seconds[name, precision].append(time.perf_counter() - begin)
    where = machine()
    print(f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}; median and least in {precisions}")
    for name, network in networks.items():
        cells = [f"{np.median(seconds[name, each]):.3f} | {min(seconds[name, each]):.3f}" for each in precisions]
        print(f"| {name} | {count_parameters(network):,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
