"""All studies, by name."""

from __future__ import annotations

from offline.studies import ablations, cold_start, losses, low_resource, mixup_sizes, zero_shot
from offline.studies.study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        losses.STUDY,
        ablations.STUDY,
        cold_start.STUDY,
        zero_shot.STUDY,
        low_resource.STUDY,
        mixup_sizes.STUDY,
    )
}
