"""The training configuration: a TOML file, checked key by key. Profiles that ship lie in ``offline/configs``.

Whatever a profile leaves out has the default below. The resolved configuration is kept in the run and in the bundle.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from model_store.errors import InvalidConfig
from model_store.prompts import ATTRIBUTES, Attribute
from model_store.records import describe_validation_error
from model_store.time_features import Component
from offline.hold_out import BY_TIME, Protocol

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SplitConfig(_Section):
    """Where time is cut, in whole days (UTC). None: the data set's own ``window_days``.

    ``test_days`` at the end are never looked at; 0 trains for production, up to the last event. ``validation_days``
    before them stop the training early and fit the blend. ``hold_out``: what is kept for evaluation; ``last_order``
    and ``last_purchase`` leave the end of each history out instead of the last days (``offline.hold_out``), and of what
    is left the end once more, to validate the style half by; the generating half keeps to the days.
    """

    hold_out: Protocol = BY_TIME
    validation_days: Positive | None = None
    test_days: Annotated[int, Field(ge=0)] | None = None


class Schedule(_Section):
    """How one stage is trained: AdamW, a warm-up, then a cosine down to 0 at the last epoch.

    ``warm_up`` is the share of all steps in which the rate rises to ``lr``; ``clip_norm`` bounds the gradient's length
    (0: not at all); after ``patience`` epochs without a better validation score training stops, and the best weights
    count. Besides every epoch's end, a checkpoint is written after each ``checkpoint_steps`` steps.
    """

    batch: Positive = 128
    epochs: Positive = 10
    lr: Annotated[float, Field(gt=0, le=10)] = 1e-3
    weight_decay: Amount = 0.0
    warm_up: Share = 0.05
    clip_norm: Amount = 0.0
    patience: Positive = 5
    checkpoint_steps: Positive = 1_000


class ImagesConfig(Schedule):
    """The residual network. ``network``: a ``transformers`` ResNet directory or hub id; empty: train a small one.

    Pictures are resized to ``height`` × ``width`` pixels. The small network learns from at most ``max_pictures``
    different pictures; an attribute's value counts where at least ``min_attribute_count`` of them show it.
    ``cache``: the folder that keeps embeddings between runs; empty: inside the run.
    """

    network: str = ""
    height: Annotated[int, Field(ge=8, le=1024)] = 48
    width: Annotated[int, Field(ge=8, le=1024)] = 36
    max_pictures: Positive = 20_000
    min_attribute_count: Positive = 20
    cache: str = ""


class FashionDnaConfig(Schedule):
    """Fashion DNA and the static customers it is trained through.

    Customers take part with at least ``min_purchases`` purchases, the ``max_customers`` most frequent of them; a tag
    with at least ``min_tag_count`` articles, the ``max_tags`` most frequent of them. ``unit_norm`` gives every f the
    same length, √128; ``constant`` turns a component into a constant, which stands in for a bias; ``popularity`` gives
    the last one to decayed sales, with which the style LSTM is trained jointly.
    ``ignore_price``: for shops whose prices are known from sales alone, where the absence of a price would give away
    that an article was never sold. ``style_regularisation`` is 1 / (2 σ²) of a normal prior on a customer's deviation
    from the shared style.
    """

    hidden: Positive = 256
    dropout: Share = 0.1
    tag_dropout: Share = 0.1
    unit_norm: bool = False
    constant: bool = False
    popularity: bool = False
    ignore_price: bool = False
    min_purchases: Positive = 2
    max_customers: Positive = 100_000
    min_tag_count: Positive = 5
    max_tags: Positive = 20_000
    style_regularisation: Amount = 1.0


class StyleLstmConfig(Schedule):
    """The style LSTM: its loss (equation 2), its n negatives, and the components of τ.

    ``recent_share`` of the negatives are articles sold in the ``recent_days`` before the purchase (as often as they
    sold), the others uniform among what was in stock. A history longer than ``max_purchases`` is cut into chunks.
    ``validation_customers`` bounds the customers that early stopping ranks for. ``refit_epochs`` more epochs, at a
    tenth of the rate, follow on all purchases before the cut-off, validation window included. ``article_offsets``:
    whether each article learns an offset to its Fashion DNA, with an L2 ``offset_penalty``, left out with the
    probability ``offset_dropout`` (``offline.article_offsets``).
    """

    loss: Literal["rank", "sigmoid", "softmax"] = "rank"
    negatives: Positive = 20
    recent_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    recent_days: Positive = 28
    dropout: Share = 0.0
    time: Annotated[tuple[Component, ...], Field(min_length=1)] = ("trend", "season", "gap")
    max_purchases: Annotated[int, Field(ge=2)] = 200
    validation_customers: Positive = 5_000
    refit_epochs: Annotated[int, Field(ge=0)] = 0
    article_offsets: bool = False
    offset_penalty: Annotated[float, Field(ge=0)] = 0.3
    offset_dropout: Share = 0.3


class SessionsConfig(_Section):
    """The sequences that the generating half learns from (Amazon 2024, §4.1, §5.1).

    A session holds the latest ``actions`` searches, clicks and purchases before an order; at most ``examples`` orders
    are drawn for training and ``held_out`` of the validation window.
    """

    actions: Annotated[int, Field(ge=1, le=200)] = 50
    examples: Positive = 1_000_000
    held_out: Positive = 1_000


class TitleEncoderConfig(Schedule):
    """The title encoder (Amazon 2024, §4.4): an LSTM of ``hidden`` cells over tokens of ``embedding`` components.

    ``vocabulary``: tokens at most; ``margin``: of the triplet loss; ``max_pairs``: (query, title) pairs an epoch.
    ``dropout`` makes texts fall together the sooner (in the sample shop at 0.1, with a rate of 5e-3).
    """

    vocabulary: Annotated[int, Field(ge=300, le=100_000)] = 8_000
    embedding: Positive = 128
    hidden: Positive = 128
    dropout: Share = 0.0
    margin: Annotated[float, Field(gt=0, le=2)] = 0.2
    max_pairs: Positive = 100_000


class IdEmbeddingsConfig(Schedule):
    """CORE (Hou et al. 2022): ``variant`` trm or ave, softmax over cosines divided by ``temperature``.

    Articles with fewer than ``min_actions`` clicks and purchases in training share the cold embedding, which is
    trained by putting it in the place of a known one with probability ``cold_share``. Sequences are cut into stretches
    of ``max_actions``; at most ``max_sequences`` of them are drawn per epoch. ``predict``: what follows a prefix and
    is learned from it. ``dropout`` is the transformer's, ``item_dropout`` that of articles' embeddings.
    """

    variant: Literal["trm", "ave"] = "trm"
    predict: Literal["purchases", "actions"] = "purchases"
    temperature: Annotated[float, Field(gt=0, le=1)] = 0.07
    layers: Positive = 2
    heads: Positive = 2
    inner: Positive = 256
    dropout: Share = 0.2
    item_dropout: Share = 0.2
    cold_share: Share = 0.05
    min_actions: Positive = 1
    max_actions: Annotated[int, Field(ge=1, le=200)] = 50
    max_sequences: Positive = 1_000_000


class QueryMemoryConfig(_Section):
    """The query-product memory (Amazon 2024, §4.2): Q ``nearest_queries``, V ``top_articles``.

    Where ``top_articles`` is 0, prompts name no candidates.
    Of each query ``positions`` articles are kept, of which some are out of stock at any moment; of more than
    ``max_queries`` queries those most often shown.
    ``clip``: a ``transformers`` CLIP directory or hub id whose text encoder makes the keys; empty: the title encoder.
    """

    nearest_queries: Annotated[int, Field(ge=1, le=100)] = 3
    top_articles: Annotated[int, Field(ge=0, le=100)] = 5
    positions: Positive = 20
    max_queries: Positive = 100_000
    clip: str = ""


class PromptsConfig(_Section):
    """What prompts tell of an article besides its id and title (Amazon 2024, §4.2): ``attributes``, or none."""

    attributes: tuple[Attribute, ...] = ATTRIBUTES

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, attributes: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
        if len(set(attributes)) < len(attributes):
            raise ValueError("name each attribute once")
        return attributes


class StandInConfig(Schedule):
    """The small base model that the pipeline trains itself where no other is named: a Llama of 5 to 15 million weights.

    Its tokenizer and weights learn from the shop's own titles, attributes and result lists: ``documents`` made of them
    an epoch, cut to ``tokens``. A prompt's tokens count ``prompt_weight`` times as much as its response's. The defaults
    learned most from a minute of one core on the sample shop: few layers, small batches, and a rate that leaves the
    weights' beginning intact.
    """

    batch: Positive = 4
    epochs: Positive = 2
    lr: Annotated[float, Field(gt=0, le=10)] = 1e-3
    clip_norm: Amount = 1.0
    vocabulary: Annotated[int, Field(ge=300, le=100_000)] = 4_096
    hidden: Positive = 512
    intermediate: Positive = 768
    layers: Positive = 2
    heads: Positive = 8
    tokens: Annotated[int, Field(ge=64, le=32_768)] = 1_024
    documents: Positive = 1_200
    prompt_weight: Annotated[float, Field(ge=0, le=1)] = 0.3

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> StandInConfig:
        if self.hidden % (2 * self.heads):
            raise ValueError("hidden: must be a multiple of twice the number of heads")
        return self


class LoraConfig(_Section):
    """Fine-tuning of the language model; the defaults are the paper's (Amazon 2024, §5.1).

    One epoch over all prompts; then the ``hard_share`` of them with the highest perplexity get ``hard_epochs`` more.
    ``quantise``: 4-bit NF4 (QLoRA) where CUDA and bitsandbytes are there. ``batch``: prompts per step, shared by all
    processes, of which each computes ``micro_batch`` at once.
    """

    rank: Positive = 16
    alpha: Positive = 16
    dropout: Share = 0.05
    lr: Annotated[float, Field(gt=0, le=1)] = 2e-5
    weight_decay: Amount = 0.0
    warm_up: Share = 0.03
    clip_norm: Amount = 1.0
    batch: Positive = 16
    micro_batch: Positive = 16
    epochs: Positive = 1
    hard_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    hard_epochs: Annotated[int, Field(ge=0)] = 3
    quantise: Literal["auto", "off"] = "auto"
    checkpoint_steps: Positive = 200


class LanguageModelConfig(_Section):
    """``base``: a causal language model's directory or hub id; empty: the stand-in, trained as ``stand_in`` says.

    ``max_tokens`` of prompt and response together, ``response_tokens`` of the latter. ``probes``: held-out sessions on
    which the effect of each stage is measured.
    """

    base: str = ""
    max_tokens: Annotated[int, Field(ge=128, le=32_768)] = 1_024
    response_tokens: Annotated[int, Field(ge=16, le=512)] = 64
    temperature: Amount = 0.05
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    probes: Positive = 200
    stand_in: StandInConfig = StandInConfig()
    lora: LoraConfig = LoraConfig()


class GenerationConfig(_Section):
    """The generating half. ``enabled``: False for shops without titles, or without searches and clicks."""

    enabled: bool = True
    mixup: Annotated[int, Field(ge=0, le=200)] = 1
    sessions: SessionsConfig = SessionsConfig()
    title_encoder: TitleEncoderConfig = TitleEncoderConfig()
    id_embeddings: IdEmbeddingsConfig = IdEmbeddingsConfig()
    query_memory: QueryMemoryConfig = QueryMemoryConfig()
    prompts: PromptsConfig = PromptsConfig()
    language_model: LanguageModelConfig = LanguageModelConfig()


class Config(_Section):
    """Everything that decides what training gives, besides the data.

    ``device``: auto takes CUDA where there is one. ``precision``: auto is bfloat16 (or float16) with float32 weights
    on CUDA; the CPU computes in float32, language models in bfloat16 where it has instructions for that. ``threads``:
    of one process on the CPU, and where there are cores for more, stages that need nothing of each other are trained in
    processes side by side; 0: as many as torch chooses, in one process.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    split: SplitConfig = SplitConfig()
    images: ImagesConfig = ImagesConfig()
    fashion_dna: FashionDnaConfig = FashionDnaConfig()
    style_lstm: StyleLstmConfig = StyleLstmConfig()
    generation: GenerationConfig = GenerationConfig(enabled=False)


