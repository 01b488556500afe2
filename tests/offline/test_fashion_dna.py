from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_shops import purchases_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model_store import DNA_SIZE
from model_store.dataset import Availability
from model_store.errors import TrainingError
from offline.article_tables import ArticleTable
from offline.config import FashionDnaConfig
from offline.fashion_dna import (
    FashionDnaStage,
    FashionDnaTraining,
    frequent_customers,
    purchase_matrix,
    static_styles,
    trained_articles,
)
from offline.models.fashion_dna import FashionDnaNetwork, StaticCustomers, sparse_cross_entropy
from offline.validation import Window

# (customer, article, timestamp, order); customer 2 bought nothing, customer 3 the same article twice.
PURCHASES = purchases_of(
    [(0, 4, 10, 0), (0, 1, 20, 1), (0, 5, 30, 2), (1, 4, 10, 3), (3, 0, 10, 4), (3, 0, 90, 5)], customers=4
)
ARTICLES = 8


def table() -> ArticleTable:
    rng = np.random.default_rng(0)
    return ArticleTable(
        rng.integers(0, 6, size=(ARTICLES, 3)).astype(np.int32),
        rng.normal(size=(ARTICLES, 4)).astype(np.float32),
        rng.normal(size=(ARTICLES, 5)).astype(np.float32),
    )


def network(**options: Any) -> FashionDnaNetwork:
    return FashionDnaNetwork(6, 4, 5, hidden=16, **options)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_sparse_cross_entropy_is_the_dense_one(scale: float) -> None:
    logits = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(7, 11) < 0.2).double()
    rows, customers = target.nonzero(as_tuple=True)
    sparse = sparse_cross_entropy(logits * scale, rows, customers)
    dense = F.binary_cross_entropy_with_logits(logits * scale, target)
    assert float(sparse.detach()) == pytest.approx(float(dense.detach()), rel=1e-10)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (sparse, dense)]
    torch.testing.assert_close(*gradients)


def test_no_dense_target_is_ever_built() -> None:
    class LargeResults(TorchDispatchMode):
        """Names of the operations whose result is as large as the purchase matrix."""

        def __init__(self, size: int):
            super().__init__()
            self.size, self.names = size, set[str]()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.numel() == self.size:
                self.names.add(func.overloadpacket.__name__)
            return result

    logits = torch.randn(16, 501, requires_grad=True)
    rows, customers = torch.randint(16, (40,)), torch.randint(501, (40,))
    with LargeResults(logits.numel()) as seen:
        sparse_cross_entropy(logits, rows, customers)
    assert seen.names == {"softplus"}
    with LargeResults(logits.numel()) as dense:  # the guard itself must be able to fail
        target = torch.zeros(16, 501).index_put((rows, customers), torch.ones(40))
        F.binary_cross_entropy_with_logits(logits, target)
    assert dense.names - {"softplus"}


def test_the_purchase_matrix_is_binary_and_holds_every_purchase() -> None:
    customers = frequent_customers(PURCHASES, 1, 100)
    matrix = purchase_matrix(PURCHASES, customers, ARTICLES)
    rows, columns = matrix.positives(np.arange(ARTICLES))
    found = {(int(row), matrix.customer_ids[column]) for row, column in zip(rows, columns, strict=True)}
    assert len(rows) == 5  # the article bought twice counts once
    assert found == {(4, "c0"), (1, "c0"), (5, "c0"), (4, "c1"), (0, "c3")}
    rows, columns = matrix.positives(np.asarray([5, 7, 4]))
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (2, 0), (2, 1)]


def test_customers_without_purchases_are_not_in_training_and_the_frequent_ones_come_first() -> None:
    assert frequent_customers(PURCHASES, 1, 100).tolist() == [0, 1, 3]
    assert frequent_customers(PURCHASES, 2, 100).tolist() == [0, 3]
    assert frequent_customers(PURCHASES, 1, 1).tolist() == [0]


def test_articles_that_were_on_offer_or_bought_take_part() -> None:
    stock = Availability(np.asarray([2, 3], np.int32), np.asarray([0, 500]), np.asarray([50, 600]), ARTICLES)
    matrix = purchase_matrix(PURCHASES, frequent_customers(PURCHASES, 1, 100), ARTICLES)
    assert trained_articles(matrix, stock, 0, 100).tolist() == [0, 1, 2, 4, 5]


