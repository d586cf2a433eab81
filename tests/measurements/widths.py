"""What a training step's passes cost by a network's widths, and which fill whole blocks of a CPU's convolutions.

    OMP_NUM_THREADS=1 python tests/measurements/widths.py

One forward and backward pass each in turn, nine rounds, so that a busy machine slows all alike; batches of four regions
of 32^3 voxels in the layout that training uses.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from iqt.compute.devices import machine
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
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        network.to(memory_format=layout)
    for _ in range(ROUNDS):
        for name, network in networks.items():
            begin = time.perf_counter()
            result = network(low) if name.startswith("unet") else network(noisy, low, logsnr)
            result.square().mean().backward()
            seconds[name].append(time.perf_counter() - begin)
    where = machine()
    print(f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}")
    for name, taken in seconds.items():
        print(f"| {name} | {count_parameters(networks[name]):,} | {np.median(taken):.3f} | {min(taken):.3f} |")


if __name__ == "__main__":
    main()
