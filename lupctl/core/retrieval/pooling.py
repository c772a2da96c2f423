"""Multi-query evaluation: all images of a person from one camera ask as one."""

import numpy as np

from lupctl.core.choices import DISTRACTOR, JUNK
from lupctl.core.errors import DataError
from lupctl.core.formats.features import Features
from lupctl.core.formats.samples import concatenate_samples
from lupctl.core.retrieval.answerable import query_rows


def pool_queries(features: Features) -> Features:
    """The queries of each person and camera as one: the mean of their unit vectors, under the name of the first.

    Zheng et al. 2015 average over the images of the query's person from its camera. Junk and distractors stay single.

    Args:
        features: all images; not changed.

    Raises:
        DataError: each person has one query a camera, so that nothing is there to average.
    """
    samples = features.samples
    queries = query_rows(samples)
    person, camera = samples.person[queries].astype(np.int64), samples.camera[queries].astype(np.int64)
    is_single = (person == DISTRACTOR) | (person == JUNK)
    key = np.stack([person, camera, np.where(is_single, np.arange(len(queries)), -1)], axis=1)
    _, first, label = np.unique(key, axis=0, return_index=True, return_inverse=True)
    label = label.reshape(-1)
    if len(queries) and len(first) == len(queries):
        raise DataError(
            f"multi-query: each of {len(queries)} queries is the only one of its person and camera, so nothing "
            "is there to average",
            hint="dump the further images with the role query, or take --protocol market1501",
        )
    rows = features.features[queries].astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    # A row without direction is left as it is: scoring refuses it by name.
    unit = np.where((norm > 0) & np.isfinite(norm), rows / np.where(norm > 0, norm, 1), rows)
    sums = np.zeros((len(first), rows.shape[1]))
    np.add.at(sums, label, unit)
    means = (sums / np.bincount(label)[:, None]).astype(np.float32)
    order = np.argsort(first)
    others = np.setdiff1d(np.arange(len(samples)), queries)
    return Features(
        features=np.concatenate([means[order], features.features[others].astype(np.float32)]),
        samples=concatenate_samples([samples.select(queries[first[order]]), samples.select(others)]),
        record=features.record,
    )
