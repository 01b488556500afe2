"""The least that FastAPI can do, as a yardstick for what the machine allows."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, Response

from service.lifeline import follow

BODY = b'{"articles":[' + b",".join([b'{"article_id":"0000000000","title":"nothing","score":0.0}'] * 20) + b"]}"

app = FastAPI()


@app.get("/v1/customers/{customer_id}/recommendations")
async def recommendations() -> Response:
    """A fixed answer of the usual size."""
    return Response(BODY, media_type="application/json")


def main() -> None:
    """Serve on the port given as the first argument; the second is the process to follow."""
    follow(int(sys.argv[2]))
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", ws="none", access_log=False, log_config=None
    )


if __name__ == "__main__":
    main()
