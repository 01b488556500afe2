"""Sequence models of others, to be beaten: those that the paper of Amazon 2024 compares with (§5.1).

Files go one way. ``asking`` writes what is asked, a process trains, tunes and answers, and ``modiste evaluate`` ranks
by the answers beside our own models. RecBole needs other versions of what we use than we do, so its process
(``training``) runs in an environment of its own. Recformer is in no library that is kept up, so it is ours and runs in
our environment (``text_training``). All lies in the folder ``baselines`` of a run:

    questions/          what is known and asked for (``questions``); no purchase that is to be found
    texts/              what models of text read besides (``texts``): articles' attributes, and customers' searches
    <model>/            ``results.json``: how it was trained (``results``); ``article.npy`` int64 (M): the articles that
                        it knows; ``scores-<n>.npy`` float32 (K, M): its answer to the n-th window's K customers

All processes read ``questions`` and ``results``, which need nothing but numpy.
"""

RECBOLE = ("GRU4Rec", "SASRec", "BERT4Rec", "NextItNet", "CORE")
"""Hidasi et al. 2016, Kang and McAuley 2018, Sun et al. 2019, Yuan et al. 2019, Hou et al. 2022; by RecBole's names."""
RECFORMER, RECFORMER_QUERY = TEXT = ("Recformer", "Recformer+query")
"""Li et al. 2023; and the same with what the customer searched ("Recformer w/ query" of Amazon 2024, §5.1)."""
MODELS = (*RECBOLE, *TEXT)
FOLDER = "baselines"
MAX_LENGTH = 50
"""Of a longer history the latest purchases count."""