def test_the_loss_of_an_article_does_not_depend_on_its_batch() -> None:
    module = FashionDnaTraining(network(), StaticCustomers(3), prior=0.01).eval()
    matrix = purchase_matrix(PURCHASES, frequent_customers(PURCHASES, 1, 100), ARTICLES)
    window = Window(["c0"], np.asarray([95]), np.arange(ARTICLES), np.asarray([0]), np.asarray([2]))
    stage = FashionDnaStage(
        network(),
        table(),
        matrix=matrix,
        articles=np.arange(ARTICLES),
        window=window,
        config=FashionDnaConfig(batch=3),
        device=torch.device("cpu"),
    )
    rng = np.random.default_rng(0)
    batches = stage.batches(0, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(ARTICLES))
    whole = module(*stage.batch(np.arange(ARTICLES), rng, torch.device("cpu")))
    parts = [module(*stage.batch(rows, rng, torch.device("cpu"))) for rows in batches]
    assert float(whole[1]) == ARTICLES
    assert float(sum(part[0] for part in parts).detach()) == pytest.approx(float(whole[0].detach()), rel=1e-5)
    assert 0.0 <= stage.validate() <= 1.0


def test_without_frequent_customers_there_is_one_clear_line() -> None:
    matrix = purchase_matrix(PURCHASES, np.zeros(0, np.int64), ARTICLES)
    window = Window(["c0"], np.asarray([95]), np.arange(ARTICLES), np.asarray([0]), np.asarray([2]))
    with pytest.raises(TrainingError, match="no customer has 9 purchases"):
        FashionDnaStage(
            network(),
            table(),
            matrix=matrix,
            articles=np.arange(ARTICLES),
            window=window,
            config=FashionDnaConfig(min_purchases=9),
            device=torch.device("cpu"),
        )


def test_unit_norm_and_the_constant_component() -> None:
    inputs = table().tensors(np.arange(ARTICLES), torch.device("cpu"))
    assert network().eval()(*inputs).shape == (ARTICLES, DNA_SIZE)
    for constant in (False, True):
        dna = network(unit_norm=True, constant=constant).eval()(*inputs)
        assert dna.shape == (ARTICLES, DNA_SIZE)
        torch.testing.assert_close(dna.norm(dim=1), torch.full((ARTICLES,), DNA_SIZE**0.5))
        assert (dna[:, -1].std() < 1e-5) == constant


def test_prices_can_be_ignored_and_their_absence_too() -> None:
    tag_ids, numeric, image = table().tensors(np.arange(ARTICLES), torch.device("cpu"))
    other = numeric.clone()
    other[:, :2] += 1.0
    blind, seeing = network(ignore_price=True).eval(), network().eval()
    assert torch.equal(blind(tag_ids, numeric, image), blind(tag_ids, other, image))
    assert not torch.equal(seeing(tag_ids, numeric, image), seeing(tag_ids, other, image))


def test_tag_dropout_acts_in_training_alone() -> None:
    module = network(tag_dropout=0.5)
    inputs = table().tensors(np.arange(ARTICLES), torch.device("cpu"))
    assert not torch.equal(module.train()(*inputs), module(*inputs))
    assert torch.equal(module.eval()(*inputs), module(*inputs))


def test_padding_changes_nothing() -> None:
    wide = table()
    wide = ArticleTable(np.pad(wide.tag_ids, ((0, 0), (0, 9))), wide.numeric, wide.image_embedding)
    module = network().eval()
    device = torch.device("cpu")
    tag_ids, numeric, image = wide.tensors(np.arange(ARTICLES), device)
    assert tag_ids.shape[1] <= 3
    padded = torch.from_numpy(wide.tag_ids.astype(np.int64))
    torch.testing.assert_close(module(padded, numeric, image), module(tag_ids, numeric, image))


def test_logits_are_equation_1() -> None:
    customers = StaticCustomers(4)
    dna = torch.randn(3, DNA_SIZE)
    expected = dna @ (customers.shared + customers.deviation).T + customers.bias
    torch.testing.assert_close(customers(dna), expected)
    torch.testing.assert_close(customers.style, customers.shared + customers.deviation)


def test_whoever_was_not_in_training_has_the_shared_style() -> None:
    static = {"style": np.eye(2, DNA_SIZE, dtype=np.float32), "shared": np.ones(DNA_SIZE, np.float32)}
    styles = static_styles(static, ["a", "b"], ["b", "nobody"])
    np.testing.assert_array_equal(styles, [static["style"][1], static["shared"]])
