"""Sequence models of others, to be beaten: RecBole's, which the paper of Amazon 2024 used, too (§5.1).

RecBole needs other versions of what we use than we do, so it runs in a process of its own environment, and files go one
way. ``asking`` (ours) writes what is asked, ``training`` (RecBole's) trains, tunes and answers, and ``modiste
evaluate`` ranks by the answers beside its own models. All lies in the folder ``baselines`` of a run:

    questions/          what is known and asked for (``questions``); no purchase that is to be found
    <model>/            ``results.json``: how it was trained (``results``); ``article.npy`` int64 (M): the articles that
                        it knows; ``scores-<n>.npy`` float32 (K, M): its answer to the n-th window's K customers

Both processes read ``questions`` and ``results``, which need nothing but numpy.
"""

MODELS = ("GRU4Rec", "SASRec", "BERT4Rec", "NextItNet", "CORE")
"""Hidasi et al. 2016, Kang and McAuley 2018, Sun et al. 2019, Yuan et al. 2019, Hou et al. 2022; by RecBole's names."""
FOLDER = "baselines"
MAX_LENGTH = 50
"""Of a longer history the latest purchases count."""
