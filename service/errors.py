"""What can go wrong online, as one tree; ``service.http.errors`` alone says which HTTP status each becomes.

A foreign exception (redis-py's, onnxruntime's) is translated into one of these at the adapter that meets it.
"""

from __future__ import annotations

from typing import Literal

from model_store.errors import ModisteError


class ServiceError(ModisteError):
    """Base of the errors that a request can end in."""


StoreFailure = Literal["unreachable", "slow", "full", "read_only", "other"]
"""Why Redis did not do what it was asked: no connection; no answer in time; its memory is full; it is a replica."""


class StoreUnavailable(ServiceError):
    """Redis cannot be reached, did not answer in time, or refuses to write. Nothing was acknowledged; try again."""

    def __init__(self, message: str, reason: StoreFailure = "other"):
        self.reason = reason
        super().__init__(message)


class InvalidRequest(ServiceError):
    """A request breaks the contract. ``field`` names the offending parameter or field where there is one."""

    def __init__(self, message: str, *, field: str | None = None):
        self.field = field
        super().__init__(message)


class LanguageModelUnavailable(ServiceError):
    """The language model cannot be reached, did not answer in time, or answered what it should not. Try again later."""


class PromptRefused(LanguageModelUnavailable):
    """The language model is there, and takes this prompt neither now nor later."""


class GenerationUnavailable(ServiceError):
    """A ranking by generation was asked for, and nothing generates here."""


class Unauthorised(ServiceError):
    """API keys are set, and the request carries none of them."""


class Forbidden(ServiceError):
    """The API key that a request carries is not good for this call."""


class TooManyRequests(ServiceError):
    """An API key makes more requests than the settings allow."""


class MalformedBody(ServiceError):
    """A request's body is not JSON in UTF-8."""


class UnsupportedMediaType(ServiceError):
    """A request's body is not declared as JSON."""


class BodyTooLarge(ServiceError):
    """A request's body is larger than the settings allow."""


class NotReady(ServiceError):
    """The service is still loading its bundle and catalogue, or has none."""


class UnknownArticle(ServiceError):
    """No article of the catalogue has this id."""


class UnknownCustomer(ServiceError):
    """Nothing is stored about this customer."""


class UnknownReport(ServiceError):
    """The live bundle holds no evaluation report."""


class UnknownBundle(ServiceError):
    """The store holds no bundle of this version."""


class ActivationInProgress(ServiceError):
    """A bundle is being loaded or activated already; one at a time."""
