"""The service where torch cannot be imported: it starts and answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bundles import make_bundle, sample_articles
from redis_server import redis_url

__all__ = ["redis_url"]

WITHOUT_TORCH = """
import asyncio, importlib.abc, importlib.util, pkgutil, sys
from pathlib import Path

FORBIDDEN = {"torch", "transformers", "onnx", "onnxscript", "offline"}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
        return None

sys.meta_path.insert(0, Refuse())
import service
for module in pkgutil.walk_packages(service.__path__, "service."):
    importlib.import_module(module.name)

import httpx2
from service.http.app import create_app
from service.settings import Settings

async def main(url, store, article):
    app = create_app(Settings(redis_url=url, store=Path(store)))
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            headers = {"Content-Type": "application/json"}
            answer = await client.put("/v1/articles", content=article, headers=headers)
            assert answer.json().get("accepted") == 1, answer.text
            answer = await client.get("/v1/customers/Ada/recommendations")
            assert answer.status_code == 200, answer.text
    assert not FORBIDDEN & set(sys.modules)

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_whole_service_imports_and_answers_without_torch(tmp_path: Path, redis_url: str) -> None:
    make_bundle(tmp_path)
    article = sample_articles(1)[0].article.model_copy(update={"image": None})
    record = f"[{article.model_dump_json(exclude_none=True)}]"
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, redis_url, str(tmp_path), record],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
