"""What ``modiste serve`` tells: each step, and in the end an address and two lines to paste that work."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import shlex
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from model_store.errors import InvalidConfig
from service.catalogue.redis_store import ARTICLES, PREFIX
from service.errors import StoreUnavailable
from service.keys import usable_as_written
from service.log_lines import as_json
from service.settings import variable
from service.state.connection import Client, connect, translated_errors

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

NEW_CUSTOMER = "new-customer"
SEEDING = f"{PREFIX}seeding"
_LOGS = "modiste:{*}:log"
_TIMEOUT = 5.0  # seconds


def say(text: str) -> None:
    """One line on stdout, or in the log where that is for programs."""
    if as_json():
        log.info("%s", text)
    else:
        print(f"modiste: {text}", flush=True)


def check_redis(url: str) -> None:
    """Raise InvalidConfig where no Redis answers at ``url``."""
    try:
        _ask(url, lambda client: client.ping())
    except StoreUnavailable as error:
        raise InvalidConfig(f"{variable('redis_url')}: no Redis answers at {_public(url)} ({error})") from None


def wants_seed(url: str) -> bool:
    """Whether the catalogue is empty, or an earlier seeding did not come to its end."""
    return bool(_ask(url, lambda client: client.exists(SEEDING))) or not _ask(
        url, lambda client: client.exists(ARTICLES)
    )


@contextmanager
def seeding(url: str) -> Iterator[None]:
    """Marks the catalogue as incomplete until the block ends well."""
    _ask(url, lambda client: client.set(SEEDING, 1))
    yield
    _ask(url, lambda client: client.delete(SEEDING))


@dataclass(frozen=True)
class Address:
    """Where the service listens, and the key that it asks for (``api_keys`` as the setting holds them).

    ``lookbook``: whether it has a page to look at.
    """

    host: str
    port: int
    api_keys: str = ""
    lookbook: bool = False

    @property
    def url(self) -> str:
        """The service's address as a person on this machine would type it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def why_not_ready(self) -> str:
        """What the service itself says."""
        try:
            content = json.loads(self._get("/readyz")[1])
            return str(content["error"]["message"])
        except (OSError, ValueError, KeyError, TypeError):
            return "it does not answer yet"

    def announce(self, redis_url: str) -> None:
        """Print the address and two curl lines about a customer and an article that exist; no log names a customer.

        Where Redis or the service fails just then, the lines are about somebody new, or fewer: no reason to stop.
        """
        if as_json():
            say(f"ready at {self.url}")
            return
        customer, article = NEW_CUSTOMER, None
        with suppress(StoreUnavailable, OSError, ValueError, LookupError, TypeError):
            customer = _some_customer(redis_url)
            article = self._some_article(customer)
        pages = f"{'open it in a browser; ' if self.lookbook else ''}documentation at {self.url}/docs"
        lines = [f"ready at {self.url} ({pages}); Ctrl-C stops it. Try:", ""]
        lines += ["", f"  {self.curl_get(customer)}"]
        if article:
            lines += ["", f"  {self.curl_purchase(customer, article)}"]
        elif article is not None:
            lines += ["", "  (the catalogue is empty: 'modiste backfill --data DIR' or PUT /v1/articles fills it)"]
        say("\n".join(lines) + "\n")

    def curl_get(self, customer: str) -> str:
        """A line that asks for a customer's recommendations."""
        return f"curl {self._key_option()}{shlex.quote(self.url + _path_of(customer) + '?n=5')}"

    def curl_purchase(self, customer: str, article: str) -> str:
        """A line that tells of a purchase."""
        event = {"type": "purchase", "customer_id": customer, "article_id": article}
        body = shlex.quote(json.dumps(event, ensure_ascii=False))
        return f"curl {self._key_option()}-H 'Content-Type: application/json' -d {body} {self.url}/v1/events"

    def _key_option(self) -> str:
        """The key itself is not printed: the shell takes it from a variable."""
        if not self.api_keys:
            return ""
        first = self._key == self.api_keys.partition(",")[0].strip()
        return f'-H "X-API-Key: ${{{variable("api_keys")}%%,*}}" ' if first else '-H "X-API-Key: $KEY" '

    @property
    def _key(self) -> str | None:
        """A key that is good for everything, where the setting shows one."""
        return usable_as_written([entry.strip() for entry in self.api_keys.split(",") if entry.strip()])

    def _some_article(self, customer: str) -> str | None:
        """An article in stock, "" where there is none, and None where only the holder of a key may know."""
        status, content = self._get(f"{_path_of(customer)}?n=1")
        if status != HTTPStatus.OK:
            return None
        articles = json.loads(content)["articles"]
        return str(articles[0]["article_id"]) if articles else ""

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.url).hostname or "", self.port, timeout=_TIMEOUT)
        try:
            connection.request("GET", path, headers={"X-API-Key": self._key} if self._key else {})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()


def _path_of(customer: str) -> str:
    return f"/v1/customers/{quote(customer, safe='')}/recommendations"


def _some_customer(redis_url: str) -> str:
    """A customer with a history, or a new one where there is none."""

    async def first(client: Client) -> str | None:
        async for key in client.scan_iter(match=_LOGS, count=1_000):
            return unquote(key.decode().partition("{")[2].rpartition("}")[0])
        return None

    return _ask(redis_url, first) or NEW_CUSTOMER


def _ask(url: str, question: Callable[[Client], Awaitable[Answer]]) -> Answer:
    """What Redis answers, over a connection of its own."""

    async def ask() -> Answer:
        client = connect(url, timeout=_TIMEOUT)
        try:
            with translated_errors():
                return await question(client)
        finally:
            await client.aclose()

    return asyncio.run(ask())


def _public(url: str) -> str:
    """The address without its password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
