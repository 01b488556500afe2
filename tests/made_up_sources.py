"""Small made-up folders in the layouts that the importers read."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

HM_ARTICLE_COLUMNS = [
    "article_id", "product_code", "prod_name", "product_type_no", "product_type_name", "product_group_name",
    "graphical_appearance_no", "graphical_appearance_name", "colour_group_code", "colour_group_name",
    "perceived_colour_value_id", "perceived_colour_value_name", "perceived_colour_master_id",
    "perceived_colour_master_name", "department_no", "department_name", "index_code", "index_name", "index_group_no",
    "index_group_name", "section_no", "section_name", "garment_group_no", "garment_group_name", "detail_desc",
]  # fmt: skip
HM_SALES_COLUMNS = ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"]
RTR_COLUMNS = ["user_id", "item_id", "review_date", "category", "rented_for", "size", "rating", "fit"]


def hm_article(article_id: str, **values: str) -> dict[str, str]:
    row = dict.fromkeys(HM_ARTICLE_COLUMNS, "1") | {
        "article_id": article_id,
        "product_code": article_id[:7],
        "prod_name": f"Top {article_id}",
        "product_type_name": "Vest top",
        "product_group_name": "Garment Upper body",
        "graphical_appearance_name": "Solid",
        "colour_group_name": "Black",
        "index_name": "Ladieswear",
        "section_name": "Womens Everyday Basics",
        "detail_desc": "A top, with a comma.",
    }
    return row | values


def hm_sale(day: str, customer: str, article: str, price: str = "0.02") -> dict[str, str]:
    return dict(zip(HM_SALES_COLUMNS, [day, customer, article, price, "2"], strict=True))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


HM_ARTICLES = [hm_article("0100001001"), hm_article("0100001002", colour_group_name="White"), hm_article("0200002001")]
HM_SALES = [
    hm_sale("2020-01-01", "c1", "0100001001", "0.01"),
    hm_sale("2020-01-02", "c1", "0100001001", "0.03"),
    hm_sale("2020-01-03", "c2", "0100001001", "0.02"),
    hm_sale("2020-03-01", "c1", "0100001001", "9.0"),
    hm_sale("2020-03-01", "c1", "0100001001", "9.0"),
    hm_sale("2020-03-01", "c1", "0200002001", "0.5"),
]


def hm_folder(
    folder: Path,
    *,
    articles: Sequence[dict[str, str]] = HM_ARTICLES,
    sales: Sequence[dict[str, str]] = HM_SALES,
    pictures: Sequence[str] = (),
) -> Path:
    folder.mkdir(parents=True)
    write_csv(folder / "articles.csv", HM_ARTICLE_COLUMNS, articles)
    write_csv(folder / "transactions_train.csv", HM_SALES_COLUMNS, sales)
    for picture in pictures:
        (folder / "images" / picture).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / picture).write_bytes(picture.encode())
    return folder


def rental(user: str, item: str, day: str, category: str = "dress") -> dict[str, str]:
    return dict(zip(RTR_COLUMNS, [user, item, day, category, "wedding", "8", "10.0", "fit"], strict=True))


def rtr_folder(folder: Path, rentals: Sequence[dict[str, str]]) -> Path:
    folder.mkdir(parents=True)
    write_csv(folder / "rentals.csv.gz", RTR_COLUMNS, rentals)
    return folder