def load_config(source: str | Path) -> Config:
    """The configuration in a TOML file, or in the shipped profile of that name (``default``, ``hm``, …).

    Raises InvalidConfig with the file, the key, and what was expected.
    """
    path = Path(source)
    if not path.suffix and not path.is_file():
        path = _shipped(str(source))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: is not TOML ({error})") from None
    return parse_config(content, str(path))


def parse_config(content: dict[str, Any], name: str) -> Config:
    """A configuration from plain values. ``name`` is what error messages call it."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        field, message = describe_validation_error(error)
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "extra_forbidden":
            raise InvalidConfig(f"{name}: {field}: there is no such key{_siblings(first['loc'])}") from None
        raise InvalidConfig(f"{name}: {field}: {message[0].lower()}{message[1:]}, got {first['input']!r}") from None


def profiles() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(Path(entry.name).stem for entry in _configs().iterdir() if entry.name.endswith(".toml"))


def _configs() -> Path:
    return Path(str(files("offline") / "configs"))


def _shipped(name: str) -> Path:
    if name not in profiles():
        raise InvalidConfig(f"--config '{name}' is no file and no profile; the profiles are {', '.join(profiles())}")
    return _configs() / f"{name}.toml"


def _siblings(location: tuple[int | str, ...]) -> str:
    """The keys that exist where an unknown one was found."""
    model: Any = Config
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
    return f"; known here: {', '.join(model.model_fields)}"
