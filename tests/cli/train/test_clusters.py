"""Training on clusters as a user types it, and scores of a network where nobody knows who is who."""

from pathlib import Path

from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, as_options

CLUSTERS = (
    "data.persons=2", "schedule.epochs=1", "clusters.steps=1",
    "clusters.least=2", "clusters.k1=4", "clusters.k2=2", "saving.every_epochs=0",
)  # fmt: skip


def test_what_cannot_be_scored_shows_its_clusters(lupctl: Shell, crowd: Path) -> None:
    options = " ".join(as_options((*FINETUNE, *CLUSTERS)))
    named = "--labels clusters --recipe small-usl --from scratch --gpus 0 --workers 0 --out site"
    ran = lupctl(f"finetune {crowd} {named} {options}")
    assert ran.code == 0, ran.err
    said = "crowd: no queries, so the network cannot be scored; what can be seen: site/clusters.html\n"
    assert said in ran.err
    assert ran.out == "site\n"
    page = Path("site/clusters.html").read_bytes()
    ran = lupctl("eval site --device cpu")
    assert ran.code == 3
    error = "error: site: no query among 36 images, so the run cannot be scored on them; site/clusters.html shows"
    assert error in ran.err
    assert "hint: lupctl search site PERSON.jpg finds a person there; on other test sets: lupctl" in ran.err
    assert not list(Path("site").glob("*.features.h5")), "refused before features are made"
    assert Path("site/clusters.html").read_bytes() == page


def test_the_queries_of_any_pack_count(lupctl: Shell, crowd: Path, labelled: Path) -> None:
    options = " ".join(as_options((*FINETUNE, *CLUSTERS)))
    named = "--labels clusters --recipe small-usl --from scratch --gpus 0 --workers 0 --out both"
    ran = lupctl(f"finetune {crowd} {labelled} {named} {options}")
    assert ran.code == 0, ran.err
    assert "clusters: both/clusters.html\n" in ran.err
    assert "cannot be scored" not in ran.err
    assert f"{crowd} and {labelled}: 72 images, clustered together\n" in ran.err
