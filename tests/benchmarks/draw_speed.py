"""How long a drawn person costs: `OMP_NUM_THREADS=1 python tests/benchmarks/draw_speed.py [height width [persons]]`.

Prints milliseconds per image, drawn and encoded, in the order of the list and in a shuffled one
(where scenes come and go), on one thread.
"""

import sys
import time

import cv2
import numpy as np

from lupctl.core.data.drawing.street.scene import draw_scene
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource


def main() -> None:
    height, width = (int(argument) for argument in sys.argv[1:3]) if len(sys.argv) > 2 else (128, 64)
    persons = int(sys.argv[3]) if len(sys.argv) > 3 else 400
    cv2.setNumThreads(1)
    plan = SyntheticPlan(unlabelled_persons=persons, train_persons=30, test_persons=30, height=height, width=width)
    source = SyntheticSource(plan)
    names = source.list_images().name
    shuffled = [names[index] for index in np.random.default_rng(0).permutation(len(names))]
    source.read(names[-1])  # imports and shared tables
    for title, order in (("listed", names), ("shuffled", shuffled)):
        draw_scene.cache_clear()
        started_at = time.perf_counter()
        size_bytes = sum(len(source.read(name)) for name in order)
        spent_s = time.perf_counter() - started_at
        print(
            f"{height} x {width}, {title}: {1e3 * spent_s / len(order):.2f} ms per image over {len(order)} images, "
            f"{size_bytes / len(order):.0f} bytes each"
        )
    draw_scene.cache_clear()
    started_at = time.perf_counter()
    for number in range(20):
        draw_scene(0, number)
    print(f"a scene: {1e3 * (time.perf_counter() - started_at) / 20:.1f} ms, once")


if __name__ == "__main__":
    main()
