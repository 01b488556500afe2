"""The residual network below Fashion DNA: pictures → embeddings, frozen once trained (Zalando 2017, §2.2).

Either a pretrained ``transformers`` ResNet, or a small one of the same family that the pipeline trains itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, ResNetConfig, ResNetModel

from model_store.errors import InvalidConfig

_SCALE = "preprocessor_config.json"
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ResidualNetwork(nn.Module):
    """uint8 pictures (B, height, width, 3) → float32 embeddings (B, E). Scaling of pixels is part of the network."""

    def __init__(
        self,
        backbone: Any,
        mean: tuple[float, ...] = _IMAGENET_MEAN,
        std: tuple[float, ...] = _IMAGENET_STD,
    ):
        super().__init__()
        self.backbone = backbone
        self.size: int = backbone.config.hidden_sizes[-1]
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float() / 255.0  # (B, 3, height, width)
        pixels = (pixels - self.mean) / self.std  # type: ignore[operator]
        pooled: Tensor = self.backbone(pixels).pooler_output  # (B, E, 1, 1)
        return pooled.flatten(1)


def small_residual_network() -> ResidualNetwork:
    """An untrained residual network of about 0.3M weights, E = 128, for thumbnails on a CPU."""
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic", hidden_act="relu"
    )
    return ResidualNetwork(ResNetModel(config))


def residual_network_from_folder(folder: Path) -> ResidualNetwork:
    """A network that ``save_residual_network`` wrote."""
    scale = json.loads((folder / _SCALE).read_text())
    backbone = ResNetModel(ResNetConfig.from_pretrained(folder))
    backbone.load_state_dict(load_file(folder / "model.safetensors"))
    return ResidualNetwork(backbone, tuple(scale["image_mean"]), tuple(scale["image_std"]))


def save_residual_network(network: ResidualNetwork, folder: Path) -> None:
    """Write weights, configuration and pixel scale in the layout of ``transformers``."""
    config, weights = network.backbone.config, network.backbone.state_dict()
    config.save_pretrained(folder)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    scale = {"image_mean": network.get_buffer("mean").flatten().tolist()}
    scale["image_std"] = network.get_buffer("std").flatten().tolist()
    (folder / _SCALE).write_text(json.dumps(scale))


def pretrained_residual_network(name_or_folder: str) -> ResidualNetwork:
    """Any ``transformers`` ResNet directory or hub id, with the pixel scale that its preprocessor names.

    Raises InvalidConfig where it is not a ResNet or cannot be loaded.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_folder)
        if config.model_type != "resnet":
            raise InvalidConfig(f"images.network: '{name_or_folder}' is a {config.model_type}, not a ResNet")
        backbone = AutoModel.from_pretrained(name_or_folder, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"images.network: '{name_or_folder}' cannot be loaded ({error})") from error
    preprocessor = Path(name_or_folder) / _SCALE
    scale = json.loads(preprocessor.read_text()) if preprocessor.is_file() else {}
    return ResidualNetwork(
        backbone, tuple(scale.get("image_mean", _IMAGENET_MEAN)), tuple(scale.get("image_std", _IMAGENET_STD))
    )
