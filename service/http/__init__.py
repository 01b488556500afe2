"""HTTP, as FastAPI speaks it. Any route of it may name the path convertor that ``requests`` registers."""

import service.http.requests  # noqa: F401
