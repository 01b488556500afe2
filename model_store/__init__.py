"""The contract between training and serving: records, encoders, bundles and the running of their graphs.

Both other rooms stand on this one; it knows neither of them, and neither torch, web nor Redis.

Shapes are written with these letters throughout: B batch, T time steps (purchases), N articles, K customers,
L tags of one article (padded), E image embedding, M numeric article features, D step input. Fashion DNA and style
have ``DNA_SIZE`` components; the LSTM's memory has ``MEMORY_SIZE`` cells, kept as (hidden, cell).
"""

import os

DNA_SIZE = 128
MEMORY_SIZE = 256

# ONNX Runtime tells its maker about models and sessions, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
