"""Falcon's weights as a Phi model, which computes the same and which onnxruntime-genai's builder knows.

Both families add attention and feed-forward of the same normed input to the residual ("parallel" blocks), rotate
queries and keys alike and end in a norm. Falcon fuses queries, keys and values into one matrix, has few or no biases,
and newer ones norm the two branches apart. Since those two norms differ only in gain and shift, they fold into the
matrices behind them: W (g ∘ n + s) = (W diag g) n + W s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM

from model_store.errors import InvalidConfig


def falcon_as_phi(falcon: Any) -> PhiForCausalLM:
    """A Phi model with the logits of ``falcon`` (a FalconForCausalLM), in its dtype.

    Raises InvalidConfig for Falcons that are built otherwise: with ALiBi, or without parallel blocks (the early "rw").
    """
    config = falcon.config
    if config.alibi or not (config.parallel_attn or config.new_decoder_architecture):
        raise InvalidConfig("a Falcon with ALiBi or without parallel attention has no embedded form; vLLM serves it")
    with torch.device("meta"):
        phi = PhiForCausalLM(_phi_config(config))
    weights = {
        "model.embed_tokens.weight": falcon.transformer.word_embeddings.weight,
        **_named("model.final_layernorm", falcon.transformer.ln_f.weight, falcon.transformer.ln_f.bias),
        **_named("lm_head", falcon.lm_head.weight, _bias(falcon.lm_head)),
    }
    for index, block in enumerate(falcon.transformer.h):
        weights |= {f"model.layers.{index}.{name}": value for name, value in _layer(block, config).items()}
    phi.load_state_dict({name: value.detach().contiguous() for name, value in weights.items()}, assign=True)
    if config.tie_word_embeddings:
        phi.tie_weights()
    _compute_rotation(phi, falcon)
    return phi.eval()


def _phi_config(config: Any) -> PhiConfig:
    return PhiConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.ffn_hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=_key_heads(config),
        hidden_act=config.activation,
        max_position_embeddings=config.max_position_embeddings,
        layer_norm_eps=config.layer_norm_epsilon,
        rms_norm_eps=config.layer_norm_epsilon,  # the builder looks for it under no other name
        tie_word_embeddings=config.tie_word_embeddings,
        rope_parameters={**config.rope_parameters, "partial_rotary_factor": 1.0},
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        dtype=config.dtype,
        architectures=["PhiForCausalLM"],
    )


def _key_heads(config: Any) -> int:
    """Of how many heads there are keys and values: one for all in Falcon 7B."""
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _layer(block: Any, config: Any) -> dict[str, Tensor]:
    """The weights of one of Phi's layers."""
    attention, forward = block.self_attention, block.mlp
    inner, first = _fused(attention.query_key_value), _fused(forward.dense_h_to_4h)
    if hasattr(block, "ln_attn"):
        inner, first = _after_norm(*inner, block.ln_attn), _after_norm(*first, block.ln_mlp)
        gain, shift = torch.ones_like(block.ln_attn.weight), torch.zeros_like(block.ln_attn.bias)
    else:
        gain, shift = block.input_layernorm.weight, block.input_layernorm.bias
    parts = {
        f"self_attn.{name}": _named("", *part)
        for name, part in zip(("q_proj", "k_proj", "v_proj"), _split(*inner, config), strict=True)
    }
    parts |= {
        "input_layernorm": _named("", gain, shift),
        "self_attn.dense": _named("", *_fused(attention.dense)),
        "mlp.fc1": _named("", *first),
        "mlp.fc2": _named("", *_fused(forward.dense_4h_to_h)),
    }
    return {f"{name}{key}": value for name, part in parts.items() for key, value in part.items()}


def _split(weight: Tensor, bias: Tensor, config: Any) -> list[tuple[Tensor, Tensor]]:
    """Queries, keys and values (weight, bias) out of the fused matrix, in which every group of heads has its own."""
    size = config.hidden_size // config.num_attention_heads
    groups = _key_heads(config)
    queries = config.num_attention_heads // groups  # per group, before its one key and one value
    heads = weight.view(groups, queries + 2, size, -1), bias.view(groups, queries + 2, size)
    places = slice(0, queries), slice(queries, queries + 1), slice(queries + 1, queries + 2)
    return [(heads[0][:, place].flatten(0, 2), heads[1][:, place].flatten()) for place in places]


def _after_norm(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The matrix that takes what the norm gives before its gain and shift."""
    wide = weight.double()
    folded = wide * norm.weight.double(), bias.double() + wide @ norm.bias.double()
    return folded[0].to(weight.dtype), folded[1].to(bias.dtype)


def _fused(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight, _bias(linear)


def _bias(linear: nn.Linear) -> Tensor:
    return torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias


def _named(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _compute_rotation(phi: PhiForCausalLM, falcon: Any) -> None:
    """The rotary frequencies are no weights: made on the meta device, they must be taken over."""
    for name, value in falcon.transformer.rotary_emb.named_buffers():
        phi.model.rotary_emb.register_buffer(name, value.clone(), persistent=False)
