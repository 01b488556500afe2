"""What stays for as long as a bundle does, kept out of the garbage collector's way."""

from __future__ import annotations

import gc


def settle() -> None:
    """Take everything that lives at this moment for permanent, until the next time.

    A full collection looks at every container there is: at 190,000 articles it stops a worker for 40 to 75 ms, which
    nothing that it finds is worth. Afterwards it looks only at what was made since. What the last call set aside and
    nobody needs any more is given back first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
