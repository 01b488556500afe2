"""How it was measured, in words: the end of every report, and what stands above its sections."""

from __future__ import annotations

_HOW = {
    "by_time": """The protocol of Zalando 2017, §3, split by time. Every article in stock at some moment of the window
is ranked for each customer with a purchase in it, at the time of that customer's first one, from what was known when
the window started.""",
    "last_order": """The leave-one-out of Amazon 2024, §5.1, for orders. Each customer's last order was left out of
training, with whatever that customer did after the order before it; here its articles are ranked among all articles,
in stock or not, at the time at which it began. Purchases of one customer with one order id, or else at one time, are
one order; those that went back are none. Who ordered once is not asked for. What other customers did later than that
order was in training, as is usual where one is left out. The order before the last was left out in the same way, to
choose the best epoch and to fit the blend's weights by.""",
    "last_purchase": """The plain leave-one-out of the literature. Each customer's last purchase was left out of
training, with whatever that customer did after the one before it; here its article is ranked among all articles, in
stock or not. Of purchases at one time the last is the one with the greatest event id, so the rest of its order is known
and tells of it: this measures the basket as much as taste. Purchases that went back are none. Who bought once is not
asked for. What other customers did later than that purchase was in training, as is usual where one is left out. The
purchase before the last was left out in the same way, to choose the best epoch and to fit the blend's weights by.""",
}
_ALL_ARTICLES = """- **popularity**: sales of the 7 days before, or of as many as it says, of what training knows.
  **static**: f·s; a customer unknown to the static model gets the mean of all its styles. **dynamic**: f·d, d read at
  that time. Where f has a component for what an article sold, dynamic and blended rank by it as it stood at that time,
  of what training knows."""
_BLENDED = """- **blended**: f·d + w₁·f's component for what an article sold + w₂·log(1 + sales of the last 7 days, the
  average at least for an article created in those days or later) + w₃·log(11 / place) / log 11 for the ten that sold
  most by that component + w₄ for what the customer bought before, as the service answers where that may be shown
  again; in the table of first-time purchases it is not. The weights are fitted on validation data."""
