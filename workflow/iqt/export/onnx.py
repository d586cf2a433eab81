"""A network of one pass as ONNX, with its standardisation: the low-field volume in, the enhanced one out."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iqt.errors import StopError, UserError
from iqt.export.card import model_card
from iqt.io.files import new_folder, write_text
from iqt.methods.base import Learned
from iqt.training.card import method_of
from iqt.training.checkpoints import load_card, load_weights

OPSET = 17
AGREEMENT = 1e-4
"""Largest difference from torch's result on the intensity scale, on which a brain's white matter is near 1."""
USE = """As ONNX (`model.onnx`): `lowfield` is a volume (1, 1, X, Y, Z) in RAS order with these voxels, edges multiples
of {edges}, 0 outside the brain and divided by its {percentile}th percentile inside; `enhanced` is the result on that
scale, to be set to 0 outside the brain.

"""


class Whole(nn.Module):
    """A network with what is done before and after it."""

    def __init__(self, network: nn.Module, method: Learned, standard: dict[str, float]) -> None:
        super().__init__()
        self.network, self.residual, self.standard = network, method.target == "residual", standard

    def forward(self, lowfield: Tensor) -> Tensor:
        standard = self.standard
        output = self.network((lowfield - standard["input_mean"]) / standard["input_sd"])
        output = output * standard["target_sd"] + standard["target_mean"]
        return output + lowfield if self.residual else output


def write_onnx(model: Path, out: Path) -> None:
    """Write `model.onnx` and a card to the folder `out`, if onnxruntime's result agrees with torch's.

    Raises:
        StopError: onnx or onnxruntime is not installed.
        UserError: the model is not one of a single pass, the folder is there already, or the two disagree.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise StopError("--format onnx needs onnx and onnxruntime: pip install 'iqt[export]'") from None
    from iqt.io.volumes import SCALE_PERCENTILE

    card = load_card(model)
    method = method_of(model, card)
    if method.calls != 1 or method.draws:
        raise UserError(f"{model}: a model of kind {card['kind']} calls its network several times; ONNX holds one pass")
    network = method.build()
    load_weights(model, network)
    whole = Whole(network, method, card["standardisation"]).eval()
    edges = method.patches.region
    example = torch.rand(1, 1, *edges, generator=torch.Generator().manual_seed(0))
    names = {"lowfield": {2: "x", 3: "y", 4: "z"}, "enhanced": {2: "x", 3: "y", 4: "z"}}
    with tempfile.TemporaryDirectory(prefix="iqt-") as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            whole, (example,), path, input_names=["lowfield"], output_names=["enhanced"], dynamic_axes=names,
            opset_version=OPSET, dynamo=False,
        )  # fmt: skip
        graph = onnx.load(path)
        graph.metadata_props.add(key="card", value=json.dumps({key: card[key] for key in ("kind", "weights_sha256")}))
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        # Of other edges than those that it was traced with.
        other = torch.rand(1, 1, *(2 * edge for edge in edges), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            wanted = whole(other).numpy()
        (found,) = session.run(None, {"lowfield": other.numpy()})
        apart = float(np.abs(found - wanted).max())
        if not apart <= AGREEMENT:
            raise UserError(f"{model}: onnxruntime and torch differ by up to {apart:.3g}; nothing is written")
    use = USE.format(edges=" x ".join(map(str, edges)), percentile=SCALE_PERCENTILE)
    with new_folder(out) as folder:
        onnx.save(graph, folder / "model.onnx")
        write_text(folder / "README.md", model_card(card, use))
