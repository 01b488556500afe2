"""What the page asks for, as the page does."""

from __future__ import annotations

from typing import Any

from service_running import Shop


async def ask(shop: Shop, path: str, **query: Any) -> dict[str, Any]:
    """The JSON that is answered under ``/lookbook``."""
    response = await shop.http.get(f"/lookbook{path}", params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
