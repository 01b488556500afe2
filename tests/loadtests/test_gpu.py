from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from loadtests.gpu import SIZES, main


def test_the_tiny_measurement_goes_through_every_step(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "gpu.json"
    main(["--tiny", "--steps", "2", "--out", str(out)])
    report = json.loads(out.read_text())
    assert report["measured"].endswith("+00:00")
    assert report["hardware"]["cores"] >= 1
    names = [row["name"] for row in report["results"]]
    assert names[0] == "tiny, fine-tuning, LoRA"
    assert names[-2:] == ["tiny, decoding, 1 at once", "tiny, decoding, 2 at once"]
    assert all(row["value"] > 0 and row["unit"] == "tokens/s" for row in report["results"])


def test_real_sizes_are_not_measured_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(SystemExit):
        main([])
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "weights"), [("0.5B", 0.49e9), ("1.5B", 1.54e9), ("7B", 7.6e9)])
def test_sizes_have_as_many_weights_as_their_names_say(name: str, weights: float) -> None:
    size = next(size for size in SIZES if size.name == name)
    head = size.hidden // size.heads
    attention = 2 * size.hidden**2 + 2 * size.hidden * size.key_heads * head
    layers = size.layers * (attention + 3 * size.hidden * size.intermediate)
    embeddings = size.vocabulary * size.hidden * (1 if size.hidden < 2048 else 2)
    assert layers + embeddings == pytest.approx(weights, rel=0.02)
