"""What `modiste bench` holds the service against: the same recommendation by the plain stack, one request at a time.

A FastAPI endpoint with `response_model`, redis-py, one step of torch's LSTM, a flat FAISS index over float32: as one
would write them down first. It answers ``strategy=style`` from the same bundle, states and articles, and gives the
same articles (a test holds them against each other); filters, other strategies, events, changes of stock and a Redis
that is away are left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnx.numpy_helper
import torch
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from redis.asyncio import Redis

from model_store import DNA_SIZE, MEMORY_SIZE
from model_store.bundle import STYLE_LSTM, Bundle, open_bundle
from model_store.dataset import DataSet
from model_store.history import Purchase
from model_store.time_features import encode_step
from service.engine.index import PUBLIC_FIELDS
from service.http.schemas import Recommendations
from service.lifeline import follow
from service.state.codec import unpack_state
from service.state.customer import empty_state
from service.state.redis_store import customer_keys


class PlainStack:
    """Everything in memory but the customers' states.

    ``dna`` float32 (N, 128): Fashion DNA of the articles of ``data``, all of which are in stock.
    ``clock``: Unix seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        data: DataSet,
        dna: NDArray[np.float32],
        redis: Redis,
        clock: Callable[[], float] = time.time,
    ):
        self._redis, self._clock = redis, clock
        self._time_spec, self._version = bundle.manifest.time_spec, bundle.manifest.version
        self._articles = [article.model_dump(include=set(PUBLIC_FIELDS)) for article in data.articles()]
        self._row_of = {article["article_id"]: row for row, article in enumerate(self._articles)}
        self._dna = dna
        self._index: Any = faiss.IndexFlatIP(DNA_SIZE)
        self._index.add(dna)
        self._lstm, self._head = _style_lstm(bundle.path(STYLE_LSTM))

    async def recommend(self, customer_id: str, n: int) -> dict[str, Any]:
        """The ``n`` articles with the highest f·d that the customer has not bought (``Recommendations``).

        Of a customer without purchases d is that of the empty history.
        """
        packed: Any = await self._redis.get(customer_keys(customer_id).state)
        unpacked = unpack_state(packed)
        state = empty_state(self._version) if unpacked is None else unpacked[0]
        step = self._step(state.pending, int(self._clock()))
        with torch.inference_mode():
            memory = tuple(torch.tensor(part)[None, None] for part in (state.hidden, state.cell))
            style = self._head(self._lstm(torch.from_numpy(step), memory)[0])[0].numpy()
        bought = {*state.purchased, *state.returned}
        scores, rows = self._index.search(style, n + len(bought))
        found = ((self._articles[row], score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True))
        shown = [(article, score) for article, score in found if article["article_id"] not in bought][:n]
        return {
            "customer_id": customer_id,
            "bundle": self._version,
            "strategy": "style",
            "degraded": False,
            "generation": "none",
            "articles": [
                article | {"score": score, "sources": {"style": rank}} for rank, (article, score) in enumerate(shown, 1)
            ],
        }

    def _step(self, pending: Purchase | None, now: int) -> NDArray[np.float32]:
        if pending is None:
            return encode_step(self._time_spec, None, 0, now)
        last = self._dna[self._row_of[pending.article_id]]
        return encode_step(self._time_spec, last, pending.timestamp, max(now, pending.timestamp))


def _style_lstm(path: Path) -> tuple[torch.nn.LSTM, torch.nn.Linear]:
    """The bundle's graph in torch: its gates stand in another order there (i, o, f, c → i, f, c, o)."""
    graph = onnx.load(path).graph
    known = {each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in graph.initializer}
    gates = torch.arange(4 * MEMORY_SIZE).reshape(4, MEMORY_SIZE)[[0, 2, 3, 1]].ravel()
    inward, recurrent = known["bias"][0].reshape(2, 4 * MEMORY_SIZE)
    lstm = torch.nn.LSTM(known["weight"].shape[2], MEMORY_SIZE, batch_first=True)
    head = torch.nn.Linear(MEMORY_SIZE, DNA_SIZE)
    lstm.load_state_dict(
        {
            "weight_ih_l0": known["weight"][0][gates],
            "weight_hh_l0": known["recurrence"][0][gates],
            "bias_ih_l0": inward[gates],
            "bias_hh_l0": recurrent[gates],
        }
    )
    head.load_state_dict({"weight": known["projection"].T, "bias": known["projection_bias"]})
    return lstm, head


def create_app(stack: PlainStack) -> FastAPI:
    """The application, which answers as the service does."""
    app = FastAPI()

    @app.get("/v1/customers/{customer_id}/recommendations", response_model=Recommendations)
    async def recommendations(customer_id: str, n: int = 20) -> Any:
        return await stack.recommend(customer_id, n)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main() -> None:
    """Serve: port, process to follow, folder of the bundle, folder of the data set, file of its DNA, URL of Redis."""
    port, parent, bundle, data, dna, redis_url = sys.argv[1:]
    follow(int(parent))
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    stack = PlainStack(open_bundle(Path(bundle)), DataSet.open(Path(data)), np.load(dna), Redis.from_url(redis_url))
    uvicorn.run(
        create_app(stack), port=int(port), loop="uvloop", http="httptools", ws="none", access_log=False, log_config=None
    )


if __name__ == "__main__":
    main()
