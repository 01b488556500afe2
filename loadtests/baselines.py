"""What `modiste bench` holds the service against: the same recommendation, written down first, one request at a time.

The *plain stack*: a FastAPI endpoint with `response_model`, redis-py, one step of torch's LSTM, a flat FAISS index over
float32. The *bare trial*: FastAPI, redis-py, the bundle's ONNX graph, a clustered FAISS index of half precision with a
fixed number of cells that a search looks into, and articles whose JSON is made in advance: what is quick, and nothing
else. Both answer ``strategy=style`` from the same bundle, states and articles; the plain stack with the same articles,
the bare trial with nearly the same (a test holds them against the service). Filters, other strategies, events, changes
of stock and a Redis that is away are left out.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnx
import onnx.numpy_helper
import orjson
import torch
import uvicorn
from fastapi import FastAPI, Response
from numpy.typing import NDArray
from redis.asyncio import Redis

from model_store import DNA_SIZE, MEMORY_SIZE
from model_store.bundle import STYLE_LSTM, Bundle, open_bundle
from model_store.dataset import DataSet
from model_store.graphs import Memory, StyleLstm
from model_store.history import Purchase
from model_store.time_features import encode_step
from service.engine.index import PUBLIC_FIELDS, public_json
from service.http.schemas import Recommendations
from service.lifeline import follow
from service.state.codec import unpack_state
from service.state.customer import CustomerState, empty_state
from service.state.redis_store import customer_keys

ROUTE = "/v1/customers/{customer_id}/recommendations"
CELLS, PROBED, ROUNDS = 1_024, 48, 8  # of the bare trial's index; rounds of k-means


class Baseline(ABC):
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
        self._ids = list(data.article_ids)
        self._row_of = {article_id: row for row, article_id in enumerate(self._ids)}
        self._dna = dna
        self._index = self._index_of(dna)

    @abstractmethod
    def route(self, app: FastAPI) -> None:
        """Have ``app`` answer ``ROUTE``."""

    @abstractmethod
    def _index_of(self, dna: NDArray[np.float32]) -> Any:
        """The FAISS index of the articles."""

    @abstractmethod
    def _style(self, state: CustomerState, step: NDArray[np.float32]) -> NDArray[np.float32]:
        """The style d (1, 128) after one ``step`` (1, 1, D)."""

    async def _best(self, customer_id: str, n: int) -> list[tuple[int, float]]:
        """Row and score of the ``n`` articles with the highest f·d that the customer has not bought.

        Of a customer without purchases d is that of the empty history.
        """
        packed: Any = await self._redis.get(customer_keys(customer_id).state)
        unpacked = unpack_state(packed)
        state = empty_state(self._version) if unpacked is None else unpacked[0]
        style = self._style(state, self._step(state.pending, int(self._clock())))
        bought = {*state.purchased, *state.returned}
        scores, rows = self._index.search(style, n + len(bought))
        found = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return [(row, score) for row, score in found if self._ids[row] not in bought][:n]

    def _step(self, pending: Purchase | None, now: int) -> NDArray[np.float32]:
        if pending is None:
            return encode_step(self._time_spec, None, 0, now)
        last = self._dna[self._row_of[pending.article_id]]
        return encode_step(self._time_spec, last, pending.timestamp, max(now, pending.timestamp))

    def _head(self, customer_id: str) -> dict[str, Any]:
        return {
            "customer_id": customer_id,
            "bundle": self._version,
            "strategy": "style",
            "degraded": False,
            "generation": "none",
        }


class PlainStack(Baseline):
    """Answers (``Recommendations``) by the plain stack."""

    def __init__(self, bundle: Bundle, data: DataSet, *others: Any):
        super().__init__(bundle, data, *others)
        self._articles = [article.model_dump(include=set(PUBLIC_FIELDS)) for article in data.articles()]
        self._lstm, self._projection = _style_lstm(bundle.path(STYLE_LSTM))

    def route(self, app: FastAPI) -> None:
        @app.get(ROUTE, response_model=Recommendations)
        async def recommendations(customer_id: str, n: int = 20) -> Any:
            return self._head(customer_id) | {
                "articles": [
                    self._articles[row] | {"score": score, "sources": {"style": rank}}
                    for rank, (row, score) in enumerate(await self._best(customer_id, n), 1)
                ]
            }

    def _index_of(self, dna: NDArray[np.float32]) -> Any:
        index: Any = faiss.IndexFlatIP(DNA_SIZE)
        index.add(dna)
        return index

    def _style(self, state: CustomerState, step: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            memory = tuple(torch.tensor(part)[None, None] for part in (state.hidden, state.cell))
            style: NDArray[np.float32] = self._projection(self._lstm(torch.from_numpy(step), memory)[0])[0].numpy()
        return style


class BareTrial(Baseline):
    """Answers by the bare trial."""

    def __init__(self, bundle: Bundle, data: DataSet, *others: Any):
        super().__init__(bundle, data, *others)
        self._jsons = [public_json(article)[:-1] for article in data.articles()]
        self._graph = StyleLstm(bundle.path(STYLE_LSTM))

    def route(self, app: FastAPI) -> None:
        @app.get(ROUTE)
        async def recommendations(customer_id: str, n: int = 20) -> Response:
            articles = b",".join(
                b'%b,"score":%a,"sources":{"style":%d}}' % (self._jsons[row], score, rank)
                for rank, (row, score) in enumerate(await self._best(customer_id, n), 1)
            )
            head = orjson.dumps(self._head(customer_id))[:-1]
            return Response(b'%b,"articles":[%b]}' % (head, articles), media_type="application/json")

    def _index_of(self, dna: NDArray[np.float32]) -> Any:
        cells = max(1, min(CELLS, len(dna) // 64))
        index: Any = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(DNA_SIZE), DNA_SIZE, cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.niter = ROUNDS
        index.train(dna)
        index.add(dna)
        index.nprobe = PROBED
        return index

    def _style(self, state: CustomerState, step: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._graph.step(step[0], Memory(state.hidden[None], state.cell[None]))[0]


KINDS: dict[str, type[Baseline]] = {"plain stack": PlainStack, "bare trial": BareTrial}


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


def create_app(baseline: Baseline) -> FastAPI:
    """The application, which answers as the service does."""
    app = FastAPI()
    baseline.route(app)

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def main() -> None:
    """Serve: port, process to follow, kind, folders of bundle and data set, file of the DNA, URL of Redis."""
    port, parent, kind, bundle, data, dna, redis_url = sys.argv[1:]
    follow(int(parent))
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    baseline = KINDS[kind](open_bundle(Path(bundle)), DataSet.open(Path(data)), np.load(dna), Redis.from_url(redis_url))
    uvicorn.run(
        create_app(baseline),
        port=int(port),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
    )


if __name__ == "__main__":
    main()
