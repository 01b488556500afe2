"""An environment with nothing but the service in it; slow, so run by .ci/run alone."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest
from bundles import make_bundle, sample_articles
from house.processes import wait_until
from house.serving import clean_environment, copy_of_the_project, is_up, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_service_runs_where_only_its_own_extras_are_installed(tmp_path: Path) -> None:
    project, slim = copy_of_the_project(tmp_path / "project"), tmp_path / "slim"
    venv.create(slim, with_pip=True)
    python = slim / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile", "--no-deps"]
    lists = [word for name in ("service", "cpu") for word in ("-r", project / "requirements" / f"{name}.txt")]
    subprocess.run([*install, "--require-hashes", *lists], check=True)
    subprocess.run([*install, "--no-build-isolation", project], check=True)
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0
    make_bundle(tmp_path / "store")
    environment = clean_environment({"MODISTE_PORT": 0, "MODISTE_STORE": tmp_path / "store"})
    with started([str(slim / "bin" / "modiste"), "serve"], tmp_path, environment) as service:
        wait_until(lambda: is_up(service), 120)
        articles = [
            one.article.model_dump(mode="json", exclude={"image"}, exclude_none=True) for one in sample_articles(9)
        ]
        assert service.call("/v1/articles", articles, "PUT")[1]["accepted"] == 9
        stock = [{"article_id": article["article_id"], "quantity": 1} for article in articles]
        assert service.call("/v1/stock", stock, "PATCH")[1]["accepted"] == 9
        assert len(service.get("/v1/customers/Ada/recommendations")[1]["articles"]) == 9
        assert service.stop() == 0
