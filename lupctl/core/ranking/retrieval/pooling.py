"""Multi-query evaluation: all images of a person from one camera form one query."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples, concatenate_samples
from lupctl.core.ranking.metrics.stacked import StackedRows
from lupctl.core.ranking.retrieval.answerable import query_rows
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures

ROWS = 4096


def pool_queries(features: JoinedFeatures) -> JoinedFeatures:
    """Merges the queries of each person and camera into one: the mean of their unit vectors, with the first one's name.

    Zheng et al. 2015 average over the images of the query's person from its camera. Junk and distractors are not
    merged. The new queries come first; the original images follow, the old queries among them with the role unlabelled.

    Args:
        features: all images; neither changed nor copied.

    Raises:
        DataError: each person has only one query per camera, so there is nothing to average.
    """
    samples = features.samples
    queries = query_rows(samples)
    first, label = group_queries(samples)
    sums = np.zeros((len(first), features.vectors.shape[1]))
    for start in range(0, len(queries), ROWS):
        rows = features.vectors.take(queries[start : start + ROWS]).cpu().numpy().astype(np.float64)
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        # A row without a direction is left as it is: scoring refuses it and names it.
        unit = np.where((norm > 0) & np.isfinite(norm), rows / np.where(norm > 0, norm, 1), rows)
        np.add.at(sums, label[start : start + ROWS], unit)
    means = (sums / np.bincount(label)[:, None]).astype(np.float32)
    return JoinedFeatures(
        vectors=StackedRows([means, *features.vectors.parts]),
        samples=pool_samples(samples),
        record=features.record,
    )


def pool_samples(samples: Samples) -> Samples:
    """The samples of the features that `pool_queries` gives.

    Raises:
        DataError: as `pool_queries`.
    """
    first, _ = group_queries(samples)
    role = samples.role.copy()
    role[query_rows(samples)] = ROLE_CODES["unlabelled"]
    others = replace(samples, role=role)
    return concatenate_samples([samples.select(first), others])


def group_queries(samples: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Groups the queries of the same person and camera.

    Returns:
        (P) the row of the first of each group, ascending; (Q) the group of each query.

    Raises:
        DataError: as `pool_queries`.
    """
    queries = query_rows(samples)
    person, camera = samples.person[queries].astype(np.int64), samples.camera[queries].astype(np.int64)
    is_single = (person == DISTRACTOR) | (person == JUNK)
    key = np.stack([person, camera, np.where(is_single, np.arange(len(queries)), -1)], axis=1)
    _, first, label = np.unique(key, axis=0, return_index=True, return_inverse=True)
    if len(queries) and len(first) == len(queries):
        raise DataError(
            f"multi-query: each of {len(queries)} queries is the only one of its person and camera, so there "
            "is nothing to average",
            hint="dump the other images with the role query too, or use --protocol market1501",
        )
    order = np.argsort(first)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    return queries[first[order]], position[label.reshape(-1)]