_MODELS = {
    "by_time": """- **popularity**: sales of the 7 days before the window, or of as many as it says; an article that
  (re-)enters the inventory during it gets the average of those sales over the articles that were then in stock.
  **static**: f·s; a customer unknown to the static model gets the mean of all its styles. **dynamic**: f·d, d read at
  the customer's first purchase in the window. Where f has a component for what an article sold, dynamic and blended
  rank by it as the bundle holds it, counted up to the cut-off. As in the service, **blended** shows a customer without
  purchases what sold those 7 days first, the rest by f·d, unless validation found the blend better for them, too.""",
    "last_order": _ALL_ARTICLES,
    "last_purchase": _ALL_ARTICLES,
}
_RULES = """- **own history**: what the customer bought, the latest first. **co-purchase**: the sum over the history of
  the cosine of two articles' customers. **Markov-1**: the mean over the latest order of how often an article was in the
  order right after one with that article. All three count what is known when the ranking is made; what they know
  nothing of ties behind the rest.
- **GRU4Rec, SASRec, BERT4Rec, NextItNet, CORE**, where the run's folder has their answers to these very questions
  (`make baselines`): RecBole's networks, losses and augmentation on the latest 50 purchases of a history, softmax over
  the articles of training. Tuned on the run's validation purchases, then trained anew on all before the cut-off, for as
  many epochs. What training never saw ties behind the rest; who has no known purchase gets what sold most often.
- **Recformer** (Li et al. 2023), in the same way: a Longformer that reads the attributes of what was bought, the latest
  first, pre-trained on the run's own sequences and fine-tuned in two stages; from scratch or from a checkpoint, as is
  told above. It ranks all articles by their texts, whether they ever sold or not. **Recformer+query** (Amazon 2024,
  §5.1) reads what the customer searched strictly before the ranking is made, too, and foretells from searches alone.
- **generated** (Amazon 2024, §4.4), where the run has a language model: what it writes, as served (8 bits,
  temperature 0), for the session right before the customer's first purchase of what is ranked, without clicks on what
  the customer goes on to buy (§5.1), retrieved with mixup; what is not among the first 200 ties behind them, and who
  has no session gets the blended ranking. **blended** adds the fitted weight times log(201 / place) / log 201 to those
  200; for a customer without purchases the first of them gains as much as the best seller. A generation speaks of the
  next order.
- **AUC**: mean over purchases of the share of articles not bought by the customer that rank lower, ties counting half.
  **for 10% …**: number of recommendations that cover this share of the purchases (equation 4). **Recall@n**: share of
  the purchases within the first n. **NDCG@n**: mean of 1 / log2(1 + rank) within the first n. **MRR**: mean of
  1 / rank. **parameters**: weights beyond Fashion DNA's network, which static, dynamic and blended share.
- Articles with equal scores: each figure is its expectation over all orders of them, that of what is shown first where
  each customer's are ordered at random, independently. An article that a customer buys twice counts once.
- Several windows are pooled: each purchase counts once, in the window it falls into, from what was known when that one
  started; the models stay those of the run.
- Intervals: 95%, bootstrap over customers (percentiles), each with the purchases of all windows. All models and
  differences see the same resamples; a difference in bold has an interval without zero. A figure in bold is the best of
  its column, and its difference to the next best has such an interval, though that knows nothing of the choice. Of
  fewer than ten customers nothing is bold. Coverage and Gini index have no interval: a resample holds fewer different
  customers than there are, and so shows fewer articles.
"""
SLICED = {
    "history": """Purchases by how many the customer had made before. Some models are drawn, and groups
of ten customers or more; the tables have all.""",
    "age": """Purchases by how old the article was when it was ranked for the customer: since it was created where that
is told, else since its first sale known at that moment. Where it neither was created nor had sold by then its age is
not told.""",
    "popularity": """Purchases by how much the article had sold when it was ranked, of all sales known then and none
later. Deciles are of the candidates that had sold at all, 1 those that sold most; what sold the same shares the decile
in which the middle of its places lies. What had never sold stands apart, since nothing tells its articles from each
other.""",
}
FIRST_TEN = """The ten articles that each customer is shown first, whether they are bought or not. **Coverage**: the
share of the candidates that is among anybody's ten. **Gini index**: how unevenly customers are shown them, 0 all alike,
near 1 always the same. **Novelty**: the mean of −log2 of an article's share of the sales known before, with one more
sale for each candidate, so that what never sold has one. **Diversity**: the mean distance of two of the ten, 1 − cosine
of Fashion DNA. None of them says that a list is good: random lists are new, diverse and cover everything.

What a customer bought before is among what is shown here, as in all tables but that of first-time purchases."""
CALIBRATION = """The static model says with which probability, σ(f·s + β), a customer bought an article in all of
training's time. All pairs of customers and articles are sorted by it and cut into tenths, and each tenth's mean
probability is held against the share of its pairs that was bought.

**What it shows.** On the training matrix itself, whether the probabilities fit what they were trained on, level and
all: all of its pairs took part in training, so it says nothing of what they foretell. On later purchases, which
training never saw (but for choosing its best epoch by the ranking of the validation purchases), whether pairs that are
twice as likely are bought twice as often: on the dotted line they are.

**What it does not.** A window is shorter than training, so the level cannot be compared: all probabilities are taken
times one factor, purchases over the sum of probabilities, and the factor itself is no sign of anything. Only pairs
count that had not been bought before, for those that had were taught as bought. Who is not in the static model plays
no part, and of the first tenths little is known, since nearly all purchases are in the last ones. Where fewer than 30
pairs were bought nothing is drawn."""

LEARNING = """What each stage recorded while it was trained, epoch by epoch where it has epochs. **loss**: of training.
**score**: on validation data, higher is better; the best epoch by it is kept. The language model's figures are of
held-out sessions, before its training and after each part of it; the blend's are of the weights that were tried on
validation purchases, first of the trend, then of what was generated: **auc**, and **gain**, the mean of
1 / log2(1 + rank) of each purchase."""


def rules(protocol: str) -> str:
    """In plain Markdown: how a protocol asks, how each model answers, what the figures mean."""
    return f"{_HOW[protocol]}\n\n{_MODELS[protocol]}\n{_BLENDED}\n{_RULES}"
